"""What is minimised: pure functions of the current policy's statistics, the rollouts and the credit.

from apportion import objectives
objective = objectives.add(objectives.clip(high=0.28), objectives.kl(coefficient=0.001))
"""

from collections.abc import Callable

from apportion import registry
from apportion.objectives.aggregate import AGGREGATIONS as AGGREGATIONS
from apportion.objectives.policy_gradient import KL_ESTIMATORS as KL_ESTIMATORS
from apportion.objectives.policy_gradient import clip as clip
from apportion.objectives.policy_gradient import entropy_bonus as entropy_bonus
from apportion.objectives.policy_gradient import imitation as imitation
from apportion.objectives.policy_gradient import kl as kl
from apportion.objectives.policy_gradient import kl_estimate as kl_estimate
from apportion.objectives.protocol import Loss as Loss
from apportion.objectives.protocol import Now as Now
from apportion.objectives.protocol import Objective as Objective
from apportion.objectives.protocol import Terms as Terms
from apportion.objectives.protocol import add as add
from apportion.objectives.protocol import bind as bind
from apportion.objectives.protocol import token_objective as token_objective

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "clip": clip,
    "kl": kl,
    "entropy_bonus": entropy_bonus,
    "imitation": imitation,
}


def build(*specs: str) -> Objective:
    """The sum of the objectives that specs name."""
    parts = [registry.build(spec, OBJECTIVES, "objective") for spec in specs]
    return parts[0] if len(parts) == 1 else add(*parts)
