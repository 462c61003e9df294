"""Records, one a response, gathered into rollouts.

Every record is checked as it comes, so that what is wrong is reported with its line; tables are built at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from apportion.errors import InputError
from apportion.rollouts import ragged
from apportion.rollouts.cells import Cells, Header, column_of, scored_name, with_unknown
from apportion.rollouts.columns import Column, split_name
from apportion.rollouts.entries import Rows, assemble, rows_of, short
from apportion.rollouts.model import Pairs, Rollouts, Spans


class Gathering:
    """Responses in order, to become one :class:`Rollouts`.

    Attributes:
        episodes: what the file calls the episodes gathered so far, in order.
    """

    def __init__(self) -> None:
        self.episodes: list[int | str | None] = []
        self._groups: list[int] = []
        self._bounds: list[int] = []
        self._ids: list[np.ndarray] = []
        self._n_tokens = 0
        self._prompts: list[int] = []
        self._prompt_numbers: dict[tuple[int | None, bytes], int] = {}
        self._spans: dict[str, list[np.ndarray]] = {}
        self._n_spans: dict[str, int] = {}
        self._rows: dict[str, list[Rows]] = {}
        self._episode_values: dict[str, Any] = {}
        self._pairs: list[tuple[int, int]] = []

    def begin_episode(self, group: int, name: int | str | None) -> None:
        """The responses that follow are of a new episode."""
        self.episodes.append(name)
        self._groups.append(group)
        self._bounds.append(len(self._ids))
        self._episode_values = {}

    def add_response(
        self,
        ids: np.ndarray,
        prompt: tuple[int | None, np.ndarray],
        spans: Mapping[str, np.ndarray],
        columns: Mapping[str, Any],
        where: str,
    ) -> None:
        """One more response of the episode begun last.

        Args:
            ids: its tokens.
            prompt: number and tokens of its prompt; responses with both equal share one.
            spans: by kind, ``[S, 2]`` ranges from the beginning of the response.
            columns: by full name; a list for tokens and spans, else a single entry.
            where: path and line.
        """
        sizes = {"token": len(ids)} | {kind: len(ranges) for kind, ranges in spans.items()}
        starts = {"token": self._n_tokens} | {kind: self._n_spans.get(kind, 0) for kind in spans}
        for name, given in columns.items():
            level = split_name(name)[0]
            if level == "response":
                self._add_rows(name, [given], len(self._ids), where)
            elif level == "episode":
                self._add_episode_value(name, given, where)
            elif isinstance(given, list) and len(given) == sizes[level]:
                self._add_rows(name, given, starts[level], where)
            else:
                size = f"{len(given)} entries" if isinstance(given, list) else short(given)
                raise InputError(f"{where}: {name!r} is {size}, expected a list of {sizes[level]}, one a {level}.")
        for kind, ranges in spans.items():
            self._spans.setdefault(kind, []).append(ranges + self._n_tokens)
            self._n_spans[kind] = starts[kind] + len(ranges)
        key = (prompt[0], prompt[1].tobytes())
        self._prompts.append(self._prompt_numbers.setdefault(key, len(self._prompt_numbers)))
        self._ids.append(ids)
        self._n_tokens += len(ids)

    def add_pair(self, preferred: int, other: int, columns: Mapping[str, Any], where: str) -> None:
        """One more pair, its episodes by their place among those gathered."""
        for name, given in columns.items():
            self._add_rows(f"pair:{name}", [given], len(self._pairs), where)
        self._pairs.append((preferred, other))

    def _add_rows(self, name: str, given: list[Any], start: int, where: str) -> None:
        self._rows.setdefault(name, []).append(rows_of(given, start, name, where))

    def _add_episode_value(self, name: str, given: Any, where: str) -> None:
        if name not in self._episode_values:
            self._episode_values[name] = given
            self._add_rows(name, [given], len(self.episodes) - 1, where)
        elif self._episode_values[name] != given:
            raise InputError(
                f"{where}: {name!r} is {short(given)}, but an earlier record of the same episode says "
                f"{short(self._episode_values[name])}: give it once, or the same in every record of the episode."
            )

    def build(
        self,
        headers: Mapping[str, Header],
        mentioned: Mapping[str, Header],
        kinds: Iterable[str],
        paired: bool,
        where: str,
    ) -> Rollouts:
        """Everything gathered.

        Args:
            headers: of the columns the file declares; they exist even where no record mentions them.
            mentioned: of the columns that others of its records have; they exist here too.
            kinds: the kinds of span it declares.
            paired: whether it has pairs, if only none of them is among these episodes.
            where: the path, for messages about the whole.

        Raises:
            InputError: entries that do not fit together; the message begins with path and line, or with the path.
        """
        spans = {}
        for kind in dict.fromkeys((*kinds, *self._spans)):
            ranges = np.concatenate([np.zeros((0, 2), dtype=np.int64), *self._spans.get(kind, [])])
            spans[kind] = Spans(torch.from_numpy(ranges[:, 0].copy()), torch.from_numpy(ranges[:, 1].copy()))
        sizes = {"token": self._n_tokens, "response": len(self._ids), "episode": len(self.episodes)}
        sizes |= {"pair": len(self._pairs)} | {kind: len(table.starts) for kind, table in spans.items()}
        # Prompts the file numbers come in that order, then the others as they were met.
        keys = sorted(self._prompt_numbers, key=lambda key: (key[0] is None, key[0] or 0, self._prompt_numbers[key]))
        place = {self._prompt_numbers[key]: i for i, key in enumerate(keys)}
        prompts = [np.frombuffer(tokens, dtype=np.int64) for _, tokens in keys]
        pairs = torch.tensor(self._pairs, dtype=torch.int64).reshape(-1, 2)
        absent = {name: header for name, header in mentioned.items() if name not in self._rows}
        try:
            return Rollouts(
                ids=_end_to_end(self._ids),
                token_offsets=_offsets(self._ids),
                response_offsets=torch.tensor([*self._bounds, len(self._ids)], dtype=torch.int64),
                group_ids=torch.tensor(self._groups, dtype=torch.int64),
                prompt_ids=_end_to_end(prompts),
                prompt_offsets=_offsets(prompts),
                prompts=torch.tensor([place[number] for number in self._prompts], dtype=torch.int64),
                columns=with_unknown(self._columns({**absent, **headers}, sizes, where)),
                spans=spans,
                pairs=Pairs(pairs[:, 0].contiguous(), pairs[:, 1].contiguous()) if paired else None,
            )
        except InputError as error:
            raise error if str(error).startswith(where) else InputError(f"{where}: {error}") from error

    def _columns(self, headers: Mapping[str, Header], sizes: Mapping[str, int], where: str) -> dict[str, Column]:
        names = dict.fromkeys((*headers, *self._rows))
        rewards = {scored_name(name): name for name in names}
        columns: dict[str, Column] = {}
        for name in names:
            level = split_name(name)[0]
            if level not in sizes:
                raise InputError(
                    f"{where}: the columns record declares {name!r}, expected a level of token, response, episode, "
                    "pair or a kind of span: list that kind under 'spans' there."
                )
            if name in rewards:
                continue
            header, n = headers.get(name, Header()), sizes[level]
            cells, seen = assemble(name, self._rows.get(name, []), n, header)
            beside = scored_name(name)
            if beside is None or isinstance(cells.values, tuple):
                columns[name] = column_of(cells, header)
                continue
            # A null that a record gives is unknown, unless the record says beside it that it is absent.
            scored = cells.valid.copy() if cells.inner is None else cells.valid[:, None] & cells.inner
            asked = seen.copy()
            default = replace(header, dtype="bool", width=None if cells.inner is None else cells.inner.shape[1])
            said, told = assemble(beside, self._rows.get(beside, []), n, default)
            scored[told], asked[told] = np.asarray(said.values)[told], said.valid[told]
            present = cells.valid if cells.inner is None else cells.valid | asked
            columns[name] = column_of(Cells(cells.values, present), header)
            columns[beside] = column_of(Cells(scored, asked), headers.get(beside, default))
        return columns


def _end_to_end(rows: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int64), *rows]))


def _offsets(rows: list[np.ndarray]) -> torch.Tensor:
    return ragged.offsets_of(torch.tensor([len(row) for row in rows], dtype=torch.int64))
