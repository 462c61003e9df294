"""The quickstart task: add digits modulo 10, writing out every partial sum.

The prompt holds digits 2 to K, an equals sign and digit 1; the answer is the K - 1 partial sums and a full stop:

    0453496=6   →   6058217.

With the first digit last, every step is alike: the previous total is the current token, and the next digit stands
at a fixed distance before it. Only the last partial sum is checked, so a model earns one reward for K - 1
decisions, any of which may have been wrong: a small world in which credit assignment matters.

The teacher makes mistakes on purpose. A policy that imitates it has something left to learn, and its mistakes have
a known place and rate.
"""

from __future__ import annotations

import re

import numpy as np

from apportion.errors import InputError
from apportion.tasks.source import Source
from apportion.tasks.task import Task

SLIP_EVEN = 0.6
"""Probability that the teacher errs on a carry when previous total + digit is even."""
SLIP_ODD = 0.1
"""The same when previous total + digit is odd."""

_PROMPT = re.compile(r"[0-9]+=[0-9]")
_MOST_DIGITS = 18  # 10 ** 18 still fits an int64


def running_sum(
    digits: int = 8, train: int = 20_000, held_out: int = 512, seed: int = 0, name: str = "running_sum"
) -> Source:
    """Random running-sum problems, all different.

    Args:
        digits: K, how many digits are added (2 to 18); prompts have K + 1 characters, answers K.
        train: how many problems to train on.
        held_out: how many problems to evaluate on.
        seed: chooses the problems and their division.
        name: what metrics call the source.

    Raises:
        InputError: a setting out of range, or fewer than ``train + held_out`` different problems exist.

    Example:
        >>> source = running_sum(digits=3, train=4, held_out=2)
        >>> len(source.train), len(source.held_out), len(source.train[0].text)
        (4, 2, 4)
    """
    for setting, value, least, most in (
        ("digits", digits, 2, _MOST_DIGITS),
        ("train", train, 1, 10**7),
        ("held_out", held_out, 0, 10**7),
        ("seed", seed, 0, 2**63 - 1),
    ):
        if type(value) is not int or not least <= value <= most:
            raise InputError(f"running_sum has {setting}={value!r}, expected a whole number from {least} to {most}.")
    total = train + held_out
    if total > 10**digits:
        raise InputError(
            f"running_sum(digits={digits}) has {10**digits} different prompts, fewer than train={train} plus "
            f"held_out={held_out}: ask for fewer, or for more digits."
        )
    numbers = np.random.default_rng(seed).choice(10**digits, size=total, replace=False)
    tasks = []
    for number in numbers.tolist():
        written = f"{number:0{digits}d}"
        prompt = f"{written[1:]}={written[0]}"
        tasks.append(Task(prompt, str(sum(map(int, written)) % 10), name))
    return Source.divided(name, tasks, held_out, seed, "running_sum", f"running_sum(digits={digits})")


def solve(prompt: str) -> str:
    """The correct response to a running-sum prompt.

    Raises:
        InputError: the prompt is not digits, an equals sign and one digit.

    Example:
        >>> solve("0453496=6")
        '6058217.'
    """
    total, rest = _read(prompt)
    sums = []
    for digit in rest:
        total = (total + digit) % 10
        sums.append(total)
    return "".join(map(str, sums)) + "."


def demonstrate(prompt: str, rng: np.random.Generator) -> str:
    """The sloppy teacher's response to a running-sum prompt.

    Where the sum carries (previous total + digit is 10 or more) it writes one too much, with probability 0.6 if
    that sum is even and 0.1 if it is odd, and goes on from what it wrote.

    Args:
        prompt: as ``running_sum`` makes them.
        rng: gives one draw a step, carry or not, so that mistakes in one place do not move the draws of the next.

    Raises:
        InputError: the prompt is not digits, an equals sign and one digit.

    Example:
        >>> demonstrate("111=0", np.random.default_rng(0))  # nothing carries: no mistakes
        '123.'
    """
    total, rest = _read(prompt)
    sums = []
    for digit, draw in zip(rest, rng.random(len(rest)).tolist(), strict=True):
        total += digit
        slip = total >= 10 and draw < (SLIP_ODD if total % 2 else SLIP_EVEN)
        total = (total + slip) % 10
        sums.append(total)
    return "".join(map(str, sums)) + "."


def _read(prompt: str) -> tuple[int, list[int]]:
    """First digit, and the digits added to it."""
    if not _PROMPT.fullmatch(prompt):
        raise InputError(f"cannot read the prompt {prompt!r}: expected digits, '=' and one digit, as in 0453496=6.")
    return int(prompt[-1]), [int(digit) for digit in prompt[:-2]]
