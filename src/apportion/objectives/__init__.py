"""What is minimised: pure functions of the current policy's statistics, the rollouts and the credit.

from apportion import objectives
objective = objectives.add(objectives.clip(high=0.28), objectives.kl(coefficient=0.001))
"""

from collections.abc import Callable

from apportion import registry
from apportion.errors import InputError
from apportion.objectives.aggregate import AGGREGATIONS as AGGREGATIONS
from apportion.objectives.b_coder import b_coder as b_coder
from apportion.objectives.b_coder import b_coder_value as b_coder_value
from apportion.objectives.cad_rl import cad_rl as cad_rl
from apportion.objectives.divergence import divergence as divergence
from apportion.objectives.divergence import dph_rl as dph_rl
from apportion.objectives.implicit_prm import implicit_prm as implicit_prm
from apportion.objectives.margin_scaling import mm_dpo as mm_dpo
from apportion.objectives.mixing import mix as mix
from apportion.objectives.pacs import pacs as pacs
from apportion.objectives.policy_gradient import KL_ESTIMATORS as KL_ESTIMATORS
from apportion.objectives.policy_gradient import clip as clip
from apportion.objectives.policy_gradient import entropy_bonus as entropy_bonus
from apportion.objectives.policy_gradient import imitation as imitation
from apportion.objectives.policy_gradient import kl as kl
from apportion.objectives.policy_gradient import kl_estimate as kl_estimate
from apportion.objectives.policy_gradient import reinforce as reinforce
from apportion.objectives.preference import dpo as dpo
from apportion.objectives.protocol import Loss as Loss
from apportion.objectives.protocol import Now as Now
from apportion.objectives.protocol import Objective as Objective
from apportion.objectives.protocol import Terms as Terms
from apportion.objectives.protocol import add as add
from apportion.objectives.protocol import bind as bind
from apportion.objectives.protocol import token_objective as token_objective
from apportion.objectives.return_decomposition import return_decomposition as return_decomposition
from apportion.objectives.reward_model import reward_model as reward_model
from apportion.objectives.rover import rover as rover
from apportion.objectives.segment_clip import loop as loop
from apportion.objectives.segment_clip import segment_clip as segment_clip
from apportion.objectives.t_reg import t_reg as t_reg
from apportion.objectives.value import value as value

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "clip": clip,
    "segment_clip": segment_clip,
    "loop": loop,
    "reinforce": reinforce,
    "kl": kl,
    "entropy_bonus": entropy_bonus,
    "imitation": imitation,
    "value": value,
    "rover": rover,
    "pacs": pacs,
    "dpo": dpo,
    "t_reg": t_reg,
    "mm_dpo": mm_dpo,
    "reward_model": reward_model,
    "cad_rl": cad_rl,
    "divergence": divergence,
    "dph_rl": dph_rl,
    "implicit_prm": implicit_prm,
    "return_decomposition": return_decomposition,
    "b_coder": b_coder,
    "b_coder_value": b_coder_value,
}


def build(*specs: str) -> Objective:
    """The sum of the objectives that specs name."""
    parts = [registry.build(spec, OBJECTIVES, "objective") for spec in specs]
    for spec, part in zip(specs, parts, strict=True):
        if not isinstance(part, Objective):
            raise InputError(f"{spec!r} made a {type(part).__name__}, expected an objectives.Objective.")
    return parts[0] if len(parts) == 1 else add(*parts)
