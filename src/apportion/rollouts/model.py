"""The data model every stage reads and adds columns to.

Suffix legend: N tokens, S spans, B responses, E episodes, K pairs, P prompts, M prompt tokens.

A :class:`Rollouts` is columnar and ragged; there is no padding. A *token* belongs to a *response* (a prompt and
what follows it), responses to an *episode* (the ordered responses of one attempt, stored next to each other),
episodes to a *group* (attempts compared with one another, by an explicit id). *Spans* are token ranges of a kind
(turn, step, thought ...), *pairs* prefer one episode to another.

Columns are named ``level:name`` with ``token`` the level where none is written, so ``log_probs/old`` is a token
column and ``step:score/prm`` one of spans of kind ``step``. Statistics name the model that made them
(``log_probs/behaviour``, ``log_probs/old``, ``log_probs/reference``). Rewards are ``reward/<component>`` with
``scored/<component>`` beside them, at exactly one level a component: not *present* means never asked (absent),
present but not *scored* means asked without a verdict (unknown); neither is 0.

Alignment: the statistic at t describes the state before token t, from which t was drawn. Statistics at untrained
tokens are missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from apportion.errors import InputError, MissingColumn
from apportion.rollouts import ragged
from apportion.rollouts.checks import check
from apportion.rollouts.columns import FIXED_LEVELS, Column, qualify, split_name
from apportion.rollouts.makers import maker_of

ORIGINS = ("policy", "hinted", "stored", "demonstration")
"""Where a response came from, in ``response:origin``; a response without one came from the policy."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Half-open token ranges of one kind: sorted, disjoint, gaps allowed, none across two responses.

    Attributes:
        starts: first token of every span ``[S]``, as an index into the N tokens.
        ends: one past the last token ``[S]``.
    """

    starts: Tensor
    ends: Tensor


@dataclass(frozen=True, eq=False)
class Pairs:
    """Preferences ``[K]``: the preferred and the other episode, by index."""

    preferred: Tensor
    other: Tensor


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Sampled or stored responses with everything known about them. Immutable: adding a column makes a new one.

    Attributes:
        ids: token ids ``[N]`` exactly as sampled, all responses end to end.
        token_offsets: ``[B + 1]``, tokens of response b are ``ids[token_offsets[b]:token_offsets[b + 1]]``.
        response_offsets: ``[E + 1]``, the responses of every episode, in order.
        group_ids: ``[E]``, which group an episode is compared in.
        prompt_ids: prompt tokens ``[M]``, end to end.
        prompt_offsets: ``[P + 1]``.
        prompts: ``[B]``, the prompt of every response.
        columns: everything else, by full name.
        spans: token ranges by kind.
        pairs: preferences between episodes, if any.

    Raises:
        InputError: when an invariant does not hold; the message names it.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> two = Rollouts.from_lists([[5, 6], [5]], groups=[0, 0], rewards=[1.0, None])
        >>> two.column("episode:scored/outcome").tolist()
        [True, False]
    """

    ids: Tensor
    token_offsets: Tensor
    response_offsets: Tensor
    group_ids: Tensor
    prompt_ids: Tensor
    prompt_offsets: Tensor
    prompts: Tensor
    columns: Mapping[str, Column] = field(default_factory=dict)
    spans: Mapping[str, Spans] = field(default_factory=dict)
    pairs: Pairs | None = None

    def __post_init__(self) -> None:
        check(self)

    @staticmethod
    def from_lists(
        ids: Sequence[Sequence[int]],
        *,
        groups: Sequence[int],
        rewards: Sequence[float | None] | None = None,
        token_rewards: Sequence[Sequence[float]] | None = None,
        trained: Sequence[Sequence[int]] | None = None,
        prompts: Sequence[Sequence[int]] | None = None,
        episodes: Sequence[int] | None = None,
        component: str = "outcome",
        **token_columns: Sequence[Sequence[float]],
    ) -> Rollouts:
        """Rollouts from Python lists.

        Args:
            ids: token ids of every response.
            groups: group id of every response; all responses of an episode name the same.
            rewards: one a response (with ``episodes``, one an episode); None is unknown.
            token_rewards: instead of ``rewards``, one a token.
            trained: 1 where a token may carry loss; all by default.
            prompts: prompt tokens of every response; empty by default.
            episodes: episode of every response, equal neighbours together; one a response by default.
            component: name of the reward.
            **token_columns: further token columns; ``log_probs_old`` becomes ``log_probs/old``.
        """
        if not all(isinstance(token, Real) and token % 1 == 0 for row in ids for token in row):
            raise InputError("ids holds something that is not an integer, expected token ids.")
        if trained is not None and any(flag not in (0, 1) for row in trained for flag in row):
            raise InputError("trained has values other than 0 and 1, expected 1 where a token may carry loss.")
        flat, offsets = ragged.flatten(ids, torch.int64)
        prompt_rows = prompts if prompts is not None else [[] for _ in ids]
        prompt_ids, prompt_offsets = ragged.flatten(prompt_rows, torch.int64)
        starts = [i for i, e in enumerate(episodes or []) if i == 0 or episodes[i - 1] != e]  # type: ignore[index]
        bounds = [*starts, len(ids)] if episodes is not None else list(range(len(ids) + 1))
        for name, given in (("group ids", groups), ("episodes", episodes)):
            if given is not None and len(given) != len(ids):
                raise InputError(f"got {len(given)} {name} for {len(ids)} responses, expected one each.")
        if any(len(set(groups[a:b])) > 1 for a, b in itertools.pairwise(bounds)):
            raise InputError("the responses of an episode are in different groups, expected one group an episode.")
        result = Rollouts(
            ids=flat,
            token_offsets=offsets,
            response_offsets=torch.tensor(bounds, dtype=torch.int64),
            group_ids=torch.tensor([groups[b] for b in bounds[:-1]], dtype=torch.int64),
            prompt_ids=prompt_ids,
            prompt_offsets=prompt_offsets,
            prompts=torch.arange(len(ids)),
        )
        if trained is not None:
            result = result.with_column("trained", result._ragged(trained, torch.bool, "trained"))
        if rewards is not None:
            known = torch.tensor([r is not None for r in rewards], dtype=torch.bool)
            values = torch.tensor([0.0 if r is None else r for r in rewards], dtype=torch.float64)
            result = result.with_reward(component, values, scored=known)
        if token_rewards is not None:
            values = result._ragged(token_rewards, torch.float64, "token_rewards")
            result = result.with_reward(component, values, level="token")
        for name, rows in token_columns.items():
            values = result._ragged(rows, torch.float64, name)
            result = result.with_column(name.replace("_old", "/old").replace("_reference", "/reference"), values)
        return result

    def _ragged(self, rows: Sequence[Sequence[float]], dtype: torch.dtype, name: str) -> Tensor:
        values, offsets = ragged.flatten(rows, dtype)
        if not torch.equal(offsets, self.token_offsets.cpu()):
            raise InputError(f"{name} has rows of other lengths than ids, expected one entry a token.")
        return values

    # Sizes and maps between levels

    @property
    def device(self) -> torch.device:
        return self.ids.device

    @property
    def n_tokens(self) -> int:
        return len(self.ids)

    @property
    def n_responses(self) -> int:
        return len(self.token_offsets) - 1

    @property
    def n_episodes(self) -> int:
        return len(self.response_offsets) - 1

    @cached_property
    def response_of_token(self) -> Tensor:
        """``[N]``"""
        return ragged.row_of(self.token_offsets)

    @cached_property
    def episode_of_response(self) -> Tensor:
        """``[B]``"""
        return ragged.row_of(self.response_offsets)

    @cached_property
    def episode_of_token(self) -> Tensor:
        """``[N]``"""
        return ragged.row_of(self.episode_offsets)

    @cached_property
    def episode_offsets(self) -> Tensor:
        """``[E + 1]``: an episode's responses lie next to each other, so its tokens are one range."""
        return self.token_offsets[self.response_offsets]

    @cached_property
    def group_of_episode(self) -> Tensor:
        """``[E]``: groups numbered 0, 1, ... by ascending id."""
        return torch.unique(self.group_ids, return_inverse=True)[1]

    @property
    def n_groups(self) -> int:
        return int(self.group_of_episode.max()) + 1 if self.n_episodes else 0

    @cached_property
    def response_of_span(self) -> Mapping[str, Tensor]:
        """By kind, the response ``[S]`` every span lies in."""
        return {
            kind: torch.searchsorted(self.token_offsets, spans.starts, right=True) - 1
            for kind, spans in self.spans.items()
        }

    @cached_property
    def trained(self) -> Tensor:
        """``[N]`` bool: may carry loss. All tokens where no column says otherwise."""
        if "token:trained" in self.columns:
            return self.columns["token:trained"].tensor.bool()
        return torch.ones(self.n_tokens, dtype=torch.bool, device=self.device)

    @cached_property
    def weight(self) -> Tensor:
        """``[N]`` float64: the sampling weight of a token, 1 unless branches were forced."""
        if "token:weight" in self.columns:
            return self.columns["token:weight"].tensor.double()
        return torch.ones(self.n_tokens, dtype=torch.float64, device=self.device)

    @cached_property
    def temperature(self) -> Tensor:
        """``[B]``: what logits were divided by when sampling; 1 where nothing says otherwise."""
        column = self.columns.get("response:temperature")
        ones = torch.ones(self.n_responses, device=self.device)
        if column is None:
            return ones
        return column.tensor if column.present is None else torch.where(column.present, column.tensor, ones)

    @cached_property
    def origin(self) -> tuple[str, ...]:
        """``[B]``: one of :data:`ORIGINS`."""
        column = self.columns.get("response:origin")
        return tuple(o or "policy" for o in column.text) if column else ("policy",) * self.n_responses

    def rows(self, level: str) -> int:
        """How many rows the table of a level has."""
        sizes = {"token": self.n_tokens, "response": self.n_responses, "episode": self.n_episodes}
        if level in sizes:
            return sizes[level]
        if level == "pair":
            return 0 if self.pairs is None else len(self.pairs.preferred)
        if level in self.spans:
            return len(self.spans[level].starts)
        raise InputError(
            f"unknown level {level!r}: expected one of {', '.join((*FIXED_LEVELS, *self.spans))}; "
            "add spans of that kind first."
        )

    # Columns

    def has(self, name: str) -> bool:
        """Whether a column exists; ``reward/<component>`` is looked for at every level."""
        return self.find(name) is not None

    def find(self, name: str) -> str | None:
        """The full name of a column, or None.

        A reward named without a level is found wherever it lives. The level ``steps`` stands for that of the
        decisions: ``turn`` where turns are marked, else ``response``.
        """
        if ":" not in name and name.startswith(("reward/", "scored/")):
            return next((full for full in self.columns if split_name(full)[1] == name), None)
        full = qualify(name)
        if full.startswith("steps:"):
            full = full.replace("steps", "turn" if "turn" in self.spans else "response", 1)
        return full if full in self.columns else None

    def column(self, name: str, where: Tensor | None = None, reader: str = "this") -> Tensor:
        """The numbers of a column, checked to be there.

        Args:
            name: full name, or without level for a token column.
            where: rows that will be used (mask or indices); an entry missing there is an error. Default: all
                rows, for token statistics all trained tokens.
            reader: who asks, for the message.

        Raises:
            MissingColumn: there is no such column.
            InputError: an entry that is to be used is missing.
        """
        full = self.find(name)
        if full is None:
            raise MissingColumn(qualify(name) if ":" in name else name, reader, maker_of(name))
        column = self.columns[full]
        if column.present is not None:
            used = where
            if used is None and split_name(full)[0] == "token":
                used = self.trained
            present = column.present if used is None else column.present[used]
            if not bool(present.all()):
                raise InputError(
                    f"{reader} reads {full!r} at {int((~present).sum())} rows where it is missing, "
                    "expected a value at every row it uses: compute it there or leave those rows out."
                )
        return column.tensor

    def with_column(
        self,
        name: str,
        values: Tensor | Sequence[str | None],
        present: Tensor | None = None,
        maker: str = "given",
        **parameters: Any,
    ) -> Rollouts:
        """These rollouts with one more column, or another in its place."""
        values = values if isinstance(values, Tensor) else tuple(values)
        return replace(self, columns={**self.columns, qualify(name): Column(values, present, maker, parameters)})

    def with_statistic(self, name: str, values: Tensor, maker: str, **parameters: Any) -> Rollouts:
        """A token column measured by a model: missing at untrained tokens."""
        present = None if bool(self.trained.all()) else self.trained
        return self.with_column(name, values, present, maker, **parameters)

    def with_reward(
        self,
        component: str,
        values: Tensor,
        scored: Tensor | None = None,
        present: Tensor | None = None,
        level: str = "episode",
        maker: str = "given",
    ) -> Rollouts:
        """A reward component with its ``scored`` column; where not scored it is unknown."""
        if scored is None:
            scored = torch.ones(values.shape, dtype=torch.bool, device=values.device)
        both = {
            f"{level}:reward/{component}": Column(values, present, maker),
            f"{level}:scored/{component}": Column(scored, present, maker),
        }
        return replace(self, columns={**self.columns, **both})

    def with_spans(self, kind: str, starts: Tensor, ends: Tensor) -> Rollouts:
        """Spans of one kind added; columns of that kind come after."""
        if kind in FIXED_LEVELS:
            raise InputError(f"{kind!r} is a level of its own, expected another name for a kind of span.")
        return replace(self, spans={**self.spans, kind: Spans(starts.contiguous(), ends.contiguous())})

    def with_groups(self, group_ids: Tensor) -> Rollouts:
        """The same episodes in other groups ``[E]``."""
        return replace(self, group_ids=group_ids)

    def with_pairs(self, preferred: Tensor, other: Tensor) -> Rollouts:
        """Preferences between episodes added."""
        return replace(self, pairs=Pairs(preferred, other))

    # Parts and joins

    def indices(self, episodes: Tensor) -> dict[str, Tensor]:
        """By level, the rows that belong to some episodes (mask or indices), in their order."""
        index = episodes.nonzero().squeeze(1) if episodes.dtype == torch.bool else episodes
        responses = ragged.ranges(self.response_offsets[index], self.response_offsets[index + 1])
        tokens = ragged.ranges(self.token_offsets[responses], self.token_offsets[responses + 1])
        taken = {"token": tokens, "response": responses, "episode": index, "pair": index.new_zeros(0)}
        for kind in self.spans:
            bounds = torch.arange(self.n_responses + 1, device=self.device)
            by_response = torch.searchsorted(self.response_of_span[kind], bounds)
            taken[kind] = ragged.ranges(by_response[responses], by_response[responses + 1])
        if self.pairs is not None:
            kept = torch.zeros(self.n_episodes, dtype=torch.bool, device=self.device)
            kept[index] = True
            taken["pair"] = (kept[self.pairs.preferred] & kept[self.pairs.other]).nonzero().squeeze(1)
        return taken

    def select(self, episodes: Tensor) -> Rollouts:
        """Some episodes (mask or indices), with all their responses, tokens, spans and the pairs among them."""
        return self._part(self.indices(episodes))

    def between(self, first: int, last: int) -> Rollouts:
        """Episodes ``first`` to ``last``, the latter left out. Their columns are views of these, not copies."""
        r, s = (int(self.response_offsets[e]) for e in (first, last))
        start, end = int(self.token_offsets[r]), int(self.token_offsets[s])
        taken: dict[str, Tensor | slice] = {
            "token": slice(start, end),
            "response": slice(r, s),
            "episode": slice(first, last),
            "pair": slice(0, 0),
        }
        for kind, table in self.spans.items():
            bounds = torch.searchsorted(table.starts, torch.tensor([start, end], device=self.device))
            taken[kind] = slice(int(bounds[0]), int(bounds[1]))
        if self.pairs is not None:
            ends = torch.stack([self.pairs.preferred, self.pairs.other])
            taken["pair"] = ((ends >= first) & (ends < last)).all(0).nonzero().squeeze(1)
        return self._part(taken)

    def _part(self, taken: Mapping[str, Tensor | slice]) -> Rollouts:
        """The rows named for every level."""
        index, responses, tokens = taken["episode"], taken["response"], taken["token"]
        token_offsets = ragged.offsets_of(ragged.lengths_of(self.token_offsets)[responses])
        response_offsets = ragged.offsets_of(ragged.lengths_of(self.response_offsets)[index])

        spans = {}
        for kind, table in self.spans.items():
            rows = taken[kind]
            shift_of_response = torch.zeros(self.n_responses, dtype=torch.int64, device=self.device)
            shift_of_response[responses] = token_offsets[:-1] - self.token_offsets[:-1][responses]
            moved = shift_of_response[self.response_of_span[kind][rows]]
            spans[kind] = Spans(table.starts[rows] + moved, table.ends[rows] + moved)

        pairs = None
        if self.pairs is not None:
            place = torch.zeros(self.n_episodes, dtype=torch.int64, device=self.device)
            place[index] = torch.arange(len(response_offsets) - 1, device=self.device)
            kept = taken["pair"]
            pairs = Pairs(place[self.pairs.preferred[kept]], place[self.pairs.other[kept]])

        used, prompts = torch.unique(self.prompts[responses], return_inverse=True)
        return Rollouts(
            ids=self.ids[tokens],
            token_offsets=token_offsets,
            response_offsets=response_offsets,
            group_ids=self.group_ids[index],
            prompt_ids=self.prompt_ids[ragged.ranges(self.prompt_offsets[used], self.prompt_offsets[used + 1])],
            prompt_offsets=ragged.offsets_of(ragged.lengths_of(self.prompt_offsets)[used]),
            prompts=prompts,
            columns={name: c.take(taken[split_name(name)[0]]) for name, c in self.columns.items()},
            spans=spans,
            pairs=pairs,
        )

    def groups(self) -> Iterator[Rollouts]:
        """Every group by itself, in order of id."""
        order = torch.argsort(self.group_of_episode, stable=True)
        sizes = torch.bincount(self.group_of_episode, minlength=self.n_groups)
        for members in torch.split(order, sizes.tolist()):
            yield self.select(members)

    def to(self, device: torch.device | str) -> Rollouts:
        """The same rollouts on another device."""
        pairs = self.pairs
        return Rollouts(
            ids=self.ids.to(device),
            token_offsets=self.token_offsets.to(device),
            response_offsets=self.response_offsets.to(device),
            group_ids=self.group_ids.to(device),
            prompt_ids=self.prompt_ids.to(device),
            prompt_offsets=self.prompt_offsets.to(device),
            prompts=self.prompts.to(device),
            columns={name: column.to(device) for name, column in self.columns.items()},
            spans={kind: Spans(s.starts.to(device), s.ends.to(device)) for kind, s in self.spans.items()},
            pairs=None if pairs is None else Pairs(pairs.preferred.to(device), pairs.other.to(device)),
        )
