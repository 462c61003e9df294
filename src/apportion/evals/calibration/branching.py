"""Every fork rule with every backup, drawn by the branching sampler itself, against enumeration.

The world: three tokens out of two, graded rewards, a fixed policy that is neither uniform nor finished. What a rule
reads is real (the policy's entropies, its exact values in place of a head's, texts of tokens, outcomes).

Suffix legend: G groups, S states of the table, V vocabulary, L leaves.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.credit import METHODS
from apportion.credit.trees import BACKUPS, back_up, draw_tree
from apportion.evals.calibration.measure import Interval, crossed, mean_interval
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts, branches_of
from apportion.sampling import SamplingSettings, ScriptedEngine
from apportion.sampling.branching import Limits, sample_branching
from apportion.sampling.fork_rules import TEXT, ForkRule, build_rule

VOCABULARY, DEPTH = 2, 3
REWARDS = (1.0, 0.0, 0.2, 0.9, 0.0, 0.3, 1.0, 0.1)
"""Of the leaves, in order of their tokens."""

TEXTS = ("so\n", "then")
"""Of the two tokens; the first ends a step."""

LIMITS = Limits(budget=100, roots=2, children=2, forks=None, max_depth=2)


def before_the_last_of_wrong() -> ForkRule:
    """Fork wrong responses before their last token: a rule that looks at outcomes."""

    def choose(rollouts: Rollouts) -> Tensor:
        wrong = rollouts.column("episode:reward/outcome") < 0.5
        marked = torch.zeros_like(rollouts.trained)
        marked[rollouts.token_offsets[1:][wrong] - 1] = True
        return marked

    return ForkRule(choose, "ahead", ("reward/outcome",))


RULES: dict[str, Callable[[], ForkRule]] = {
    spec: (lambda spec=spec: build_rule(spec))
    for spec in (
        "uniform(rate=0.4)",
        "high_entropy(threshold=0.6)",
        "uncertain_value(threshold=0.15)",
        "step_boundary",
        "highest_entropy",
        "cure(top_k=2)",
    )
} | {"outcome: before the last token of wrong responses": before_the_last_of_wrong}
"""Every registered rule with settings that leave this world something to choose, and one that looks at outcomes."""


@dataclass(frozen=True)
class Branched:
    """A fork rule with a backup.

    Attributes:
        rule: its spec.
        looks: what it declares, ``prefix`` or ``ahead``.
        backup: how outcomes become values.
        prescribed: whether that is the backup for what the rule looks at.
        value: bias of the prompt's value, in rewards.
        gradient: length of the bias of the gradient by leave-one-out siblings, as a share of the exact one's.
        from_prompt: the same of the responses drawn from the prompt alone, for a rule that looks ahead: what it forks
            are states of its choice, so the draws there are no sample of where the policy goes.
    """

    rule: str
    looks: str
    backup: str
    prescribed: bool
    value: Interval
    gradient: Interval
    from_prompt: Interval | None


def branched(groups: int, seed: int, progress: Callable[[str, int, int], None] | None = None) -> list[Branched]:
    """Bias of values and gradients, for every rule and backup.

    Args:
        groups: trees drawn a rule.
        seed: of what is drawn.
        progress: told what is looked at, how many are done and how many there are.
    """
    found: list[Branched] = []
    policy = _policy()
    for done, (name, builder) in enumerate(RULES.items()):
        if progress is not None:
            progress(f"forks by {name}", done, len(RULES))
        rule = builder()
        found += _of_rule(name, rule, policy, _drawn(policy, rule, groups, seed + zlib.crc32(name.encode())))
    return found


def _of_rule(name: str, rule: ForkRule, policy: TabularPolicy, rollouts: Rollouts) -> list[Branched]:
    """One forest under every backup. What ``rule`` stands for is measured as such, not twice."""
    prescribed = {"prefix": "draws", "ahead": "fresh"}[rule.looks]
    outcome = rollouts.column("episode:reward/outcome")
    exact = exact_gradient(policy)
    rows = []
    for backup in (b for b in BACKUPS if b != "rule"):
        tree = draw_tree(rollouts, backup)
        values = back_up(tree, outcome, torch.ones_like(outcome, dtype=torch.bool), by_leaves=backup == "leaves")
        value = mean_interval(values.fork[: rollouts.n_groups] - exact_value(policy))
        whole, from_prompt = (
            crossed((gradients - exact).flatten(1) / exact.norm()) for gradients in _gradients(policy, rollouts, backup)
        )
        alone = from_prompt if rule.looks == "ahead" else None
        rows.append(Branched(name, rule.looks, backup, backup == prescribed, value, whole, alone))
    return rows


def _policy() -> TabularPolicy:
    policy = TabularPolicy(VOCABULARY, DEPTH)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(3)).double())
    return policy


def _drawn(policy: TabularPolicy, rule: ForkRule, groups: int, seed: int) -> Rollouts:
    """``groups`` trees, with outcomes."""

    def annotate(rollouts: Rollouts, names: Sequence[str]) -> Rollouts:
        result = _scored(rollouts)
        result = result.with_column(TEXT, [TEXTS[token] for token in rollouts.ids.tolist()], maker="calibration")
        values = state_values(policy)[policy.states_of(rollouts)]
        return result.with_column("values/policy", values, maker="calibration")

    drawn = sample_branching(
        ScriptedEngine(policy.next_logits),
        [[0]] * groups,
        rule,
        LIMITS,
        SamplingSettings(DEPTH),
        torch.Generator().manual_seed(seed),
        annotate,
    )
    return _scored(drawn)


def _scored(rollouts: Rollouts) -> Rollouts:
    place = torch.tensor([VOCABULARY**i for i in reversed(range(DEPTH))])
    return rollouts.with_reward(
        "outcome", torch.tensor(REWARDS).double()[(rollouts.ids.view(-1, DEPTH) * place).sum(1)]
    )


def _gradients(policy: TabularPolicy, rollouts: Rollouts, backup: str) -> tuple[Tensor, Tensor]:
    """What every group adds to the gradient ``[G, S, V]`` for a response from the prompt: the sum over tokens of

        weight x advantage x (one-hot of the token - policy at its state)

    over all of them, and over those of the responses from the prompt, which stand for themselves with weight 1.
    """
    credit = METHODS["tree"](backup=backup)(rollouts)
    states = policy.states_of(rollouts)
    group = rollouts.group_of_episode[rollouts.episode_of_token]
    score = torch.nn.functional.one_hot(rollouts.ids, VOCABULARY) - policy.logits.detach().softmax(1)[states]
    share = credit.advantages * credit.trained
    root = branches_of(rollouts).parent < 0
    roots = torch.bincount(rollouts.group_of_episode[root])
    found = []
    for weight in (rollouts.weight, root[rollouts.episode_of_token].double()):
        total = torch.zeros((rollouts.n_groups, *policy.logits.shape), dtype=torch.float64)
        total.index_put_((group, states), (share * weight)[:, None] * score, accumulate=True)
        found.append(total / roots[:, None, None])
    return found[0], found[1]


def _leaf_probabilities(policy: TabularPolicy, logits: Tensor) -> Tensor:
    """``[L]``, in order of their tokens."""
    paths = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=DEPTH)))
    prompt = torch.zeros(len(paths), dtype=torch.int64)
    steps = [
        logits[policy.state(prompt, paths[:, :t])].log_softmax(1).gather(1, paths[:, t, None]) for t in range(DEPTH)
    ]
    return torch.cat(steps, 1).sum(1).exp()


def exact_value(policy: TabularPolicy) -> float:
    """What the policy is paid on average."""
    return float(_leaf_probabilities(policy, policy.logits.detach()) @ torch.tensor(REWARDS).double())


def exact_gradient(policy: TabularPolicy) -> Tensor:
    """Of that, by the logits ``[S, V]``."""
    logits = policy.logits.detach().clone().requires_grad_()
    value = _leaf_probabilities(policy, logits) @ torch.tensor(REWARDS).double()
    return torch.autograd.grad(value, logits)[0]


def state_values(policy: TabularPolicy) -> Tensor:
    """Expected reward from every state ``[S]``."""
    result = torch.zeros(len(policy.logits), dtype=torch.float64)
    worth = torch.tensor(REWARDS).double()
    probabilities = policy.logits.detach().softmax(1)
    for depth in reversed(range(DEPTH)):
        first, count = int(policy.starts[depth]), VOCABULARY**depth
        worth = (probabilities[first : first + count] * worth.view(count, VOCABULARY)).sum(1)
        result[first : first + count] = worth
    return result
