"""How far methods agree over a whole run, worked out part by part in the background."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from apportion.credit.agreement import Agreement, Estimate, disagreement
from apportion.errors import ApportionError, InputError
from apportion.rollouts import Rollouts, ragged
from apportion.viewer.crediting import STORED, Methods
from apportion.viewer.index import real
from apportion.viewer.source import Source
from apportion.viewer.texts import Decode, pieces, shortened

TOP = 50
"""Tokens of largest disagreement that are kept, at most one a response; fewer where responses are alike."""

AROUND = 12
"""Tokens shown on either side of one of them."""


class Comparison:
    """Methods compared on every part of a source that can be read.

    Args:
        source: of the rollouts.
        specs: at least two methods on offer, or ``stored``.
        methods: what is on offer.
        decode: turns tokens into text.

    Attributes:
        done: parts credited so far.
        total: parts there are.
        left_out: by part that cannot be read, why.
        result: the outcome as JSON once there is one.
        error: why there will be none.

    Raises:
        InputError: fewer than two methods, or one that is not on offer.
    """

    def __init__(self, source: Source, specs: Sequence[str], methods: Methods, decode: Decode | None) -> None:
        if len(set(specs)) < 2 or len(set(specs)) != len(specs):
            raise InputError(f"got {len(set(specs))} different methods, expected at least two to compare.")
        for spec in specs:
            if spec != STORED:
                methods.stage(spec)
        self.source, self.specs, self.methods, self.decode = source, list(specs), methods, decode
        self.parts = source.parts()
        self.done, self.total = 0, len(self.parts)
        self.left_out: dict[int, str] = {}
        self.result: dict[str, Any] | None = None
        self.error: str | None = None

    def start(self) -> Comparison:
        """Work in the background."""
        threading.Thread(target=self.work, name="compare methods", daemon=True).start()
        return self

    def work(self) -> None:
        """Compare; what goes wrong is kept to be shown."""
        try:
            with tempfile.TemporaryFile() as spool:
                self.result = self._compared(spool)
        except ApportionError as error:
            self.error = str(error)
        except Exception as error:
            self.error = f"comparing failed ({type(error).__name__}: {error})."
            raise

    def state(self) -> dict[str, Any]:
        """How far it is, as JSON."""
        return {"done": self.done, "total": self.total, "result": self.result, "error": self.error}

    def _compared(self, spool: IO[bytes]) -> dict[str, Any]:
        agreement = Agreement(len(self.specs))
        used: list[int] = []
        for part in self.parts:
            try:
                rollouts = self.source.read(part)
            except InputError as error:
                self.left_out[part] = str(error)
                self.done += 1
                continue
            values, chosen = self._part(part, rollouts)
            group = rollouts.group_ids[rollouts.episode_of_token[chosen]]
            agreement.add(values, group)
            used.append(part)
            for array in (values, chosen, rollouts.response_of_token[chosen], group):
                np.save(spool, array.numpy(), allow_pickle=False)
            self.done += 1
        if self.left_out and not used:
            raise InputError(f"nothing here can be read: {self.left_out[self.parts[-1]]}")
        if not agreement.tokens:
            raise InputError("there is no trained token with known rewards that all of these methods look at.")
        spool.seek(0)
        rms = agreement.rms()
        largest, by_group = _furthest(spool, used, rms)
        return {
            "specs": self.specs,
            "tokens": agreement.tokens,
            "groups": agreement.groups,
            "left_out": [self.left_out[part] for part in sorted(self.left_out)],
            "rms": rms.tolist(),
            "pearson": _matrix(agreement.pearson()),
            "spearman": _matrix(agreement.spearman()),
            "same_sign": _matrix(agreement.same_sign()),
            "earning": [real(v) for v in agreement.earning().value.tolist()],
            "by_group": by_group,
            "tokens_apart": _distinct([self._shown(*one) for one in largest]),
        }

    def _part(self, part: int, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Credit ``[n, M]`` of the tokens every method looks at, and which they are."""
        given = [self.methods.whole(self.source, part, spec) for spec in self.specs]
        seen = ~torch.stack([credit.unknown for credit in given]).any(0)
        origins = [set(self.methods.stage(spec).covers) for spec in self.specs if spec != STORED]
        if origins and "response:origin" in rollouts.columns:
            inside = set.intersection(*origins)
            outside = torch.tensor([origin not in inside for origin in rollouts.origin], dtype=torch.int64)
            seen &= ragged.sum_rows(outside, rollouts.response_offsets) == 0
        chosen = (rollouts.trained & seen[rollouts.episode_of_token]).nonzero().squeeze(1)
        return torch.stack([c.advantages[chosen].double() for c in given], dim=1), chosen

    def _shown(self, apart: float, part: int, token: int, values: Tensor) -> dict[str, Any]:
        """A token where it stands."""
        rollouts = self.source.read(part)
        b = int(rollouts.response_of_token[token])
        e = int(rollouts.episode_of_response[b])
        group = int(rollouts.group_ids[e])
        start = int(rollouts.token_offsets[b])
        texts, at = pieces(rollouts, b, self.decode), token - start
        first = int((rollouts.group_ids[:e] == group).sum())
        return {
            "part": part,
            "group": group,
            "episode": first,
            "token": token - int(rollouts.episode_offsets[e]),
            "apart": apart,
            "before": "".join(str(shortened(t)) for t in texts[max(at - AROUND, 0) : at]),
            "text": shortened(texts[at]),
            "after": "".join(str(shortened(t)) for t in texts[at + 1 : at + 1 + AROUND]),
            "advantages": values.tolist(),
        }


Largest = tuple[float, int, int, Tensor]
"""How far apart, part, token, and what each method gave it."""


def _furthest(spool: IO[bytes], parts: list[int], rms: Tensor) -> tuple[list[Largest], list[tuple[int, int, float]]]:
    """The tokens about which methods are furthest apart, one a response, and the largest distance in every group."""
    best: list[Largest] = []
    by_group: list[tuple[int, int, float]] = []
    for part in parts:
        values, tokens, responses, groups = (np.load(spool, allow_pickle=False) for _ in range(4))
        apart = disagreement(torch.from_numpy(values), rms).numpy()
        order = np.argsort(-apart, kind="stable")
        _, first = np.unique(responses[order], return_index=True)
        leading = order[np.sort(first)][:TOP]
        best += [(float(apart[i]), part, int(tokens[i]), torch.from_numpy(values[i])) for i in leading if apart[i] > 0]
        best = sorted(best, key=lambda one: (-one[0], one[1], one[2]))[:TOP]
        names, number = np.unique(groups, return_inverse=True)
        most = np.zeros(len(names))
        np.maximum.at(most, number, apart)
        by_group += [(part, int(name), float(value)) for name, value in zip(names, most, strict=True)]
    return best, by_group


def _distinct(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without tokens that stand at the same place as one before: responses may be alike up to there."""
    found = {(one["part"], one["group"], one["token"], one["before"], one["text"]): one for one in reversed(records)}
    return list(found.values())[::-1]


def _matrix(estimate: Estimate) -> list[list[list[float | None]]]:
    """Value and interval of every pair."""
    parts = [part.tolist() for part in (estimate.value, estimate.low, estimate.high)]
    return [
        [[real(value) for value in entry] for entry in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)
    ]
