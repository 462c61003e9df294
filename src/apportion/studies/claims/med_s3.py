"""MedS3 (arXiv 2501.12051): labels that look back find the step that did harm on a path that ended well.

Paths of eight steps, each as likely harmful as helpful, or, one in ten, idle; a path ends well if the helpful ones
outnumber the harmful ones by two or more (and, for more harm, twice as likely harmful as helpful, where that may fall
short by one). A harmful step lowers the chance of that, and later ones may make up for it.
Labels are judged on the paths that end well, from their second step on, since none looks back from the first, up to
where a sure path was drawn to its end at once.

Suffix legend: S steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.sampling import SamplingSettings, engine_for
from apportion.sampling.search import SEARCHES, Checks, sample_searched
from apportion.sampling.search.labels import look_back, thresholded
from apportion.sampling.search.requests import Checked, Row, every
from apportion.studies.claim import Claim

HARM, IDLE, HELP = range(3)
LENGTH, TREES, PATHS = 8, 50, 16
FRESH = 100
"""Seeds that were not looked at: at first paths had 6 steps, a quarter of them harmful, of which the search brought to
a good end next to none, and ends drawn at once were judged by their first step."""
FRESHER = 30_000
"""Seeds that were not looked at with thresholds of 0."""

PLANTED = {"soft_paper": -0.05, "hard": 0.3, "none": 0.45}
SEARCHED = {"soft_paper": 0.8, "hard": 0.65, "none": 0.8}
"""Thresholds at which labels are most accurate over seeds 50,000 to 50,019, of -1, -0.95 ... 1."""


@dataclass(frozen=True)
class _World:
    """What steps do, and how the search goes.

    Attributes:
        likely: of a harmful, an idle and a helpful step.
        ahead: by how much helpful steps must outnumber harmful ones at the end.
        children: of the search.
    """

    likely: tuple[float, float, float]
    ahead: int
    children: int

    def ends_well(self, steps: Sequence[int]) -> bool:
        return list(steps).count(HELP) - list(steps).count(HARM) >= self.ahead


EVEN = _World((0.45, 0.1, 0.45), ahead=2, children=3)
HARMFUL = _World((0.6, 0.1, 0.3), ahead=-1, children=2)


@cache
def _labels(looking: str, seed: int, world: _World) -> tuple[Tensor, Tensor]:
    """Soft labels of later steps of paths that end well ``[S]``, and whether those did harm."""
    generator = torch.Generator().manual_seed(seed)
    policy = TabularPolicy(vocabulary=3, depth=LENGTH)
    with torch.no_grad():
        policy.logits[:] = torch.tensor(world.likely, dtype=torch.float64).log()

    def on_answers(asked: Sequence[Row]) -> list[Checked]:
        return [Checked(float(world.ends_well(row.ids))) for row in asked]

    rule = SEARCHES["med_s3"](look_back=looking, threshold=None, children=world.children)
    found = sample_searched(
        engine_for(policy),
        [[0]] * TREES,
        rule,
        every(1),
        Checks(on_answers),
        SamplingSettings(LENGTH),
        generator,
        most=PATHS,
    )
    spans, row = found.spans["step"], found.response_of_span["step"]
    later = spans.starts > found.token_offsets[row]
    well = found.column("episode:reward/outcome")[row] == 1
    single = spans.ends - spans.starts == 1
    kept = found.column("step:scored/prm").bool() & later & well & single
    return found.column("step:reward/prm")[kept], found.ids[spans.starts[kept]] == HARM


def ranked(labels: Tensor, harmful: Tensor) -> float:
    """How often a harmful step has the lower label of two, one harmful and one not; a tie counts half.

    Example:
        >>> ranked(torch.tensor([0.1, 0.5, 0.9]), torch.tensor([True, True, False]))
        1.0
    """
    difference = labels[~harmful][None, :] - labels[harmful][:, None]
    return float(((difference > 0).double() + (difference == 0).double() / 2).mean())


def marked(labels: Tensor, harmful: Tensor, threshold: float) -> tuple[float, float]:
    """Share of harmful steps whose label is at or below a threshold, and the balanced accuracy of marking those.

    Example:
        >>> marked(torch.tensor([0.1, 0.5, 0.9]), torch.tensor([True, True, False]), 0.3)
        (0.5, 0.75)
    """
    wrong = torch.tensor(thresholded(labels.tolist(), threshold)) == 0
    recall = float(wrong[harmful].double().mean())
    return recall, (recall + float((~wrong[~harmful]).double().mean())) / 2


def _compared(found: Mapping[str, tuple[Tensor, Tensor]], thresholds: Mapping[str, float]) -> Mapping[str, float]:
    """Balanced accuracy of binary labels that look back, and of labels that do not, each at its threshold."""
    figures = {}
    for rule, (labels, harmful) in found.items():
        figures[f"{rule}_recall"], figures[rule] = marked(labels, harmful, thresholds[rule])
        figures[f"{rule}_at_0"] = marked(labels, harmful, 0.0)[1]
    return {"effect": figures["soft_paper"] - figures["none"], **figures}


def _searched(seed: int) -> Mapping[str, tuple[Tensor, Tensor]]:
    return {rule: _labels(rule, seed, HARMFUL) for rule in SEARCHED}


def found_on_good_paths(seed: int) -> Mapping[str, float]:
    """On paths of the search; beside it how many steps did harm, and of which the label was lowered."""
    found = _searched(FRESHER + seed)
    (looked, harmful), (values, _) = found["soft_paper"], found["none"]
    lowered = float((looked < values - 1e-9).double().mean())
    return {**_compared(found, SEARCHED), "harmful": float(harmful.double().mean()), "lowered": lowered}


def ranked_on_good_paths(seed: int) -> Mapping[str, float]:
    """How often soft labels that look back rank a harmful step below another, and how often values alone do."""
    figures = {}
    for rule in ("soft_paper", "hard", "none"):
        figures[rule] = ranked(*_labels(rule, FRESH + seed, EVEN))
    return {"effect": figures["soft_paper"] - figures["none"], **figures}


def _planted(seed: int) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Labels of walks of a solve probability with one drop of 0.3, valued by few draws, and where it dropped."""
    generator = torch.Generator().manual_seed(seed)
    count, steps = 1000, torch.arange(LENGTH + 1)
    drift = 0.05 * torch.randn((count, LENGTH), generator=generator, dtype=torch.float64)
    place = torch.randint(1, LENGTH - 2, (count,), generator=generator)
    harmful = torch.arange(LENGTH) == place[:, None]
    solve = torch.cat([drift.new_full((count, 1), 0.5), drift - 0.3 * harmful], 1).cumsum(1).clamp(0.05, 0.95)
    draws = torch.tensor([max(20 // (depth + 1), 5) for depth in steps.tolist()], dtype=torch.float64)
    value = torch.binomial(draws.expand_as(solve), solve, generator) / draws
    value[:, -1] = 1.0  # the path ends well all the same
    labels = {rule: [look_back(values, rule).labels[1:] for values in value.tolist()] for rule in PLANTED}
    return {rule: (torch.tensor(of).flatten(), harmful[:, 1:].flatten()) for rule, of in labels.items()}


def planted(seed: int) -> Mapping[str, float]:
    """On walks with planted harm."""
    return _compared(_planted(FRESHER + seed), PLANTED)


TREE = (
    "50 trees of med_s3 with its defaults over paths of 8 steps, harmful, idle or helpful; steps of paths that end "
    "well, the first left out; soft_paper against none on the same trees, hard beside it"
)

TUNED = (
    "each rule cut at its best threshold of -1, -0.95 ... 1 on 20 other seeds: soft_paper {soft_paper}, none {none}, "
    "hard {hard}"
)

CLAIMS = (
    Claim(
        "med_s3",
        "planted harm",
        "Labels that look back mark steps that did harm on paths that ended well better than values alone.",
        "1000 walks of a solve probability over 8 steps from 0.5, deviation 0.05 a step, one step that lowers it by "
        "0.3 and a right answer in the end, valued by 20 down to 5 draws a step; soft_paper against none, hard "
        f"beside it, {TUNED.format(**PLANTED)}. Effect: difference in balanced accuracy, first steps left out. At "
        "first all were cut at 0, where values alone mark a step only if no draw succeeded: +0.13; these are other "
        "seeds.",
        "An accuracy higher by less than a tenth.",
        0.1,
        planted,
    ),
    Claim(
        "med_s3",
        "harm in a search",
        "They do so on the paths that a search finds.",
        "50 trees of med_s3 with two children over paths of 8 steps, harmful with 0.6, idle with 0.1 or helpful, which "
        "end well unless harm outnumbers help by two or more; steps of paths that end well, the first left out; "
        f"soft_paper against none, hard beside it, {TUNED.format(**SEARCHED)}. Effect: difference in balanced "
        "accuracy. At first the trees were those of the claim below, whose paths hold little harm, and labels were cut "
        "at 0, where no rule marked any step: 0; these are other seeds.",
        "An accuracy higher by less than a tenth.",
        0.1,
        found_on_good_paths,
    ),
    Claim(
        "med_s3",
        "harm ranked lower",
        "Soft labels that look back set harmful steps apart better than values alone.",
        f"{TREE}. Effect: difference in how often the harmful one of two steps has the lower soft label.",
        "A share higher by less than 0.05.",
        0.05,
        ranked_on_good_paths,
    ),
)
