"""How responses lie before a transformer trunk: as right-padded rows, or as the tree of their prefixes.

Suffix legend: b responses, T longest prompt and response, X states, D hidden size, k tokens asked about.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module

from apportion.models.packing.forward import attached, states_of_nodes
from apportion.models.packing.tree import prefix_tree, rows_with_prompts
from apportion.rollouts import Rollouts, ragged


@dataclass(frozen=True, eq=False)
class States:
    """Hidden states of some responses with their prompts.

    Attributes:
        hidden: ``[X, D]``, each has read one place of a row and all before it.
        starts: first place of every row, in the numbering of ``state`` ``[b]``.
        prompts: tokens of every row before its response ``[b]``.
        state: which of ``hidden`` has read a place; None: places are numbered as states are.
    """

    hidden: Tensor
    starts: Tensor
    prompts: Tensor
    state: Tensor | None

    def after(self, row: Tensor, place: Tensor) -> Tensor:
        """Numbers of the states that have read the token at ``place [k]`` of the response in ``row [k]``.

        A place before 0 is one of the prompt's.
        """
        position = self.starts[row] + self.prompts[row] + place
        return position if self.state is None else self.state[position]


def run_padded(trunk: Module, rollouts: Rollouts, responses: Tensor) -> States:
    """Every response with its prompt as a right-padded row.

    A causal model never looks to the right, so the padding needs no mask.
    """
    ids, offsets, prompts = whole_rows(rollouts, responses)
    lengths = ragged.lengths_of(offsets)
    padded = ids.new_zeros((len(responses), int(lengths.max())))
    padded[ragged.row_of(offsets), ragged.position_in_row(offsets)] = ids
    hidden = trunk(input_ids=padded, use_cache=False)[0]
    starts = torch.arange(len(responses), device=ids.device) * padded.shape[1]
    return States(hidden.flatten(0, 1), starts, prompts, None)


def run_shared(trunk: Module, rollouts: Rollouts, responses: Tensor) -> States:
    """Every distinct prefix once; within :func:`sharing`."""
    ids, offsets, prompts = whole_rows(rollouts, responses)
    tree = prefix_tree(ids, offsets)
    return States(states_of_nodes(trunk, tree), offsets[:-1], prompts, tree.node_of_token)


@contextmanager
def sharing(trunk: Module, shared: bool) -> Iterator[None]:
    """What a forward pass needs around it, and its backward pass with it."""
    with attached(trunk.config) if shared else nullcontext():
        yield


def whole_rows(rollouts: Rollouts, responses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts and responses end to end ``[X]``, their offsets ``[b + 1]``, and lengths of the prompts ``[b]``."""
    prompts = rollouts.prompts[responses]
    prompt_lengths = ragged.lengths_of(rollouts.prompt_offsets)[prompts]
    ids, offsets = rows_with_prompts(
        rollouts.prompt_ids[ragged.ranges(rollouts.prompt_offsets[prompts], rollouts.prompt_offsets[prompts + 1])],
        ragged.offsets_of(prompt_lengths),
        rollouts.ids[ragged.ranges(rollouts.token_offsets[responses], rollouts.token_offsets[responses + 1])],
        ragged.offsets_of(ragged.lengths_of(rollouts.token_offsets)[responses]),
    )
    return ids, offsets, prompt_lengths
