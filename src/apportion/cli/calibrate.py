"""Measure credit against exact values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from apportion import registry
from apportion.cli.arguments import parse
from apportion.cli.output import print_table
from apportion.cli.progress import Counted
from apportion.errors import InputError, unknown_name
from apportion.evals.calibration.branching import branched
from apportion.evals.calibration.claims import REFUTED
from apportion.evals.calibration.methods import entries
from apportion.evals.calibration.page import page, table
from apportion.evals.calibration.report import report
from apportion.evals.calibration.run import QUICK, QUICK_WORLDS, Settings, calibrate
from apportion.evals.calibration.worlds import WORLDS


@dataclass(frozen=True)
class Arguments:
    """Run every credit method where exact values are known, and test what it claims: apportion calibrate.
    The exit code is 1 if a claim is refuted."""

    methods: str = ""
    """Methods, with commas: names, or specs such as "tempo(norm_by_std=False)"; default: all, and the textbook's. With
    one that is looked at on forks among them, such as tree, every fork rule is looked at with every backup."""
    worlds: str = ""
    """Worlds, with commas; default: all."""
    sizes: tuple[int, ...] = ()
    """Group sizes; default: 4 8 16."""
    noise: tuple[float, ...] = ()
    """Noise of planted annotations, 0 to 1; default: 0 0.5."""
    quick: bool = False
    """Fewer worlds, sizes and samples: under a minute."""
    seed: int = 0
    """Of samples and of the errors of annotations."""
    json: bool = False
    """Print JSON, with every cell."""
    write: Path | None = None
    """A folder to write calibration.json, leaderboard.md and leaderboard.svg into."""


def main(argv: Sequence[str]) -> int:
    """``apportion calibrate``"""
    arguments = parse(Arguments, argv, "apportion calibrate")
    settings = replace(QUICK if arguments.quick else Settings(), seed=arguments.seed)
    if arguments.sizes:
        settings = replace(settings, sizes=tuple(sorted(set(arguments.sizes))))
    if arguments.noise:
        settings = replace(settings, noise=tuple(sorted(set(arguments.noise))))
    names = registry.split(arguments.worlds) if arguments.worlds else list(QUICK_WORLDS if arguments.quick else WORLDS)
    for name in names:
        if name not in WORLDS:
            raise unknown_name("world", name, WORLDS)
    worlds = {name: WORLDS[name] for name in names}
    chosen = entries(registry.split(arguments.methods) if arguments.methods else ())
    if arguments.write is not None and not arguments.write.is_dir():
        raise InputError(f"cannot write into {arguments.write}: it is no folder; make it, or choose another.")
    if arguments.write is not None:
        from apportion.evals.calibration.picture import check_drawable

        check_drawable()

    with Counted(Console(stderr=True)) as progress:
        rows = calibrate(chosen, worlds, settings, progress)
        trees = any(entry.forks is not None for entry in chosen)
        forks = branched(settings.forests, settings.seed, progress) if trees else []
    found = {"command": _command(argv), **report(rows, chosen, worlds, settings, forks)}
    if arguments.write is not None:
        _write(found, arguments.write)
    if arguments.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 1 if any(claim["verdict"] == REFUTED for claim in found["claims"]) else 0


def _command(argv: Sequence[str]) -> str:
    """The command line, but for where it writes to."""
    words = list(argv)
    if "--write" in words:
        at = words.index("--write")
        del words[at : at + 2]
    return shlex.join(["apportion", "calibrate", *(word for word in words if not word.startswith("--write="))])


def _print(found: dict[str, Any]) -> None:
    console = Console(soft_wrap=True)
    head, lines = table(found)
    print_table(console, head, lines)
    print(
        f"\ngroups of {found['size_shown']}; angle in degrees; noise as a multiple of leave-one-out's; --json for all"
    )
    for truth in found["truths"]:
        print(f"{'as foretold' if truth['holds'] else 'NOT AS FORETOLD'}: {truth['statement']} ({truth['figures']})")
    refuted = [claim for claim in found["claims"] if claim["verdict"] == REFUTED]
    for claim in refuted:
        print(f"REFUTED: {claim['spec']} claims to be {claim['claim']}, but: {claim['evidence']}")
    tested = sum(claim["claim"] != "biased" for claim in found["claims"])
    print(f"{tested} claims to be exact, exact up to scale or consistent; {len(refuted)} refuted")


def _write(found: dict[str, Any], folder: Path) -> None:
    from apportion.evals.calibration.picture import draw

    lines = [json.dumps(cell) for cell in found["cells"]]
    rest = json.dumps({key: value for key, value in found.items() if key != "cells"}, indent=1)
    text = rest.removesuffix("\n}") + ',\n "cells": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    (folder / "calibration.json").write_text(text, encoding="utf-8")
    (folder / "leaderboard.md").write_text(page(found), encoding="utf-8")
    draw(found, folder / "leaderboard.svg")
