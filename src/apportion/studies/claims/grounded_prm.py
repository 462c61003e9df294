"""GroundedPRM (arXiv 2510.14942): steps checked by a tool label a process better than the luck of later rollouts.

Chains of five additions: a step is right four times in five, else one too much or one too little, so that errors
sometimes cancel and the answer is right by luck. A tool checks a step and errs in a tenth of its verdicts. Labels are
judged on the steps of every chain up to its first wrong one, right and wrong steps counting alike.

Suffix legend: S steps, E chains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.sampling import SamplingSettings, engine_for
from apportion.sampling.engine import Engine, Forks, Generated
from apportion.sampling.search import SEARCHES, Checks, sample_searched
from apportion.sampling.search.requests import Checked, Row, Step, every
from apportion.studies.claim import Claim

RIGHT, OVER, UNDER = range(3)
"""What a step may be: right, one too much, one too little."""
LENGTH, TREES, CONTINUATIONS, TOOL_ERRS = 5, 150, 8, 0.1
FRESH = 100
"""Seeds that were not looked at: 30 trees a seed, looked at first, left it open whether labels are better than the tool
that they come from."""
SETTINGS = SamplingSettings(LENGTH)


def _policy() -> TabularPolicy:
    policy = TabularPolicy(vocabulary=3, depth=LENGTH)
    with torch.no_grad():
        policy.logits[:] = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64).log()
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


@dataclass(frozen=True)
class _Labelled:
    """Steps up to the first wrong one ``[S]``: whether they are right, and whether their label says so."""

    right: Tensor
    said: Tensor

    @property
    def accuracy(self) -> float:
        """Mean of the shares of right and of wrong steps that are labelled as such."""
        return float(self.said[self.right].double().mean() + (~self.said[~self.right]).double().mean()) / 2


def up_to_first_wrong(right: Tensor, chain: Tensor) -> Tensor:
    """Bool ``[S]``: no step of the chain before it is wrong; steps of a chain lie together, in order.

    Example:
        >>> up_to_first_wrong(torch.tensor([True, False, True, True]), torch.tensor([0, 0, 0, 1])).tolist()
        [True, True, False, True]
    """
    wrong = (~right).long()
    before = wrong.cumsum(0) - wrong
    starts = torch.searchsorted(chain, chain)
    return before - before[starts] == 0


def _searched(tool_errs: float, seed: int) -> tuple[_Labelled, int]:
    """Labels of the search, and the rows it drew."""
    generator = torch.Generator().manual_seed(seed)
    engine, luck = _Counted(engine_for(_policy())), torch.Generator().manual_seed(seed + 1_000_003)

    def on_steps(asked: Sequence[Step]) -> list[Checked]:
        errs = (torch.rand(len(asked), generator=luck) < tool_errs).tolist()
        return [Checked(float((one.row.ids[one.start] == RIGHT) != err)) for one, err in zip(asked, errs, strict=True)]

    def on_answers(asked: Sequence[Row]) -> list[Checked]:
        return [Checked(float(answer_is_right(row.ids))) for row in asked]

    rule = SEARCHES["grounded_prm"](rounds=12, depth=LENGTH)
    checks = Checks(on_answers, on_steps)
    found = sample_searched(engine, [[0]] * TREES, rule, every(1), checks, SETTINGS, generator, most=6)
    return _labels_in(found), engine.rows


def _labels_in(found: Rollouts) -> _Labelled:
    spans, scored = found.spans["step"], found.column("step:scored/prm").bool()
    right, chain = found.ids[spans.starts] == RIGHT, found.response_of_span["step"]
    kept = scored & up_to_first_wrong(right, chain)
    return _Labelled(right[kept], found.column("step:reward/prm")[kept] > 0)


def _by_rollouts(rows: int, seed: int) -> Mapping[str, _Labelled]:
    """Labels from continuations of every step, from at most as many rows: right if any, or most, end right."""
    generator = torch.Generator().manual_seed(seed)
    chains = rows // (1 + CONTINUATIONS * (LENGTH - 1))
    forks = engine_for(_policy()).forks(SETTINGS, generator)  # type: ignore[attr-defined]
    steps = forks.begin([[0]], chains, LENGTH).ids.view(chains, LENGTH)
    value = torch.empty((chains, LENGTH), dtype=torch.float64)
    for place in range(1, LENGTH):
        size = LENGTH - place
        sizes, places = torch.full((chains,), size), torch.full((chains,), place)
        rest = forks.fork(torch.arange(chains), places, CONTINUATIONS, sizes).ids.view(chains, CONTINUATIONS, size)
        head = steps[:, None, :place].expand(-1, CONTINUATIONS, -1)
        value[:, place - 1] = _ends_right(torch.cat([head, rest], 2)).mean(1)
    value[:, -1] = _ends_right(steps)
    right, chain = (steps == RIGHT).flatten(), torch.arange(chains).repeat_interleave(LENGTH)
    kept, value = up_to_first_wrong(right, chain), value.flatten()
    return {
        "any": _Labelled(right[kept], value[kept] > 0),
        "most": _Labelled(right[kept], value[kept] > 0.5),
    }


def _ends_right(chains: Tensor) -> Tensor:
    return ((chains == OVER).sum(-1) == (chains == UNDER).sum(-1)).double()


def over_rollouts(seed: int) -> Mapping[str, float]:
    """Accuracy of labels from the search and from continuations, the better of two readings, for as many rows."""
    searched, rows = _searched(TOOL_ERRS, FRESH + seed)
    luck = {name: labels.accuracy for name, labels in _by_rollouts(rows, FRESH + seed).items()}
    figures = {"searched": searched.accuracy, **luck, "labels": float(len(searched.said)), "rows": float(rows)}
    return {"effect": searched.accuracy - max(luck.values()), **figures}


def over_the_tool(seed: int) -> Mapping[str, float]:
    """How much more accurate labels are than the tool they come from."""
    searched, _ = _searched(TOOL_ERRS, FRESH + seed)
    return {"effect": searched.accuracy - (1 - TOOL_ERRS), "searched": searched.accuracy}


CLAIMS = (
    Claim(
        "grounded_prm",
        "over rollouts",
        "Step labels from a search with tool verdicts are more accurate than labels from the success of rollouts.",
        "150 trees of 12 rounds with a tool that errs in a tenth of its verdicts, against 8 continuations a step from "
        "as many rows, read both as any and as most of them right, whichever does better. Effect: difference in "
        "balanced accuracy on steps up to the first wrong one.",
        "An accuracy higher by less than 0.05.",
        0.05,
        over_rollouts,
    ),
    Claim(
        "grounded_prm",
        "over the tool",
        "Mixing verdicts with outcomes and dropping what disagrees mends errors of the tool.",
        "The same trees. Effect: balanced accuracy less the tool's own, 0.9.",
        "An accuracy no higher by two points than the tool's.",
        0.02,
        over_the_tool,
    ),
)
