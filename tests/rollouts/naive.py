"""Rollouts as nested Python lists, by loops: what the vectorised code is held against."""

from __future__ import annotations

import math
from typing import Any

from apportion.rollouts import Column, Rollouts


def entries(column: Column) -> list[Any]:
    """Entries of a column, None where missing; NaN, which equals nothing, as text."""
    given = list(column.values) if isinstance(column.values, tuple) else column.values.tolist()
    present = [True] * len(given) if column.present is None else column.present.tolist()
    return [_comparable(entry) if ok else None for entry, ok in zip(given, present, strict=True)]


def _comparable(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_comparable(one) for one in entry]
    return "nan" if isinstance(entry, float) and math.isnan(entry) else entry


def plain(rollouts: Rollouts) -> list[dict[str, Any]]:
    """Every episode with its responses, tokens, spans, and the columns of each."""
    columns = {name: entries(column) for name, column in rollouts.columns.items()}

    def of(level: str, first: int, last: int) -> dict[str, list[Any]]:
        return {n: values[first:last] for n, values in columns.items() if n.split(":")[0] == level}

    token_offsets, prompt_offsets = rollouts.token_offsets.tolist(), rollouts.prompt_offsets.tolist()
    response_offsets, ids = rollouts.response_offsets.tolist(), rollouts.ids.tolist()
    result = []
    for e in range(rollouts.n_episodes):
        responses = []
        for b in range(response_offsets[e], response_offsets[e + 1]):
            start, end = token_offsets[b], token_offsets[b + 1]
            prompt = int(rollouts.prompts[b])
            spans = {}
            for kind, table in rollouts.spans.items():
                ranges = list(zip(table.starts.tolist(), table.ends.tolist(), strict=True))
                rows = [i for i, (first, last) in enumerate(ranges) if start <= first and last <= end]
                spans[kind] = [
                    {"range": (ranges[i][0] - start, ranges[i][1] - start), "columns": of(kind, i, i + 1)} for i in rows
                ]
            responses.append(
                {
                    "prompt": rollouts.prompt_ids[prompt_offsets[prompt] : prompt_offsets[prompt + 1]].tolist(),
                    "ids": ids[start:end],
                    "tokens": of("token", start, end),
                    "columns": of("response", b, b + 1),
                    "spans": spans,
                }
            )
        group = int(rollouts.group_ids[e])
        result.append({"group": group, "responses": responses, "columns": of("episode", e, e + 1)})
    return result


def plain_pairs(rollouts: Rollouts) -> list[tuple[int, int, list[Any]]] | None:
    """Preferred, other, and the entries of the pair's columns; None where there are no pairs."""
    if rollouts.pairs is None:
        return None
    columns = [entries(column) for name, column in rollouts.columns.items() if name.startswith("pair:")]
    sides = zip(rollouts.pairs.preferred.tolist(), rollouts.pairs.other.tolist(), strict=True)
    return [(p, o, [column[k] for column in columns]) for k, (p, o) in enumerate(sides)]
