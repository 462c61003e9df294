"""The branching sampler: trees within budget, the same from the same seed, caches copied rightly, lies refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import InputError, MissingColumn
from apportion.models.digits import digit_llama
from apportion.models.measuring import measure
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts, branches_of, ragged
from apportion.sampling import Engine, LocalEngine, SamplingSettings, ScriptedEngine, engine_for
from apportion.sampling.branching import Limits, sample_branching
from apportion.sampling.fork_rules import FORK_RULES, TEXT, ForkRule, build_rule, critical_tokens, uniform
from apportion.sampling.forked_cache import CachedForks
from apportion.sampling.forked_rows import RereadForks

PROMPTS = [[2, 3, 11], [4, 5, 6, 7, 11], [9, 11]]
END = (12,)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(rollouts: Rollouts, names: Sequence[str]) -> Rollouts:
    words = [f"word{token}" if token % 3 else "\n" for token in rollouts.ids.tolist()]
    return rollouts.with_column(TEXT, words) if TEXT in names else rollouts


def trees(engine: Engine, rule: str | ForkRule, limits: Limits, seed: int = 0, longest: int = 9) -> Rollouts:
    how = SamplingSettings(longest, end_ids=END)
    return sample_branching(engine, PROMPTS, rule, limits, how, generator(seed), texts)


RULES = ["uniform(rate=0.4)", "high_entropy(threshold=1.0)", "highest_entropy", "step_boundary", "cure(shortest=1)"]


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 2),
    st.one_of(st.none(), st.integers(1, 2)),
    st.integers(1, 3),
    st.integers(0, 60),
    st.one_of(st.none(), st.integers(3, 9)),
)
def test_trees_keep_their_promises(
    rule: str, roots: int, children: int, forks: int | None, depth: int, more: int, width: int | None
) -> None:
    policy = TabularPolicy(13, 5, prompts=13)
    limits = Limits(5 * roots + more, roots, children, forks, depth, width)
    drawn = trees(ScriptedEngine(policy.next_logits), rule, limits, longest=5)
    branches = branches_of(drawn)  # trees, whose inherited tokens are the parent's and untrained
    assert int(branches.depth.max()) <= depth
    own = ragged.sum_rows(drawn.trained.long(), drawn.token_offsets)
    assert int(own.min()) >= 1
    per_prompt = ragged.sum_rows(own, ragged.offsets_of(torch.bincount(drawn.group_of_episode)))
    assert int(per_prompt.max()) <= limits.budget
    assert width is None or int(torch.bincount(drawn.group_of_episode).max()) <= width
    # Weights: one a token where nothing forks, and shares of one at every fork.
    share = weight_of_paths(drawn)
    assert share == pytest.approx([roots] * len(PROMPTS))


def weight_of_paths(drawn: Rollouts) -> list[float]:
    """What the ends of all paths of a group weigh together."""
    last = drawn.token_offsets[1:] - 1
    ends = torch.zeros(drawn.n_groups, dtype=torch.float64).index_add(0, drawn.group_of_episode, drawn.weight[last])
    return ends.tolist()


def test_the_same_seed_gives_the_same_trees_and_another_seed_others() -> None:
    engine, limits = engine_for(digit_llama()), Limits(80, 3, 2, None, 3)
    one, same, other = (trees(engine, "uniform(rate=0.3)", limits, seed) for seed in (4, 4, 5))
    assert torch.equal(one.ids, same.ids)
    assert torch.equal(one.weight, same.weight)
    assert one.ids.tolist() != other.ids.tolist()


@pytest.mark.parametrize("rows", [0, 4])
@pytest.mark.parametrize("rule", ["uniform(rate=0.4)", "cure(shortest=1, top_k=2)"])
def test_copied_keys_and_values_give_the_log_probs_of_reading_everything(rule: str, rows: int) -> None:
    policy = digit_llama(dtype="float64")
    engine = LocalEngine(policy.model, policy.context, rows=rows)
    drawn = trees(engine, rule, Limits(200, 4, 2, None, 3))
    assert isinstance(engine.forks(SamplingSettings(4), generator()), CachedForks)
    assert int(branches_of(drawn).depth.max()) >= 2
    again = measure(policy, drawn, ["log_probs"], [torch.arange(drawn.n_responses)])["log_probs"]
    error = (again - drawn.column("log_probs/behaviour"))[drawn.trained].abs().max()
    assert float(error) < 1e-12


def test_models_whose_cache_cannot_be_shared_read_the_prefix_again() -> None:
    policy = digit_llama(dtype="float64")
    engine = LocalEngine(policy.model, policy.context)
    engine.shares_prompts = False
    assert isinstance(engine.forks(SamplingSettings(4), generator()), RereadForks)
    drawn = trees(engine, "uniform(rate=0.4)", Limits(200, 4, 2, None, 3))
    again = measure(policy, drawn, ["log_probs"], [torch.arange(drawn.n_responses)])["log_probs"]
    assert float((again - drawn.column("log_probs/behaviour"))[drawn.trained].abs().max()) < 1e-12


def test_rows_that_keep_nothing_begin_anew() -> None:
    policy = digit_llama(dtype="float64")
    never = ForkRule(lambda rollouts: ragged.position_in_row(rollouts.token_offsets) == 0, "ahead")
    drawn = trees(engine_for(policy), never, Limits(100, 2, 3, None, 1))
    fork = branches_of(drawn)
    assert bool((fork.parent >= 0).any())
    assert not fork.fork.any()
    again = measure(policy, drawn, ["log_probs"], [torch.arange(drawn.n_responses)])["log_probs"]
    assert float((again - drawn.column("log_probs/behaviour"))[drawn.trained].abs().max()) < 1e-12


def test_branches_are_drawn_from_the_policy() -> None:
    policy = TabularPolicy(3, 2, prompts=13)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=generator(2)).double())
    second = ForkRule(lambda rollouts: ragged.position_in_row(rollouts.token_offsets) == 1, "prefix")
    drawn = sample_branching(
        ScriptedEngine(policy.next_logits), [[0]] * 4000, second, Limits(6, 1, 2), SamplingSettings(2), generator()
    )
    own = drawn.trained & (ragged.position_in_row(drawn.token_offsets) == 1)
    own = own & (branches_of(drawn).parent >= 0)[drawn.response_of_token]
    states = policy.states_of(drawn)[own]
    for state in states.unique():
        found = torch.bincount(drawn.ids[own][states == state], minlength=3).double()
        expected = policy.logits[state].detach().softmax(0) * found.sum()
        assert float(((found - expected).square() / expected).sum()) < 14  # 0.999 of chi-squared with 2 degrees


def test_recorded_entropies_are_the_distribution_s() -> None:
    policy = TabularPolicy(13, 5, prompts=13)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=generator(2)).double())
    how = SamplingSettings(5, temperature=0.7, record=("entropy",))
    drawn = ScriptedEngine(policy.next_logits).forks(how, generator()).begin(PROMPTS, 3, 5)
    probabilities = (policy.logits.detach()[[p[0] * int(policy.starts[-1]) for p in PROMPTS]] / 0.7).softmax(1)
    first = drawn.statistics["entropy"][drawn.offsets[:-1]].reshape(3, 3)[:, 0]
    assert torch.allclose(first, -(probabilities * probabilities.log()).sum(1))
    with pytest.raises(InputError, match="record names 'colour'"):
        SamplingSettings(5, record=("colour",))


# Rules


def test_a_rule_that_lies_about_what_it_looks_at_is_found_out() -> None:
    def last(rollouts: Rollouts) -> torch.Tensor:
        marked = torch.zeros_like(rollouts.trained)
        marked[rollouts.token_offsets[1:] - 1] = True
        return marked

    policy = TabularPolicy(13, 5, prompts=13)
    with pytest.raises(InputError, match="marks other tokens when what follows them is cut off"):
        trees(ScriptedEngine(policy.next_logits), ForkRule(last, "prefix"), Limits(40, 2), longest=5)
    with pytest.raises(InputError, match="known when a response has ended only"):
        ForkRule(last, "prefix", ("reward/outcome",))


def test_every_rule_is_what_it_says() -> None:
    looks = {name: build_rule(name).looks for name in FORK_RULES}
    assert {name for name, look in looks.items() if look == "ahead"} == {"highest_entropy", "cure"}


def test_a_rule_from_elsewhere() -> None:
    assert build_rule("apportion.sampling.fork_rules:uniform(rate=0.5)").looks == "prefix"
    with pytest.raises(InputError, match=r"expected a sampling\.fork_rules\.ForkRule"):
        build_rule("apportion.registry:parse(text='uniform')")


class OnlyGenerates:
    def refresh(self) -> None: ...

    def generate(self, *arguments: object) -> None: ...


@pytest.mark.parametrize(
    ("rule", "limits", "message"),
    [
        (uniform(), Limits(8, roots=1), "the budget is 8 tokens a prompt, but 1 responses"),
        (ForkRule(lambda r: r.ids, "prefix"), Limits(40), "the fork rule returned torch.int64"),
        ("high_entropi", Limits(40), "unknown fork rule"),
    ],
)
def test_what_cannot_be_is_refused(rule: ForkRule | str, limits: Limits, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trees(engine_for(digit_llama()), rule, limits)


def test_an_engine_that_cannot_fork_is_refused() -> None:
    with pytest.raises(InputError, match="OnlyGenerates cannot continue responses from the middle"):
        trees(OnlyGenerates(), uniform(), Limits(40))  # type: ignore[arg-type]


def test_a_column_nobody_makes_is_refused() -> None:
    with pytest.raises(MissingColumn, match="values/critic"):
        trees(engine_for(digit_llama()), "uncertain_value(head='critic')", Limits(40))


@pytest.mark.parametrize(("rows", "places"), [([0], [9]), ([7], [1]), ([2, 0], [1, 1])])
def test_forks_beyond_the_end_or_of_no_row_are_refused(rows: list[int], places: list[int]) -> None:
    forks = engine_for(digit_llama()).forks(SamplingSettings(4), generator())  # type: ignore[attr-defined]
    forks.begin(PROMPTS, 1, 4)
    with pytest.raises(InputError, match="expected"):
        forks.fork(torch.tensor(rows), torch.tensor(places), 1, torch.tensor([2] * len(rows)))


def test_critical_tokens_of_bad_input() -> None:
    good = ([1.0, 2.0], ["Let", "us"], [False, False])
    for wrong in ({0: [1.0]}, {0: [1.0, -1.0]}, {0: [1.0, float("nan")]}):
        arguments = [wrong.get(i, part) for i, part in enumerate(good)]
        with pytest.raises(InputError, match="expected"):
            critical_tokens(*arguments, top_k=2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="top_k is 0"):
        critical_tokens(*good, top_k=0)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Limits) if f.type == "int"])
def test_limits_below_one_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 0"):
        Limits(**({"budget": 9} | {name: 0}))
