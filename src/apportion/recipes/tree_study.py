"""Does better credit need fewer rollouts? The study of trees: what is looked at, and what is confirmed.

Three tasks are looked at, with AdamW and with SGD. What seems to help there is run again on fresh seeds, and on a task
that was not looked at before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from apportion.recipes.trees import RECIPES_OF_TREES
from apportion.studies.arms import Arm
from apportion.studies.plan import Study

LOOKED_AT = ("late_noise", "early_choice", "spelling")
UNSEEN = ("middle_choice",)
TOKENS_A_STEP = {"late_noise": 768, "early_choice": 512, "spelling": 350, "middle_choice": 512}
"""What flat samples of these tasks take, about: a study's budget is so many times its steps."""

FORKED = "branching(rule='high_entropy(threshold=0.3)', roots=10, budget=1000)"
"""Ten responses from a prompt, each forked once where the policy is uncertain: about as many tokens as sixteen flat."""

FIRST, TWICE = "grpo", "grpo, twice the rate"
SGD = ", sgd"
"""What the name of an arm under SGD ends with."""

SGD_RATE = 0.03
"""Learning rate of SGD, before tuning; at 0.1 some runs collapse."""

CREDITS: dict[str, dict[str, Any]] = {
    FIRST: {"credit": "grpo"},
    "tempo": {"credit": "tempo"},
    "td, flat": {"credit": "tree_td"},
    "tree": {"credit": "tree", "sampling": FORKED},
    "tree_td": {"credit": "tree_td", "sampling": FORKED},
    "tree_shrunk": {"credit": "tree_shrunk", "sampling": FORKED},
    "tree, leaves": {"credit": "tree(backup='leaves')", "sampling": FORKED},
}
UNDER_SGD = (FIRST, "tempo", "tree")
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
FRESH = 50_000
"""From the seeds that are looked at to those that confirm."""

MEASURE = "on_the_way"
ENDS = ("value", "low", "high")


def _arms() -> tuple[Arm, ...]:
    by_sgd = {"optimizer": "sgd", "learning_rate": SGD_RATE}
    arms = [Arm(name, changes) for name, changes in CREDITS.items()]
    arms += [Arm(name + SGD, CREDITS[name] | by_sgd) for name in UNDER_SGD]
    arms.insert(1, Arm(TWICE, CREDITS[FIRST], rate_of=FIRST, factor=2.0))
    again = Arm(TWICE + SGD, {**CREDITS[FIRST], "optimizer": "sgd"}, rate_of=FIRST + SGD, factor=2.0)
    arms.insert([arm.name for arm in arms].index(FIRST + SGD) + 1, again)
    return tuple(arms)


ARMS = _arms()


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        steps: of flat sampling; trees may take more, for the same tokens.
        seeds: runs an arm for each warm start.
        warm_starts: each its own sample of where learning may begin.
        confirming: warm starts of the studies that confirm.
        tuning_seeds: runs a learning rate.
        signal: batches a warm start on which gradients are measured.
        seed: the first.
    """

    steps: int = 15
    seeds: int = 1
    warm_starts: int = 8
    confirming: int = 12
    tuning_seeds: int = 3
    signal: int = 8
    seed: int = 1000


def controls(arm: str) -> tuple[str, str]:
    """The arms that one must be above: GRPO, and GRPO at twice the rate, under the same optimizer.

    Example:
        >>> controls("tree, sgd")
        ('grpo, sgd', 'grpo, twice the rate, sgd')
    """
    end = SGD if arm.endswith(SGD) else ""
    return FIRST + end, TWICE + end


def is_control(arm: str) -> bool:
    """Whether an arm is one that others are compared with."""
    return arm in controls(arm)


def looked_at(size: Size) -> dict[str, Study]:
    """The studies that look, by task."""
    return {task: _study(task, ARMS, size) for task in LOOKED_AT}


def on_trees(arm: str) -> bool:
    """Whether an arm samples trees.

    Example:
        >>> [on_trees(arm) for arm in ("tree, sgd", "tree_shrunk", "tempo")]
        [True, True, False]
    """
    return "sampling" in CREDITS.get(arm.removesuffix(SGD), {})


@dataclass(frozen=True)
class Condition:
    """An arm in a task, to be tried on fresh seeds.

    Attributes:
        task: where it was looked at.
        arm: which.
        helped: it was above both controls there; otherwise it only came nearest.
    """

    task: str
    arm: str
    helped: bool


def promising(found: Mapping[str, Mapping[str, Any]]) -> list[Condition]:
    """What to confirm.

    An arm helps where its mean accuracy over the budget is above that of GRPO and above that of GRPO at twice the rate,
    both intervals without 0. Where none does, the arm and task whose smaller lower end is highest is taken, and the
    same of the arms on trees, so that something is confirmed or refuted in any case, of trees too.

    Args:
        found: reports of the studies that looked, by task.

    Returns:
        those that help, then those that came nearest, each once.
    """
    ends = {
        (task, arm["name"]): min(difference(report, arm["name"], c)["low"] for c in controls(arm["name"]))
        for task, report in found.items()
        for arm in report["arms"]
        if not is_control(arm["name"])
    }
    trees = [pair for pair in ends if on_trees(pair[1])]
    wanted = {pair: True for pair, low in ends.items() if low > 0}
    for pairs in (list(ends), trees):
        if not any(pair in wanted for pair in pairs):
            wanted[max(pairs, key=ends.__getitem__)] = False
    return [Condition(*pair, helped) for pair, helped in wanted.items()]


def difference(report: Mapping[str, Any], arm: str, against: str, measure: str = MEASURE) -> dict[str, float]:
    """The difference of two arms' accuracies, with its interval, whichever way the report has it."""
    for line in report["differences"]:
        if {line["arm"], line["against"]} == {arm, against}:
            value, low, high = (line["sampled"][measure][name] for name in ENDS)
            ends = (value, low, high) if line["arm"] == arm else (-value, -high, -low)
            return dict(zip(ENDS, ends, strict=True))
    raise KeyError(f"{arm} against {against}")


def confirming(conditions: Sequence[Condition], size: Size) -> dict[str, Study]:
    """The studies that confirm, by task: those in question on fresh seeds, and the unseen ones.

    Args:
        conditions: what to confirm.
        size: of the studies that looked.
    """
    fresh = replace(size, seed=size.seed + FRESH, warm_starts=size.confirming, signal=0)
    every = {condition.arm for condition in conditions}
    wanted = {task: {c.arm for c in conditions if c.task == task} for task in LOOKED_AT} | dict.fromkeys(UNSEEN, every)
    return {
        task: _study(task, tuple(a for a in ARMS if a.name in names | {c for n in names for c in controls(n)}), fresh)
        for task, names in wanted.items()
        if names
    }


def _study(task: str, arms: tuple[Arm, ...], size: Size) -> Study:
    base = replace(
        RECIPES_OF_TREES[task](),
        max_grad_norm=0.0,  # clipping would take from a longer gradient what SGD is meant to show
        seed=size.seed,
        steps=3 * size.steps,
        token_budget=size.steps * TOKENS_A_STEP[task],
        eval_every=max(size.steps // 3, 1),
        eval_prompts=160,
        save_every=3 * size.steps,
    )
    return Study(
        base,
        arms,
        seeds=size.seeds,
        warm_starts=size.warm_starts,
        tune=FACTORS,
        tuning_seeds=size.tuning_seeds,
        signal=size.signal,
    )
