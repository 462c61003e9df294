"""Which models may share prefixes: refused by what they are, and tried once before they are trusted."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from apportion.models.packing.forward import Unsupported, attached, states_of_nodes
from apportion.models.packing.tree import prefix_tree

ROWS = ((1, 2, 3, 4, 5), (1, 2, 3, 6, 7, 8, 9), (1, 2, 3, 4, 10), (1, 11, 12))
"""Tokens (modulo the vocabulary) on which a model is tried: forks at the beginning, in the middle and near the end."""

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}
"""Relative difference of states that is rounding; 0.05 at lower precision."""


def check_shareable(trunk: Module, config: Any, precision: AbstractContextManager[object]) -> None:
    """Raise unless a trunk gives the nodes of a tree the states it gives the rows.

    Args:
        trunk: of a Hugging Face model, with that model's ``config``.
        config: where the attention is chosen.
        precision: of a forward pass.

    Raises:
        Unsupported: says what of the model cannot be served.
    """
    why = _scaled_by_length(config)
    if why is None:
        try:
            with precision, attached(config), torch.no_grad():
                why = _differs(trunk, config)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            if isinstance(error, Unsupported):
                raise
            why = f"{type(trunk).__name__} does not run on one ({str(error).splitlines()[0]})"
    if why is not None:
        raise Unsupported(why)


def shareable(trunk: Module, config: Any, longest: int) -> bool:
    """Whether a trunk passes :func:`check_shareable` and every layer looks at all of rows of this length."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ("sliding_attention",)
    if window is not None and window < longest and "sliding_attention" in kinds:
        return False
    try:
        check_shareable(trunk, config, nullcontext())
    except Unsupported:
        return False
    return True


def _scaled_by_length(config: Any) -> str | None:
    """Why positions of a packed row would not be those of its rows, if so."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters.get("rope_type"), *(p.get("rope_type") for p in parameters.values() if isinstance(p, dict))]
    changing = sorted({kind for kind in kinds if kind in ("dynamic", "longrope")})
    return f"its rotary positions ({', '.join(changing)}) depend on the length of the row" if changing else None


def _differs(trunk: Module, config: Any) -> str | None:
    device = next(trunk.parameters()).device
    rows = [torch.tensor(row, device=device) % config.vocab_size for row in ROWS]
    tree = prefix_tree(torch.cat(rows), torch.tensor([0, *map(len, rows)]).cumsum(0))
    states = states_of_nodes(trunk, tree)
    implementation = config._attn_implementation
    config._attn_implementation = "sdpa"
    try:
        alone = torch.cat([trunk(input_ids=row[None], use_cache=False)[0][0] for row in rows])
    finally:
        config._attn_implementation = implementation
    error = _relative(states[tree.node_of_token], alone)
    if error > TOLERANCE.get(states.dtype, 0.05):
        return f"its states on a tree are off by {error:.1e} from those on rows"
    return None


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).double().norm() / expected.double().norm())
