"""What an evaluation function is given of a decision: the text before it and its own, or numbers read from both.

Suffix legend: B decisions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from apportion.annotations.sandbox import Inputs
from apportion.annotations.token_texts import token_texts
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts, Steps
from apportion.rollouts.makers import maker_of

MOST_DIGITS = 18
"""Digits of a running sum's prompt at most."""

_RUNNING_SUM = re.compile(r"([0-9]+)=([0-9])(.*)", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """How decisions become the inputs of a function.

    Attributes:
        layout: what ``observation`` and ``action`` are, as whoever writes the function is told.
        read: ``(text before every decision [B], its own text [B]) -> (observation, action)``.
    """

    layout: str
    read: Callable[[Sequence[str], Sequence[str]], tuple[Inputs, Inputs]]


def text() -> Reading:
    """The texts themselves."""
    layout = (
        "observation: a list of B texts, for every decision the problem and everything written before it.\n"
        "action: a list of B texts, what was written in that decision."
    )
    return Reading(layout, lambda before, said: (list(before), list(said)))


def running_sum() -> Reading:
    """Numbers of a running sum such as ``0453496=6`` and the digits written so far.

    Raises:
        InputError: when run, the text before a decision does not begin with such a prompt.
    """
    layout = (
        f"observation: an array of shape (B, {2 + MOST_DIGITS}). Column 0: how many characters were written before. "
        "Column 1: the number to go on from, which is the last digit written, or the digit after the equals sign if "
        f"none was; -1 if the last character written is no digit. Columns 2 to {1 + MOST_DIGITS}: the digits before "
        "the equals sign in order, -1 after the last.\n"
        "action: an array of shape (B, 1): the digit written, 10 for a full stop, -1 for anything else."
    )

    def read(before: Sequence[str], said: Sequence[str]) -> tuple[Inputs, Inputs]:
        observation = np.full((len(before), 2 + MOST_DIGITS), -1.0)
        for row, line in enumerate(before):
            found = _RUNNING_SUM.match(line)
            if found is None or len(found[1]) > MOST_DIGITS:
                raise InputError(
                    f"inputs 'running_sum' read prompts such as '0453496=6' and got {line[:40]!r}: choose "
                    "inputs='text'."
                )
            digits, first, written = found.groups()
            last = (first + written)[-1]
            observation[row, 0] = len(written)
            observation[row, 1] = int(last) if last in "0123456789" else -1
            observation[row, 2 : 2 + len(digits)] = [int(digit) for digit in digits]
        codes = {**{str(digit): float(digit) for digit in range(10)}, ".": 10.0}
        return observation, np.array([[codes.get(action, -1.0)] for action in said]).reshape(len(said), 1)

    return Reading(layout, read)


READINGS: dict[str, Callable[..., Reading]] = {"text": text, "running_sum": running_sum}


def texts_of(rollouts: Rollouts, policy: Any, table: Steps) -> tuple[list[str], list[str]]:
    """Of every decision, the prompt and what its response holds before it ``[B]``, and its own text ``[B]``.

    Args:
        rollouts: with ``response:prompt_text``.
        policy: whose codec turns tokens into text.
        table: its decisions, each within one response.

    Raises:
        MissingColumn: there is no text of prompts.
    """
    if not rollouts.has("response:prompt_text"):
        raise MissingColumn("response:prompt_text", "latent_reward", maker_of("prompt_text"))
    prompts = rollouts.columns["response:prompt_text"].text
    decode = cache(policy.codec("{prompt}", None).decode)
    ids, offsets = rollouts.ids.tolist(), rollouts.token_offsets.tolist()

    @cache
    def read(response: int) -> tuple[str, list[int]]:
        tokens = token_texts(tuple(ids[offsets[response] : offsets[response + 1]]), decode)
        return tokens.text, [*tokens.starts, len(tokens.text)]

    before, said = [], []
    rows = rollouts.response_of_span[table.level].tolist() if table.level in rollouts.spans else range(len(table))
    for response, start, end in zip(rows, table.starts.tolist(), table.ends.tolist(), strict=True):
        whole, starts = read(response)
        a, b = starts[start - offsets[response]], starts[end - offsets[response]]
        prompt = prompts[response]
        if prompt is None:
            raise InputError(f"response {response} has no prompt text, expected one of every response that is read.")
        before.append(prompt + whole[:a])
        said.append(whole[a:b])
    return before, said
