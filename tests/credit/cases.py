"""The table of the common suite: what it must know of every method. A new method joins by adding its rows here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from apportion.credit import METHODS, Clock, Credit, Stage
from apportion.rollouts import Rollouts
from credit import columns, constraints, latents, outcomes, several, structure, verdicts
from credit.worlds import Flat
from reference import outcome, prefixes


def unchanged(rollouts: Rollouts) -> Rollouts:
    """No further columns."""
    return rollouts


@dataclass(frozen=True)
class Case:
    """A method with arguments, and the laws it promises.

    Attributes:
        method: name in ``METHODS``.
        arguments: what it is made with.
        prepare: adds the columns it needs besides the episode reward ``outcome``. It must be a function of token ids,
            steps and rewards alone: the suite shuffles, pads, and stores turns as responses or as spans.
        reference: the naive loop; advantages of every token.
        shift: adding a constant to all rewards changes nothing.
        scale: multiplying all rewards by c > 0 multiplies advantages by c to this power; None: no such law.
        zero_when_equal: a group whose rewards are equal gets no credit.
        zero_sum: one number an episode, and the numbers of a group sum to 0.
        by_group: the credit of a group does not depend on other groups.
        totals: only the episode's total matters, at whichever level its rewards live.
        filters: it trains or counts fewer tokens than the rollouts.
    """

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Rollouts], Rollouts] = unchanged
    reference: Callable[[Flat], list[list[float]]] | None = None
    shift: bool = True
    scale: int | None = None
    zero_when_equal: bool = True
    zero_sum: bool = False
    by_group: bool = True
    totals: bool = True
    filters: bool = False

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.method}({arguments})"

    @property
    def stage(self) -> Stage:
        """The method."""
        return METHODS[self.method](**self.arguments)

    def run(self, prepared: Rollouts, state: Any = None, unscored: str = "error") -> Credit:
        """The method's credit."""
        clock = Clock(3, 10) if self.stage.reads_clock else None
        return self.stage(prepared, state, clock, unscored)

    def credit(self, rollouts: Rollouts) -> Credit:
        """The method's credit of rollouts that lack what ``prepare`` adds."""
        return self.run(self.prepare(rollouts))


def with_log_probs(rollouts: Rollouts) -> Rollouts:
    """Log-probs of the policy and of a reference, by token id."""
    ids = rollouts.ids.double()
    with_old = rollouts.with_statistic("log_probs/old", -0.5 - ids / 4, "trainer")
    return with_old.with_statistic("log_probs/reference", -0.25 - ids, "trainer")


def nothing(world: Flat) -> list[list[float]]:
    """What ``none`` gives."""
    return [[0.0] * len(row) for row in world.ids]


def grpo(norm_by_std: bool, eps: float) -> Callable[[Flat], list[list[float]]]:
    """The naive loop with these settings."""
    return lambda world: outcome.on_tokens(
        outcome.grpo(world.rewards, world.groups, norm_by_std=norm_by_std, eps=eps), world.trained
    )


def rloo(world: Flat) -> list[list[float]]:
    """The naive loop."""
    return outcome.on_tokens(outcome.rloo(world.rewards, world.groups), world.trained)


def tempo(norm_by_std: bool, eps: float) -> Callable[[Flat], list[list[float]]]:
    """The naive loop with these settings."""
    return lambda world: prefixes.tempo(
        world.ids, world.rewards, world.groups, world.trained, norm_by_std=norm_by_std, eps=eps
    )


def cad_rl(max_length: int, in_baseline: bool) -> Callable[[Flat], list[list[float]]]:
    """GRPO of the attempts shorter than the limit, or of all; the others get nothing."""

    def advantages(world: Flat) -> list[list[float]]:
        short = [sum(mask) < max_length for mask in world.trained]
        members = [True] * len(short) if in_baseline else short
        given = [(r, g) for r, g, member in zip(world.rewards, world.groups, members, strict=True) if member]
        of_members = iter(outcome.grpo([r for r, _ in given], [g for _, g in given], norm_by_std=True, eps=1e-6))
        every = [next(of_members) if member else 0.0 for member in members]
        return outcome.on_tokens([a if s else 0.0 for a, s in zip(every, short, strict=True)], world.trained)

    return advantages


def token_dpo(world: Flat) -> list[list[float]]:
    """A tenth of the log-ratios that :func:`with_log_probs` makes."""
    return [
        [0.1 * (-0.25 + 0.75 * token) if trained else 0.0 for token, trained in zip(*row, strict=True)]
        for row in zip(world.ids, world.trained, strict=True)
    ]


AT_END: dict[str, Any] = {"shift": False, "zero_when_equal": False}
"""A reward is not compared token by token with what others earned."""
TO_GO: dict[str, Any] = {**AT_END, "totals": False}
"""Where in the episode a reward stands matters besides."""

JUDGED: dict[str, Any] = {"shift": False, "zero_when_equal": False}
"""Outcomes are 0 or 1, or lie between, and what a judge says counts besides."""

CASES = (
    Case("none", reference=nothing),
    Case("none", {"component": "outcome"}, reference=nothing),
    Case("grpo", reference=grpo(True, 1e-6), zero_sum=True),
    Case("grpo", {"eps": 0.0}, reference=grpo(True, 0.0), scale=0, zero_sum=True),
    Case("grpo", {"norm_by_std": False}, reference=grpo(False, 0.0), scale=1, zero_sum=True),
    Case("dr_grpo", reference=grpo(False, 0.0), scale=1, zero_sum=True),
    Case("rloo", reference=rloo, scale=1, zero_sum=True),
    Case("dapo", reference=grpo(True, 1e-6), zero_sum=True, filters=True),
    Case(
        "dapo",
        {"max_length": 3, "buffer": 2, "factor": 0.5, "mask_overlong": True},
        reference=outcomes.dapo(3, 2, 0.5),
        filters=True,
    ),
    Case("loop", reference=outcomes.loop(), zero_sum=True, filters=True),
    Case("loop", {"min_abs_advantage": 0.0}, reference=outcomes.loop(least=0.0), scale=1, zero_sum=True),
    Case(
        "loop",
        {"baseline": "leave_none_out", "normalize": True, "min_abs_advantage": 0.7},
        reference=outcomes.loop("leave_none_out", normalize=True, least=0.7),
        filters=True,
    ),
    Case("cad_rl", {"max_length": 3}, reference=cad_rl(3, in_baseline=False), filters=True),
    Case("cad_rl", {"max_length": 3, "in_baseline": True}, reference=cad_rl(3, in_baseline=True), filters=True),
    Case("nsr", {"component": "verdict"}, outcomes.with_verdicts, outcomes.nsr("nsr")),
    Case("nsr", {"mode": "psr", "component": "verdict"}, outcomes.with_verdicts, outcomes.nsr("psr")),
    Case(
        "nsr",
        {"mode": "weighted", "positive_weight": 0.25, "component": "verdict"},
        outcomes.with_verdicts,
        outcomes.nsr("weighted", 0.25),
    ),
    Case("reinforce_pp", {"gamma": 0.5, "whiten": False}, reference=outcomes.reinforce_pp(0.5), scale=1, **TO_GO),
    Case(
        "reinforce_pp",
        {"whiten": False, "kl_coefficient": 0.1},
        with_log_probs,
        outcomes.reinforce_pp(1.0, kl_coefficient=0.1),
        **TO_GO,
    ),
    Case("reinforce_pp_baseline", {"whiten": False}, reference=grpo(False, 0.0), scale=1, zero_sum=True),
    Case("tempo", reference=tempo(True, 1e-6)),
    Case("tempo", {"eps": 0.0}, reference=tempo(True, 0.0), scale=0),
    Case("tempo", {"norm_by_std": False}, reference=tempo(False, 0.0), scale=1),
    Case("token_dpo", prepare=with_log_probs, reference=token_dpo),
    Case("gae", {"gamma": 0.5, "lam": 0.25, "whiten": False}, columns.with_values, columns.gae(0.5, 0.25), **TO_GO),
    Case(
        "gae",
        {"whiten": False, "kl_coefficient": 0.1},
        lambda r: columns.with_values(with_log_probs(r)),
        columns.gae(1.0, 1.0, kl_coefficient=0.1),
        **TO_GO,
    ),
    Case("pure", {"whiten": False}, columns.with_scores, columns.pure(), by_group=False, **AT_END),
    Case(
        "pure",
        {"transform": "strict_min", "baseline": "tokens", "vr_coef": 0.5, "zero_step_ends": True, "whiten": False},
        columns.with_scores,
        columns.pure(transform="strict_min", baseline="tokens", vr_coef=0.5, zero_step_ends=True),
        zero_when_equal=False,
        filters=True,
    ),
    Case(
        "pure",
        {"transform": "sum", "baseline": "steps", "kl_coef": 0.1, "kl_estimator": "k1", "whiten": False},
        lambda r: columns.with_scores(with_log_probs(r)),
        columns.pure(transform="sum", baseline="steps", kl_coef=0.1),
        zero_when_equal=False,
    ),
    Case(
        "gigpo",
        {"component": "outcome", "mode": "mean_std_norm", "eps": 0.0, "step_weight": 0.5},
        columns.with_states,
        columns.gigpo("mean_std_norm", 0.0, 0.5),
        scale=0,
        zero_sum=True,
        totals=False,
    ),
    Case("gigpo", {"episode_stats": "step", "per": "token"}, columns.with_states),
    Case(
        "oprl",
        {"norm": "none"},
        columns.with_prm,
        columns.oprl(beta=0.05, alpha=1.0, estimator="rloo", norm="none", step_baseline="all_rows", eps=0.0),
        zero_when_equal=False,
        zero_sum=True,
    ),
    Case(
        "oprl",
        {"beta": 0.5, "alpha": 0.25, "estimator": "grpo_std", "step_baseline": "first_row"},
        columns.with_prm,
        columns.oprl(beta=0.5, alpha=0.25, estimator="grpo_std", norm="batch_max", step_baseline="first_row", eps=1e-6),
        zero_when_equal=False,
        by_group=False,
    ),
    Case("capo", {}, verdicts.with_critiques, verdicts.capo("intersection"), **JUDGED),
    Case(
        "capo",
        {"vote": "majority", "w_process": 0.5},
        verdicts.with_critiques,
        verdicts.capo("majority", 0.5),
        **JUDGED,
    ),
    Case("capo", {"vote": "average", "ddof": 1}, verdicts.with_critiques, verdicts.capo("average", ddof=1), **JUDGED),
    Case("capo", {"vote": "union"}, verdicts.with_critiques, verdicts.capo("union"), **JUDGED),
    Case(
        "capo",
        {"vote": "greedy"},
        verdicts.with_single_critiques,
        verdicts.capo("greedy", critics=slice(1, 2)),
        **JUDGED,
    ),
    Case("tp_grpo", {}, verdicts.with_labels, verdicts.tp_grpo(1.0), **JUDGED),
    Case("tp_grpo", {"alpha": 0.5, "r_incorrect": 0.0}, verdicts.with_labels, verdicts.tp_grpo(0.5, 0.0), **JUDGED),
    Case("trust_grpo", {}, verdicts.with_thinking, verdicts.trust_grpo(0.3), zero_sum=True, **JUDGED),
    Case(
        "trust_grpo",
        {"alpha": 1.0, "total_steps": 6, "variant": "code"},
        verdicts.with_thinking,
        verdicts.trust_grpo(1.0, 6, code=True),
        zero_sum=True,
        **JUDGED,
    ),
    Case("attention_rhythm", {}, columns.with_attention, columns.attention_rhythm(grpo(True, 1e-6), rhythm="coupled")),
    Case(
        "attention_rhythm",
        {"rhythm": "global", "scale_sign": "positive", "base": "rloo"},
        columns.with_attention,
        columns.attention_rhythm(rloo, "positive", rhythm="global"),
        scale=1,
    ),
    Case("hicra", {}, structure.with_planning, structure.hicra(grpo(False, 0.0), 0.2), scale=1),
    Case("hicra", {"alpha": 0.5, "base": "rloo"}, structure.with_planning, structure.hicra(rloo, 0.5), scale=1),
    Case(
        "ma_rlhf",
        {"lam": 0.25, "gamma": 0.5, "kl_coefficient": 0.0},
        structure.with_macros,
        structure.ma_rlhf(lam=0.25, gamma=0.5, reward_reduce="sum"),
        **TO_GO,
    ),
    Case(
        "ma_rlhf",
        {"value_function": "position", "reward_reduce": "mean", "score_clamp": 1.0, "kl_coefficient": 0.1},
        lambda r: structure.with_macros(with_log_probs(r)),
        structure.ma_rlhf(0.1, 1.0, gamma=1.0, lam=0.95, reward_reduce="mean", value_function="position"),
        **TO_GO,
    ),
    Case(
        "calm",
        {"component": "outcome", "gamma": 0.5, "bonus": 0.25},
        several.with_subgoals,
        several.calm(gamma=0.5, bonus=0.25, once=True, ordered=False),
        zero_when_equal=False,
        zero_sum=True,
        totals=False,
    ),
    Case(
        "calm",
        {"component": "outcome", "once": False, "ordered": True, "potential": True},
        several.with_subgoals,
        several.calm(gamma=0.99, bonus=0.1, once=False, ordered=True, potential=True),
        scale=1,
        zero_sum=True,
        totals=False,
    ),
    Case(
        "calm",
        {"component": "outcome", "bonus": 0.0, "gamma": 1.0, "place": "state"},
        lambda r: columns.with_states(several.with_subgoals(r)),
        shift=False,
        scale=1,
        zero_when_equal=False,
        totals=False,
    ),
    Case(
        "sotopia_rl",
        {"dimensions": ("outcome",), "method": "uniform", "eps": 0.0},
        reference=several.sotopia_rl("uniform", 0.0),
        scale=0,
        zero_sum=True,
        by_group=False,
    ),
    Case(
        "sotopia_rl",
        {"dimensions": ("outcome",)},
        several.with_attributions,
        several.sotopia_rl("direct", 1e-4),
        shift=False,
        zero_when_equal=False,
        by_group=False,
    ),
    Case(
        "edu_align",
        {"components": ("outcome", "style"), "weights": (3, 1), "low": -100, "high": 100},
        several.with_style,
        several.edu_align((3, 1), 100, False, 1e-4),
        zero_when_equal=False,
        zero_sum=True,
    ),
    Case(
        "edu_align",
        {"components": ("outcome",), "scale_within_group": True, "low": -1e3, "high": 1e3, "eps": 0.0},
        reference=several.edu_align((1,), 1e3, True, 0.0),
        scale=0,
        zero_when_equal=False,
        zero_sum=True,
    ),
    Case(
        "constrained_rlhf",
        {"components": ("outcome", "style"), "thresholds": (0.5, 0.25), "start": 0.25, "whiten": False},
        constraints.with_critics,
        constraints.naive(0.99, 0.95, 0.2, 0.25, "lower_bound"),
        by_group=False,
        **TO_GO,
    ),
    Case(
        "constrained_rlhf",
        {
            "components": ("outcome", "style"),
            "thresholds": (0.5, 0.25),
            "constraint": "upper_bound",
            "gamma": 1.0,
            "lam": 0.5,
            "start": -0.5,
            "whiten": False,
        },
        constraints.with_critics,
        constraints.naive(1.0, 0.5, 0.2, -0.5, "upper_bound"),
        by_group=False,
        **TO_GO,
    ),
    Case("lare", {"component": "prm"}, columns.with_scores, latents.lare()),
    Case("lare", {"component": "prm", "gamma": 0.5}, columns.with_scores, latents.lare(0.5)),
    Case("tree", reference=rloo, scale=1, zero_sum=True),
    Case("tree", {"backup": "leaves", "baseline": "all"}, reference=grpo(False, 0.0), scale=1, zero_sum=True),
    Case("tree_td", scale=1),
    Case("tree_td", {"outcome": 1.0, "norm_by_std": True}, reference=tempo(True, 1e-6)),
    Case("tree_shrunk", reference=rloo, scale=1, zero_sum=True, by_group=False),
    Case("vine", reference=rloo, scale=1, zero_sum=True, filters=True),
)


def close(given: torch.Tensor, expected: torch.Tensor, atol: float = 1e-9) -> None:
    """Equal shape and dtype, and numbers within ``atol``."""
    torch.testing.assert_close(given, expected, rtol=0, atol=atol)
