"""The study of trees, as a command: looks, confirms, and writes the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from apportion.cli.arguments import parse
from apportion.cli.study import carry_out, print_found
from apportion.errors import InputError
from apportion.recipes.tree_study import Size, confirming, looked_at, promising
from apportion.recipes.tree_study_page import draw_studies, page
from apportion.studies.picture import check_drawable
from apportion.studies.plan import Study


@dataclass(frozen=True)
class Arguments:
    """Does better credit need fewer rollouts: apportion study trees. Three tasks are looked at, and what seems to
    help is confirmed on fresh seeds and on a fourth. Started again it goes on."""

    steps: int = Size.steps
    """Steps of flat sampling a run; trees take the same tokens."""
    seeds: int = Size.seeds
    """Runs of every arm for each warm start."""
    warm_starts: int = Size.warm_starts
    """Warm starts, from different seeds."""
    confirming: int = Size.confirming
    """Warm starts of the studies that confirm."""
    tuning_seeds: int = Size.tuning_seeds
    """Runs for every learning rate that is tried."""
    signal: int = Size.signal
    """Batches on which every arm's gradient is measured; 0: do not."""
    seed: int = Size.seed
    """The first seed."""
    out: Path = Path("studies/trees")
    """Folder of the studies."""
    processes: int = 0
    """Runs side by side, one thread each; 0: as many as there are cores."""
    write: Path | None = None
    """A folder to write tree_study.md, studies/trees.json and studies/trees.svg into."""
    json: bool = False
    """Print what was found as JSON."""


def main(argv: Sequence[str]) -> int:
    """``apportion study trees``"""
    given = parse(Arguments, argv, "apportion study trees")
    size = Size(**{field.name: getattr(given, field.name) for field in fields(Size)})
    if given.write is not None and not given.write.is_dir():
        raise InputError(f"cannot write into {given.write}: it is no folder; make it, or choose another.")
    check_drawable()
    looked = _carry_out(looked_at(size), given.out / "looked", given)
    conditions = promising(looked)
    confirmed = _carry_out(confirming(conditions, size), given.out / "confirmed", given)
    found = {
        "schema": "apportion.tree_study/2",
        "command": _command(given),
        "size": asdict(size),
        "looked_at": looked,
        "conditions": [asdict(condition) for condition in conditions],
        "confirmed": confirmed,
    }
    if given.write is not None:
        folder = given.write / "studies"
        folder.mkdir(exist_ok=True)
        (folder / "trees.json").write_text(json.dumps(_short(found), indent=1) + "\n", encoding="utf-8")
        draw_studies(found, folder / "trees.svg")
        (given.write / "tree_study.md").write_text(page(found), encoding="utf-8")
    if given.json:
        print(json.dumps(found))
        return 0
    for title, reports in (("looked at", looked), ("confirming", confirmed)):
        for name, report in reports.items():
            print(f"\n== {title}: {name}")
            print_found(report)
    return 0


def _carry_out(studies: Mapping[str, Study], folder: Path, given: Arguments) -> dict[str, dict[str, Any]]:
    return {name: carry_out(study, folder / name, given.processes, name) for name, study in studies.items()}


def _command(given: Arguments) -> str:
    """The command line, without where it writes to and how."""
    defaults = Arguments()
    words = [
        f"--{name.replace('_', '-')} {getattr(given, name)}"
        for name in (field.name for field in fields(Size))
        if getattr(given, name) != getattr(defaults, name)
    ]
    return " ".join(["apportion study trees", *words])


def _short(found: Mapping[str, Any]) -> dict[str, Any]:
    """Without the curves, of which the picture has what is to be seen."""
    parts = {}
    for part in ("looked_at", "confirmed"):
        parts[part] = {
            name: {
                **report,
                "compared": [{k: v for k, v in arm.items() if k != "curve"} for arm in report["compared"]],
            }
            for name, report in found[part].items()
        }
    return {**found, **parts}
