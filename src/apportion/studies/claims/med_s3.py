"""MedS3 (arXiv 2501.12051): labels that look back find the step that did harm on a path that ended well.

Paths of eight steps, each as likely harmful as helpful, or, one in ten, idle; a path ends well if the helpful ones
outnumber the harmful ones by two or more. A harmful step lowers the chance of that, and later ones may make up for it.
Labels are judged on the paths that end well, from their second step on, since none looks back from the first, up to
where a sure path was drawn to its end at once.

Suffix legend: S steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def ends_well(steps: Sequence[int]) -> bool:
    """Whether helpful steps outnumber harmful ones by two or more."""
    return list(steps).count(HELP) - list(steps).count(HARM) >= 2


@cache
def _labels(looking: str, seed: int) -> tuple[Tensor, Tensor]:
    """Soft labels of later steps of paths that end well ``[S]``, and whether those did harm."""
    generator = torch.Generator().manual_seed(FRESH + seed)
    policy = TabularPolicy(vocabulary=3, depth=LENGTH)
    with torch.no_grad():
        policy.logits[:] = torch.tensor([0.45, 0.1, 0.45], dtype=torch.float64).log()

    def on_answers(asked: Sequence[Row]) -> list[Checked]:
        return [Checked(float(ends_well(row.ids))) for row in asked]

    rule = SEARCHES["med_s3"](look_back=looking, threshold=None)
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


def found_on_good_paths(seed: int) -> Mapping[str, float]:
    """Balanced accuracy of binary labels that look back, and of labels that do not."""
    accuracy = {}
    for rule in ("soft_paper", "hard", "none"):
        labels, harmful = _labels(rule, seed)
        wrong = torch.tensor(thresholded(labels.tolist())) == 0
        accuracy[f"{rule}_recall"] = float(wrong[harmful].double().mean())
        accuracy[rule] = (accuracy[f"{rule}_recall"] + float((~wrong[~harmful]).double().mean())) / 2
    return {
        "effect": accuracy["soft_paper"] - accuracy["none"],
        **accuracy,
        "harmful": float(harmful.sum()),
        "steps": float(len(harmful)),
    }


def ranked_on_good_paths(seed: int) -> Mapping[str, float]:
    """How often soft labels that look back rank a harmful step below another, and how often values alone do."""
    figures = {}
    for rule in ("soft_paper", "hard", "none"):
        figures[rule] = ranked(*_labels(rule, seed))
    return {"effect": figures["soft_paper"] - figures["none"], **figures}


def planted(seed: int) -> Mapping[str, float]:
    """Balanced accuracy of binary labels on walks of a solve probability with one drop of 0.3, valued by few draws."""
    generator = torch.Generator().manual_seed(seed)
    count, steps = 1000, torch.arange(LENGTH + 1)
    drift = 0.05 * torch.randn((count, LENGTH), generator=generator, dtype=torch.float64)
    place = torch.randint(1, LENGTH - 2, (count,), generator=generator)
    harmful = torch.arange(LENGTH) == place[:, None]
    solve = torch.cat([drift.new_full((count, 1), 0.5), drift - 0.3 * harmful], 1).cumsum(1).clamp(0.05, 0.95)
    draws = torch.tensor([max(20 // (depth + 1), 5) for depth in steps.tolist()], dtype=torch.float64)
    value = torch.binomial(draws.expand_as(solve), solve, generator) / draws
    value[:, -1] = 1.0  # the path ends well all the same
    accuracy = {}
    for rule in ("soft_paper", "hard", "none"):
        labels = [thresholded(look_back(values, rule).labels) for values in value.tolist()]
        wrong, planted_there = torch.tensor(labels)[:, 1:] == 0, harmful[:, 1:]
        accuracy[f"{rule}_recall"] = float(wrong[planted_there].double().mean())
        accuracy[rule] = (accuracy[f"{rule}_recall"] + float((~wrong[~planted_there]).double().mean())) / 2
    return {"effect": accuracy["soft_paper"] - accuracy["none"], **accuracy}


TREE = (
    "50 trees of med_s3 with its defaults over paths of 8 steps, harmful, idle or helpful; steps of paths that end "
    "well, the first left out; soft_paper against none on the same trees, hard beside it"
)

CLAIMS = (
    Claim(
        "med_s3",
        "planted harm",
        "Labels that look back mark steps that did harm on paths that ended well; labels that look forward do not.",
        "1000 walks of a solve probability over 8 steps from 0.5, deviation 0.05 a step, one step that lowers it by "
        "0.3 and a right answer in the end, valued by 20 down to 5 draws a step; soft_paper against none, hard "
        "beside it. Effect: difference in balanced accuracy of labels above 0, first steps left out.",
        "An accuracy higher by less than a tenth.",
        0.1,
        planted,
    ),
    Claim(
        "med_s3",
        "harm in a search",
        "They do so on the paths that the search itself finds.",
        f"{TREE}. Effect: difference in balanced accuracy of labels read as right above 0, as the authors do.",
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
