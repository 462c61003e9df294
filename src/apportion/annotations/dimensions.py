"""Dimensions: a judge scores every episode on several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from apportion.annotations.annotator import Annotator
from apportion.annotations.dialogues import Dialogue, dialogues, object_in, tags_for
from apportion.annotations.judging import Tags, ask, build_judge
from apportion.annotations.sum_judges import SUM_DIMENSIONS, SUM_JUDGES
from apportion.annotations.transcripts import GUARD, presence
from apportion.errors import InputError
from apportion.rollouts import Rollouts

REPLY = "scores"
KNOWN = {
    "helpfulness": "does it help with what was asked, rightly and in a way that can be understood",
    "personalization": "does it go by what is known of this person: level, mistakes, needs",
    "creativity": "does it open other ways to think, with examples or questions of its own",
    "goal": "how far the agent reaches its own goal in the conversation",
    "relationship": "how much better or worse the relationship between the speakers becomes",
    "knowledge": "how much that is new and important the agent learns",
    **SUM_DIMENSIONS,
}
"""What dimensions are about, in the library's words: EduAlign's, those of SOTOPIA that Sotopia-RL rewards, and those
the scripted judge of running sums knows."""


def dimensions(
    judge: str = "running_sum_dimensions",
    dimensions: Sequence[str] | Mapping[str, str] = ("helpfulness", "personalization", "creativity"),
    low: float = 0.0,
    high: float = 1.0,
    retries: int = 1,
) -> Annotator:
    """Scores of every episode, one a dimension; all unknown where the judge's reply cannot be read.

    Args:
        judge: a scripted judge by name, or ``package.module:name``; see :mod:`apportion.annotations.judging`.
        dimensions: names, or names with what they are about; of those in :data:`KNOWN` that is known.
        low: the worst score.
        high: the best.
        retries: how often an unreadable reply is asked for again.

    Makes ``episode:reward/<dimension>``.

    Source: arXiv 2507.20335 and 2310.11667 have such scores; the prompt is the library's.
    """
    about = described(dimensions, KNOWN)
    if not low < high:
        raise InputError(f"scores range from {low} to {high}, expected low below high.")
    asked = build_judge(judge, SUM_JUDGES)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        judged = dialogues(rollouts, "dimensions")
        spoken = [one for one in judged if one.turns]
        tags = tags_for(spoken, about.values(), ("episode", "dimension_", REPLY))
        prompts = [dimensions_prompt(one, about, low, high, tags) for one in spoken]
        given = ask(asked, prompts, lambda reply: _scores(reply, tags, about, low, high), retries)

        values = torch.zeros((len(about), rollouts.n_episodes), dtype=torch.float64)
        scored = torch.zeros(rollouts.n_episodes, dtype=torch.bool)
        for one, scores in zip(spoken, given, strict=True):
            if scores is not None:
                values[:, one.episode] = torch.tensor(scores, dtype=torch.float64)
                scored[one.episode] = True
        device = rollouts.device
        present = presence([one.episode for one in judged], rollouts.n_episodes, device)
        for name, of_episodes in zip(about, values, strict=True):
            rollouts = rollouts.with_reward(
                name, of_episodes.to(device), scored.to(device), present, maker="dimensions"
            )
        return rollouts

    names = [name for dimension in about for name in (f"reward/{dimension}", f"episode:reward/{dimension}")]
    return Annotator(apply, tuple(names), reads_policy=False)


def described(dimensions: Sequence[str] | Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Dimensions by name with what they are about: as given, as known, or the name itself.

    Raises:
        InputError: no different names, or descriptions that are not texts.

    Example:
        >>> described(("goal", "tact"), {"goal": "whether it is reached"})
        {'goal': 'whether it is reached', 'tact': 'tact'}
    """
    names = list(dimensions)
    if isinstance(dimensions, str) or not names or len(set(names)) < len(names):
        raise InputError(f"got dimensions {dimensions!r}, expected a list of different names, at least one.")
    about = dimensions if isinstance(dimensions, Mapping) else {name: known.get(name, name) for name in names}
    if not all(isinstance(text, str) and text for text in (*about, *about.values())):
        raise InputError(f"got dimensions {dimensions!r}, expected names, or names with texts that say what they mean.")
    return dict(about)


def dimensions_prompt(one: Dialogue, about: Mapping[str, str], low: float, high: float, tags: Tags) -> str:
    """What the judge is asked about one episode."""
    listed = "\n".join(f"{name}: {tags.around(f'dimension_{i}', text)}" for i, (name, text) in enumerate(about.items()))
    form = ", ".join(f'"{name}": number' for name in about)
    turns = f"\n{one.tagged(tags)}\n"
    return f"""Below is what an agent heard and said, turn after turn. {GUARD}

{tags.around("episode", turns)}

Score what the agent said, as a whole, on each of these dimensions on its own, from {low:g} (worst) to {high:g} (best):
{listed}

End with the scores as JSON between tags:
{tags.opening(REPLY)}{{{form}}}{tags.closing(REPLY)}"""


def _scores(reply: str, tags: Tags, about: Mapping[str, str], low: float, high: float) -> list[float]:
    given = object_in(tags.last(REPLY, reply))
    if set(given) != set(about):
        raise ValueError("other dimensions than were asked about")
    if not all(type(score) in (int, float) and low <= score <= high for score in given.values()):
        raise ValueError("a score outside of its range")
    return [float(given[name]) for name in about]
