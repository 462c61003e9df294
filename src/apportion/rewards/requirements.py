"""Checks that builders of verifiers make before any response is looked at."""

from __future__ import annotations

import importlib.util
import math

from apportion.errors import InputError


def require(module: str, distribution: str, verifier: str) -> None:
    """Refuse to build a verifier whose library is absent.

    Raises:
        InputError: with the line that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise InputError(
            f"the verifier {verifier!r} needs {distribution}, which is not installed: pip install 'apportion[train]'."
        )


def positive_seconds(verifier: str, time_limit: float) -> None:
    """Refuse a time limit that is no finite number of seconds above zero.

    Raises:
        InputError: it is not.
    """
    number = isinstance(time_limit, int | float) and not isinstance(time_limit, bool)
    if not number or not math.isfinite(time_limit) or time_limit <= 0:
        raise InputError(f"{verifier}(time_limit={time_limit!r}) must be a number of seconds above 0, such as 5.0.")
