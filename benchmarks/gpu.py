"""The gradient step with shared prefixes computed once, against padded rows, on a GPU: 0.6 B parameters, bfloat16.

    python benchmarks/gpu.py           a table
    python benchmarks/gpu.py --json    the rows, one object each

Rows, objective and shapes are those of prefix_training.py; times are wall-clock times between two synchronisations,
after three steps that compile kernels, and ``peak`` is what torch's allocator held above the model with its gradients.
Without a GPU it says so and ends with 2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from measure import machine, spread
from prefix_training import SHAPES, Shape, Step, group, ideal

from apportion.models.digits import digit_llama
from apportion.models.huggingface import HuggingFacePolicy

WARM_UP = 3


def large() -> HuggingFacePolicy:
    """A Llama of 0.6 B parameters with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=1280,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=20,
        num_key_value_heads=4,
        vocab_size=49_152,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        eos_token_id=None,
        bos_token_id=None,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    return HuggingFacePolicy(model.to(torch.bfloat16).eval(), digit_llama().tokenizer)


def seconds(step: Callable[[], None]) -> float:
    """Wall-clock time of a step."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def peak(step: Callable[[], None]) -> float:
    """Bytes a step holds above what is there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before)


def case(model: HuggingFacePolicy, shape: Shape, repeats: int) -> dict[str, Any]:
    """One row."""
    rollouts = group(shape, model.vocabulary).to("cuda")
    rows, tree = Step(model, rollouts, shared=False), Step(model, rollouts, shared=True)
    expected = rows.gradient()
    error = float((tree.gradient() - expected).norm() / expected.norm())
    times: dict[str, list[float]] = {"rows": [], "tree": []}
    for repeat in range(WARM_UP + repeats):
        for name, step in (("rows", rows), ("tree", tree)):
            taken = seconds(step)
            if repeat >= WARM_UP:
                times[name].append(taken)
    ratios = [one / other for one, other in zip(times["rows"], times["tree"], strict=True)]
    middle = statistics.median(times["rows"]) / statistics.median(times["tree"])
    return {
        "name": f"0.6 B, {shape}",
        "ratio": {**{k: round(v, 2) for k, v in spread(ratios).items()}, "median": round(middle, 2)},
        "ideal": round(ideal(model, rollouts), 2),
        "error": float(f"{error:.1e}"),
        "peak": round(peak(rows) / peak(tree), 2),
        "machine": f"{machine()}, {torch.cuda.get_device_name()}",
    }


def main() -> int:
    """Print a table, or the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="repeats a case")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu.py: torch sees no GPU here; run it where there is one.", file=sys.stderr)
        return 2
    model = large()
    model.share_prefixes()
    long = (Shape(2048, 256, 16), Shape(1024, 1024, 16, tree=True))
    rows = []
    for shape in (*SHAPES, *long):
        row = case(model, shape, arguments.repeats)
        rows.append(row)
        ratio = row["ratio"]
        print(
            f"{row['name']:36} {ratio['median']:5.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]  ideal "
            f"{row['ideal']:.2f}  error {row['error']:.0e}  peak {row['peak']:.2f}",
            file=sys.stderr if arguments.json else sys.stdout,
            flush=True,
        )
    if arguments.json:
        print(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
