"""Claims of which the outcome is known; CLAIMS_LOG names a file to note what is measured, CLAIMS_SECONDS slows it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from apportion.studies.claim import Claim


def _claim(title: str, effect: Callable[[int], float]) -> Claim:
    def measure(seed: int) -> Mapping[str, float]:
        if "CLAIMS_LOG" in os.environ:
            with open(os.environ["CLAIMS_LOG"], "a") as log:
                log.write(f"{title} {seed}\n")
        time.sleep(float(os.environ.get("CLAIMS_SECONDS", "0")))
        return {"effect": effect(seed), "seed": seed}

    return Claim("grpo", title, f"Says {title}.", f"How {title}.", f"Against {title}.", 0.5, measure)


def _fails(seed: int) -> float:
    if seed == 3:
        raise ValueError("seed 3 | it is")
    return 1.0


CLAIMS = (
    _claim("large", lambda seed: 1.0 + 0.01 * (seed % 3)),
    _claim("small", lambda seed: 0.1 + 0.01 * (seed % 3)),
    _claim("open", lambda seed: 0.5 + (-1.0) ** seed),
    _claim("late", lambda seed: 0.9 + 0.6 * (-1.0) ** seed),
    _claim("lucky", lambda seed: (1.0 if seed < 100 else 0.0) + 0.01 * (seed % 3)),
)


def _breaks_later(seed: int) -> float:
    if seed > 1000:
        raise ValueError(f"seed {seed}")
    return 1.0 + 0.01 * (seed % 3)


FAILING = (
    _claim("fails", _fails),
    _claim("endless", lambda seed: float("nan")),
    _claim("constant", lambda seed: 1.0),
    _claim("breaks later", _breaks_later),
)
