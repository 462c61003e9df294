"""GroundedPRM (arXiv 2510.14942): steps checked by a tool label a process better than the luck of later rollouts.

Chains of five additions: a step is right four times in five, else one too much or one too little, so that errors
sometimes cancel and the answer is right by luck. A tool checks a step and errs in a tenth of its verdicts. Labels are
judged on steps up to the first wrong one of a chain, right and wrong steps counting alike. The search labels some of
them only, and those as the tool did.

Suffix legend: S steps, E chains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.sampling import SamplingSettings, engine_for
from apportion.sampling.engine import Engine, Forks, Generated
from apportion.sampling.search import SEARCHES, Checks, sample_searched
from apportion.sampling.search.requests import Checked, Row, Step, every
from apportion.studies.claim import Claim

RIGHT, OVER, UNDER = range(3)
"""What a step may be: right, one too much, one too little."""
LIKELY = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)
LENGTH, TREES, TOOL_ERRS = 5, 150, 0.1
FRESH = 30_000
"""Seeds that were not looked at."""


def _policy() -> TabularPolicy:
    policy = TabularPolicy(vocabulary=3, depth=LENGTH)
    with torch.no_grad():
        policy.logits[:] = LIKELY.log()
    return policy


def answer_is_right(steps: Sequence[int]) -> bool:
    """Whether all errors cancel."""
    return list(steps).count(OVER) == list(steps).count(UNDER)


class _Counted:
    """An engine that counts the rows it draws, whole or from the middle."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.rows = engine, 0

    def refresh(self) -> None:
        self.engine.refresh()

    def generate(
        self, prompts: Sequence[Sequence[int]], copies: int, settings: SamplingSettings, generator: torch.Generator
    ) -> Generated:
        return self.forks(settings, generator).begin(prompts, copies, settings.max_new_tokens)

    def forks(self, settings: SamplingSettings, generator: torch.Generator) -> Forks:
        return _CountedForks(self, self.engine.forks(settings, generator))  # type: ignore[attr-defined]


class _CountedForks:
    def __init__(self, counted: _Counted, forks: Forks) -> None:
        self.counted, self.forks = counted, forks

    def begin(self, prompts: Sequence[Sequence[int]], copies: int, limit: int) -> Generated:
        self.counted.rows += len(prompts) * copies
        return self.forks.begin(prompts, copies, limit)

    def fork(self, rows: Tensor, places: Tensor, copies: int, limits: Tensor) -> Generated:
        self.counted.rows += len(rows) * copies
        return self.forks.fork(rows, places, copies, limits)


def balanced(right: Tensor, said: Tensor) -> float:
    """Mean of the shares of right and of wrong steps that are labelled as such.

    Example:
        >>> balanced(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
        0.75
    """
    return float(said[right].double().mean() + (~said[~right]).double().mean()) / 2


def before_an_error(right: Tensor) -> Tensor:
    """Bool ``[E, LENGTH]``: no step of the chain before it is wrong.

    Example:
        >>> before_an_error(torch.tensor([[True, False, True], [True, True, True]])).tolist()
        [[True, True, False], [True, True, True]]
    """
    wrong = (~right).long()
    return wrong.cumsum(1) - wrong == 0


@dataclass(frozen=True)
class _Found:
    """What a search found.

    Attributes:
        steps: of every chain ``[E, LENGTH]``.
        right: the step is.
        said: its label says so.
        judged: it has a label, and no step before it is wrong.
        rows: how many were drawn.
    """

    steps: Tensor
    right: Tensor
    said: Tensor
    judged: Tensor
    rows: int

    @property
    def accuracy(self) -> float:
        return balanced(self.right[self.judged], self.said[self.judged])


@cache
def _searched(seed: int) -> _Found:
    generator = torch.Generator().manual_seed(seed)
    engine, luck = _Counted(engine_for(_policy())), torch.Generator().manual_seed(seed + 1_000_003)

    def on_steps(asked: Sequence[Step]) -> list[Checked]:
        errs = (torch.rand(len(asked), generator=luck) < TOOL_ERRS).tolist()
        return [Checked(float((one.row.ids[one.start] == RIGHT) != err)) for one, err in zip(asked, errs, strict=True)]

    def on_answers(asked: Sequence[Row]) -> list[Checked]:
        return [Checked(float(answer_is_right(row.ids))) for row in asked]

    rule = SEARCHES["grounded_prm"](rounds=12, depth=LENGTH)
    checks = Checks(on_answers, on_steps)
    found = sample_searched(engine, [[0]] * TREES, rule, every(1), checks, SamplingSettings(LENGTH), generator, most=6)
    steps, starts = found.ids.view(-1, LENGTH), found.spans["step"].starts
    said, labelled = torch.zeros((2, *steps.shape), dtype=torch.bool)
    said.view(-1)[starts] = found.column("step:reward/prm") > 0
    labelled.view(-1)[starts] = found.column("step:scored/prm").bool()
    right = steps == RIGHT
    return _Found(steps, right, said, labelled & before_an_error(right), engine.rows)


def _drawn(chains: int, steps: int, generator: torch.Generator) -> Tensor:
    """Steps of the policy, which are independent ``[chains, steps]``."""
    return torch.multinomial(LIKELY, chains * steps, replacement=True, generator=generator).view(chains, steps)


def _end_right(chains: Tensor) -> Tensor:
    return (chains == OVER).sum(-1) == (chains == UNDER).sum(-1)


def _values(found: _Found, continuations: int, generator: torch.Generator) -> Tensor:
    """Of every judged step ``[S]``, the share of continuations from it that end right; at the end, whether it did."""
    value = _end_right(found.steps).double()[:, None].repeat(1, LENGTH)
    for place in range(LENGTH - 1):
        chains = found.judged[:, place].nonzero().squeeze(1)
        head = found.steps[chains, : place + 1].repeat_interleave(continuations, 0)
        rest = _drawn(len(head), LENGTH - place - 1, generator)
        value[chains, place] = _end_right(torch.cat([head, rest], 1)).double().view(-1, continuations).mean(1)
    return value[found.judged]


def over_rollouts(seed: int) -> Mapping[str, float]:
    """Accuracy of labels from the search and, on the same steps, from as many rows of continuations from them."""
    found = _searched(FRESH + seed)
    continuations = found.rows // int(found.judged[:, :-1].sum())
    value = _values(found, continuations, torch.Generator().manual_seed(seed))
    right = found.right[found.judged]
    luck = {"any": balanced(right, value > 0), "most": balanced(right, value > 0.5)}
    figures = {"searched": found.accuracy, **luck, "continuations": float(continuations), **_coverage(found)}
    return {"effect": found.accuracy - max(luck.values()), **figures}


def _coverage(found: _Found) -> Mapping[str, float]:
    """Shares of the steps up to the first wrong one that have a label."""
    could = before_an_error(found.right)
    shares = {"right": found.judged[could & found.right], "wrong": found.judged[could & ~found.right]}
    return {f"labelled, {name}": float(share.double().mean()) for name, share in shares.items()}


def over_the_tool(seed: int) -> Mapping[str, float]:
    """How much more accurate labels are than the tool's verdicts on chains where these agree with the outcome."""
    found, generator = _searched(FRESH + seed), torch.Generator().manual_seed(seed)
    steps = _drawn(found.rows, LENGTH, generator)
    right = steps == RIGHT
    said = right ^ (torch.rand(right.shape, generator=generator) < TOOL_ERRS)
    agree = said.all(1) == _end_right(steps)
    plain = _Found(steps, right, said, before_an_error(right) & agree[:, None], found.rows)
    figures = {"searched": found.accuracy, "agreeing": plain.accuracy, **_coverage(found)}
    figures |= {f"{name}, agreeing": share for name, share in _coverage(plain).items()}
    return {"effect": found.accuracy - plain.accuracy, **figures}


CLAIMS = (
    Claim(
        "grounded_prm",
        "over rollouts",
        "Step labels from a search with tool verdicts are more accurate than labels from the success of rollouts.",
        "150 trees of 12 rounds with a tool that errs in a tenth of its verdicts, against continuations of the steps "
        "that the search labels, as many rows in all as it drew, read both as any and as most of them right, whichever "
        "does better. Effect: difference in balanced accuracy on those steps up to the first wrong one; beside it how "
        "many of all such steps have a label. At first rollouts labelled every step of other chains, 8 continuations "
        "each: +0.13; these are other seeds.",
        "An accuracy higher by less than 0.05.",
        0.05,
        over_rollouts,
    ),
    Claim(
        "grounded_prm",
        "over the tool",
        "Mixing verdicts with outcomes in a tree leaves out more errors of the tool than agreement of both on a chain.",
        "The same trees, whose labels are the tool's where they are not left out, against its verdicts on as many "
        "plain chains as rows were drawn, those left out where the verdicts say that all is right and the answer is "
        "not, or the other way round. Effect: difference in balanced accuracy; beside it how many steps have a label. "
        "At first labels were held against the tool's accuracy on all steps, 0.9: +0.04; these are other seeds.",
        "An accuracy higher by less than two points.",
        0.02,
        over_the_tool,
    ),
)
