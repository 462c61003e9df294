"""Planning phrases found in solutions: word n-grams that, in one wording or another, many solutions share.

Words are compared in lower case; no n-gram goes beyond a punctuation mark or the end of a line. The file that
:func:`write_mined` makes is what the annotator ``planning_grams`` reads.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apportion import registry
from apportion.annotations.phrase_clusters import CLUSTERINGS, EMBEDDERS
from apportion.errors import InputError, MissingColumn, check_share
from apportion.rollouts import Rollouts
from apportion.rollouts.makers import maker_of

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+|\n")


@dataclass(frozen=True)
class Cluster:
    """Phrases that mean about the same.

    Attributes:
        solutions: how many contain at least one of them.
        grams: the phrases, in alphabetical order.
    """

    solutions: int
    grams: tuple[str, ...]


def mine(
    solutions: Sequence[str],
    sizes: tuple[int, int] = (3, 5),
    top_fraction: float = 0.2,
    min_solutions: int = 2,
    embedder: str = "tfidf",
    clustering: str = "agglomerative",
) -> list[Cluster]:
    """The clusters of phrases that most solutions share.

    Every n-gram of words is embedded, those near one another are clustered, and the clusters in the top fraction by
    the number of distinct solutions they occur in are kept.

    Args:
        solutions: texts of correct solutions; equal ones count once.
        sizes: fewest and most words of a phrase.
        top_fraction: share of the clusters to keep, see :func:`most_frequent`.
        min_solutions: phrases in fewer solutions are left out before clustering. The paper names no such bound; with
            1 most phrases are unique to a solution, and there are very many.
        embedder: ``tfidf``, or ``package.module:name`` of a function that makes one, such as a sentence
            transformer's.
        clustering: ``agglomerative``, or ``package.module:name`` likewise. The paper names no algorithm.

    Returns:
        the clusters, most frequent first.

    Raises:
        InputError: a setting out of range, or no phrase in as many solutions.

    Source: arXiv 2509.03646.
    """
    low, high = sizes
    if not 1 <= low <= high:
        raise InputError(f"sizes is {sizes}, expected the fewest and the most words of a phrase, such as (3, 5).")
    if min_solutions < 1:
        raise InputError(f"min_solutions is {min_solutions}, expected 1 or more.")
    check_share("top_fraction", top_fraction)
    embed = registry.build(embedder, EMBEDDERS, "embedder")
    cluster = registry.build(clustering, CLUSTERINGS, "clustering")
    worded = [_WORD.findall(text.lower()) for text in dict.fromkeys(solutions)]
    frequency = Counter(gram for words in worded for gram in _phrases(words, low, high))
    grams = sorted((g for g, n in frequency.items() if n >= min_solutions), key=lambda g: (-frequency[g], g))
    if not grams:
        raise InputError(
            f"no phrase of {low} to {high} words occurs in {min_solutions} of the {len(worded)} distinct solutions, "
            "expected one: give more solutions, or smaller bounds."
        )
    labels = list(cluster(embed([" ".join(gram) for gram in grams])))
    if len(labels) != len(grams):
        raise InputError(f"{clustering!r} gave {len(labels)} clusters for {len(grams)} phrases, expected one each.")
    members: dict[Any, list[tuple[str, ...]]] = {}
    for gram, label in zip(grams, labels, strict=True):
        members.setdefault(int(label), []).append(gram)
    clusters = list(members.values())
    counts = document_frequency(worded, clusters)
    kept = [Cluster(counts[c], tuple(sorted(map(" ".join, clusters[c])))) for c in most_frequent(counts, top_fraction)]
    return sorted(kept, key=lambda c: (-c.solutions, c.grams))


def document_frequency(
    solutions: Sequence[Sequence[Hashable]], clusters: Sequence[Sequence[Sequence[Hashable]]]
) -> list[int]:
    """In how many solutions at least one n-gram of every cluster occurs.

    Args:
        solutions: as words or token ids.
        clusters: n-grams of those.

    Example:
        >>> document_frequency([[1, 2, 3], [2, 3]], [[[1, 2], [2, 3]], [[3, 2]]])
        [2, 0]
    """
    of_gram: dict[tuple[Hashable, ...], list[int]] = {}
    for number, grams in enumerate(clusters):
        for gram in grams:
            of_gram.setdefault(tuple(gram), []).append(number)
    sizes = {len(gram) for gram in of_gram}
    counts = [0] * len(clusters)
    for words in solutions:
        windows = {tuple(words[i : i + n]) for n in sizes for i in range(len(words) - n + 1)}
        for number in {number for window in windows for number in of_gram.get(window, ())}:
            counts[number] += 1
    return counts


def most_frequent(counts: Sequence[int], fraction: float) -> list[int]:
    """The top fraction of clusters, rounded up and at least one; of equal counts the earlier.

    Args:
        counts: of every cluster.
        fraction: more than 0, at most 1.

    Returns:
        their numbers, ascending.

    Raises:
        InputError: a fraction out of range, or a negative count.

    Example:
        >>> most_frequent([3, 1, 1, 1, 0, 0], 0.2)
        [0, 1]
    """
    check_share("fraction", fraction)
    if min(counts, default=0) < 0:
        raise InputError(f"a count is {min(counts)}, expected 0 or more.")
    number = max(1, math.ceil(fraction * len(counts) - 1e-12))
    return sorted(sorted(range(len(counts)), key=lambda c: (-counts[c], c))[:number])


def solutions_of(rollouts: Rollouts, component: str = "outcome", threshold: float = 0.0) -> list[str]:
    """The texts of episodes rewarded more than a threshold; those without a verdict are left out.

    Args:
        rollouts: with ``response:text`` and the reward, one an episode.
        component: the reward.
        threshold: what a correct solution is rewarded more than.

    Raises:
        MissingColumn: there is no such reward of episodes, or no text.
    """
    for name in (f"episode:reward/{component}", "response:text"):
        if not rollouts.has(name):
            raise MissingColumn(name, "mining", maker_of(name))
    reward = rollouts.columns[f"episode:reward/{component}"]
    right = (reward.tensor > threshold) & rollouts.columns[f"episode:scored/{component}"].tensor.bool()
    if reward.present is not None:
        right &= reward.present
    texts: list[list[str]] = [[] for _ in right]
    of_responses = rollouts.columns["response:text"].text
    for episode, text in zip(rollouts.episode_of_response.tolist(), of_responses, strict=True):
        texts[episode].append(text or "")
    return ["\n".join(parts) for parts, is_right in zip(texts, right.tolist(), strict=True) if is_right]


def write_mined(path: Path, clusters: Sequence[Cluster], **settings: Any) -> None:
    """Write a file of grams: all phrases, alphabetically, and for whoever reads it their clusters and settings."""
    grams = sorted({gram for cluster in clusters for gram in cluster.grams})
    content = {"grams": grams, "clusters": [asdict(cluster) for cluster in clusters], "settings": settings}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _phrases(words: Sequence[str], low: int, high: int) -> set[tuple[str, ...]]:
    """N-grams of a solution's words; what is no word ends them."""
    found = set()
    for start in range(len(words)):
        for end in range(start + 1, min(start + high, len(words)) + 1):
            if not re.match(r"\w", words[end - 1]):
                break
            if end - start >= low:
                found.add(tuple(words[start:end]))
    return found
