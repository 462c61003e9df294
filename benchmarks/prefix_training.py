"""The gradient step with shared prefixes computed once, against the same step on padded rows.

    python benchmarks/prefix_training.py           a table
    python benchmarks/prefix_training.py --json    the rows, one object each

Both sides are the trainer's own: the same policy, objective (clip), chunked head and loss, once with rows of equal
length and once with their prefix tree, whose making is part of the time. A row is

    {name, ratio: {median, min, max}, ideal, error, peak, machine}

``ratio`` is rows over tree, processor time of one thread, five repeats in turns. ``ideal`` is what counting
multiplications gives: (T c + n h) / (U c + m h), with T tokens in rows, U distinct prefixes, n trained tokens, m
distinct ones among them, and c and h the parameters of layers and head. ``error`` is the relative difference of the
whole gradient in float32. ``peak`` is the memory above the loaded model with its gradients, rows over tree, each side
in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import torch
from llamas import policy
from measure import alternate, machine, spread
from torch import Tensor

from apportion import objectives
from apportion.credit import METHODS, Credit
from apportion.models.huggingface import HuggingFacePolicy
from apportion.models.layouts import whole_rows
from apportion.models.measuring import micro_batches
from apportion.models.packing import prefix_tree
from apportion.rollouts import Rollouts
from apportion.training.gradient import accumulate

ALL_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Shape:
    """A group: responses of one length to one prompt; in a *tree* each leaves the path of an earlier one somewhere in
    its first three quarters."""

    prompt: int
    response: int
    copies: int
    tree: bool = False

    def __str__(self) -> str:
        return f"{self.prompt}/{self.response}/{self.copies}" + (" tree" if self.tree else "")


SHAPES = (
    Shape(512, 64, 8),
    Shape(256, 64, 8),
    Shape(128, 128, 16),
    Shape(128, 128, 8, tree=True),
    Shape(64, 256, 8, tree=True),
    Shape(64, 256, 8),
)
PEAK = Shape(256, 64, 8)


def group(shape: Shape, vocabulary: int) -> Rollouts:
    """A group of random tokens."""
    draw = torch.Generator().manual_seed(1)
    prompt = torch.randint(3, vocabulary, (shape.prompt,), generator=draw)
    ids = torch.randint(3, vocabulary, (shape.copies, shape.response), generator=draw)
    for i in range(1, shape.copies if shape.tree else 1):
        other = int(torch.randint(0, i, (1,), generator=draw))
        common = int(shape.response * 0.75 * float(torch.rand(1, generator=draw)))
        ids[i, :common] = ids[other, :common]
    rewards = torch.rand(shape.copies, generator=draw).tolist()
    return Rollouts.from_lists(
        ids.tolist(),
        groups=[0] * shape.copies,
        prompts=[prompt.tolist()] * shape.copies,
        rewards=rewards,
        log_probs_old=[[-math.log(vocabulary)] * shape.response] * shape.copies,
    )


class Step:
    """One gradient of the clipped surrogate, on rows or on the tree."""

    def __init__(self, model: HuggingFacePolicy, rollouts: Rollouts, shared: bool) -> None:
        self.model, self.rollouts, self.shared = model, rollouts, shared
        self.credit: Credit = METHODS["grpo"]()(rollouts)
        self.objective = objectives.clip()

    def __call__(self) -> None:
        """Leaves it in the parameters' ``grad``."""
        self.model.prefix_sharing = self.shared
        for _, parameter in self.model.named_parameters():
            parameter.grad = None
        parts = micro_batches(self.rollouts, ALL_AT_ONCE, self.shared)
        accumulate(self.model, self.objective, self.rollouts, self.credit, parts)

    def gradient(self) -> Tensor:
        """The whole of it."""
        self()
        return torch.cat([p.grad.flatten().double() for _, p in self.model.named_parameters() if p.grad is not None])


def ideal(model: HuggingFacePolicy, rollouts: Rollouts) -> float:
    """By counting multiplications."""
    ids, offsets, prompts = whole_rows(rollouts, torch.arange(rollouts.n_responses))
    tree = prefix_tree(ids, offsets)
    trained = torch.ones(len(ids), dtype=torch.bool)
    for start, length in zip(offsets[:-1].tolist(), prompts.tolist(), strict=True):
        trained[start : start + length] = False
    head = model.head.weight.numel()
    layers = sum(p.numel() for name, p in model.named_parameters() if "layers" in name)
    n, m = int(trained.sum()), len(tree.node_of_token[trained].unique())
    return (len(ids) * layers + n * head) / (len(tree) * layers + m * head)


def case(size: str, shape: Shape, repeats: int) -> dict[str, Any]:
    """One row without its peak."""
    model = policy(size)
    model.share_prefixes()
    rollouts = group(shape, model.vocabulary)
    rows, tree = Step(model, rollouts, shared=False), Step(model, rollouts, shared=True)
    expected = rows.gradient()
    error = float((tree.gradient() - expected).norm() / expected.norm())
    times = alternate({"rows": rows, "tree": tree}, repeats)
    ratios = [one / other for one, other in zip(times["rows"], times["tree"], strict=True)]
    middle = statistics.median(times["rows"]) / statistics.median(times["tree"])
    return {
        "name": f"{size}, {shape}",
        "ratio": {**{k: round(v, 2) for k, v in spread(ratios).items()}, "median": round(middle, 2)},
        "ideal": round(ideal(model, rollouts), 2),
        "error": float(f"{error:.1e}"),
        "peak": None,
        "machine": machine(),
    }


def peak_of(size: str, shape: Shape, shared: bool) -> float:
    """Memory in MiB that a step needs above the loaded model with its gradients, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure_peak, args=(size, shape, shared, send))
    process.start()
    found = float(receive.recv())
    process.join()
    return found


def _measure_peak(size: str, shape: Shape, shared: bool, send: Any) -> None:
    torch.set_num_threads(1)
    model = policy(size)
    step = Step(model, group(shape, model.vocabulary), shared)
    small = Step(model, group(Shape(4, 4, 2), model.vocabulary), shared)
    if shared:
        model.share_prefixes()
    small()  # gradients are allocated, code is loaded
    before = _resident()
    _forget_peak()
    step.model.prefix_sharing = shared
    parts = micro_batches(step.rollouts, ALL_AT_ONCE, shared)
    accumulate(step.model, step.objective, step.rollouts, step.credit, parts)
    send.send(_peak() - before)


def _status(field: str) -> float:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _resident() -> float:
    return _status("VmRSS")


def _peak() -> float:
    return max(_status("VmHWM"), 0.0) if sys.platform == "linux" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
    """From now on the peak counts anew."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def main() -> None:
    """Print a table, or the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="repeats a case")
    parser.add_argument("--sizes", default="small,large vocabulary", help="which models")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in arguments.sizes.split(","):
        for shape in SHAPES:
            row = case(size, shape, arguments.repeats)
            if shape == PEAK:
                row["peak"] = round(peak_of(size, shape, False) / peak_of(size, shape, True), 2)
            rows.append(row)
            ratio = row["ratio"]
            print(
                f"{row['name']:36} {ratio['median']:5.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]  "
                f"ideal {row['ideal']:.2f}  share {ratio['median'] / row['ideal']:.2f}  error {row['error']:.0e}"
                + (f"  peak {row['peak']:.2f}" if row["peak"] else ""),
                file=sys.stderr if arguments.json else sys.stdout,
                flush=True,
            )
    middle = math.exp(statistics.fmean(math.log(row["ratio"]["median"]) for row in rows))
    print(f"geometric mean {middle:.2f}", file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
