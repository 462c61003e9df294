"""What repeated backups come to on a small decision process: along a policy's greedy action, or along the best one.

Suffix legend: S states, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.errors import InputError


@dataclass(frozen=True, eq=False)
class DecisionProcess:
    """A deterministic one.

    Attributes:
        next_state: where every action leads ``[S, A]``; -1 ends.
        rewards: of every action ``[S, A]``.
        gamma: discount a step.

    Raises:
        InputError: tables of different shapes, a state that is not there, or ``gamma`` outside (0, 1].
    """

    next_state: Tensor
    rewards: Tensor
    gamma: float

    def __post_init__(self) -> None:
        if self.next_state.dim() != 2 or self.next_state.shape != self.rewards.shape:
            raise InputError(
                f"next_state has shape {tuple(self.next_state.shape)} and rewards {tuple(self.rewards.shape)}, "
                "expected the same, states by actions."
            )
        states = len(self.next_state)
        if bool(((self.next_state < -1) | (self.next_state >= states)).any()):
            raise InputError(f"next_state leads outside the states, expected 0 to {states - 1}, or -1 for an end.")
        if not 0 < self.gamma <= 1:
            raise InputError(f"gamma is {self.gamma}, expected above 0 to 1.")

    def back_up(self, values: Tensor) -> Tensor:
        """``r(s, a) + gamma V(s')`` from values of states ``[S]``; V is 0 after an end."""
        after = torch.where(self.next_state >= 0, values[self.next_state.clamp(min=0)], 0.0)
        return self.rewards + self.gamma * after


def optimal_q(process: DecisionProcess, sweeps: int) -> Tensor:
    """Q ``[S, A]`` after some sweeps of ``(B* Q)(s, a) = r + gamma max_a' Q(s', a')`` from 0."""
    return _swept(process, sweeps, lambda q: q.amax(1))


def conservative_q(process: DecisionProcess, policy: Tensor, sweeps: int) -> Tensor:
    """Q ``[S, A]`` after some sweeps of ``(B^q Q)(s, a) = r + gamma Q(s', argmax_a' q(a' | s'))`` from 0.

    A contraction by gamma whose fixed point is the value of the greedy policy, nowhere above the optimal one.

    Args:
        process: what is acted in.
        policy: probabilities q ``[S, A]``.
        sweeps: how many.

    Raises:
        InputError: a policy of another shape, or a negative number of sweeps.

    Source: arXiv 2310.03173.

    Example:
        >>> chain = DecisionProcess(torch.tensor([[1, -1], [-1, -1]]), torch.tensor([[0.0, 0.2], [1.0, -1.0]]), 0.5)
        >>> conservative_q(chain, torch.tensor([[0.9, 0.1], [0.2, 0.8]]), 9).tolist()
        [[-0.5, 0.20000000298023224], [1.0, -1.0]]
    """
    greedy = _greedy_in(process, policy)
    return _swept(process, sweeps, lambda q: q.gather(1, greedy[:, None]).squeeze(1))


def recovered_reward(q: Tensor, process: DecisionProcess, policy: Tensor) -> Tensor:
    """The reward whose conservative fixed point is Q: ``r(s, a) = Q(s, a) - gamma Q(s', argmax_a' q(a' | s'))``.

    Reads where actions lead and gamma, not the process's rewards.

    Source: arXiv 2310.03173.
    """
    greedy = _greedy_in(process, policy)
    values = q.gather(1, greedy[:, None]).squeeze(1)
    return q - (process.back_up(values) - process.rewards)


def greedy_of(policy: Tensor) -> Tensor:
    """The likeliest action of every state ``[S]``, the smallest of several."""
    return policy.argmax(1)


def _greedy_in(process: DecisionProcess, policy: Tensor) -> Tensor:
    if policy.shape != process.rewards.shape:
        raise InputError(
            f"the policy has shape {tuple(policy.shape)}, expected {tuple(process.rewards.shape)}: states by actions."
        )
    return greedy_of(policy)


def _swept(process: DecisionProcess, sweeps: int, value_of: Callable[[Tensor], Tensor]) -> Tensor:
    if sweeps < 0:
        raise InputError(f"got {sweeps} sweeps, expected 0 or more.")
    q = torch.zeros_like(process.rewards)
    for _ in range(sweeps):
        q = process.back_up(value_of(q))
    return q
