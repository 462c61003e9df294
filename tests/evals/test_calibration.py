"""Calibration against what is known: gradients by autograd, listing against sampling, theory, and broken claims."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from apportion.cli.main import main
from apportion.credit import METHODS, Bias, Claim, Stage, Work, estimator
from apportion.credit.algebra import EXACT
from apportion.errors import InputError
from apportion.evals.calibration import claims, groups, plants, theory
from apportion.evals.calibration.estimators import TEXTBOOK, exact_advantage, total_return
from apportion.evals.calibration.forks import Forks, forked
from apportion.evals.calibration.measure import Interval, cosine_interval, crossed, group_gradients, measure
from apportion.evals.calibration.methods import EVERYWHERE, ONCE, Entry, entries
from apportion.evals.calibration.run import Row, Settings, calibrate
from apportion.evals.calibration.tree import Node, Tree
from apportion.evals.calibration.truths import truths
from apportion.evals.calibration.worlds import WORLDS, World
from apportion.rollouts import Rollouts, ragged

SMALL = ("shared_prefixes", "dense_rewards", "stopping", "random_transitions")
FAST = Settings(sizes=(2, 8), listed=700, sampled=360, batches=9, repeats=24)


@cache
def world(name: str) -> World:
    return WORLDS[name]()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(tree: Tree, drawn: groups.Groups, rollouts: Rollouts) -> tuple[torch.Tensor, torch.Tensor]:
    """The edge and the group of every token."""
    leaf = drawn.leaf.flatten()
    edge = tree.path[ragged.ranges(tree.offsets[leaf], tree.offsets[leaf + 1])]
    return edge, rollouts.group_of_episode[rollouts.episode_of_token]


# Trees


@pytest.mark.parametrize("name", WORLDS)
def test_the_gradient_of_a_world_is_that_of_its_expected_return(name: str) -> None:
    """By autograd through probabilities of leaves, which knows nothing of values."""
    tree = world(name).tree
    logits = tree.probability.log().requires_grad_()
    total = torch.zeros(tree.n_states, dtype=torch.float64).index_add(0, tree.state, logits.exp())
    logs = torch.where(tree.decides, logits - total.log()[tree.state], tree.probability.log())
    leaf = ragged.sum_rows(logs[tree.path], tree.offsets).exp() / tree.prompts
    (leaf * tree.leaf_return).sum().backward()
    torch.testing.assert_close(tree.values().gradient, logits.grad, rtol=0, atol=1e-12)
    leaf = leaf.detach()
    assert float(leaf.sum()) == pytest.approx(1, abs=1e-12)
    assert tree.values().total == pytest.approx(float((leaf * tree.leaf_return).sum()), abs=1e-12)


@pytest.mark.parametrize("name", ["shared_prefixes", "dense_rewards", "stopping", "two_prompts"])
def test_groups_have_the_gradient_of_the_trainers_own_policy(name: str) -> None:
    tree, leaves = world(name).tree, world(name).leaves
    drawn = groups.sampled(tree, 3, 5, generator())
    rollouts = drawn.rollouts(leaves)
    policy = tree.policy()
    every = torch.arange(rollouts.n_responses)
    old = policy.statistics(rollouts, every, ["log_probs"])["log_probs"]
    torch.testing.assert_close(old, rollouts.column("log_probs/old")[rollouts.trained], rtol=0, atol=1e-12)

    credit = METHODS["rloo"]()(rollouts).advantages
    edge, group = tokens(tree, drawn, rollouts)
    found = group_gradients(tree, credit, edge, group, len(drawn), drawn.size).mean(0)
    loss = lambda now, at: (now["log_probs"] * credit[at]).sum() / rollouts.n_responses  # noqa: E731
    policy.accumulate(rollouts, every, ["log_probs"], loss)
    assert policy.logits.grad is not None
    for k in range(tree.n_edges):
        prompt, prefix = tree.places[int(tree.state[k])]
        row = policy.state(torch.tensor([prompt]), torch.tensor([prefix], dtype=torch.int64).reshape(1, -1))
        assert float(policy.logits.grad[row, tree.token[k]]) == pytest.approx(float(found[k]), abs=1e-12)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([Node((), {0: 0.5, 1: 0.4})], "sum to 1"),
        ([Node((), {0: 1.5, 1: -0.5})], "not negative"),
        ([Node((), {0: 1.0}), Node((1,), {0: 1.0})], "no node leads to"),
        ([Node((), {0: 1.0}), Node((), {0: 1.0})], "two nodes"),
        ([Node((), {0: 1.0}, {0: math.inf})], "not finite"),
        ([Node((), {0: 1.0}, {1: 1.0})], "cannot follow"),
        ([Node((), {0: 1.0}, prompt=1)], "counted from 0"),
        ([], "counted from 0"),
    ],
)
def test_a_tree_that_is_none_is_refused(nodes: Sequence[Node], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tree(nodes)


@pytest.mark.parametrize("call", [theory.soft_values, theory.tuned_from])
def test_a_temperature_that_is_not_positive_is_refused(call: Any) -> None:
    with pytest.raises(InputError, match="expected more than 0"):
        call(world("stopping").tree, 0.0)
    with pytest.raises(InputError, match="no value"):
        theory.shapley({frozenset(): 0.0}, 1)


def test_the_policy_is_the_soft_optimum_of_the_planted_reference() -> None:
    """Tuning from that reference gives the policy back, where the environment draws too."""
    for name in SMALL:
        tree = world(name).tree
        logs = theory.tuned_from(tree, 0.5)
        total = tree.over_edges(torch.where(tree.decides, logs.exp(), 0.0))
        own = torch.unique(tree.state[tree.decides])
        torch.testing.assert_close(total[own], torch.ones(len(own), dtype=torch.float64))
        nodes = [
            replace(node, probabilities={t: float(logs[k].exp()) for t, k in edges_of(tree, place).items()})
            if not node.chance
            else node
            for place, node in tree.nodes.items()
        ]
        reference = Tree(nodes)
        value, q = theory.soft_values(reference, 0.5)
        tuned = reference.probability * ((q - value[reference.state]) / 0.5).exp()
        torch.testing.assert_close(tuned[tree.decides], tree.probability[tree.decides])


def edges_of(tree: Tree, place: Any) -> dict[int, int]:
    state = tree.places.index(place)
    return {int(tree.token[k]): int(k) for k in (tree.state == state).nonzero().squeeze(1)}


# Groups


@pytest.mark.parametrize("name", ["stopping", "two_prompts", "dense_rewards"])
def test_listed_groups_are_all_there_are(name: str) -> None:
    """Their weights are those of all ordered tuples, added up."""
    tree, size = world(name).tree, 3
    expected: dict[tuple[int, ...], float] = {}
    for prompt in range(tree.prompts):
        own = (tree.leaf_prompt == prompt).nonzero().squeeze(1).tolist()
        for members in itertools.product(own, repeat=size):
            key = tuple(sorted(members))
            probability = math.prod(tree.leaf_probability[list(members)].tolist()) / tree.prompts
            expected[key] = expected.get(key, 0.0) + probability
    found = groups.listed(tree, size)
    assert len(found) == groups.count(tree, size) == len(expected)
    for row, weight in zip(found.leaf.tolist(), found.weight.tolist(), strict=True):
        assert weight == pytest.approx(expected[tuple(row)], abs=1e-12)


@pytest.mark.parametrize("name", ["two_prompts", "random_transitions"])
def test_sampled_groups_have_the_trees_frequencies(name: str) -> None:
    tree = world(name).tree
    leaf = groups.sampled(tree, 4, 20_000, generator()).leaf
    shares = torch.bincount(leaf.flatten(), minlength=len(tree.leaf_prompt)) / leaf.numel()
    expected = tree.leaf_probability / tree.prompts
    assert float((shares - expected).abs().max()) < 5 * float((expected / leaf.numel() * 4).sqrt().max())
    assert bool((tree.leaf_prompt[leaf] == tree.leaf_prompt[leaf][:, :1]).all()), "a group has two prompts"


def test_gathered_rollouts_are_the_selected_ones() -> None:
    """With repeats, spans and text, against one episode after another."""
    garden = plants.Garden(world("random_transitions"), 0.5, 0)
    leaves = plants.planted(garden, ["steps:state_key", "step:label", "macro:size", "reward/prm", "values/critic"])
    drawn = torch.tensor([3, 3, 0, 15])
    found = groups.gathered(leaves, drawn, torch.tensor([0, 0, 1, 1]))
    for row, leaf in enumerate(drawn.tolist()):
        one, other = found.select(torch.tensor([row])), leaves.select(torch.tensor([leaf]))
        assert one.ids.tolist() == other.ids.tolist()
        for kind, table in other.spans.items():
            assert one.spans[kind].starts.tolist() == table.starts.tolist()
            assert one.spans[kind].ends.tolist() == table.ends.tolist()
        for name, column in other.columns.items():
            same = one.columns[name].values
            assert (same.tolist() if isinstance(same, torch.Tensor) else same) == (
                column.values.tolist() if isinstance(column.values, torch.Tensor) else column.values
            ), name


@pytest.mark.parametrize("forks", [ONCE, EVERYWHERE], ids=lambda forks: forks.words)
def test_weighted_tokens_of_forked_groups_are_like_flat_ones(forks: Forks) -> None:
    """The expected visits of every edge, over the responses from the prompt."""
    tree = world("shared_prefixes").tree
    drawn = forked(tree, 4, 6000, forks, generator())
    rollouts = drawn.rollouts(world("shared_prefixes").leaves)
    edge, _ = tokens(tree, drawn, rollouts)
    weight = torch.where(rollouts.trained, rollouts.weight, 0.0)
    visits = torch.zeros(tree.n_edges, dtype=torch.float64).index_add_(0, edge, weight) / len(drawn) / drawn.divisor
    expected = tree.reach[tree.state] * tree.probability
    if not forks.weigh:  # every place but the first is drawn once more for every child
        first = tree.state == 0
        expected = torch.where(first, expected, expected * expanded(tree))
    assert float((visits - expected).abs().max()) < 0.02


def expanded(tree: Tree) -> torch.Tensor:
    """How often a token at an edge is drawn when two further continuations begin at every place before it."""
    depth = torch.tensor([len(tree.places[int(s)][1]) for s in tree.state])
    return 1.0 + EVERYWHERE.children * depth


def test_forks_need_a_token_in_every_response() -> None:
    with pytest.raises(InputError, match="differ in length"):
        forked(world("dense_rewards").tree, 4, 8, ONCE, generator())
    with pytest.raises(InputError, match="more to fork at"):
        forked(Tree([Node((), {0: 0.5, 1: 0.5})]), 4, 8, ONCE, generator())


# Plants


@pytest.mark.parametrize("name", ["unique_nonce", "random_transitions", "paid_transitions", "stopping"])
def test_plants_are_exact_without_noise_and_fixed_with_it(name: str) -> None:
    here = world(name)
    tree, exact = here.tree, here.tree.values()
    needs = ["values/critic", "reward/proxy", "reward/prm", "log_probs/reference"]
    right = plants.planted(plants.Garden(here, 0.0, 0), needs)
    torch.testing.assert_close(right.column("values/critic"), exact.state[tree.state[tree.path]])
    row = right.episode_of_response[right.response_of_span["step"]]
    proxies = torch.zeros(right.n_episodes, dtype=torch.float64)
    proxies.index_add_(0, row, right.columns["step:reward/proxy"].tensor)
    torch.testing.assert_close(proxies, tree.leaf_return)
    wrong = [plants.planted(plants.Garden(here, 0.5, seed), needs).column("values/critic") for seed in (0, 0, 1)]
    assert torch.equal(wrong[0], wrong[1])
    assert not torch.equal(wrong[0], wrong[2])
    state = tree.state[tree.path]
    for one in torch.unique(state).tolist():
        assert len(torch.unique(wrong[0][state == one])) == 1, "a critic is as wrong at a state today as tomorrow"


def test_fresh_values_have_the_mean_and_variance_of_theory() -> None:
    here = world("dense_rewards")
    tree = here.tree
    drawn = groups.sampled(tree, 4, 3000, generator())
    rollouts = drawn.rollouts(here.leaves)
    values = plants.fresh_values(tree, 0, 4)(rollouts, drawn.leaf.flatten()).column("values/fresh")
    edge, _ = tokens(tree, drawn, rollouts)
    variance = theory.return_variance(tree) / 4
    for state in torch.unique(tree.state[edge]).tolist():
        here_ = values[tree.state[edge] == state]
        spread = math.sqrt(float(variance[state]) / len(here_))
        assert abs(float(here_.mean() - tree.values().state[state])) < 5 * spread + 1e-9
        assert float(here_.var()) == pytest.approx(float(variance[state]), rel=0.25, abs=1e-9)


# Figures


def test_sampling_agrees_with_listing() -> None:
    here = world("stopping")
    listed = groups.listed(here.tree, 4)
    drawn = groups.sampled(here.tree, 4, 8192, generator(3))
    for name in ("rloo", "grpo", "tempo"):
        exact = measure(METHODS[name](), here.tree, here.leaves, listed, 64)
        found = measure(METHODS[name](), here.tree, here.leaves, drawn, 64)
        assert exact.scale is not None
        assert found.scale is not None
        assert exact.cosine is not None
        assert found.cosine is not None
        assert found.scale.low <= exact.scale.value <= found.scale.high
        assert found.cosine.low <= exact.cosine.value <= found.cosine.high
        assert found.variance == pytest.approx(exact.variance, rel=0.25)
        assert found.correlation == pytest.approx(exact.correlation, abs=0.03)
        assert found.sign_agreement == pytest.approx(exact.sign_agreement, abs=0.03)
        assert found.bias.value == pytest.approx(exact.bias.value, abs=0.15 * max(exact.scale.value, 1))


def test_a_method_that_drops_every_token_has_no_agreement() -> None:
    here = world("all_returns_equal")
    found = measure(METHODS["dapo"](), here.tree, here.leaves, groups.listed(here.tree, 4), 1)
    assert (found.correlation, found.sign_agreement, found.bias.value) == (None, None, 0.0)


def test_the_exact_advantage_has_the_variance_of_the_card() -> None:
    """On the hand-checked tree: 0.032 for the exact advantage, 0.109 for leave-one-out, 0.143 without, in threes."""
    nodes = [
        Node((), {1: 0.5, 2: 0.5}),
        Node((1,), {0: 0.25, 3: 0.75}, {3: 1.0}),
        Node((2,), {0: 0.5, 3: 0.5}, {0: 1.0}),
    ]
    here = World("by hand", "", Tree(nodes))
    leaves = plants.planted(plants.Garden(here, 0.0, 0), ["exact/advantage"])
    length = float((here.tree.values().gradient ** 2).sum())
    every = groups.listed(here.tree, 3)
    for stage, variance in ((exact_advantage(), 0.032), (METHODS["rloo"](), 0.109), (total_return(), 0.143)):
        found = measure(stage, here.tree, leaves, every, 1)
        assert found.variance is not None
        assert found.variance * length / 3 == pytest.approx(variance, abs=5e-4)


@pytest.mark.parametrize("dimensions", [2, 3, 12])
def test_intervals_cover_what_they_promise(dimensions: int) -> None:
    """Means of vectors with and without bias, and cosines, over many data sets."""
    dice = generator(1)
    along, bias = torch.zeros(2, dimensions, dtype=torch.float64)
    along[0], bias[1] = 1.0, 1.0
    true = {0.0: 1.0, 1.0: 1 / math.sqrt(2)}
    missed = {"no bias": 0, "a bias": 0, **dict.fromkeys(true, 0)}
    for _ in range(500):
        noise = torch.randn(48, dimensions, generator=dice, dtype=torch.float64)
        missed["no bias"] += crossed(noise).excludes(0.0)
        missed["a bias"] += not crossed(noise + 2 * bias).excludes(0.0)
        for amount, cosine in true.items():
            interval = cosine_interval(noise + 2 * (along + amount * bias), along)
            missed[amount] += interval is None or interval.excludes(cosine)
    assert missed["no bias"] <= 4
    assert missed["a bias"] == 0
    assert missed[0.0] <= 4
    assert missed[1.0] <= 4


# Claims


def row(claim: Claim, size: int, bias: float, turn: float) -> Row:
    here = world("stopping")
    found = measure(METHODS["rloo"](), here.tree, here.leaves, groups.listed(here.tree, 2), 1)
    moved = replace(found, bias=Interval(bias, bias, bias), turn=Interval(turn, turn, turn))
    return Row("a", "stopping", size, None, Bias(claim), 1.0, moved)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([row(Claim.EXACT, 2, 0.0, 0.0)], "holds"),
        ([row(Claim.EXACT, 2, 0.0, 0.0), row(Claim.EXACT, 4, 0.1, 0.0)], "refuted"),
        ([row(Claim.EXACT_UP_TO_SCALE, 2, 0.5, 0.0)], "holds"),
        ([row(Claim.EXACT_UP_TO_SCALE, 2, 0.5, 0.1)], "refuted"),
        ([row(Claim.CONSISTENT, 2, 0.5, 0.4), row(Claim.CONSISTENT, 8, 0.5, 0.1)], "holds"),
        ([row(Claim.CONSISTENT, 2, 0.5, 0.4), row(Claim.CONSISTENT, 8, 0.5, 0.3)], "refuted"),
        ([row(Claim.BIASED, 2, 0.5, 0.1)], "seen"),
        ([row(Claim.BIASED, 2, 0.5, 0.0)], "not seen"),
        ([replace(row(Claim.EXACT, 2, 0.0, 0.0), measured=None, reason="no")], "untested"),
    ],
)
def test_verdicts_on_claims(rows: Sequence[Row], verdict: str) -> None:
    assert [found.verdict for found in claims.verdicts(rows)] == [verdict]


@cache
def everything() -> list[Row]:
    """Every registered method in the small worlds."""
    return calibrate(entries(), {name: WORLDS[name] for name in SMALL}, FAST)


def test_no_claim_of_a_registered_method_is_refuted() -> None:
    found = claims.verdicts(everything())
    refuted = [
        f"{v.spec}, noise {v.noise}, is said to be {v.claim}: {v.evidence}" for v in found if v.verdict == "refuted"
    ]
    assert not refuted, "\n".join(refuted)
    assert {v.claim for v in found} == {"exact", "exact up to scale", "consistent", "biased"}


def test_every_registered_method_runs_somewhere_or_says_why_not() -> None:
    ran = {r.spec.partition("(")[0].split()[0] for r in everything() if r.measured is not None}
    assert ran == {*METHODS, *TEXTBOOK}
    assert all(r.reason for r in everything() if r.measured is None)


def test_what_theory_says_comes_out() -> None:
    specs = ["rloo", "grpo", "dr_grpo", "tempo", "turn_index"]
    names = (*SMALL, "graded_outcome", "unique_nonce", "all_returns_equal")
    chosen = [entry for entry in entries(specs) if entry.forks is None]
    found = truths(calibrate(chosen, {name: WORLDS[name] for name in names}, replace(FAST, sizes=(4, 8), sampled=2048)))
    assert len(found) == 8
    assert not [truth for truth in found if not truth.holds]


def biased_by(amount: float) -> Stage:
    """Leave-one-out, with a little of its own reward kept at every token but the last; it claims to be exact."""

    @estimator(needs=("reward/outcome",), bias=EXACT, by_group=True)
    def wrong(work: Work) -> torch.Tensor:
        fair = METHODS["rloo"]()(work.rollouts).advantages
        early = torch.ones(work.rollouts.n_tokens, dtype=torch.float64)
        early[work.rollouts.token_offsets[1:] - 1] = 0.0
        return fair + amount * early * work.spread(work.up("outcome"))

    return wrong


def test_a_false_claim_is_refuted_by_listing_and_by_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "wrong", lambda amount=0.0: biased_by(amount))
    here = {"shared_prefixes": WORLDS["shared_prefixes"]}
    for settings in (FAST, replace(FAST, listed=0, sampled=8192)):
        rows = calibrate([Entry("wrong"), Entry("wrong(amount=0.2)")], here, replace(settings, sizes=(4,)))
        assert [v.verdict for v in claims.verdicts(rows)] == ["holds", "refuted"]
    assert main(["calibrate", "--methods", "wrong(amount=0.2)", "--worlds", "shared_prefixes", "--sizes", "4"]) == 1


def test_what_nothing_can_plant_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def needy() -> Stage:
        return estimator(needs=("tea_leaves",), bias=EXACT)(lambda work: work.advantages)

    monkeypatch.setitem(METHODS, "needy", needy)
    (found,) = calibrate([Entry("needy")], {"stopping": WORLDS["stopping"]}, replace(FAST, sizes=(4,)))
    assert found.measured is None
    assert found.reason == "nothing here can plant tea_leaves"


# The command


def test_the_command_prints_json_that_a_seed_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["calibrate", "--methods", "grpo,gae", "--worlds", "stopping", "--sizes", "4", "--quick", "--json"]
    printed = []
    for seed in ("0", "0", "1"):
        assert main([*line, "--seed", seed]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0] == printed[1]
    assert printed[0]["cells"] != printed[2]["cells"]
    assert {m["method"] for m in printed[0]["methods"]} == {"grpo", "gae"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "grop"], "did you mean 'grpo'?"),
        (["--methods", "grpo(norm=1)"], "argument of credit method 'grpo'"),
        (["--worlds", "stoping"], "did you mean 'stopping'?"),
        (["--sizes", "1"], "expected some of at least 2"),
        (["--noise", "2"], "expected some from 0 to 1"),
        (["--write", "no/folder"], "it is no folder"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
