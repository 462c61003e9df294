"""Credit on trees: exact in expectation, against plain loops and against enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from apportion import objectives
from apportion.credit import METHODS, Stage
from apportion.credit.trees import back_up, draw_tree, shrunk_values
from apportion.credit.trees.shrinkage import variances
from apportion.errors import InputError
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts, branches_of, join
from apportion.sampling import SamplingSettings, ScriptedEngine
from apportion.sampling.branching import Limits, sample_branching
from apportion.sampling.fork_rules import ForkRule, high_entropy, highest_entropy, uniform
from apportion.training.gradient import accumulate

VOCABULARY, DEPTH = 2, 3
LEAVES = list(itertools.product(range(VOCABULARY), repeat=DEPTH))
REWARD = dict(zip(LEAVES, [1.0, 0.0, 0.2, 0.9, 0.0, 0.3, 1.0, 0.1], strict=True))


def table() -> TabularPolicy:
    policy = TabularPolicy(VOCABULARY, DEPTH)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(3)).double())
    return policy


def by_name(name: str) -> ForkRule:
    return {
        "coin flips": uniform(rate=0.4),
        "high entropy": high_entropy(threshold=0.6),
        "most uncertain token": highest_entropy(),
        "wrong answers": ForkRule(before_last_of_wrong, "ahead", ("reward/outcome",)),
    }[name]


def before_last_of_wrong(rollouts: Rollouts) -> Tensor:
    wrong = rollouts.column("episode:reward/outcome") < 0.5
    marked = torch.zeros(rollouts.n_tokens, dtype=torch.bool)
    marked[rollouts.token_offsets[1:][wrong] - 2] = True
    return marked


def with_outcome(rollouts: Rollouts, names: object = None) -> Rollouts:
    paths = [tuple(row) for row in rollouts.ids.reshape(-1, DEPTH).tolist()]
    return rollouts.with_reward("outcome", torch.tensor([REWARD[path] for path in paths], dtype=torch.float64))


@cache
def forest(rule: str, groups: int, seed: int) -> Rollouts:
    """Trees that several tests look at."""
    return trees(table(), by_name(rule), groups, seed)


def trees(policy: TabularPolicy, rule: ForkRule, groups: int, seed: int, **limits: int | None) -> Rollouts:
    given = {"budget": 100, "roots": 2, "children": 2, "forks": None, "max_depth": 2, **limits}
    drawn = sample_branching(
        ScriptedEngine(policy.next_logits),
        [[0]] * groups,
        rule,
        Limits(**given),  # type: ignore[arg-type]
        SamplingSettings(DEPTH),
        torch.Generator().manual_seed(seed),
        with_outcome,
    )
    return with_outcome(drawn)


def log_probability(policy: TabularPolicy, logits: Tensor, path: tuple[int, ...]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for depth, token in enumerate(path):
        prefix = torch.tensor([path[:depth]], dtype=torch.int64).reshape(1, depth)
        total = total + logits[policy.state(torch.tensor([0]), prefix)].log_softmax(1)[0, token]
    return total


def exact_gradient(policy: TabularPolicy) -> Tensor:
    logits = policy.logits.detach().clone().requires_grad_()
    value = torch.stack([log_probability(policy, logits, leaf).exp() * REWARD[leaf] for leaf in LEAVES]).sum()
    return torch.autograd.grad(value, logits)[0]


def exact_value(policy: TabularPolicy) -> float:
    return sum(float(log_probability(policy, policy.logits.detach(), leaf).exp()) * REWARD[leaf] for leaf in LEAVES)


def summed() -> objectives.Objective:
    """The plain policy gradient, weighted and summed, not averaged over tokens."""

    def terms(now: objectives.Now, at: dict[str, Tensor]) -> objectives.Terms:
        return objectives.Terms(-at["credit/advantages"] * now["log_probs"])

    return objectives.token_objective(
        terms, lambda rollouts, credit: rollouts.weight, ("log_probs",), ("credit/advantages",)
    )


def gradients(policy: TabularPolicy, method: Stage, rollouts: Rollouts) -> Tensor:
    """The ascent direction the trainer's own path takes from every group ``[groups, S, V]``, a root's share."""
    credit = method(rollouts)
    found = []
    for group in rollouts.group_ids.unique():
        part = credit.select(rollouts.group_ids == group)
        rows = torch.arange(part.rollouts.n_responses)
        accumulate(policy, SUMMED, part.rollouts, part, [rows])
        assert policy.logits.grad is not None
        roots = int((branches_of(part.rollouts).parent < 0).sum())
        found.append(-policy.logits.grad.clone() / roots)
        policy.logits.grad = None
    return torch.stack(found)


def weighted_scores(policy: TabularPolicy, method: Stage, rollouts: Rollouts) -> Tensor:
    """The same, in closed form: weight x advantage x (one-hot - pi) at the token's state."""
    credit = method(rollouts)
    states = policy.states_of(rollouts)
    group = rollouts.group_of_episode[rollouts.episode_of_token]
    score = torch.nn.functional.one_hot(rollouts.ids, VOCABULARY) - policy.logits.detach().softmax(1)[states]
    share = credit.advantages * rollouts.weight * credit.trained
    total = torch.zeros((rollouts.n_groups, *policy.logits.shape), dtype=torch.float64)
    total.index_put_((group, states), share[:, None] * score, accumulate=True)
    roots = torch.bincount(rollouts.group_of_episode[branches_of(rollouts).parent < 0])
    return total / roots[:, None, None]


SUMMED = summed()


def test_the_closed_form_is_what_the_trainer_applies() -> None:
    policy = table()
    rollouts = trees(policy, by_name("coin flips"), 6, 5)
    for method in (METHODS["tree"](), METHODS["tree_shrunk"](), METHODS["tree_td"]()):
        assert torch.allclose(gradients(policy, method, rollouts), weighted_scores(policy, method, rollouts))


def deviations(found: Tensor, truth: Tensor) -> Tensor:
    """Standard errors between the mean of samples ``[n, ...]`` and the truth, where there is any spread."""
    spread = found.std(0) / math.sqrt(len(found))
    return ((found.mean(0) - truth) / spread)[spread > 1e-9]


@pytest.mark.parametrize("method", ["tree", "tree_shrunk"])
@pytest.mark.parametrize("rule", ["coin flips", "high entropy"])
def test_the_expected_gradient_is_exact_where_rules_look_at_the_prefix(method: str, rule: str) -> None:
    policy = table()
    rollouts = forest(rule, 6_000, 1)
    assert bool((rollouts.columns["response:parent"].present).any())
    found = weighted_scores(policy, METHODS[method](), rollouts)
    assert float(deviations(found, exact_gradient(policy)).abs().max()) < 4


@pytest.mark.parametrize("limits", [{"budget": 14}, {"max_width": 5}, {"forks": 1}, {"children": 1, "max_depth": 3}])
def test_budgets_and_limits_do_not_steer_the_gradient(limits: dict[str, int]) -> None:
    policy = table()
    found = weighted_scores(policy, METHODS["tree"](), trees(policy, by_name("high entropy"), 5_000, 2, **limits))
    assert float(deviations(found, exact_gradient(policy)).abs().max()) < 4


@pytest.mark.parametrize(("backup", "baseline"), [("leaves", "siblings"), ("rule", "all")], ids=str)
def test_the_forms_for_comparison_are_not_exact(backup: str, baseline: str) -> None:
    policy = table()
    rollouts = forest("high entropy", 6_000, 1)
    found = weighted_scores(policy, METHODS["tree"](backup=backup, baseline=baseline), rollouts)
    assert float(deviations(found, exact_gradient(policy)).abs().max()) > 6


def test_including_the_draw_shrinks_the_gradient_at_a_fork_by_k_minus_one_over_k() -> None:
    """At the prompt of three draws, and nowhere else forked."""
    policy = table()
    rollouts = trees(policy, uniform(rate=1e-12), 6_000, 4, roots=3)
    found = weighted_scores(policy, METHODS["tree"](baseline="all"), rollouts)
    assert float(deviations(found, exact_gradient(policy) * 2 / 3).abs().max()) < 4


def root_bias(rule: ForkRule, backup: str, seed: int = 7, groups: int = 8_000) -> tuple[float, float]:
    """Bias of the prompt's value and its standard error."""
    policy = table()
    rollouts = trees(policy, rule, groups, seed, roots=1, max_depth=1, children=3)
    tree = draw_tree(rollouts, backup)
    known = torch.ones(rollouts.n_episodes, dtype=torch.bool)
    values = back_up(tree, rollouts.column("episode:reward/outcome"), known, by_leaves=backup == "leaves")
    found = values.fork[: rollouts.n_groups]
    return float(found.mean()) - exact_value(policy), float(found.std()) / math.sqrt(len(found))


@pytest.mark.parametrize("rule", ["coin flips", "high entropy", "most uncertain token", "wrong answers"])
def test_the_backup_of_a_rule_has_no_bias(rule: str) -> None:
    bias, error = root_bias(by_name(rule), "rule")
    assert abs(bias) < 4 * error


@pytest.mark.parametrize("rule", ["high entropy", "most uncertain token", "wrong answers"])
def test_the_mean_over_leaves_has(rule: str) -> None:
    bias, error = root_bias(by_name(rule), "leaves")
    assert abs(bias) > 5 * error


def test_counting_the_continuation_a_rule_looked_at_has() -> None:
    bias, error = root_bias(by_name("wrong answers"), "draws")
    assert abs(bias) > 5 * error


# Values and baselines, against loops in the order of the definitions


def naive_values(rollouts: Rollouts, ahead: bool) -> dict[tuple[int, int], tuple[float, float]]:
    """(X, baseline) of the draw every own token of every response belongs to, by response and place."""
    branches = branches_of(rollouts)
    parent, fork = branches.parent.tolist(), branches.fork.tolist()
    rewards, groups = rollouts.column("episode:reward/outcome").tolist(), rollouts.group_ids.tolist()
    lengths = (rollouts.token_offsets[1:] - rollouts.token_offsets[:-1]).tolist()
    count = len(parent)

    def children(row: int, place: int) -> list[int]:
        return [c for c in range(count) if parent[c] == row and fork[c] == place]

    def places(row: int) -> list[int]:
        return sorted({fork[c] for c in range(count) if parent[c] == row})

    def led_to(row: int, start: int, own: bool) -> float:
        """X of the draw of a row that begins at ``start``; ``own``: a fork right there was made later."""
        later = [p for p in places(row) if (p >= start if own else p > start)]
        if ahead or not later:
            return rewards[row]
        draws = [led_to(row, later[0], False), *(led_to(c, later[0], True) for c in children(row, later[0]))]
        return sum(draws) / len(draws)

    def baseline(row: int, start: int, own: bool) -> float | None:
        if not own:
            rest = [led_to(c, start, True) for c in children(row, start)]
            assert rest
            return sum(rest) / len(rest)
        if parent[row] < 0:
            peers = [r for r in range(count) if r != row and parent[r] < 0 and groups[r] == groups[row]]
            return sum(led_to(r, 0, True) for r in peers) / len(peers) if peers else None
        rest = [led_to(c, fork[row], True) for c in children(parent[row], fork[row]) if c != row]
        if not ahead:
            rest.append(led_to(parent[row], fork[row], False))
        if rest:
            return sum(rest) / len(rest)
        return baseline(parent[row], fork[parent[row]], True)

    found = {}
    for row in range(count):
        for place in range(fork[row], lengths[row]):
            begun = [] if ahead else [p for p in places(row) if p <= place]
            start, own = (begun[-1], False) if begun else (fork[row], True)
            expected = baseline(row, start, own)
            found[row, place] = (led_to(row, start, own), 0.0 if expected is None else expected)
            if expected is None:
                found[row, place] = (0.0, 0.0)
    return found


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_naive_loop(ahead: bool, seed: int) -> None:
    policy = table()
    rollouts = trees(policy, uniform(rate=0.5), 3, seed, children=1 + seed % 2, max_depth=3)
    credit = METHODS["tree"](backup="fresh" if ahead else "draws")(rollouts)
    expected = naive_values(rollouts, ahead)
    offsets = rollouts.token_offsets.tolist()
    for (row, place), (value, baseline) in expected.items():
        assert float(credit.advantages[offsets[row] + place]) == pytest.approx(value - baseline, abs=1e-12)
    assert len(expected) == int(credit.trained.sum())


def test_the_order_of_responses_does_not_matter() -> None:
    rollouts = trees(table(), uniform(rate=0.5), 3, 8)
    order = torch.randperm(rollouts.n_episodes, generator=torch.Generator().manual_seed(0))
    for method in ("tree", "tree_td", "tree_shrunk", "vine"):
        whole = METHODS[method]()(rollouts)
        assert torch.allclose(METHODS[method]()(rollouts.select(order)).advantages, whole.select(order).advantages)


def test_differences_add_up_to_the_outcome_less_the_value_of_the_prompt() -> None:
    rollouts = trees(table(), uniform(rate=0.5), 4, 9)
    credit = METHODS["tree_td"]()(rollouts)
    after = credit.columns["token:credit/prefix_value_after"].tensor
    before = credit.columns["token:credit/prefix_value_before"].tensor
    assert torch.allclose((after - before)[credit.trained], credit.advantages[credit.trained])
    roots = (branches_of(rollouts).parent < 0).nonzero().squeeze(1).tolist()
    first = rollouts.token_offsets[:-1]
    prompt = before[first]
    for row in roots:
        same = [r for r in roots if rollouts.group_ids[r] == rollouts.group_ids[row]]
        assert len({round(float(prompt[r]), 12) for r in same}) == 1


def test_without_branches_differences_and_outcome_are_tempo() -> None:
    rollouts = with_outcome(
        Rollouts.from_lists([list(leaf) for leaf in LEAVES] * 2, groups=[0, 1] * len(LEAVES), prompts=[[0]] * 16)
    )
    expected = METHODS["tempo"](norm_by_std=False)(rollouts).advantages
    assert torch.allclose(METHODS["tree_td"](outcome=1.0)(rollouts).advantages, expected, atol=1e-12)


# Shrinkage


def test_shrunk_values_are_closer_to_the_truth_than_means() -> None:
    policy = table()
    rollouts = trees(policy, uniform(rate=0.5), 1_500, 11, roots=6, children=1, max_depth=1, forks=1)
    tree = draw_tree(rollouts)
    known = torch.ones(rollouts.n_episodes, dtype=torch.bool)
    values = back_up(tree, rollouts.column("episode:reward/outcome"), known)
    shrunk = shrunk_values(tree, values, variances(tree, values))
    truth = torch.tensor([true_value(policy, state) for state in states_of_forks(rollouts)], dtype=torch.float64)
    inner = slice(rollouts.n_groups, None)
    plain_error = float((values.fork[inner] - truth).square().mean())
    assert float((shrunk[inner] - truth).square().mean()) < 0.8 * plain_error


def states_of_forks(rollouts: Rollouts) -> list[tuple[int, ...]]:
    """Prefixes of the forks that are no prompts, in the order of the tree's."""
    branches = branches_of(rollouts)
    rows = rollouts.ids.reshape(-1, DEPTH).tolist()
    forks = sorted({(int(p), int(f)) for p, f in zip(branches.parent, branches.fork, strict=True) if p >= 0})
    return [tuple(rows[parent][:place]) for parent, place in forks]


def true_value(policy: TabularPolicy, prefix: tuple[int, ...]) -> float:
    logits = policy.logits.detach()
    above = log_probability(policy, logits, prefix)
    below = [leaf for leaf in LEAVES if leaf[: len(prefix)] == prefix]
    return sum(float((log_probability(policy, logits, leaf) - above).exp()) * REWARD[leaf] for leaf in below)


def test_shrinkage_lowers_the_variance_of_the_gradient_where_forks_have_two_draws() -> None:
    policy = table()
    rollouts = trees(policy, uniform(rate=0.5), 3_000, 12, roots=6, children=1, max_depth=1, forks=1)
    spread = {m: float(weighted_scores(policy, METHODS[m](), rollouts).var(0).sum()) for m in ("tree", "tree_shrunk")}
    assert spread["tree_shrunk"] < spread["tree"]


def test_a_single_group_has_no_others_to_estimate_from_and_is_not_shrunk() -> None:
    rollouts = trees(table(), uniform(rate=0.5), 1, 13)
    assert torch.equal(METHODS["tree_shrunk"]()(rollouts).advantages, METHODS["tree"]()(rollouts).advantages)


# Monte-Carlo values


def test_vine_trains_the_responses_from_the_prompt_alone() -> None:
    rollouts = trees(table(), uniform(rate=0.5), 5, 14, max_depth=1)
    credit = METHODS["vine"]()(rollouts)
    extra = (branches_of(rollouts).parent >= 0)[rollouts.response_of_token]
    assert bool(extra.any())
    assert not credit.trained[extra].any()
    assert not credit.counted[extra].any()
    assert torch.equal(credit.trained[~extra], rollouts.trained[~extra])


def test_the_expected_gradient_of_vine_is_exact() -> None:
    policy = table()
    rollouts = trees(policy, uniform(rate=0.5), 6_000, 15, max_depth=1)
    unweighted = rollouts.with_column("weight", torch.ones_like(rollouts.weight))
    found = weighted_scores(policy, METHODS["vine"](), unweighted)
    assert float(deviations(found, exact_gradient(policy)).abs().max()) < 4


# Draws without a verdict


def tiny() -> Rollouts:
    """A root of three tokens, another, a branch at 1 and a branch of that at 2."""
    rows = Rollouts.from_lists(
        [[0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 1]],
        groups=[0] * 4,
        rewards=[1.0, 0.0, 0.0, 1.0],
        trained=[[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 0, 1]],
        prompts=[[0]] * 4,
    )
    branched = torch.tensor([False, False, True, True])
    return (
        rows.with_column("response:branch", torch.arange(4))
        .with_column("response:parent", torch.tensor([0, 0, 0, 2]), branched)
        .with_column("response:fork", torch.tensor([0, 0, 1, 2]), branched)
        .with_column("response:looks", [None, None, "prefix", "prefix"])
    )


def test_a_tree_by_hand() -> None:
    credit = METHODS["tree"]()(tiny())
    # Draws: row 0 up to its fork is worth (1 + 1/2) / 2, and what is left of it 1; row 2 up to its fork 1/2.
    expected = [0.75, 0.5, 0.5, -0.75, -0.75, -0.75, 0, -0.5, -1.0, 0, 0, 1.0]
    assert credit.advantages.tolist() == pytest.approx(expected)


def test_branches_keep_their_place_when_the_response_they_branched_from_has_no_verdict() -> None:
    values, scored = torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.tensor([False, True, True, True])
    rollouts = tiny().with_reward("outcome", values.double(), scored)
    credit = METHODS["tree"]()(rollouts, unscored="drop")
    assert not credit.trained[:3].any()
    # The fork at 1 has one draw left, worth 1/2, whose baseline is row 1's outcome; row 1's is row 0's value, 1/2.
    assert credit.advantages.tolist() == pytest.approx([0, 0, 0, -0.5, -0.5, -0.5, 0, 0.5, -1.0, 0, 0, 1.0])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("parent", [0, 0, 7, 2], "which is not there"),
        ("parent", [0, 0, 3, 2], "is its own ancestor"),
        ("fork", [0, 0, 3, 2], "expected a fork before the end"),
        ("branch", [0, 1, 1, 3], "the same response:branch"),
        ("parent", [0, 0, 1, 2], "does not begin with the tokens of its parent"),
        ("fork", [0, 0, 0, 2], "trains tokens|forks where|does not begin"),
    ],
)
def test_trees_that_are_none_are_refused(column: str, values: list[int], message: str) -> None:
    rollouts = tiny()
    branched = torch.tensor([False, False, True, True])
    present = None if column == "branch" else branched
    if column == "fork" and values[2] == 0:
        rollouts = rollouts.with_column("trained", torch.ones(12, dtype=torch.bool))
    with pytest.raises(InputError, match=message):
        METHODS["tree"]()(rollouts.with_column(f"response:{column}", torch.tensor(values), present))


def test_trees_that_do_not_say_what_their_rule_looked_at_are_refused() -> None:
    bare = tiny()
    columns = {name: c for name, c in bare.columns.items() if name != "response:looks"}
    with pytest.raises(InputError, match="no column response:looks"):
        METHODS["tree"]()(replace(bare, columns=columns))


def test_settings_that_cannot_be_are_refused() -> None:
    refused: list[tuple[Callable[..., Stage], dict[str, object]]] = [
        (METHODS["tree"], {"backup": "mean"}),
        (METHODS["tree"], {"baseline": "none"}),
        (METHODS["tree_td"], {"outcome": -1.0}),
        (METHODS["tree_shrunk"], {"backup": "leaves"}),
    ]
    for method, arguments in refused:
        with pytest.raises(InputError, match="expected"):
            method(**arguments)


@pytest.mark.parametrize("aggregate", ["seq_mean_token_sum", "seq_mean_token_mean", "seq_mean_token_sum_norm"])
@pytest.mark.parametrize("weigh", [True, False])
def test_aggregations_over_sequences_are_refused(aggregate: str, weigh: bool) -> None:
    rollouts = trees(table(), uniform(rate=0.5), 2, 3)
    if not weigh:
        rollouts = rollouts.with_column("weight", torch.ones_like(rollouts.weight))
    credit = METHODS["tree"]()(rollouts)
    now = {"log_probs": rollouts.column("log_probs/behaviour").clone()}
    with pytest.raises(InputError, match="branches that share a prefix"):
        objectives.reinforce(aggregate=aggregate)(now, rollouts, credit)


def test_the_token_mean_divides_by_the_weights_that_count() -> None:
    rollouts = trees(table(), uniform(rate=0.5), 2, 3)
    credit = METHODS["tree"]()(rollouts)
    log_probs = rollouts.column("log_probs/behaviour")
    loss = objectives.reinforce()({"log_probs": log_probs}, rollouts, credit)
    own = rollouts.trained
    expected = -(rollouts.weight * credit.advantages * log_probs)[own].sum() / rollouts.weight[own].sum()
    assert float(loss.value) == pytest.approx(float(expected))


def test_trees_can_be_joined_with_flat_groups() -> None:
    flat = with_outcome(Rollouts.from_lists([[0, 0, 0], [1, 1, 1]], groups=[5, 5], prompts=[[0]] * 2))
    both = join([trees(table(), uniform(rate=0.5), 2, 3), flat])
    assert METHODS["tree"]()(both).advantages[-6:].tolist() == pytest.approx([0.9, 0.9, 0.9, -0.9, -0.9, -0.9])


def test_vine_refuses_places_chosen_by_what_follows_them() -> None:
    with pytest.raises(InputError, match="branch where a rule looked ahead"):
        METHODS["vine"]()(forest("most uncertain token", 20, 1))
