"""Write what a run's page shows into one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from apportion.cli.arguments import parse
from apportion.cli.view import split_paths
from apportion.errors import InputError
from apportion.rollouts.files import written_aside
from apportion.viewer.report import RULE, make_report
from apportion.viewer.session import Session


@dataclass(frozen=True)
class Arguments:
    """Write one HTML file that shows a run without the run: apportion report RUN [RUN ...] -o FILE.

    It holds all curves, how far methods agree over the whole run, and some groups: steps are taken in turn, evenly over
    the run, and of a step mixed groups first, then those of largest credit. It stays under 10 MB; groups that would not
    fit are left out, and it is said how many.
    """

    out: Path | None = None
    """The file to write (-o)."""
    groups: int = 100
    """Groups to hold at most."""
    credit: tuple[str, ...] = ()
    """Credit methods to hold beside the stored credit; grpo and tempo fill up to three in all, stored credit included,
    but for the one that the run stored the credit of."""
    tokenizer: Path | None = None
    """A tokenizer.json, or the folder of a model, to show tokens of rollouts files as text."""


def main(argv: Sequence[str]) -> int:
    """``apportion report``"""
    long = ["--out" + word[2:] if word == "-o" or word.startswith("-o=") else word for word in argv]
    paths, options = split_paths(long, Arguments)
    arguments = parse(Arguments, options, "apportion report")
    if not paths:
        raise InputError("report needs a run or a file of rollouts: apportion report RUN -o report.html.")
    if arguments.out is None:
        raise InputError("report needs a file to write: apportion report RUN -o report.html.")
    if arguments.out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{arguments.out} does not end in .html, as browsers expect: rename it.")
    session = Session(paths, arguments.credit, arguments.tokenizer)
    console = Console(stderr=True)

    def progress(steps: Sequence[object]) -> object:
        return track(steps, "writing groups", console=console, disable=not console.is_terminal)

    for listing in session.listings:
        listing.catch_up()
    report = make_report(session, arguments.groups, progress)  # type: ignore[arg-type]
    with written_aside(arguments.out) as file:
        file.write(report.html)
    print(
        f"{arguments.out}: {len(report.html) / 1e6:.1f} MB, {report.groups} of {report.existing} groups "
        f"({RULE}), credit: {', '.join(report.methods) or 'none'}"
    )
    if report.groups < report.chosen:
        print(f"{report.chosen - report.groups} groups did not fit into 10 MB")
    for what in report.left_out:
        print(f"left out {what}")
    return 0
