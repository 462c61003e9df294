"""Train the quickstart with every registered method: five steps, killed once and resumed, and once in one go.

python tests/end_to_end/every_method.py --write docs/trained.md
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from apportion.cli.main import main as apportion
from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.objectives import OBJECTIVES
from apportion.recipes import RECIPES
from apportion.recipes.methods import LEARNED, addition, command, settings_for
from apportion.rollouts.store import RolloutStore
from apportion.training.config import TrainConfig
from apportion.training.setup import set_up
from forked import begin, in_child, resume

STEPS, KILLED = 5, 3
CLOCK = {"seconds", "step_seconds", "tokens_per_second"}
BASE = TrainConfig(
    model="digits(hidden=16, layers=2, heads=2)",
    tasks=("running_sum(digits=3, train=200, held_out=20)",),
    warm_start="imitation(teacher='apportion.tasks.running_sum:demonstrate', max_steps=30, decay=10, batch=32)",
    prompts_per_step=2,
    group_size=4,
    max_new_tokens=4,
    steps=5,
    eval_prompts=0,
    save_every=2,
    threads=1,
    seed=11,
)
"""The quickstart, small enough for a test."""
EVERY = [("credit", name) for name in METHODS] + [("objective", name) for name in OBJECTIVES]


def outcome(folder: Path) -> dict[str, Any]:
    """What two runs that are the same agree in."""
    checkpoint = folder / f"checkpoints/step_{STEPS:06d}"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": {str(p.relative_to(checkpoint)): p.read_bytes() for p in checkpoint.rglob("*.safetensors")},
        "metrics": [{k: repr(v) for k, v in line.items() if k not in CLOCK} for line in lines],
        "rollouts": {
            step: (r.ids.tolist(), r.column("credit/advantages").tolist())
            for step, r in RolloutStore(folder / "rollouts")
        },
    }


def make_files(folder: Path, base: TrainConfig) -> None:
    """A rehearsal set and preference pairs, made from a short run as a user would."""
    assert begin(folder / "run", replace(base, steps=1)) == 0
    for name, flag in (("rehearse", "--only-right"), ("pairs", "--pairs")):
        words = ["rollout", str(folder / "run"), "--out", str(folder / f"{name}.jsonl"), flag, "--reference"]
        assert apportion([*words, "--prompts", "12", "--group-size", "8"]) == 0


def configuration(kind: str, name: str, base: TrainConfig, files: Path) -> TrainConfig:
    """The quickstart with a method and what it needs."""
    settings = settings_for(kind, name)
    if "rollouts" in settings:
        settings["rollouts"] = str(files / settings["rollouts"])
    return replace(base, **settings)


def killed_and_resumed(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Train, once whole and once killed and resumed, and check that both end in the same; what they ended in."""
    assert begin(folder / "whole", config) == 0
    assert begin(folder / "broken", config, kill_at=("updated", KILLED)) == -signal.SIGKILL
    assert resume(folder / "broken") == 0
    whole, broken = outcome(folder / "whole"), outcome(folder / "broken")
    for part in whole:
        assert broken[part] == whole[part], part
    assert len(whole["metrics"]) == STEPS
    return whole


def refusal(kind: str, name: str, base: TrainConfig) -> str | None:
    """What the recipe says of a bare name, if it refuses it."""
    try:
        set_up(replace(base, **{kind: (name,) if kind == "objective" else name}))
    except InputError as error:
        return str(error)
    return None


def table() -> list[str]:
    """The page: a row a method."""
    short = "imitation(teacher='apportion.tasks.running_sum:demonstrate', max_steps=60)"
    base = replace(RECIPES["quickstart"](), steps=STEPS, eval_prompts=0, save_every=2, warm_start=short)
    lines = [
        "# Every method on the quickstart",
        "",
        "Made by `make trained`, which trains the recipe with every",
        f"registered name for {STEPS} steps, kills it at step {KILLED}, resumes it, and compares weights, metrics and",
        "rollouts, bit for bit, with a run that was not killed (after a warm start of 60 steps, and without the",
        "evaluations). Where a bare name lacks something the recipe refuses it before anything is sampled; the",
        "sentence is its own.",
        "",
        "| | name | the bare name | command | killed and resumed |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_files(folder, base)
        for kind, name in EVERY:
            config = configuration(kind, name, base, folder)
            status = in_child(lambda config=config, at=folder / kind / name: killed_and_resumed(config, at))
            result = "ends the same" if status == 0 else "**fails**"
            said = "a model beside the policy minimises it" if kind == "objective" and name in LEARNED else None
            said = said or refusal(kind, name, base) or "trains"
            before = addition(kind, name).before
            words = f"`{command(kind, name)}`" + (f" after `{before}`" if before else "")
            cells = [kind, f"`{name}`", said, words, result]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> int:
    """Print the page or write it; fails if a method does."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", type=Path, help="file to write")
    arguments = parser.parse_args()
    lines = table()
    if arguments.write:
        arguments.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        print("\n".join(lines))
    return int(any("**fails**" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
