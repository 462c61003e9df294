"""The table of the common suite: every registered objective. A new objective joins by adding its rows here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from apportion.objectives import OBJECTIVES, Objective
from apportion.rollouts import Rollouts
from objectives import decomposed
from objectives import pairs as paired
from objectives.batches import Batch, batch
from objectives.segments import in_macros, segment_clip
from reference import bellman, losses

Naive = Callable[[Batch, Mapping[str, Tensor]], float]
"""``(batch, now) -> loss``, by a loop over lists."""


def unchanged(rollouts: Rollouts) -> Rollouts:
    """No further columns."""
    return rollouts


def no_details(rollouts: Rollouts) -> Mapping[str, Tensor]:
    """No columns of the credit."""
    return {}


@dataclass(frozen=True)
class Case:
    """An objective with arguments.

    Attributes:
        objective: name in ``OBJECTIVES``.
        arguments: what it is made with.
        prepare: adds what it needs besides ``log_probs/old``, ``log_probs/reference`` and the reward ``outcome`` (0 or
            1 an episode, two groups of three with both); NaN where the rollouts do not train.
        details: columns of the credit that it needs ``[N]``, by name without ``credit/``.
        naive: its loss.
        branches: it may be used on rollouts with sampling weights.
        bootstraps: its targets are made of what it differentiates, and held fixed, so its gradient is not the slope of
            its value; the objective's own tests check it.
    """

    objective: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Rollouts], Rollouts] = unchanged
    details: Callable[[Rollouts], Mapping[str, Tensor]] = no_details
    naive: Naive | None = None
    branches: bool = True
    bootstraps: bool = False

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.objective}({arguments})"

    @property
    def made(self) -> Objective:
        """The objective."""
        return OBJECTIVES[self.objective](**self.arguments)

    @property
    def moved(self) -> tuple[str, ...]:
        """The statistics it has a gradient to."""
        return self.made.now

    def batch(self, seed: int, weighted: bool = False) -> Batch:
        """Something to evaluate it on."""
        return batch(seed, weighted, self.prepare, self.details)


def of_tokens(
    term: Callable[..., float], columns: tuple[str, ...], aggregate: str = "token_mean", origin: str | None = None
) -> Naive:
    """A sum of terms that read ``now/<statistic>`` and columns of their own token, perhaps of one origin only."""

    def naive(given: Batch, now: Mapping[str, Tensor]) -> float:
        if origin is not None:
            inside = torch.tensor([found == origin for found in given.rollouts.origin])
            episodes = inside[given.rollouts.response_offsets[:-1]]
            tokens = given.rollouts.indices(episodes)["token"]
            given, now = given.select(episodes), {name: values[tokens] for name, values in now.items()}
        tables = [given.rows(given.read(name, now)) for name in columns]
        trained, counted, weight = (
            given.rows(values) for values in (given.credit.trained, given.credit.counted, given.rollouts.weight)
        )
        terms = [
            [term(*(table[i][t] for table in tables)) if train else float("nan") for t, train in enumerate(row)]
            for i, row in enumerate(trained)
        ]
        return losses.aggregate(terms, trained, counted, aggregate, weight=weight)

    return naive


def clip(aggregate: str = "token_mean", origin: str | None = None, **bounds: Any) -> Naive:
    """The clipped surrogate."""
    return of_tokens(
        lambda new, old, advantage: losses.clip_term(new, old, advantage, **bounds),
        ("now/log_probs", "log_probs/old", "credit/advantages"),
        aggregate,
        origin,
    )


def kl(coefficient: float, estimator: str) -> Naive:
    """The penalty on divergence."""
    return of_tokens(
        lambda new, reference: coefficient * losses.kl_term(new, reference, estimator),
        ("now/log_probs", "log_probs/reference"),
    )


def forward_kl(coefficient: float, origin: str | None = None) -> Naive:
    """KL from the reference, estimated on its own tokens."""
    return of_tokens(
        lambda new, reference: coefficient * losses.kl_term(reference, new, "k3"),
        ("now/log_probs", "log_probs/reference"),
        origin=origin,
    )


def some_stored(rollouts: Rollouts) -> Rollouts:
    """Every third episode is a stored one."""
    origin = ["stored" if e % 3 == 0 else "policy" for e in rollouts.episode_of_response.tolist()]
    return rollouts.with_column("response:origin", origin)


def with_values(rollouts: Rollouts) -> Rollouts:
    """A critic's values before the update, NaN where not trained."""
    values = torch.linspace(-1, 1, rollouts.n_tokens, dtype=torch.float64)
    return rollouts.with_statistic("values/critic", torch.where(rollouts.trained, values, torch.nan), "critic")


def returns(rollouts: Rollouts) -> Mapping[str, Tensor]:
    """What a critic regresses."""
    return {"returns": torch.linspace(1, 0, rollouts.n_tokens, dtype=torch.float64)}


def value_term(value: float, before: float, target: float) -> float:
    """The clipped value loss of one token, with a clip of 0.5."""
    clipped = losses.bounded(value, before - 0.5, before + 0.5)
    return max((value - target) ** 2, (clipped - target) ** 2) / 2


def with_vocab_mean(rollouts: Rollouts) -> Rollouts:
    """Mean log-probs over the vocabulary before the update, NaN where not trained."""
    values = torch.linspace(-3, -2, rollouts.n_tokens, dtype=torch.float64)
    return rollouts.with_statistic("vocab_mean/old", torch.where(rollouts.trained, values, torch.nan), "trainer")


def with_pairs(rollouts: Rollouts) -> Rollouts:
    """Right episodes preferred to wrong ones of their group."""
    return rollouts.with_pairs(torch.tensor([0, 4, 3, 5]), torch.tensor([2, 2, 1, 1]))


def with_human(rollouts: Rollouts) -> Rollouts:
    """Every third episode is a human one; values of a checkpoint and log-probs of its likeliest tokens."""
    origin = ["demonstration" if e % 3 == 0 else "policy" for e in rollouts.episode_of_response.tolist()]
    rollouts = rollouts.with_column("response:origin", origin)
    for name, low, high in (("values/pretrained", -2.0, 1.0), ("max_log_prob/reference", -0.5, -0.1)):
        values = torch.linspace(low, high, rollouts.n_tokens, dtype=torch.float64)
        rollouts = rollouts.with_statistic(name, torch.where(rollouts.trained, values, torch.nan), "trainer")
    return rollouts


def programs(given: Batch, now: Mapping[str, Tensor], names: Mapping[str, str]) -> list[bellman.Program]:
    """The episodes with a trained token; ``names`` says where the fields are, and what is not named is 0."""
    trained = given.rows(given.credit.trained)
    tables = {field: given.rows(given.read(name, now)) for field, name in names.items()}
    rewards = given.rollouts.column("episode:reward/outcome").tolist()
    first = given.rollouts.response_offsets[:-1].tolist()
    return [
        bellman.Program(
            **{
                field: [x for x, train in zip(tables[field][e], row, strict=True) if train]
                if field in tables
                else [0.0] * sum(row)
                for field in ("taken", "top", "greedy", "residual", "pretrained")
            },
            reward=rewards[e],
            human=given.rollouts.origin[first[e]] == "demonstration",
        )
        for e, row in enumerate(trained)
        if any(row)
    ]


def b_coder(**settings: Any) -> Naive:
    """Bellman errors, and the terms of human programs."""
    names = {
        "taken": "now/log_probs",
        "top": "now/max_log_prob",
        "greedy": "now/log_prob_of/greedy/reference",
        "residual": "now/values/residual",
        "pretrained": "values/pretrained",
    }
    return lambda given, now: bellman.b_coder(programs(given, now, names), **settings)["loss"]


def b_coder_value(**settings: Any) -> Naive:
    """Bellman errors of the checkpoint, whose advantage of its own likeliest tokens is 0."""
    top = "max_log_prob/reference"
    names = {"taken": "log_probs/reference", "top": top, "greedy": top, "residual": "now/values/pretrained"}
    return lambda given, now: bellman.b_coder(programs(given, now, names), **settings)["loss_q"]


AS_LOOP: dict[str, Any] = {"low": 0.1, "style": "reciprocal", "aggregate": "seq_mean_token_mean"}
"""The defaults of LOOP."""

CASES = (
    Case("clip", naive=clip(low=0.2, high=0.2)),
    Case("clip", {"low": 0.1, "high": 0.28, "dual": 1.5}, naive=clip(low=0.1, high=0.28, dual=1.5)),
    Case(
        "clip",
        {"aggregate": "seq_mean_token_mean"},
        naive=clip("seq_mean_token_mean", low=0.2, high=0.2),
        branches=False,
    ),
    Case("reinforce", naive=of_tokens(lambda new, a: -a * new, ("now/log_probs", "credit/advantages"))),
    Case("segment_clip", naive=segment_clip("episode"), branches=False),
    Case("segment_clip", {"unit": "token", "high": 0.3}, naive=segment_clip("token", high=0.3)),
    Case("segment_clip", {"unit": "macro"}, in_macros, naive=segment_clip("macro"), branches=False),
    Case(
        "segment_clip",
        {"unit": "run", "style": "reciprocal", "aggregate": "seq_mean_token_sum"},
        naive=segment_clip("run", style="reciprocal", aggregate="seq_mean_token_sum"),
        branches=False,
    ),
    Case("loop", naive=segment_clip("token", **AS_LOOP), branches=False),
    Case("loop", {"action": "turn", "divisor": 8}, naive=segment_clip("run", **AS_LOOP, divisor=8), branches=False),
    Case("loop", {"action": "trajectory"}, naive=segment_clip("episode", **AS_LOOP), branches=False),
    Case("kl", naive=kl(0.001, "k3")),
    Case("kl", {"coefficient": 0.5, "estimator": "k1"}, naive=kl(0.5, "k1")),
    Case("kl", {"coefficient": 0.5, "estimator": "k2"}, naive=kl(0.5, "k2")),
    Case("kl", {"coefficient": 0.5, "estimator": "abs"}, naive=kl(0.5, "abs")),
    Case("entropy_bonus", {"coefficient": 0.01}, naive=of_tokens(lambda entropy: -0.01 * entropy, ("now/entropy",))),
    Case("imitation", naive=of_tokens(lambda log_prob: -log_prob, ("now/log_probs",))),
    Case(
        "value",
        prepare=with_values,
        details=returns,
        naive=of_tokens(value_term, ("now/values/critic", "values/critic", "credit/returns")),
    ),
    Case("rover", prepare=with_vocab_mean),
    Case("pacs", branches=False),
    Case("pacs", {"estimator": "grpo", "reward_proxy": "mean_logprob"}, branches=False),
    Case("dpo", prepare=with_pairs, branches=False),
    Case(
        "t_reg",
        {"beta": 0.5, "alpha": 0.75},
        paired.with_marks,
        naive=partial(paired.t_reg, beta=0.5, alpha=0.75),
        branches=False,
        bootstraps=True,
    ),
    Case(
        "t_reg",
        {"base": "simpo", "beta": 2.0, "margin": 0.3},
        paired.with_marks,
        naive=partial(paired.t_reg, base="simpo", beta=2.0, alpha=0.25, margin=0.3),
        branches=False,
        bootstraps=True,
    ),
    Case(
        "mm_dpo",
        {"beta": 0.5, "w": 0.75, "k": 2.0, "beta_min": 0.01, "imitate": 0.25},
        paired.with_pairs,
        naive=partial(paired.mm_dpo, beta=0.5, w=0.75, k=2.0, beta_min=0.01, imitate=0.25),
        branches=False,
    ),
    Case(
        "reward_model",
        {"tie_weight": 2.0, "critic_weight": 0.5},
        paired.with_critiques,
        naive=partial(
            paired.reward_model, reward_weight=1.0, tie_weight=2.0, center_coefficient=0.01, critic_weight=0.5
        ),
        branches=False,
    ),
    Case(
        "reward_model",
        {"margin": True, "reward_weight": 2.0, "center_coefficient": 0.5, "critic_weight": 0.0},
        paired.with_pairs,
        naive=partial(
            paired.reward_model,
            margin=True,
            reward_weight=2.0,
            tie_weight=1.0,
            center_coefficient=0.5,
            critic_weight=0.0,
        ),
        branches=False,
    ),
    Case("cad_rl", prepare=paired.with_precision, naive=partial(paired.cad_rl, low=0.6, high=1.8), branches=False),
    Case(
        "cad_rl",
        {"ratio_low": 0.8, "weight": None},
        naive=partial(paired.cad_rl, low=0.8, high=1.8, weighted=False),
        branches=False,
    ),
    Case("divergence", {"kind": "forward_kl", "coefficient": 0.5}, naive=forward_kl(0.5)),
    Case("divergence", {"kind": "js"}),
    Case("divergence", {"kind": "alpha"}),
    Case("divergence", {"kind": "js_definition"}),
    Case(
        "dph_rl",
        {"kind": "forward_kl"},
        prepare=some_stored,
        naive=lambda given, now: (
            clip(origin="policy", low=0.2, high=0.28, dual=3.0)(given, now)
            + forward_kl(0.2, origin="stored")(given, now)
        ),
    ),
    Case("implicit_prm", branches=False),
    Case("b_coder", {"value_steps": 0}, prepare=with_human, naive=b_coder(), branches=False, bootstraps=True),
    Case(
        "b_coder",
        {"alpha": 0.5, "gamma": 0.9, "beta_adv": 0.3, "beta_ce": 0.2, "cap_values": True, "r_max": 2, "value_steps": 0},
        prepare=with_human,
        naive=b_coder(alpha=0.5, gamma=0.9, beta_adv=0.3, beta_ce=0.2, cap=True, r_max=2.0),
        branches=False,
        bootstraps=True,
    ),
    Case("b_coder_value", prepare=with_human, naive=b_coder_value(), branches=False, bootstraps=True),
    Case(
        "b_coder_value",
        {"alpha": 2.0, "gamma": 0.9, "cap_values": True},
        prepare=with_human,
        naive=b_coder_value(alpha=2.0, gamma=0.9, cap=True),
        branches=False,
        bootstraps=True,
    ),
    Case(
        "return_decomposition",
        prepare=decomposed.with_steps,
        naive=decomposed.naive("rd"),
        branches=False,
    ),
    Case(
        "return_decomposition",
        {"loss": "rrd"},
        prepare=decomposed.with_steps,
        naive=decomposed.naive("rrd"),
        branches=False,
    ),
    Case(
        "return_decomposition",
        {"loss": "rrd_unbiased"},
        prepare=decomposed.with_steps,
        naive=decomposed.naive("rrd_unbiased"),
        branches=False,
    ),
)
