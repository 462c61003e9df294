"""A token where it stands: the text around it, its group, and what its episode earned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from apportion import objectives
from apportion.annotations.token_texts import token_texts
from apportion.cli.credit import group_names
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import split_name
from apportion.training.config import TrainConfig
from apportion.training.run_folder import RunFolder
from apportion.training.setup import make_policy

Decode = Callable[[Sequence[int]], str]


def decoder_of(run: RunFolder, config: TrainConfig) -> Decode:
    """How the policy of a run writes tokens, special ones included; a tokenizer is read without the model."""
    folders = [run.checkpoints.model(step) for step in run.checkpoints.steps()]
    folder = next((f for f in folders if (f / "tokenizer_config.json").is_file()), None)
    if folder is None:
        decode: Decode = make_policy(config, objectives.build(*config.objective)).codec("{prompt}", None).decode
        return decode
    return _tokenizer(folder)


def _tokenizer(folder: Path) -> Decode:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False))


def context_of(rollouts: Rollouts, token: int, decode: Decode | None) -> dict[str, Any]:
    """A token of some rollouts, as a record; the ``whole`` text of its response is there where tokens have none.

    Args:
        rollouts: it is of.
        token: its number among all.
        decode: turns tokens into text; None: they are shown by their ids.
    """
    b = int(rollouts.response_of_token[token])
    e = int(rollouts.episode_of_response[b])
    start, end = rollouts.token_offsets[b : b + 2].tolist()
    ids, place = rollouts.ids[start:end].tolist(), token - start
    before, own, after = _parts(ids, place, decode)
    return {
        "group": group_names(rollouts)[e],
        "episode": e,
        "response": b,
        "token": place,
        "id": ids[place],
        "prompt": _text(rollouts, "response:prompt_text", b) or _text(rollouts, "response:prompt", b),
        "before": before,
        "text": own,
        "after": after,
        "whole": _text(rollouts, "response:text", b) if decode is None else None,
        "rewards": _rewards(rollouts, e),
    }


def _parts(ids: Sequence[int], place: int, decode: Decode | None) -> tuple[str, str, str]:
    if decode is None:
        words = [str(i) for i in ids]
        before, after = (" ".join(part) for part in (words[:place], words[place + 1 :]))
        return before + " " * bool(before), words[place], " " * bool(after) + after
    texts = token_texts(tuple(ids), decode)
    begin = texts.starts[place]
    stop = max(texts.ends[place], begin)
    return texts.text[:begin], texts.text[begin:stop], texts.text[stop:]


def _text(rollouts: Rollouts, name: str, row: int) -> str | None:
    column = rollouts.columns.get(name)
    return None if column is None or isinstance(column.values, torch.Tensor) else column.text[row]


def _rewards(rollouts: Rollouts, episode: int) -> dict[str, float | None]:
    """Every reward of an episode, summed over its rows; None where one of them is unknown or absent."""
    rows = rollouts.indices(torch.tensor([episode]))
    found: dict[str, float | None] = {}
    for name, column in rollouts.columns.items():
        level, short = split_name(name)
        if not short.startswith("reward/") or level == "pair":
            continue
        scored = rollouts.columns.get(f"{level}:scored/{short.removeprefix('reward/')}")
        own = rows[level]
        known = torch.ones(len(own), dtype=torch.bool) if column.present is None else column.present[own]
        values = column.tensor[own].double()
        if scored is not None:
            verdicts = scored.tensor[own].bool()
            values = torch.where(verdicts, values, 0.0)
            known = known & (verdicts.any(1) if verdicts.dim() == 2 else verdicts)
        found[short.removeprefix("reward/")] = float(values.sum()) if bool(known.all()) else None
    return found
