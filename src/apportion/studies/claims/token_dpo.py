"""Token-level DPO (arXiv 2404.12358): a preference-tuned policy's log-ratios are the advantage of a dense reward.

World: responses of four tokens out of three, a reference policy and a hidden reward a token, both drawn at random.
Preferences compare whole responses by their summed reward.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from apportion import credit, objectives
from apportion.credit.soft_optimal import SoftOptimal, soft_optimal
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts, ragged
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained, sample
from apportion.training.annotate import annotate
from apportion.training.seeds import torch_generator

TOKENS, LENGTH, BETA = 3, 4, 0.5
PAIRS, UPDATES = 4000, 150
STATES = sum(TOKENS**depth for depth in range(LENGTH))


class _World:
    """A reference policy and a hidden reward of every token ``[states, tokens]``, in the order of a table.

    Args:
        seed: of both.
        peaked: how far apart the reference policy's logits are.
    """

    def __init__(self, seed: int, peaked: float = 0.5) -> None:
        self.seed = seed
        generator = torch_generator("cpu", seed, "token_dpo", "world")
        self.reference = TabularPolicy(TOKENS, LENGTH)
        with torch.no_grad():
            self.reference.logits.copy_(peaked * torch.randn((STATES, TOKENS), generator=generator).double())
        self.reward = torch.randn((STATES, TOKENS), generator=generator).double()

    def returns(self, rollouts: Rollouts) -> Tensor:
        """Summed reward of every episode ``[E]``."""
        paid = self.reward[self.reference.states_of(rollouts), rollouts.ids]
        return ragged.sum_rows(paid, rollouts.episode_offsets)

    def optimum(self) -> SoftOptimal:
        """The policy that the preferences call for."""
        return soft_optimal(by_depth(self.reward), by_depth(self.reference.logits.detach().softmax(1)), BETA)

    def generator(self, purpose: str) -> torch.Generator:
        return torch_generator("cpu", self.seed, "token_dpo", purpose)


def by_depth(table: Tensor) -> list[Tensor]:
    """Rows of a table as one tensor a depth of the tree."""
    return list(table.split([TOKENS**depth for depth in range(LENGTH)]))


def preferred_pairs(rollouts: Rollouts, returns: Tensor, generator: torch.Generator) -> Rollouts:
    """Neighbours compared, the better preferred with probability sigmoid of the difference (Bradley and Terry)."""
    one, other = torch.arange(len(returns)).reshape(-1, 2).unbind(1)
    chance = (returns[one] - returns[other]).sigmoid()
    first = torch.rand(len(chance), generator=generator, dtype=chance.dtype) < chance
    return rollouts.with_pairs(torch.where(first, one, other), torch.where(first, other, one))


def _compared(world: _World, drawn_from: TabularPolicy, pairs: int) -> Rollouts:
    rollouts = sample(drawn_from, [0] * pairs, 2, world.generator("pairs"))
    return preferred_pairs(rollouts, world.returns(rollouts), world.generator("preferences"))


def _tuned(start: TabularPolicy, pairs: Rollouts, updates: int = UPDATES) -> TabularPolicy:
    policy = start.clone()
    objective = objectives.OBJECTIVES["dpo"](beta=BETA)
    trained = Trained(policy, "none", objective, learning_rate=0.05, optimizer="adamw")
    for _ in range(updates):
        trained.step(pairs)
    return policy


def correlation(one: Tensor, other: Tensor) -> float:
    """Of two tensors of the same shape."""
    return float(torch.corrcoef(torch.stack([one.flatten().double(), other.flatten().double()]))[0, 1])


def _token_credit(seed: int) -> Mapping[str, float]:
    world = _World(seed)
    policy = _tuned(world.reference, _compared(world, world.reference, PAIRS))
    fresh = sample(world.reference, [0] * 125, 8, world.generator("fresh"))
    log_probs = {"old": ["log_probs"], "reference": ["log_probs"]}
    measured = annotate(fresh, {"old": policy, "reference": world.reference}, log_probs, 1 << 20)
    implicit = credit.METHODS["token_dpo"](beta=BETA)(measured).advantages
    outcome = credit.METHODS["rloo"]()(fresh.with_reward("outcome", world.returns(fresh))).advantages
    truth = torch.cat(world.optimum().implicit_reward)[world.reference.states_of(fresh), fresh.ids]
    figures = {"implicit reward": correlation(implicit, truth), "outcome": correlation(outcome, truth)}
    return {"effect": figures["implicit reward"], **figures}


def _chosen_reward(start: TabularPolicy, pairs: Rollouts) -> float:
    """Mean implicit reward of the preferred answers after tuning, for the start as reference."""
    policy = start.clone()
    trained = Trained(policy, "none", objectives.OBJECTIVES["dpo"](beta=BETA), learning_rate=0.05, optimizer="adamw")
    for _ in range(50):
        trained.step(pairs)
    return float(trained.metrics["reward_chosen"])


def _reference_effect(seed: int) -> Mapping[str, float]:
    """People write answers that the base policy, which knows nothing, does not; then the same after imitation."""
    world = _World(seed, peaked=2.0)
    pairs = _compared(world, world.reference, 1000)
    base = TabularPolicy(TOKENS, LENGTH)
    imitated = base.clone()
    assert pairs.pairs is not None
    chosen = pairs.select(pairs.pairs.preferred)
    imitation = Trained(imitated, "none", "imitation", learning_rate=0.05, optimizer="adamw")
    for _ in range(150):
        imitation.step(chosen)
    after, without = _chosen_reward(imitated, pairs), _chosen_reward(base, pairs)
    return {"effect": min(-after, without), "after imitation": after, "without": without}


CLAIMS = (
    Claim(
        "token_dpo",
        "credit out of preferences",
        "The log-ratios of a policy tuned on whole responses are the soft-optimal advantage of every token.",
        "Responses of four tokens out of three, a hidden dense reward; dpo on 4000 pairs of the reference policy's own "
        "responses, preferred by their summed reward (Bradley and Terry); then token_dpo on fresh responses. Effect: "
        "its correlation with the exact advantage of the optimal policy; 0.9 is what the card expects of a few "
        "thousand pairs. Beside it that of leave-one-out credit from the true returns.",
        "The correlation is below 0.9.",
        0.9,
        _token_credit,
    ),
    Claim(
        "dpo",
        "what the reference decides",
        "After imitation of the preferred answers their implicit rewards fall in DPO, without it they do not.",
        "Pairs of answers that other people wrote (a peaked policy), of four tokens out of three; 50 updates of dpo "
        "from a uniform base policy, and from that policy after imitation of the preferred answers, each its own "
        "reference. Effect: the smaller of the fall with imitation and the rise without it, of the mean implicit "
        "reward of preferred answers, in nats times beta.",
        "Preferred answers lose without imitation too, or gain after it.",
        0.05,
        _reference_effect,
    ),
)
