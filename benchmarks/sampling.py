"""Tokens a second of the local engine against transformers' ``generate``, on the same model and prompt.

    python benchmarks/sampling.py           a table
    python benchmarks/sampling.py --json    machine and rows

A row is {name, ratio: {median, min, max}, machine}: useful tokens per second of processor time, one thread, ours over
theirs, five repeats in turns. 16 responses of up to 64 tokens to one prompt. *early end*: one token in 32 ends a
response, so lengths differ; a response's tokens count up to and with the one that ends it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from llamas import policy
from measure import machine, seconds, spread

from apportion.sampling import SamplingSettings, engine_for

COPIES, NEW = 16, 64
CASES = [
    (size, prompt, early) for size in ("small", "large vocabulary") for prompt in (64, 512) for early in (False, True)
]


def measured(size: str, prompt_length: int, early: bool, repeats: int) -> dict[str, Any]:
    """One row."""
    from transformers import GenerationConfig

    model = policy(size)
    vocabulary = model.vocabulary
    ends = tuple(range(vocabulary - vocabulary // 32, vocabulary)) if early else ()
    prompt = torch.randint(0, vocabulary, (prompt_length,), generator=torch.Generator().manual_seed(1))
    engine = engine_for(model)
    settings = SamplingSettings(NEW, end_ids=ends)
    config = GenerationConfig(
        do_sample=True, max_new_tokens=NEW, pad_token_id=0, eos_token_id=list(ends) or None, top_k=0, top_p=1.0
    )
    rows = prompt.expand(COPIES, -1)

    def ours(seed: int) -> int:
        drawn = engine.generate([prompt.tolist()], COPIES, settings, torch.Generator().manual_seed(seed))
        return len(drawn.ids)

    def theirs(seed: int) -> int:
        torch.manual_seed(seed)
        with torch.no_grad():
            ids = model.model.generate(rows, generation_config=config)[:, prompt_length:]
        ended = torch.isin(ids, torch.tensor(ends, dtype=torch.int64))
        return int((ended.cumsum(1) - ended.long() == 0).sum())

    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    ours(0), theirs(0)
    for repeat in range(repeats):
        for name, work in (("ours", ours), ("theirs", theirs)):
            rates[name].append(_rate(work, 1 + repeat))
    ratios = [one / other for one, other in zip(rates["ours"], rates["theirs"], strict=True)]
    name = f"{size}, P={prompt_length}" + (", early end" if early else "")
    return {"name": name, "ratio": {k: round(v, 2) for k, v in spread(ratios).items()}, "machine": machine()}


def _rate(work: Callable[[int], int], seed: int) -> float:
    count = [0]

    def counted() -> None:
        count[0] = work(seed)

    return 1 / (seconds(counted) / count[0])


def main() -> None:
    """Print a table, or the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="repeats a case")
    parser.add_argument("--sizes", default="small,large vocabulary", help="which models")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size, prompt, early in (case for case in CASES if case[0] in arguments.sizes.split(",")):
        rows.append(measured(size, prompt, early, arguments.repeats))
        ratio = rows[-1]["ratio"]
        print(
            f"{rows[-1]['name']:40} {ratio['median']:6.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]",
            file=sys.stderr if arguments.json else sys.stdout,
            flush=True,
        )
    if arguments.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
