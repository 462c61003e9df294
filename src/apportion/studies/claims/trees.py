"""Credit on trees: what forking, sibling baselines, temporal differences and shrinking buy against exact values.

Ours, but for ``vine`` (VinePPO, arXiv 2410.01679). The worlds are those of the calibration whose responses have one
length, all of them, with the policy as it is. A group of 8 has 4 responses from the prompt, each forked once before one
of its tokens, whichever, and costs about as many tokens as 6 responses.

Suffix legend: N tokens, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from statistics import fmean

import torch
from torch import Tensor

from apportion import credit
from apportion.evals.calibration.forks import Forked, Forks, forked
from apportion.evals.calibration.groups import Groups, sampled
from apportion.evals.calibration.measure import measure
from apportion.evals.calibration.worlds import WORLDS, World
from apportion.rollouts import Rollouts, ragged
from apportion.studies.claim import Claim

NAMES = (
    "early_decision",
    "late_decision",
    "distractor_tokens",
    "shared_prefixes",
    "unique_nonce",
    "long_chain",
    "graded_outcome",
    "two_prompts",
)
SIZE, FLAT, ROOTS, BATCH = 8, 6, 4, 16
"""Members of a group that forks, of one that does not and costs as much, responses from the prompt, groups a batch."""

FRESH = 30_000
"""Seeds that were not looked at."""

ONCE = Forks(children=1, everywhere=False, weigh=True, words="on forks")
EVERYWHERE = Forks(children=2, everywhere=True, weigh=False, words="on forks at every token")


@cache
def _world(name: str) -> World:
    return WORLDS[name]()


def _forked(name: str, seed: int, groups: int, forks: Forks = ONCE, size: int = SIZE) -> Forked:
    return forked(_world(name).tree, size, groups, forks, torch.Generator().manual_seed(seed))


def _flat(name: str, seed: int, groups: int, size: int = FLAT) -> Groups:
    return sampled(_world(name).tree, size, groups, torch.Generator().manual_seed(seed))


def _of_tokens(world: World, groups: Groups, edge_values: Tensor) -> Tensor:
    """Values of edges at the tokens of groups ``[N]``."""
    leaf, tree = groups.leaf.flatten(), world.tree
    return edge_values[tree.path[ragged.ranges(tree.offsets[leaf], tree.offsets[leaf + 1])]]


def _squared_error(method: str, world: World, groups: Groups, rollouts: Rollouts) -> float:
    """Mean squared distance of credit from the exact advantage, over the tokens that train, by their weight."""
    given = credit.build(method)(rollouts)
    error_N = given.advantages.double() - _of_tokens(world, groups, world.tree.values().advantage)
    weight_N = torch.where(given.trained, rollouts.weight, 0.0)
    return float((weight_N * error_N**2).sum() / weight_N.sum())


def _correlation(method: str, name: str, groups: Groups) -> float:
    found = measure(credit.build(method), _world(name).tree, _world(name).leaves, groups, 8)
    assert found.correlation is not None, f"{method} gives all tokens the same in {name}"
    return found.correlation


def _noise(method: str, name: str, groups: Groups) -> float:
    """Responses, or as many tokens, until the gradient's noise is no longer than its signal."""
    found = measure(credit.build(method), _world(name).tree, _world(name).leaves, groups, len(groups) // BATCH)
    assert found.variance is not None, f"{method} has no signal in {name}"
    return found.variance


def _log_ratio(method: str, seed: int, groups: int, forks: Forks = ONCE, size: int = SIZE) -> Mapping[str, float]:
    """Log of the noise of flat samples over that of a method on forks, by world and on average."""
    gains = {
        name: math.log(
            _noise("rloo", name, _flat(name, seed, 512))
            / _noise(method, name, _forked(name, seed, groups, forks, size))
        )
        for name in NAMES
    }
    return {"effect": fmean(gains.values()), **gains}


def less_noise(seed: int) -> Mapping[str, float]:
    """How much less noise a token has on forks with sibling baselines than on flat samples with leave-one-out."""
    return _log_ratio("tree", seed, 512)


def less_noise_when_shrunk(seed: int) -> Mapping[str, float]:
    """The same with baselines shrunk towards the fork above."""
    return _log_ratio("tree_shrunk", seed, 512)


def closer_by_differences(seed: int) -> Mapping[str, float]:
    """How much better differences of prefix values agree with the exact advantage than outcomes against siblings."""
    td, siblings, flat = [], [], []
    for name in NAMES:
        groups = _forked(name, seed, 256)
        td.append(_correlation("tree_td", name, groups))
        siblings.append(_correlation("tree", name, groups))
        flat.append(_correlation("tempo", name, _flat(name, seed, 256)))
    figures = {"tree_td": fmean(td), "tree": fmean(siblings), "tempo_flat": fmean(flat)}
    return {"effect": figures["tree_td"] - figures["tree"], **figures}


def shrinking_is_closer(seed: int) -> Mapping[str, float]:
    """By how much shrinking lowers the squared distance from the exact advantage, on the same trees."""
    gains = {}
    for name in NAMES:
        world, groups = _world(name), _forked(name, seed, 8 * BATCH)
        errors = {"tree": 0.0, "tree_shrunk": 0.0}
        for start in range(0, len(groups), BATCH):
            batch = groups.part(start, start + BATCH)
            rollouts = batch.rollouts(world.leaves)
            for method in errors:
                errors[method] += _squared_error(method, world, batch, rollouts)
        gains[name] = math.log(errors["tree"] / errors["tree_shrunk"])
    return {"effect": fmean(gains.values()), **gains}


def shrinking_is_unbiased(seed: int) -> Mapping[str, float]:
    """How far bias stays below a twentieth of the gradient in the world where other groups say it is worst."""
    stage, batches = credit.build("tree_shrunk"), 64
    halves: tuple[dict[str, float], ...] = ({}, {})
    for name in NAMES:
        groups = _forked(name, FRESH + seed, 2 * batches * BATCH)
        for half, found in enumerate(halves):
            part = groups.part(half * batches * BATCH, (half + 1) * batches * BATCH)
            found[name] = measure(stage, _world(name).tree, _world(name).leaves, part, batches).bias.value
    first, second = halves
    worst = max(NAMES, key=lambda name: first[name])
    return {"effect": 0.05 - second[worst], "worst, first half": first[worst], **second}


def fresh_continuations(seed: int) -> Mapping[str, float]:
    """How much better fresh continuations agree with the exact advantage than outcomes of as many tokens."""
    vine, on_flat = [], {method: list[float]() for method in ("rloo", "tempo")}
    for name in NAMES:
        groups = _forked(name, FRESH + seed, 32, EVERYWHERE, ROOTS)
        flat = _flat(name, FRESH + seed, 32, round(groups.responses))
        vine.append(_correlation("vine", name, groups))
        for method, found in on_flat.items():
            found.append(_correlation(method, name, flat))
    figures = {"vine": fmean(vine), **{method: fmean(found) for method, found in on_flat.items()}}
    return {"effect": figures["vine"] - figures["rloo"], **figures}


def fresh_continuations_pay(seed: int) -> Mapping[str, float]:
    """How much less noise a token has with fresh continuations, those included in the bill, than without."""
    return _log_ratio("vine", seed, 128, EVERYWHERE, ROOTS)


EIGHT = "the eight calibration worlds of one length"

CLAIMS = (
    Claim(
        "tree",
        "less noise a token",
        "Forks with the siblings as baseline give a policy gradient of less noise for the same tokens.",
        f"In {EIGHT}, 512 groups: tree on groups that fork once against rloo on flat ones; variance of the gradient "
        "over its squared signal, times the tokens paid. Effect: log of the ratio, mean over worlds.",
        "Less than a tenth less noise than flat samples.",
        0.1,
        less_noise,
    ),
    Claim(
        "tree_td",
        "closer by differences",
        "Differences of prefix values are closer to the exact advantage than outcomes against siblings are.",
        f"In {EIGHT}, 256 groups that fork once: correlation with the exact advantage of tree_td and of tree on the "
        "same trees. Effect: the difference, mean over worlds; tempo on flat samples beside it.",
        "A correlation higher by less than 0.05.",
        0.05,
        closer_by_differences,
    ),
    Claim(
        "tree_shrunk",
        "closer than siblings",
        "Baselines shrunk towards the value of the fork above bring credit closer to the exact advantage.",
        f"In {EIGHT}, 8 batches of 16 groups that fork once: mean squared distance of credit from the exact advantage, "
        "tree against tree_shrunk on the same trees. Effect: log of the ratio, mean over worlds.",
        "A squared distance smaller by less than two percent.",
        0.02,
        shrinking_is_closer,
    ),
    Claim(
        "tree_shrunk",
        "unbiased",
        "Shrinking leaves the expected gradient as it is, in every world.",
        f"In {EIGHT}, twice 64 batches of 16 groups that fork once: bias of the gradient as a share of its length, "
        "along a direction found on other batches. Effect: a twentieth less that in the second half, of the world "
        "where it is largest in the first. At first the mean over worlds was judged: +0.05; these are other seeds.",
        "A bias of a twentieth of the gradient or more.",
        0.0,
        shrinking_is_unbiased,
    ),
    Claim(
        "tree_shrunk",
        "less noise a token",
        "With shrunk baselines forks give a policy gradient of less noise for the same tokens.",
        f"In {EIGHT}, 32 batches of 16 groups: tree_shrunk on groups that fork once against rloo on flat ones; "
        "variance of the gradient over its squared signal, times the tokens paid. Effect: log of the ratio, mean over "
        "worlds.",
        "Less than a tenth less noise than flat samples.",
        0.1,
        less_noise_when_shrunk,
    ),
    Claim(
        "vine",
        "agreement",
        "Values from fresh continuations say better than outcomes of as many tokens which of them earned the reward.",
        f"In {EIGHT}, 32 groups: correlation with the exact advantage of vine on 4 responses with 2 continuations "
        "before every token but the first, and of rloo on flat groups of as many tokens; tempo on these beside it. "
        "Effect: the difference, mean over worlds. At first rloo had the 4 responses alone: +0.16; these are other "
        "seeds.",
        "A correlation higher by less than 0.1.",
        0.1,
        fresh_continuations,
    ),
    Claim(
        "vine",
        "pays for its tokens",
        "Fresh continuations are worth what they cost (the paper: less time on the clock).",
        f"In {EIGHT}: noise of the gradient over its squared signal times all tokens drawn, rloo on 512 flat groups "
        "against vine on 128, which continues before every token. Effect: log of the ratio, mean over worlds.",
        "Less than a tenth less noise than the same tokens of flat samples.",
        0.1,
        fresh_continuations_pay,
    ),
)
