"""Run a Hugging Face trunk on a prefix tree, every distinct prefix once.

Attached through transformers' attention interface under a name of its own: the model's own modules run on one row that
holds the nodes in order, positions are depths, and the layout travels to the attention as an argument of the call.
Nothing is patched.

Suffix legend: U nodes, D hidden size, H heads, K key-value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from apportion.errors import InputError
from apportion.models.packing.attention import blocks_work, by_blocks, by_paths
from apportion.models.packing.flex import by_flex, flex_works
from apportion.models.packing.plan import plan
from apportion.models.packing.tree import PrefixTree

NAME = "apportion_prefix_tree"

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""``(query [H, U, E], key [K, U, E], value [K, U, E], scale) -> [H, U, E]``"""


@dataclass(eq=False)
class Layout:
    """What the attention is told: how the nodes of this call see one another.

    Attributes:
        attend: attention over them.
        depth: nodes of the longest path.
        layers: how many layers have asked.
    """

    attend: Attend
    depth: int
    layers: int = 0


def attention_over(tree: PrefixTree) -> Attend:
    """The fastest exact attention over a tree on its device."""
    if tree.ids.device.type == "cpu" and blocks_work():
        blocks = plan(tree)
        return lambda q, k, v, scale: by_blocks(q, k, v, blocks, scale)
    if tree.ids.device.type == "cuda" and flex_works("cuda"):
        flex = by_flex(tree)
        # Its kernels have no double precision.
        return lambda q, k, v, s: by_paths(q, k, v, tree, s) if q.dtype == torch.float64 else flex(q, k, v, s)
    return lambda q, k, v, scale: by_paths(q, k, v, tree, scale)


@contextmanager
def attached(config: Any) -> Iterator[None]:
    """Let a model's attention go over trees. It must last until the backward pass is over: gradient checkpointing
    runs the layers again there."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def states_of_nodes(trunk: Module, tree: PrefixTree, attend: Attend | None = None) -> Tensor:
    """Hidden states ``[U, D]`` that have read a node and all above it; within :func:`attached`.

    Args:
        trunk: maps ``input_ids [1, U]`` to states.
        tree: which nodes.
        attend: attention over them; None: the fastest.

    Raises:
        Unsupported: something in the trunk would let nodes see others than those above them, or not all of these.
    """
    layout = Layout(attend or attention_over(tree), int(tree.depths.max()) + 1)
    # Given a mask of four dimensions transformers makes none of its own; ours is in the layout.
    unused = torch.zeros((1, 1, 1, 1), device=tree.ids.device)
    states = trunk(
        input_ids=tree.ids[None],
        position_ids=tree.depths[None],
        attention_mask=unused,
        use_cache=False,
        prefix_tree=layout,
    )[0]
    layers = trunk.config.num_hidden_layers  # type: ignore[union-attr]
    if layout.layers != layers:
        raise Unsupported(
            f"of its {layers} layers {layout.layers} have attention that goes through transformers' attention interface"
        )
    return states[0]


class Unsupported(InputError):
    """A model that cannot be run on trees.

    Args:
        why: what of it.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(
            f"this model cannot compute shared prefixes once: {why}; train it with --prefix-sharing False."
        )


REFUSED = {"softcap": "caps its attention scores", "s_aux": "has attention sinks", "position_bias": "biases positions"}
"""Arguments of an attention call that change what is computed, and what a model that gives them does."""


def _attend(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    prefix_tree: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    if prefix_tree is None:
        raise Unsupported(f"{type(module).__name__} does not hand arguments of the call on to its attention")
    check_arguments(module, others, prefix_tree.depth)
    prefix_tree.layers += 1
    scale = scale_of(query, scaling)
    # Under autocast rotary positions leave queries and keys wider than values, and nothing casts what blocks call.
    query, key = query.to(value.dtype), key.to(value.dtype)
    return prefix_tree.attend(query[0], key[0], value[0], scale).transpose(0, 1)[None], None


def check_arguments(module: Module, others: Mapping[str, Any], depth: int) -> None:
    """Raise unless a layer asks for plain causal attention over ``depth`` positions.

    Args:
        module: the layer's attention.
        others: what it gave its attention function beside queries, keys and values.
        depth: the longest row.

    Raises:
        Unsupported: says what it asks for.
    """
    for name, does in REFUSED.items():
        if others.get(name) is not None:
            raise Unsupported(f"{type(module).__name__} {does}")
    if others.get("dropout"):
        raise Unsupported(f"{type(module).__name__} drops attention at random")
    window = others.get("sliding_window")
    if window is not None and window < depth:
        raise Unsupported(f"{type(module).__name__} looks back {window} positions and the longest row has {depth}")


def scale_of(query: Tensor, scaling: float | None) -> float:
    """What scores are multiplied by; without a word of the model, one over the root of the head size."""
    return float(query.shape[-1]) ** -0.5 if scaling is None else scaling
