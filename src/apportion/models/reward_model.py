"""A reward model that can speak: a language model with a score head, on one trunk.

Suffix legend: n trained tokens, b rows, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, ModuleDict, Sequential, Tanh

from apportion.errors import InputError
from apportion.models.huggingface import HuggingFacePolicy
from apportion.models.trunk import TrunkModel
from apportion.models.value_heads import worth
from apportion.rollouts import Rollouts

SCORES = "scores/"
"""What the statistics of score heads begin with."""


SEED = 0
"""Of the first map of a score head: what else draws in a run must not change it."""


class RewardModel(TrunkModel):
    """A copy of a policy, with a head that scores what it has read: ``W2 tanh(W1 h + b1) + b2``, 0 to begin with.

    The statistic ``scores/<head>`` at a token is read off the state that has read it; after the last token of an
    answer, or of the critique behind it, that is the reward. ``log_probs`` are the language model's, of critiques.
    There is no dropout before the head, unlike in the authors' code: both passes of a step must agree.

    Args:
        policy: what to copy; what trains of it trains here.
        head: name of the score head.

    Attributes:
        speaker: the language model, to write critiques with.
    """

    reads = (1, 0)

    def __init__(self, policy: HuggingFacePolicy, head: str) -> None:
        self.speaker = policy.clone()
        width, like = policy.config.hidden_size, next(self.speaker.trunk.parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.score = Sequential(Linear(width, width), Tanh(), Linear(width, 1)).to(like.device, like.dtype)
        for parameter in self.score[-1].parameters():
            torch.nn.init.zeros_(parameter)
        module = ModuleDict({"model": self.speaker.model, "score": self.score})
        super().__init__(module, self.speaker.trunk, policy.autocast)
        self.prefix_sharing = policy.prefix_sharing
        self.name = f"{SCORES}{head}"
        self.provides = (self.name, "log_probs")
        self.chunk = self.speaker.chunk

    def read(self, hidden: Tensor, tokens: Tensor, rollouts: Rollouts, names: Sequence[str]) -> Mapping[str, Tensor]:
        before, after = hidden.chunk(2, 1)
        said = [name for name in names if name != self.name]
        spoken = self.speaker.read(before, tokens, rollouts, said) if said else {}
        return {**spoken, **({self.name: worth(self.score, after)} if self.name in names else {})}

    def end_scores(self, rollouts: Rollouts, responses: Tensor) -> Tensor:
        """Scores of whole responses ``[b]``, without gradient."""
        with torch.no_grad():
            return worth(self.score, self.states_at_end(rollouts, responses))

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_model

        save_model(self.module, str(folder / "model.safetensors"))

    def load_weights(self, folder: Path) -> None:
        from safetensors.torch import load_model

        load_model(self.module, folder / "model.safetensors")


def reward_model_for(policy: Any, head: str = "reward") -> RewardModel:
    """A reward model that begins as a copy of a policy.

    Raises:
        InputError: the policy is no transformer.
    """
    if not isinstance(policy, HuggingFacePolicy):
        raise InputError(f"there is no reward model for a {type(policy).__name__}: choose a Hugging Face model.")
    return RewardModel(policy, head)
