"""A table whose rows know how many tokens were written, not which.

Suffix legend: S states, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts, ragged


class PositionPolicy(TabularPolicy):
    """Softmax of a table of logits ``[S, V]`` with a row a prompt and position: tokens are independent.

    What is learned of a position after one prefix holds after all, so that responses may be long, and a response that
    begins in the middle trains the positions it fills.

    Args:
        vocabulary: V.
        depth: longest response, in tokens.
        prompts: how many prompts there are.
        end_ids: tokens that end a response early.

    Example:
        >>> PositionPolicy(vocabulary=2, depth=3).logits.shape
        torch.Size([3, 2])
    """

    def __init__(self, vocabulary: int, depth: int, prompts: int = 1, end_ids: tuple[int, ...] = ()) -> None:
        super().__init__(vocabulary, 1, prompts * depth, end_ids=end_ids)
        self.depth, self.prompts = depth, prompts

    def state(self, prompt: Tensor, prefix: Tensor) -> Tensor:
        return prompt * self.depth + prefix.shape[1]

    def states_of(self, rollouts: Rollouts) -> Tensor:
        prompt = rollouts.prompt_ids[rollouts.prompt_offsets[:-1]][rollouts.prompts]
        return prompt[rollouts.response_of_token] * self.depth + ragged.position_in_row(rollouts.token_offsets)

    def clone(self) -> PositionPolicy:
        twin = PositionPolicy(self.vocabulary, self.depth, self.prompts, self.end_ids)
        twin.logits = Parameter(self.logits.detach().clone())
        return twin

    @property
    def likely(self) -> Tensor:
        """Probabilities ``[prompts, depth, V]``."""
        return self.logits.detach().softmax(1).view(self.prompts, self.depth, self.vocabulary)


def certain(policy: TabularPolicy, rows: Tensor, tokens: Tensor) -> None:
    """Let every of these rows have one token only, for good: a gradient does not move it.

    Example:
        >>> policy = PositionPolicy(vocabulary=2, depth=2)
        >>> certain(policy, torch.tensor([1]), torch.tensor([0]))
        >>> policy.likely[0].tolist()
        [[0.5, 0.5], [1.0, 0.0]]
    """
    with torch.no_grad():
        policy.logits[rows] = -1e9
        policy.logits[rows, tokens] = 0.0
