"""Agents of several turns on a table: every turn is a response of one token to the state the agent stands in.

Suffix legend: S states, A actions, E episodes, B responses (turns).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts, ragged

END = -1
"""In place of a state: the episode is over."""


@dataclass(frozen=True, eq=False)
class Walk:
    """States, what actions lead to, and what they pay; nothing is left to chance but the policy.

    A policy for it is a table with a prompt a state and responses of one token: ``TabularPolicy(A, 1, prompts=S)``.

    Attributes:
        to: state an action leads to, or :data:`END` ``[S, A]``.
        reward: paid with it ``[S, A]``.
        limit: turns until an episode is cut off.

    Raises:
        InputError: tables of different shapes, a state that is not there, or no turn.

    Example:
        >>> step = Walk(torch.tensor([[0, END]]), torch.tensor([[0.0, 1.0]]), limit=2)
        >>> step.expected(TabularPolicy(vocabulary=2, depth=1))
        0.75
    """

    to: Tensor
    reward: Tensor
    limit: int

    def __post_init__(self) -> None:
        if self.to.shape != self.reward.shape or self.to.dim() != 2:
            raise InputError(
                f"to has shape {tuple(self.to.shape)} and reward {tuple(self.reward.shape)}, expected both to be "
                "[states, actions]."
            )
        if bool((self.to < END).any()) or bool((self.to >= len(self.to)).any()) or self.limit < 1:
            raise InputError(
                f"limit={self.limit}, states {self.to.tolist()}: expected a turn or more, and known states."
            )

    def copies(self, count: int) -> Walk:
        """As many walks beside each other, so that one table learns each on its own; copy i begins at i S."""
        states = len(self.to)
        shift = torch.arange(count).repeat_interleave(states)[:, None] * states
        to = self.to.repeat(count, 1)
        return replace(self, to=torch.where(to == END, END, to + shift), reward=self.reward.repeat(count, 1))

    def sample(self, policy: TabularPolicy, starts: Tensor, group_size: int, generator: torch.Generator) -> Rollouts:
        """Episodes of a policy.

        Args:
            policy: as above.
            starts: the state every group begins in.
            group_size: episodes a group.
            generator: source of randomness.

        Returns:
            rollouts of one response a turn with ``log_probs/behaviour``, the response columns ``reward/step``,
            ``state_key`` and ``truncated``, and the episode column ``reward/outcome``, the sum of the step rewards.
        """
        log_probs = policy.logits.detach().log_softmax(1)
        state_E = starts.repeat_interleave(group_size)
        going, turns = torch.arange(len(state_E)), list[Tensor]()
        for _ in range(self.limit):
            state = state_E[going]
            action = torch.multinomial(log_probs[state].exp(), 1, generator=generator).squeeze(1)
            turns.append(torch.stack([going, state, action]))
            state_E[going] = self.to[state, action]
            going = going[state_E[going] != END]
            if not len(going):
                break
        taken = torch.cat(turns, 1)
        episode_B, state_B, action_B = taken[:, taken[0].argsort(stable=True)]
        offsets = ragged.offsets_of(torch.bincount(episode_B, minlength=len(state_E)))
        reward_B = self.reward[state_B, action_B].double()
        cut_B = torch.zeros_like(episode_B, dtype=torch.bool)
        cut_B[offsets[1:][going] - 1] = True
        return (
            Rollouts(
                ids=action_B,
                token_offsets=torch.arange(len(action_B) + 1),
                response_offsets=offsets,
                group_ids=torch.arange(len(starts)).repeat_interleave(group_size),
                prompt_ids=torch.arange(len(self.to)),
                prompt_offsets=torch.arange(len(self.to) + 1),
                prompts=state_B,
            )
            .with_statistic("log_probs/behaviour", log_probs[state_B, action_B], "sampling")
            .with_column("response:state_key", [str(state) for state in state_B.tolist()], maker="environment")
            .with_column("response:truncated", cut_B, maker="environment")
            .with_reward("step", reward_B, level="response")
            .with_reward("outcome", ragged.sum_rows(reward_B, offsets))
        )

    def expected(self, policy: TabularPolicy, start: int = 0) -> float:
        """Exact expected sum of rewards of an episode that begins in a state."""
        return float(self.values(policy)[self.limit, start])

    @torch.no_grad()
    def values(self, policy: TabularPolicy) -> Tensor:
        """Exact values of states by the turns that are left ``[limit + 1, S]``."""
        likely = policy.logits.softmax(1).to(self.reward)
        values = [torch.zeros(len(self.to), dtype=self.reward.dtype)]
        for _ in range(self.limit):
            values.append((likely * self._worth(values[-1])).sum(1))
        return torch.stack(values)

    def advantages(self, policy: TabularPolicy, rollouts: Rollouts) -> Tensor:
        """Exact advantages of the turns of sampled episodes ``[B]``."""
        value = self.values(policy)
        left = self.limit - ragged.position_in_row(rollouts.response_offsets)
        worth = torch.stack([self._worth(after) for after in value[:-1]])[left - 1, rollouts.prompts, rollouts.ids]
        return worth - value[left, rollouts.prompts]

    def _worth(self, after: Tensor) -> Tensor:
        """What actions are worth ``[S, A]`` where the states they lead to are worth this ``[S]``."""
        return self.reward + torch.where(self.to == END, 0.0, after[self.to.clamp(min=0)])
