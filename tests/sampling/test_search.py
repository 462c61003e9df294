"""Search trees as they are sampled: values, labels and weights by hand, rounds, determinism, stored trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion.errors import InputError, MissingColumn
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts, join, ragged
from apportion.rollouts.store import read, write
from apportion.sampling import SamplingSettings, ScriptedEngine, engine_for
from apportion.sampling.engine import Forks, Generated
from apportion.sampling.search import Checks, grounded_prm, med_s3, sample_searched, trees_in
from apportion.sampling.search.backup import rollout_value
from apportion.sampling.search.labels import look_back, signed, thresholded
from apportion.sampling.search.requests import Checked, Draw, Row, SearchRule, Step, every
from builders import small_llama

END = 3
SETTINGS = SamplingSettings(5, end_ids=(END,))
RULES: dict[str, Callable[..., SearchRule]] = {"grounded_prm": grounded_prm, "med_s3": med_s3}
SETTLED = {"grounded_prm": {}, "med_s3": {"completions": 6, "least_completions": 2}}


def even_steps(steps: Sequence[Step]) -> list[Checked]:
    """A step is right where its first token is 0, or ends the response; token 2 is undecided."""
    said = {0: 1.0, 1: 0.0, 2: None, END: 1.0}
    return [Checked(said.get(step.row.ids[step.start], 1.0)) for step in steps]


def last_zero(rows: Sequence[Row]) -> list[Checked]:
    """An answer is right where its last token but the end is 0."""
    return [Checked(float([0, *(i for i in row.ids if i != END)][-1] == 0), "the last token") for row in rows]


def table(prompts: int = 3, seed: int = 0) -> TabularPolicy:
    policy = TabularPolicy(vocabulary=4, depth=5, prompts=prompts, end_ids=(END,))
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(seed)))
        policy.logits[:, 2] -= 2
    return policy


def searched(
    rule: str = "grounded_prm", engine: Any = None, prompts: int = 3, most: int = 8, seed: int = 0, **settings: Any
) -> Rollouts:
    made = RULES[rule](**{**SETTLED[rule], **settings})
    return sample_searched(
        engine or engine_for(table(prompts)),
        [[prompt] for prompt in range(prompts)],
        made,
        every(1),
        Checks(last_zero, even_steps if made.checks_steps else None),
        SETTINGS,
        torch.Generator().manual_seed(seed),
        most,
        first_group=7,
    )


def scripted(tokens: Sequence[int]) -> ScriptedEngine:
    """An engine that always says the same."""

    def logits(first: Tensor, prefix: Tensor) -> Tensor:
        wanted = torch.full((len(first),), tokens[prefix.shape[1]])
        return torch.nn.functional.one_hot(wanted, 4).double() * 1000

    return ScriptedEngine(logits)


def step_rows(rollouts: Rollouts, name: str) -> list[list[float]]:
    offsets = ragged.offsets_of(torch.bincount(rollouts.response_of_span["step"], minlength=rollouts.n_responses))
    return ragged.unflatten(rollouts.column(f"step:{name}"), offsets)


def test_values_and_labels_of_grounded_prm_by_hand() -> None:
    tokens = [0, 1, 1, 1, END]
    rollouts = searched(engine=scripted(tokens), prompts=1, children=1, rounds=3, decay=0.5)
    # Rounds simulate below the first, the second and the third step; the answer is wrong.
    first, second, third = rollout_value([-1, -1, -1], -1), rollout_value([-1, -1], -1), rollout_value([-1], -1)
    values = [first + 0.5 * second + 0.25 * third, second + 0.5 * third, third]
    assert values[0] < 0  # the first step is right, so its value contradicts its verdict: nobody can say
    assert rollouts.ids.tolist() == tokens
    assert step_rows(rollouts, "value") == [pytest.approx([*values, -1.0, 1.0])]
    assert step_rows(rollouts, "visits") == [[2, 1, 0, 0, 0]]
    assert rollouts.columns["step:kind"].text == ("reason", "reason", "reason", "virtual", "virtual")
    assert not rollouts.column("step:scored/prm").any()
    assert rollouts.column("episode:reward/outcome").tolist() == [0.0]


def test_a_wrong_path_is_trained_up_to_where_it_is_cut() -> None:
    rollouts = searched(engine=scripted([1, 1, 0, 1, END]), prompts=1, children=1, rounds=1)
    assert step_rows(rollouts, "reward/prm") == [[-1.0, -1.0]]
    assert rollouts.trained.tolist() == [True, True, False, False, False]
    assert rollouts.ids.tolist() == [1, 1, 0, 1, END]


def test_values_and_labels_of_med_s3_by_hand() -> None:
    rollouts = searched("med_s3", scripted([0, 1, 0, END, END]), prompts=1, children=1)
    # All completions end right: the first step is worth 1, so the next node goes straight to the end.
    assert step_rows(rollouts, "value") == [[1.0, 1.0]]
    assert step_rows(rollouts, "visits") == [[2, 1]]
    assert rollouts.columns["step:kind"].text == ("reason", "finish")
    assert rollouts.spans["step"].ends.tolist() == [1, 4]
    assert not rollouts.column("step:scored/prm").any()  # there is no wrong path beside it


@pytest.mark.parametrize("rule", RULES)
def test_labels_follow_from_the_stored_values(rule: str) -> None:
    labelled = 0
    for seed in range(6):
        rollouts = searched(rule, seed=seed)
        outcome = rollouts.column("episode:reward/outcome")
        for i, (values, labels, scored) in enumerate(
            zip(*(step_rows(rollouts, name) for name in ("value", "reward/prm", "scored/prm")), strict=True)
        ):
            if not all(scored):
                assert not any(scored)
                continue
            labelled += 1
            if rule == "grounded_prm":
                start = int(rollouts.token_offsets[i])
                verdicts = [
                    1 if token in (0, END) else -1 for token in rollouts.ids[start : start + len(values)].tolist()
                ]
                assert labels == signed(values, verdicts, bool(outcome[i]))
            else:
                assert labels == thresholded(look_back([0.0, *values], "soft_paper").labels)
    assert labelled > 5


def test_med_s3_labels_only_prompts_with_a_right_and_a_wrong_path() -> None:
    both = 0
    for seed in range(4):
        rollouts = searched("med_s3", seed=seed)
        outcome, group = rollouts.column("episode:reward/outcome"), rollouts.group_of_episode
        scored = rollouts.column("step:scored/prm")
        of_step = group[rollouts.response_of_span["step"]]
        for number in range(rollouts.n_groups):
            mixed = len(set(outcome[group == number].tolist())) == 2
            assert set(scored[of_step == number].tolist()) == {mixed}
            both += mixed
    assert both


@pytest.mark.parametrize("rule", RULES)
def test_paths_are_different_as_many_as_asked_for_and_checked(rule: str) -> None:
    for seed in range(4):
        rollouts = searched(rule, seed=seed, most=4)
        assert set(rollouts.group_ids.tolist()) <= {7, 8, 9}
        rows = [
            (g, *ids)
            for g, ids in zip(
                rollouts.group_ids.tolist(), ragged.unflatten(rollouts.ids, rollouts.token_offsets), strict=True
            )
        ]
        assert len(set(rows)) == len(rows)
        outcome, group = rollouts.column("episode:reward/outcome"), rollouts.group_of_episode
        assert torch.bincount(group).max() <= 4
        if rule == "grounded_prm":
            assert torch.bincount(group[outcome == 1]).max() <= 2
        ended = [row[-1] == END for row in rows]
        assert rollouts.column("response:truncated").tolist() == [not end for end in ended]
        for row, reward, scored in zip(
            rows, outcome.tolist(), rollouts.column("episode:scored/outcome").tolist(), strict=True
        ):
            if scored:
                assert reward == float([0, *(i for i in row[1:] if i != END)][-1] == 0)


@pytest.mark.parametrize("rule", RULES)
def test_every_prefix_is_trained_once_in_all(rule: str) -> None:
    rollouts = searched(rule)
    rows = ragged.unflatten(rollouts.ids, rollouts.token_offsets)
    trained = ragged.unflatten(rollouts.trained, rollouts.token_offsets)
    weights = ragged.unflatten(rollouts.weight, rollouts.token_offsets)
    total: dict[tuple[int, ...], float] = {}
    for group, ids, flags, weight in zip(rollouts.group_ids.tolist(), rows, trained, weights, strict=True):
        for t, flag in enumerate(flags):
            if flag:
                prefix = (group, *ids[: t + 1])
                total[prefix] = total.get(prefix, 0.0) + weight[t]
    assert max(len(row) for row in rows) > 2
    assert min(min(weight) for weight in weights) < 1
    assert list(total.values()) == pytest.approx([1.0] * len(total))


@pytest.mark.parametrize("rule", RULES)
def test_the_same_generator_gives_the_same_trees(rule: str) -> None:
    one, two, other = (searched(rule, seed=seed) for seed in (3, 3, 4))
    assert one.ids.tolist() == two.ids.tolist() != other.ids.tolist()
    assert step_rows(one, "value") == step_rows(two, "value")


@pytest.mark.parametrize("rule", RULES)
def test_behaviour_log_probs_are_the_trainers(rule: str) -> None:
    policy = small_llama("float64")
    settings = replace(SETTINGS, max_new_tokens=8, temperature=0.75, end_ids=(22, 21, 20, 19))
    made = RULES[rule](**SETTLED[rule])
    rollouts = sample_searched(
        engine_for(policy),
        [[1, 2, 3], [4]],
        made,
        every(2),
        Checks(
            lambda rows: [Checked(float(sum(row.ids) % 2)) for row in rows],
            (lambda steps: [Checked(float(step.row.ids[step.start] % 2)) for step in steps])
            if made.checks_steps
            else None,
        ),
        settings,
        torch.Generator().manual_seed(0),
        6,
    )
    every_row = torch.arange(rollouts.n_responses)
    trainer = policy.statistics(rollouts, every_row, ["log_probs"])["log_probs"]
    behaviour = rollouts.column("log_probs/behaviour")
    torch.testing.assert_close(trainer, behaviour[rollouts.trained], rtol=0, atol=1e-10)


class Counting:
    """An engine whose calls are counted."""

    def __init__(self, inner: ScriptedEngine) -> None:
        self.inner, self.calls = inner, []

    def refresh(self) -> None: ...

    def generate(self, *given: Any) -> Generated:
        raise AssertionError("a search continues from the middle")

    def forks(self, settings: SamplingSettings, generator: torch.Generator) -> Forks:
        counting, forks = self, self.inner.forks(settings, generator)

        class Counted:
            def begin(self, prompts: Sequence[Sequence[int]], copies: int, limit: int) -> Generated:
                counting.calls.append(len(prompts) * copies)
                return forks.begin(prompts, copies, limit)

            def fork(self, rows: Tensor, places: Tensor, copies: int, limits: Tensor) -> Generated:
                counting.calls.append(len(rows) * copies)
                return forks.fork(rows, places, copies, limits)

        return Counted()


def test_a_round_of_all_prompts_is_one_call_of_the_engine() -> None:
    engine = Counting(ScriptedEngine(table(5).next_logits))
    searched(engine=engine, prompts=5, rounds=4, children=2)
    assert engine.calls[0] == 10
    assert 2 < engine.calls[1] <= 10  # two a prompt, of those that did not end at once
    assert len(engine.calls) == 4


def test_med_s3_completes_a_node_less_often_the_deeper_it_is() -> None:
    engine = Counting(
        ScriptedEngine(lambda first, prefix: torch.tensor([0.0, 0.0, -50.0, -50.0]).double().expand(len(first), -1))
    )
    searched("med_s3", engine, prompts=1, children=1, completions=12, least_completions=1, nodes=4, sure=2.0)
    # Depth 1: 12 // 2 completions, the row itself among them; depth 2: 12 // 3; depth 3: 12 // 4.
    assert engine.calls[:6] == [1, 5, 1, 3, 1, 2]


def test_undecided_answers_leave_one_unlabelled_path_a_prompt() -> None:
    for rule in RULES:
        made = RULES[rule](**SETTLED[rule])
        rollouts = sample_searched(
            engine_for(table(2)),
            [[0], [1]],
            made,
            every(1),
            Checks(lambda rows: [Checked(None, "asleep")] * len(rows), even_steps if made.checks_steps else None),
            SETTINGS,
            torch.Generator().manual_seed(0),
            4,
        )
        assert rollouts.group_ids.tolist() == [0, 1]
        assert not rollouts.column("episode:scored/outcome").any()
        assert not rollouts.column("step:scored/prm").any()


@pytest.mark.parametrize("rule", RULES)
def test_a_stored_tree_is_read_back_and_what_is_none_is_refused(rule: str, tmp_path: Any) -> None:
    rollouts = searched(rule)
    write(rollouts, tmp_path / "one.arrow")
    trees = trees_in(read(tmp_path / "one.arrow"))
    assert set(trees) == set(rollouts.group_ids.tolist())
    longest = max(len(values) for values in step_rows(rollouts, "value"))
    assert max(tree.depth(node) for tree in trees.values() for node in range(len(tree))) == longest

    def broken(name: str, changed: dict[int, float]) -> Rollouts:
        column = rollouts.column(f"step:{name}").clone()
        for i, value in changed.items():
            column[i] = value
        return rollouts.with_column(f"step:{name}", column)

    node = rollouts.column("step:node").tolist()
    called = list(zip(rollouts.response_of_span["step"].tolist(), node, strict=True))
    called = [(int(rollouts.group_ids[row]), number) for row, number in called]
    assert sum(len(tree) - 1 for tree in trees.values()) == len(set(called))
    once = next(i for i in range(len(node)) if called.count(called[i]) == 1)
    with pytest.raises(InputError, match=r"is an orphan: its parent 999 is not there"):
        trees_in(broken("parent", {once: 999}))
    with pytest.raises(InputError, match="is its own ancestor, expected parents that lead to a root"):
        trees_in(broken("parent", {once: node[once]}))
    with pytest.raises(InputError, match="is node 0, expected numbers from 1"):
        trees_in(broken("node", {once: 0}))
    twice = next(i for i in range(len(node)) if called.count(called[i]) > 1)
    with pytest.raises(InputError, match="say different things of it"):
        trees_in(broken("value", {twice: 0.123}))
    with pytest.raises(MissingColumn, match="step:node"):
        trees_in(Rollouts.from_lists([[1]], groups=[0]).with_spans("step", torch.tensor([0]), torch.tensor([1])))


def test_trees_of_several_steps_keep_apart() -> None:
    one = searched(seed=1)
    two = searched(seed=2).with_groups(searched(seed=2).group_ids + 100)
    trees = trees_in(join([one, two]))
    assert trees.keys() == trees_in(one).keys() | trees_in(two).keys()
    assert all(trees[number].values == tree.values for number, tree in trees_in(two).items())


class Unforkable:
    def refresh(self) -> None: ...

    def generate(self, *given: Any) -> Generated:
        raise AssertionError


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: searched(engine=Unforkable()), "a Unforkable cannot continue responses from the middle"),
        (lambda: searched(most=1), "group_size is 1, expected at least 2"),
        (lambda: searched("med_s3", most=1), "group_size is 1, expected at least 2"),
        (lambda: grounded_prm(children=0), "children is 0, expected at least 1"),
        (lambda: grounded_prm(decay=0), "decay is 0"),
        (lambda: med_s3(nodes=0), "nodes is 0, expected at least 1"),
        (lambda: med_s3(backup="decayed"), "unknown backup rule 'decayed'"),
        (lambda: med_s3(look_back="softpaper"), "did you mean 'soft_paper'"),
        (lambda: med_s3(lam=-1), "lam is -1, expected 0 or more"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_rule_that_checks_steps_needs_somebody_to_ask() -> None:
    with pytest.raises(InputError, match="was told no verifier of them"):
        sample_searched(
            engine_for(table()), [[0]], grounded_prm(), every(1), Checks(last_zero), SETTINGS, torch.Generator(), 4
        )


@pytest.mark.parametrize(("most", "gone_down_to"), [(4, 0), (2, 1)])
def test_low_values_are_looked_for_once_enough_paths_end_right(most: int, gone_down_to: int) -> None:
    rows = [Row(0, i, (i, i, END), torch.zeros(3), (1, 2, 3), truncated=False) for i in range(2)]
    growth = grounded_prm(children=2).grow(rows, lambda n: 0, most)
    request = next(growth)
    while not isinstance(request, Draw):  # the first child is simulated, and everything about it is right
        request = growth.send([Checked(1.0)] * len(request.items))
    assert [fork.row.number for fork in request.items] == [gone_down_to] * 2
