"""Hold papers to what they claim."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from apportion.cli.arguments import parse
from apportion.cli.output import print_table
from apportion.cli.progress import Counted
from apportion.errors import InputError
from apportion.studies.claims_entries import entries
from apportion.studies.claims_page import counted, interval, page, report
from apportion.studies.claims_run import Folder, run


@dataclass(frozen=True)
class Arguments:
    """Measure what papers claim of their methods, each against the smallest effect that counts:
    apportion claims [METHOD ...]. Without a name, all of them: about two hours. What was measured is kept, so a run
    that was stopped goes on when it is started again. The exit code is 1 if a claim could not be measured."""

    list: bool = False
    """Say what the claims are and measure nothing."""
    again: bool = False
    """Measure what is reproduced on other seeds too, a thousand further on."""
    seed_offset: int = 0
    """The first seed."""
    processes: int = 1
    """How many seeds to measure at a time, each in a process with one thread."""
    folder: Path = Path("runs/claims")
    """Where measurements are kept; those of a claim whose file has changed since are made anew."""
    json: bool = False
    """Print JSON, with the figures of every seed."""
    write: Path | None = None
    """A folder to write claims.md and claims.json into."""


def main(argv: Sequence[str]) -> int:
    """``apportion claims``"""
    words = list(argv)
    names = []
    while words and not words[0].startswith("-"):
        names.append(words.pop(0))
    arguments = parse(Arguments, words, "apportion claims")
    chosen = entries(names)
    if arguments.list:
        listed = [entry.claim for entry in chosen]
        for claim in listed:
            print(f"{claim.key}\n  {claim.says}\n  {claim.how}\n  against it: {claim.against}")
            print(f"  smallest effect that counts: {claim.smallest:g}")
        return 0
    if arguments.write is not None and not arguments.write.is_dir():
        raise InputError(f"cannot write into {arguments.write}: it is no folder; make it, or choose another.")
    folder = Folder(arguments.folder)
    with Counted(Console(stderr=True)) as progress:
        results = run(chosen, folder, arguments.processes, arguments.seed_offset, arguments.again, progress)
    found = report(results, _command(names, arguments))
    if arguments.write is not None:
        (arguments.write / "claims.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (arguments.write / "claims.md").write_text(page(found), encoding="utf-8")
    if arguments.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 1 if any(result.failed or (result.again and result.again.failed) for result in results) else 0


def _command(names: Sequence[str], arguments: Arguments) -> str:
    """The command line as far as it decides what is found."""
    flags = ["--again"] if arguments.again else []
    flags += ["--seed-offset", str(arguments.seed_offset)] if arguments.seed_offset else []
    return shlex.join(["apportion", "claims", *names, *flags, "--write", "docs"])


def _print(found: dict[str, Any]) -> None:
    head = ("claim", "smallest", "effect", "seeds", "verdict", "again", "CPU s")
    rows = [
        [
            f"{claim['method']}: {claim['title']}",
            f"{claim['smallest']:g}",
            interval(claim),
            str(claim["seeds"]),
            claim["verdict"] or "not measured",
            "" if claim["again"] is None else claim["again"]["verdict"] or "not measured",
            f"{claim['cpu_seconds']:.0f}",
        ]
        for claim in found["claims"]
    ]
    print_table(Console(soft_wrap=True), head, rows)
    for claim in found["claims"]:
        for part in (claim, claim["again"]):
            if part is not None and part["failed"]:
                print(f"{claim['method']}: {claim['title']}: {part['failed']}")
    print(counted(found))
