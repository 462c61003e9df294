"""Rollouts as pandas tables, for a look at them in a notebook."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import ragged
from apportion.rollouts.cells import cells_of
from apportion.rollouts.columns import split_name
from apportion.rollouts.model import Rollouts


def to_pandas(rollouts: Rollouts, level: str = "token") -> Any:
    """One level of rollouts as a DataFrame, a row an entry of its table.

    It begins with where a row belongs: ``group`` (its id), ``episode`` and ``response`` (numbered through all
    rollouts), ``position`` (0-based: of a token or span in its response, of a response in its episode), and what it
    is: ``id`` of a token, ``start`` and ``end`` of a span within its response, ``tokens`` of a response or episode,
    ``preferred`` and ``other`` of a pair. The level's columns follow by name without level; one called like a field
    above keeps its level, and one with k entries a row becomes ``name[0]`` to ``name[k - 1]``. Where entries are
    missing the dtype is a nullable one. A reward is missing where it is unknown too; ``scored`` beside it is False
    there, and missing where the reward is absent.

    Args:
        rollouts: any.
        level: ``token``, ``response``, ``episode``, ``pair`` or a kind of span.

    Raises:
        InputError: pandas is not installed, or there is no such level.

    Example:
        >>> rollouts = Rollouts.from_lists([[5, 6], [7]], groups=[3, 3], rewards=[1.0, None])
        >>> to_pandas(rollouts)[["group", "response", "position", "id"]].values.tolist()
        [[3, 0, 0, 5], [3, 0, 1, 6], [3, 1, 0, 7]]
        >>> to_pandas(rollouts, "episode")["reward/outcome"].isna().tolist()
        [False, True]
    """
    try:
        import pandas
    except ImportError as error:
        raise InputError("tables need pandas, which is not installed: pip install pandas.") from error
    rollouts = rollouts.to("cpu")
    rows = rollouts.rows(level)
    fields: dict[str, Any] = {name: tensor.numpy() for name, tensor in _places(rollouts, level).items()}
    for name in rollouts.columns:
        if split_name(name)[0] != level:
            continue
        cells, short = cells_of(rollouts.columns, name), split_name(name)[1]
        short = name if short in fields else short
        if isinstance(cells.values, tuple):
            texts = [text if ok else None for text, ok in zip(cells.values, cells.valid, strict=True)]
            fields[short] = pandas.array(texts, dtype="string")
        elif cells.values.ndim == 1:
            fields[short] = _nullable(cells.values, cells.valid)
        else:
            for place, entries in enumerate(cells.values.T):
                valid = cells.valid if cells.inner is None else cells.valid & cells.inner[:, place]
                fields[f"{short}[{place}]"] = _nullable(entries, valid)
    return pandas.DataFrame(fields, index=range(rows))


def _places(rollouts: Rollouts, level: str) -> dict[str, Tensor]:
    """Where the rows of a level belong, and what they are."""
    if level == "pair":
        pairs = rollouts.pairs
        return {} if pairs is None else {"preferred": pairs.preferred, "other": pairs.other}
    if level == "episode":
        tokens = ragged.lengths_of(rollouts.episode_offsets)
        return {"group": rollouts.group_ids, "episode": torch.arange(rollouts.n_episodes), "tokens": tokens}
    what = {}
    if level == "token":
        response, position = rollouts.response_of_token, ragged.position_in_row(rollouts.token_offsets)
        what = {"id": rollouts.ids}
    elif level == "response":
        response, position = torch.arange(rollouts.n_responses), ragged.position_in_row(rollouts.response_offsets)
        what = {"tokens": ragged.lengths_of(rollouts.token_offsets)}
    else:
        response, spans = rollouts.response_of_span[level], rollouts.spans[level]
        counts = torch.bincount(response, minlength=rollouts.n_responses)
        position = ragged.position_in_row(ragged.offsets_of(counts))
        first = rollouts.token_offsets[response]
        what = {"start": spans.starts - first, "end": spans.ends - first}
    episode = rollouts.episode_of_response[response]
    group = rollouts.group_ids[episode]
    return {"group": group, "episode": episode, "response": response, "position": position, **what}


def _nullable(values: np.ndarray, valid: np.ndarray) -> Any:
    """Numbers, in the nullable dtype of their width where some are missing."""
    import pandas

    if valid.all():
        return values
    kind = {"f": pandas.arrays.FloatingArray, "b": pandas.arrays.BooleanArray}.get(values.dtype.kind)
    return (kind or pandas.arrays.IntegerArray)(values.copy(), ~valid)
