"""Find the planning phrases of a run's correct solutions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion.annotations.mining import mine, solutions_of, write_mined
from apportion.cli.arguments import parse
from apportion.cli.output import check_new_file
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.rollouts.store import RolloutStore, stream


@dataclass(frozen=True)
class Arguments:
    """Find planning phrases for the annotator planning_grams: apportion grams RUN_OR_FILE --out grams.json."""

    out: Path | None = None
    """File to write: .json."""
    component: str = "outcome"
    """The reward that says which solutions are correct."""
    threshold: float = 0.0
    """A correct solution is rewarded more than this."""
    min_words: int = 3
    """Fewest words of a phrase."""
    max_words: int = 5
    """Most words of a phrase."""
    top_fraction: float = 0.2
    """Share of the clusters of phrases to keep, those in most solutions."""
    min_solutions: int = 2
    """Leave out phrases that fewer solutions contain."""
    embedder: str = "tfidf"
    """What turns phrases into vectors: tfidf, or package.module:name, such as a sentence transformer."""
    clustering: str = "agglomerative"
    """What clusters vectors: agglomerative, agglomerative(similarity=0.8), or package.module:name."""


def main(argv: Sequence[str]) -> int:
    """``apportion grams``"""
    if not argv or argv[0].startswith("-"):
        if argv and argv[0] in ("-h", "--help"):
            parse(Arguments, argv, "apportion grams")
        raise InputError("grams needs a run or a file of rollouts: apportion grams RUN_OR_FILE --out grams.json.")
    arguments = parse(Arguments, argv[1:], "apportion grams")
    if arguments.out is None or arguments.out.suffix != ".json":
        raise InputError("grams needs --out FILE, ending in .json.")
    check_new_file(arguments.out)
    solutions = [
        text for part in _parts(Path(argv[0])) for text in solutions_of(part, arguments.component, arguments.threshold)
    ]
    settings: dict[str, Any] = {
        "sizes": (arguments.min_words, arguments.max_words),
        "top_fraction": arguments.top_fraction,
        "min_solutions": arguments.min_solutions,
        "embedder": arguments.embedder,
        "clustering": arguments.clustering,
    }
    clusters = mine(solutions, **settings)
    write_mined(arguments.out, clusters, source=os.fspath(argv[0]), **settings)
    phrases = sum(len(cluster.grams) for cluster in clusters)
    print(f"{phrases} phrases in {len(clusters)} clusters, from {len(set(solutions))} solutions, in {arguments.out}")
    for cluster in clusters[:5]:
        print(f"  in {cluster.solutions}: {', '.join(cluster.grams[:4])}{', ...' if len(cluster.grams) > 4 else ''}")
    return 0


def _parts(path: Path) -> Iterator[Rollouts]:
    """The rollouts of a run, step by step, or of a file, group by group."""
    if not path.is_dir():
        yield from stream(path)
        return
    store = RolloutStore(path / "rollouts")
    if not store.steps():
        raise InputError(f"{path} holds no rollouts of a run: give the folder of a run that made a step, or a file.")
    for _, rollouts in store:
        yield rollouts
