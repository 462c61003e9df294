"""What tokens and prompts look like as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch

from apportion.annotations.token_texts import token_texts
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import Column

Decode = Callable[[Sequence[int]], str]

LONGEST = 400
"""Characters of a token or a short text that are shown; the rest is counted."""

LONGEST_PROMPT = 20_000
"""Characters of a prompt, a response's text or a reason that are shown."""


def open_tokenizer(path: Path) -> Decode:
    """A function that turns tokens into text, special ones included.

    Args:
        path: a ``tokenizer.json``, or a folder with one.

    Raises:
        InputError: there is none, it cannot be read, or the package tokenizers is not installed.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path} holds no tokenizer.json: give the folder of a model, or leave the tokenizer out.")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError(
            'showing tokens as text needs tokenizers, which is not installed: run pip install "apportion[train]".'
        ) from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises Exception itself
        raise InputError(f"{file} is no tokenizer ({error}): give the folder of a model.") from None

    @cache
    def decode(ids: tuple[int, ...]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    return lambda ids: decode(tuple(ids))


def tokenizer_of_run(run: Path) -> Path | None:
    """The tokenizer beside the newest checkpoint of a run that has one."""
    found = sorted((run / "checkpoints").glob("step_*/model/tokenizer.json"))
    return found[-1] if found else None


def pieces(rollouts: Rollouts, response: int, decode: Decode | None) -> list[str]:
    """The text of every token of a response; together they are its text.

    They come from the text column ``token:text`` where there is one, else from the tokenizer, else they are the ids.
    """
    start, end = rollouts.token_offsets[response : response + 2].tolist()
    ids = rollouts.ids[start:end].tolist()
    given = rollouts.columns.get("token:text")
    if given is not None and not isinstance(given.values, torch.Tensor):
        return [str(i) if text is None else text for i, text in zip(ids, given.values[start:end], strict=True)]
    return of_ids(ids, decode)


def of_ids(ids: Sequence[int], decode: Decode | None) -> list[str]:
    """The text of every one of some tokens in a row; their ids where nothing can tell."""
    if decode is None:
        return [str(i) if t == 0 else f" {i}" for t, i in enumerate(ids)]
    found = token_texts(tuple(ids), decode)
    return [found.text[a:b] for a, b in pairwise([*found.starts, len(found.text)])]


def cell(column: Column | None, row: int, longest: int = LONGEST_PROMPT) -> str | None:
    """An entry of a text column, shortened; None where there is no such column or entry."""
    if column is None or isinstance(column.values, torch.Tensor):
        return None
    return shortened(column.values[row], longest)


def shortened(text: str | None, longest: int = LONGEST) -> str | None:
    """A text of at most so many characters, and how many were left out.

    Example:
        >>> shortened("abcdefgh", 3)
        'abc\\u2026 (8 characters)'
    """
    if text is None or len(text) <= longest:
        return text
    return f"{text[:longest]}\N{HORIZONTAL ELLIPSIS} ({len(text):,} characters)"


def prompt_text(rollouts: Rollouts, response: int, decode: Decode | None) -> str:
    """The prompt of a response as text."""
    for name in ("response:prompt_text", "response:prompt"):
        text = cell(rollouts.columns.get(name), response)
        if text is not None:
            return text
    prompt = int(rollouts.prompts[response])
    start, end = rollouts.prompt_offsets[prompt : prompt + 2].tolist()
    ids = rollouts.prompt_ids[start:end].tolist()
    return shortened("".join(of_ids(ids, decode)), LONGEST_PROMPT) or ""
