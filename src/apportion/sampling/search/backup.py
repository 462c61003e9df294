"""What a new value does to the nodes above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apportion.errors import InputError, check_share
from apportion.sampling.search.tree import SearchTree

Backup = Callable[[SearchTree, int, float], None]
"""``(tree, node, value)``: the node has got a value; changes values and visits in place."""


def rollout_value(verdicts: Sequence[int], final: int) -> float:
    """What a simulation is worth: verdicts of its steps, the nearest first, and the outcome.

        U = (1/n) sum_k v_k (n - k + 1) / n + F / n        n verdicts; F alone where there is none

    Args:
        verdicts: of every simulated step but the last, whose place the outcome takes: 1, -1, or 0 where undecided.
        final: F, 1 where the answer is right and -1 where it is not.

    Raises:
        InputError: numbers other than these.

    Source: JerryPlain/GroundedPRMCode, MCTS.backpropagate.

    Example:
        >>> round(rollout_value([1, 1, -1], 1), 4), rollout_value([], -1)
        (0.7778, -1.0)
    """
    if final not in (-1, 1):
        raise InputError(f"the outcome of a simulation is {final}, expected 1 or -1.")
    for verdict in verdicts:
        if verdict not in (-1, 0, 1):
            raise InputError(f"the verdict of a step is {verdict}, expected 1, 0 or -1.")
    n = len(verdicts)
    if not n:
        return float(final)
    return sum(verdict * (n - k) / n for k, verdict in enumerate(verdicts)) / n + final / n


def decayed(decay: float = 0.9) -> Backup:
    """The value is added to the node, and less of it to those above.

        V_node += U;   at distance d above: V += decay^d U, N += 1

    The node's own visits stay.

    Args:
        decay: above 0, at most 1.

    Raises:
        InputError: ``decay`` out of range.

    Source: arXiv 2510.14942; JerryPlain/GroundedPRMCode, MCTS.backpropagate.
    """
    check_share("decay", decay)

    def back_up(tree: SearchTree, node: int, value: float) -> None:
        tree.values[node] += value
        for distance, above in enumerate(tree.ancestors(node), start=1):
            tree.values[above] += decay**distance * value
            tree.visits[above] += 1

    return back_up


def comp() -> Backup:
    """Every node above is half what it was and half the mean of its children; order matters.

        N_node += 1, V_node = v;   bottom up: N += 1, V = (V + c) / 2,   c = sum_ch V_ch N_ch / sum_ch N_ch

    Source: arXiv 2501.12051; pixas/MedSSS, back_propagate with ``comp``.
    """
    return _from_children(keep=0.5)


def mean() -> Backup:
    """Every node above is the mean of its children, weighted by their visits: :func:`comp` without the old half.

    Source: pixas/MedSSS, back_propagate with ``default``.
    """
    return _from_children(keep=0.0)


def _from_children(keep: float) -> Backup:
    def back_up(tree: SearchTree, node: int, value: float) -> None:
        if not 0 <= value <= 1:
            raise InputError(f"a node's value is {value}, expected a share from 0 to 1.")
        tree.visits[node] += 1
        tree.values[node] = value
        for above in tree.ancestors(node):
            tree.visits[above] += 1
            children = tree.children(above)
            visits = sum(tree.visits[child] for child in children)
            below = sum(tree.values[child] * tree.visits[child] for child in children) / visits
            tree.values[above] = keep * tree.values[above] + (1 - keep) * below

    return back_up


BACKUPS: dict[str, Callable[..., Backup]] = {"comp": comp, "decayed": decayed, "mean": mean}
"""Backup rules by name, each built from its settings."""
