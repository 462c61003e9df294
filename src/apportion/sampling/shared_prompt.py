"""Keys and values while responses grow: a prompt's once for all its responses, a response's own in room set aside.

A decoding step's attention has two parts, merged by their log-sum-exp: queries of all responses to a prompt against its
keys in one product, and every response's query against its own tokens. Nothing is copied as responses grow.

Suffix legend: b responses at hand, P prompts at hand, L longest prompt, H heads, K key-value heads, M = H / K, E head
size, T room for new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from apportion.models.packing.forward import Unsupported, check_arguments, scale_of

NAME = "apportion_shared_prompt"

DROP_BELOW = 0.875
"""Ended rows are dropped when at most this share of the rows goes on."""


@dataclass(eq=False)
class Layer:
    """Keys and values of one layer.

    Attributes:
        prompt_keys: ``[P, K, L, E]``, padded on the left.
        prompt_values: the same.
        keys: of the new tokens ``[b, K, T, E]``.
        values: the same.
    """

    prompt_keys: Tensor
    prompt_values: Tensor
    keys: Tensor
    values: Tensor


@dataclass(eq=False)
class SharedPrompts:
    """The responses at hand and what they have read.

    Attributes:
        valid: bool ``[P, L]``: which places of a prompt are not padding.
        prompt: ``[b]``: which prompt a response answers; ascending.
        lengths: ``[b]``: new tokens a response has read.
        room: T.
        layers: by number.
        fresh: the prompts being read now, if a prompt pass runs: ``[p, l]`` as ``valid``.
    """

    valid: Tensor
    prompt: Tensor
    lengths: Tensor
    room: int
    layers: dict[int, Layer] = field(default_factory=dict)
    fresh: Tensor | None = None

    @staticmethod
    def empty(room: int, device: torch.device) -> SharedPrompts:
        """No prompts, no responses."""
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return SharedPrompts(torch.zeros((0, 0), dtype=torch.bool, device=device), none, none, room)

    def begin(self, valid: Tensor) -> None:
        """The next forward pass reads these prompts, ``[p, l]`` padded on the left."""
        self.fresh = valid

    def admit(self, copies: int) -> None:
        """After that pass: ``copies`` responses to each of them join those at hand."""
        assert self.fresh is not None
        new, first = len(self.fresh), len(self.valid)
        width = max(self.valid.shape[1], self.fresh.shape[1])
        self.valid = torch.cat([padded_left(self.valid, width, 1), padded_left(self.fresh, width, 1)])
        joining = torch.arange(first, first + new, device=self.prompt.device).repeat_interleave(copies)
        self.prompt = torch.cat([self.prompt, joining])
        self.lengths = torch.cat([self.lengths, torch.zeros_like(joining)])
        for layer in self.layers.values():
            shape = (len(joining), layer.keys.shape[1], self.room, layer.keys.shape[3])
            layer.keys = torch.cat([layer.keys, layer.keys.new_zeros(shape)])
            layer.values = torch.cat([layer.values, layer.values.new_zeros(shape)])
        self.fresh = None

    def keep(self, going: Tensor) -> None:
        """Go on with some responses (indices, ascending); prompts that none of them answers are forgotten."""
        kept, prompt = torch.unique(self.prompt[going], return_inverse=True)
        some = len(kept) < len(self.valid)
        used = int(self.lengths.max())
        self.prompt, self.lengths = prompt, self.lengths[going]
        self.valid = self.valid[kept] if some else self.valid
        for layer in self.layers.values():
            if some:
                layer.prompt_keys, layer.prompt_values = layer.prompt_keys[kept], layer.prompt_values[kept]
            layer.keys = _moved(layer.keys, going, used)
            layer.values = _moved(layer.values, going, used)

    @property
    def depth(self) -> int:
        """The longest a row can become."""
        return max(self.valid.shape[1], 0 if self.fresh is None else self.fresh.shape[1]) + self.room

    def advance(self) -> None:
        """Every response has read one token more; one that has ended goes no further than its room."""
        self.lengths = (self.lengths + 1).clamp(max=self.room - 1)

    def attend(self, number: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one layer: ``query [b, H, n, E]``, new ``key`` and ``value [b, K, n, E]``; ``[b, H, n, E]``."""
        if self.fresh is not None:
            return self._read_prompts(number, query, key, value, scale)
        layer = self.layers[number]
        rows = torch.arange(len(key), device=key.device)
        layer.keys[rows, :, self.lengths] = key[:, :, 0]
        layer.values[rows, :, self.lengths] = value[:, :, 0]
        queries = query.unflatten(1, (key.shape[1], -1)).squeeze(3) * scale  # [b, K, M, E]
        shared, shared_lse = self._of_prompts(layer, queries)
        own, own_lse = self._of_responses(layer, queries)
        share = (shared_lse - own_lse).sigmoid()[..., None].to(own.dtype)
        return (shared * share + own * (1 - share)).flatten(1, 2)[:, :, None]

    def _read_prompts(self, number: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        assert self.fresh is not None
        if number in self.layers:
            layer = self.layers[number]
            width = max(layer.prompt_keys.shape[2], key.shape[2])
            layer.prompt_keys = torch.cat([padded_left(layer.prompt_keys, width, 2), padded_left(key, width, 2)])
            layer.prompt_values = torch.cat([padded_left(layer.prompt_values, width, 2), padded_left(value, width, 2)])
        else:
            none = key.new_zeros((0, key.shape[1], self.room, key.shape[3]))
            self.layers[number] = Layer(key, value, none, none)
        whole = bool(self.fresh.all())
        mask = None
        if not whole:
            places = torch.arange(key.shape[2], device=key.device)
            causal = places[None, :] <= places[:, None]
            # Padding looks at itself, so that no row is without keys; nobody looks at it.
            mask = (causal & self.fresh[:, None, :]) | torch.eye(len(places), dtype=torch.bool, device=key.device)
            mask = mask[:, None]
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=whole, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )

    def _of_prompts(self, layer: Layer, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of a prompt's responses side by side, as many places for every prompt as the fullest needs."""
        counts = torch.bincount(self.prompt, minlength=len(self.valid))
        most = int(counts.max())
        place = torch.arange(len(queries), device=queries.device) - (counts.cumsum(0) - counts)[self.prompt]
        slot = self.prompt * most + place
        full = len(queries) == len(counts) * most
        side = (
            queries
            if full
            else queries.new_zeros((len(counts) * most, *queries.shape[1:])).index_copy(0, slot, queries)
        )
        shared, size = queries.shape[1], queries.shape[2]
        side = side.unflatten(0, (len(counts), most)).transpose(1, 2).flatten(2, 3)  # [P, K, most M, E]
        scores = side @ layer.prompt_keys.transpose(2, 3)
        if not bool(self.valid.all()):
            scores = scores.masked_fill(~self.valid[:, None, None, :], -torch.inf)
        out, lse = _softmax_of(scores, layer.prompt_values)
        out = out.unflatten(2, (most, size)).transpose(1, 2).reshape(-1, shared, size, out.shape[-1])
        lse = lse.unflatten(2, (most, size)).transpose(1, 2).reshape(-1, shared, size)
        return (out, lse) if full else (out[slot], lse[slot])

    def _of_responses(self, layer: Layer, queries: Tensor) -> tuple[Tensor, Tensor]:
        used = int(self.lengths.max()) + 1
        scores = queries @ layer.keys[:, :, :used].transpose(2, 3)
        beyond = torch.arange(used, device=queries.device) > self.lengths[:, None]
        if bool(beyond.any()):
            scores = scores.masked_fill(beyond[:, None, None, :], -torch.inf)
        return _softmax_of(scores, layer.values[:, :, :used])


def _softmax_of(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    lse = scores.float().logsumexp(-1) if scores.dtype != torch.float64 else scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(values.dtype) @ values, lse


def padded_left(x: Tensor, width: int, dim: int) -> Tensor:
    """Zeros on the left of a dimension."""
    missing = width - x.shape[dim]
    if not missing:
        return x
    shape = list(x.shape)
    shape[dim] = missing
    return torch.cat([x.new_zeros(shape), x], dim)


def _moved(x: Tensor, rows: Tensor, used: int) -> Tensor:
    """Some rows with their room; only what is in use is copied."""
    result = x.new_zeros((len(rows), *x.shape[1:]))
    result[:, :, :used] = x[rows, :, :used]
    return result


def attend(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared_prompts: SharedPrompts | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function registered with transformers under :data:`NAME`."""
    if shared_prompts is None:
        raise Unsupported(f"{type(module).__name__} does not hand arguments of the call on to its attention")
    check_arguments(module, others, shared_prompts.depth)
    out = shared_prompts.attend(int(module.layer_idx), query, key, value, scale_of(query, scaling))  # type: ignore[arg-type]
    return out.transpose(1, 2), None


class SharedPromptReader:
    """Reads prompts and then one token a row at a time, through :class:`SharedPrompts`.

    Args:
        model: a transformers causal language model.
        room: the most new tokens a response can have.
    """

    takes_more = True

    def __init__(self, model: Any, room: int) -> None:
        self.model = model
        self.state = SharedPrompts.empty(room, next(model.parameters()).device)

    @staticmethod
    def resumed(model: Any, state: SharedPrompts) -> SharedPromptReader:
        """Go on from keys and values that were kept."""
        reader = SharedPromptReader(model, state.room)
        reader.state = state
        return reader

    def read_prompts(self, ids: Tensor, valid: Tensor, copies: int) -> Tensor:
        """Logits ``[p copies, V]`` after prompts ``[p, l]`` padded on the left; their responses join the rows."""
        self.state.begin(valid)
        logits = self._run(ids, (valid.cumsum(1) - 1).clamp(min=0))
        self.state.admit(copies)
        return logits.repeat_interleave(copies, 0)

    def read_tokens(self, tokens: Tensor) -> Tensor:
        """Logits ``[b, V]`` after one token more of every row."""
        position = self.state.valid.sum(1)[self.state.prompt] + self.state.lengths
        logits = self._run(tokens[:, None], position[:, None])
        self.state.advance()
        return logits

    def keep(self, going: Tensor) -> None:
        """Go on with some rows."""
        self.state.keep(going)

    def _run(self, ids: Tensor, positions: Tensor) -> Tensor:
        # Given a mask of four dimensions transformers makes none of its own; ours is in the state.
        unused = torch.zeros((1, 1, 1, 1), device=ids.device)
        with _attached(self.model.config):
            output = self.model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=unused,
                use_cache=False,
                logits_to_keep=1,
                shared_prompts=self.state,
            )
        return output.logits[:, -1]


@contextmanager
def _attached(config: Any) -> Iterator[None]:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
