"""How fast credit is: every method of the common suite on a million tokens, against what others run.

    python benchmarks/credit.py                    a table
    python benchmarks/credit.py --json             the rows, one object each
    python benchmarks/credit.py --only tempo,grpo  some methods

A row is {method, tokens, seconds, ratio, against}: ``seconds`` is processor time on one thread, median of five;
``ratio`` is how many times longer the other takes. Three comparisons:

* verl's own functions where it has one, on the padded matrices they are made for (``make benchmark-credit`` installs
  verl); ours gets ragged rollouts, and in the rows *with padding* the same matrices, converted there and back;
* the naive loop of ``tests/reference`` at 100,000 tokens;
* itself: the time per token at 2 million over that at 8 million tokens, so that 0.5 is twice as slow per token. Once
  with the C library's usual allocator, which maps every array above 32 MiB anew, page by page, and once told to keep
  freed memory, as other allocators do: the difference is the system's, not the method's.

The rollouts: responses of 1,024 tokens in groups of 16; every response leaves the path of the one before it somewhere;
turns of 64 tokens. Further columns are those of the common suite, where steps are as short as two tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from measure import alternate, machine, spread

from apportion.credit import METHODS
from apportion.rollouts import Rollouts, from_padded
from credit.cases import CASES, Case
from credit.worlds import Flat

LENGTH, GROUP, TURN = 1024, 16, 64
MILLION = 1_000_000


def paths(responses: int, seed: int = 0) -> Tensor:
    """Token ids ``[responses, LENGTH]`` of zeros and ones, in groups of trees."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 2, (responses, LENGTH), generator=draw)
    leaves = torch.randint(0, LENGTH, (responses,), generator=draw)
    for i in range(responses):
        if i % GROUP:
            ids[i, : leaves[i]] = ids[i - 1, : leaves[i]]
    return ids


def outcomes(responses: int, seed: int = 1) -> Tensor:
    """Rewards 0 or 1."""
    return torch.randint(0, 2, (responses,), generator=torch.Generator().manual_seed(seed)).double()


def groups(responses: int) -> Tensor:
    """Group of every response."""
    return torch.arange(responses) // GROUP


def world(tokens: int) -> Rollouts:
    """Rollouts of about so many tokens, cut into turns."""
    responses = round(tokens / LENGTH / GROUP) * GROUP
    ids = paths(responses)
    flat = from_padded(ids, torch.ones_like(ids), outcomes(responses), groups(responses))
    starts = torch.arange(0, flat.n_tokens, TURN)
    return flat.with_spans("turn", starts, starts + TURN)


def small_world(tokens: int) -> Flat:
    """The same as lists, for naive loops: one decision a response."""
    responses = round(tokens / LENGTH / GROUP) * GROUP
    ids = paths(responses).tolist()
    trained = [[True] * LENGTH] * responses
    return Flat(ids, groups(responses).tolist(), outcomes(responses).tolist(), trained)


# Against verl


def verl_sides() -> dict[str, Callable[[Tensor, Tensor, np.ndarray], Any]]:
    """verl's functions, by the method of ours that computes the same: ``(rewards [B, T], mask [B, T], index [B])``."""
    from verl.trainer.ppo import core_algos as verl

    zeros = torch.zeros
    return {
        "grpo": lambda r, m, i: verl.compute_grpo_outcome_advantage(r, m, i),
        "grpo vectorised": lambda r, m, i: verl.compute_grpo_vectorized_outcome_advantage(r, m, i),
        "rloo": lambda r, m, i: verl.compute_rloo_outcome_advantage(r, m, i),
        "rloo vectorised": lambda r, m, i: verl.compute_rloo_vectorized_outcome_advantage(r, m, i),
        "reinforce_pp": lambda r, m, i: verl.compute_reinforce_plus_plus_outcome_advantage(r, m, config=_Gamma()),
        "reinforce_pp_baseline": lambda r, m, i: verl.compute_reinforce_plus_plus_baseline_outcome_advantage(r, m, i),
        "gae": lambda r, m, i: verl.compute_gae_advantage_return(r, zeros(r.shape), m, 1.0, 0.95),
    }


class _Gamma:
    """What verl reads of its configuration there."""

    gamma = 1.0


def against_verl(only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One method at a time on a million tokens, with and without the conversion from padded matrices."""
    from importlib.metadata import version

    responses = round(MILLION / LENGTH / GROUP) * GROUP
    ids, rewards, group = paths(responses), outcomes(responses), groups(responses)
    mask, values = torch.ones_like(ids), torch.zeros(ids.shape)
    at_end = torch.zeros(ids.shape)
    at_end[:, -1] = rewards.float()
    index = np.array([f"prompt {g}" for g in group.tolist()], dtype=object)
    for label, theirs in verl_sides().items():
        name = label.split(" ")[0]
        if only and name not in only:
            continue
        method = METHODS[name](lam=0.95) if name == "gae" else METHODS[name]()
        columns = {"values/critic": values} if name == "gae" else {}

        def padded(columns: dict[str, Tensor] = columns) -> Rollouts:
            return from_padded(ids, mask, rewards, group, **columns)

        ready = padded()
        times = alternate(
            {
                "ours": lambda method=method, ready=ready: method(ready),
                "with padding": lambda method=method, padded=padded: method(padded()).to_padded(),
                "theirs": lambda theirs=theirs: theirs(at_end, mask, index),
            }
        )
        other = f"verl {version('verl')} {label}"
        yield row(label, ready.n_tokens, times["ours"], times["theirs"], other)
        yield row(f"{label}, with padding", ready.n_tokens, times["with padding"], times["theirs"], other)


# Against the naive loop, and against itself


def first_cases(only: Sequence[str], referenced: bool = False) -> list[Case]:
    """The first row of every method in the common suite, perhaps among those that have a naive loop."""
    rows: dict[str, Case] = {}
    for case in CASES:
        if (not only or case.method in only) and (case.reference or not referenced):
            rows.setdefault(case.method, case)
    return list(rows.values())


def against_naive(only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """At 100,000 tokens; the loop runs once, since it takes seconds."""
    small = small_world(MILLION // 10)
    for case in first_cases(only, referenced=True):
        ready, reference = case.prepare(small.rollouts()), case.reference
        assert reference is not None
        ours = alternate({"ours": lambda case=case, ready=ready: case.run(ready)})["ours"]
        naive = alternate({"naive": lambda reference=reference: reference(small)}, repeats=1)["naive"]
        yield row(str(case), ready.n_tokens, ours, naive, "the naive loop")


def against_itself(only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """1, 2 and 8 million tokens."""
    for case in first_cases(only):
        seconds = {}
        for millions in (1, 2, 8):
            ready = case.prepare(world(millions * MILLION))
            times = alternate({"ours": lambda case=case, ready=ready: case.run(ready)})["ours"]
            seconds[millions] = [s / ready.n_tokens for s in times]
            if millions == 1:
                yield {"method": str(case), "tokens": ready.n_tokens, **timed(times), "ratio": None, "against": None}
        yield row(str(case), 8 * MILLION, *(scaled(seconds[m]) for m in (8, 2)), "a token of 2 million")


def scaled(per_token: Sequence[float]) -> list[float]:
    """Seconds for eight million tokens."""
    return [s * 8 * MILLION for s in per_token]


def timed(times: Sequence[float]) -> dict[str, Any]:
    """Seconds of a row."""
    return {"seconds": round(statistics.median(times), 5), "spread": {k: round(v, 5) for k, v in spread(times).items()}}


def row(method: str, tokens: int, ours: Sequence[float], other: Sequence[float], against: str) -> dict[str, Any]:
    """A comparison: the ratio of medians."""
    ratio = statistics.median(other) / statistics.median(ours)
    return {"method": method, "tokens": tokens, **timed(ours), "ratio": round(ratio, 2), "against": against}


def against_itself_with_kept_memory(only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The same in a process whose C library keeps freed memory; it reads these settings when it starts."""
    kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
    words = [sys.executable, "-W", "ignore", __file__, "--json", "--against", "itself", "--only", ",".join(only)]
    done = subprocess.run(words, env={**os.environ, **kept}, check=True, stdout=subprocess.PIPE, text=True)
    for found in json.loads(done.stdout)["rows"]:
        if found["against"]:
            yield {**found, "against": "a token of 2 million, memory kept"}


COMPARISONS = {
    "verl": against_verl,
    "naive": against_naive,
    "itself": against_itself,
    "kept": against_itself_with_kept_memory,
}


def main() -> None:
    """Print a table, or the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object: machine and rows")
    parser.add_argument("--only", default="", help="methods, with commas between; default: all")
    parser.add_argument("--against", default=",".join(COMPARISONS), help=f"of {', '.join(COMPARISONS)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    only = [name for name in arguments.only.split(",") if name]
    rows = []
    for name in arguments.against.split(","):
        for found in COMPARISONS[name](only):
            rows.append(found)
            print(
                f"{found['method']:60} {found['tokens']:>9,} tokens {found['seconds']:9.4f} s "
                + (f"{found['ratio']:8.2f} x {found['against']}" if found["against"] else ""),
                file=sys.stderr if arguments.json else sys.stdout,
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
