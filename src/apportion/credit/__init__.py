"""Who earned the reward: functions on tensors that need torch and numpy only.

    from apportion import credit
    result = credit.METHODS["tempo"](norm_by_std=True)(rollouts)     # a Credit: advantages [N] and masks

Every method is a :class:`Stage`; ``METHODS`` maps names to functions that make one.
"""

from collections.abc import Callable

from apportion import registry
from apportion.credit.algebra import Bias as Bias
from apportion.credit.algebra import Claim as Claim
from apportion.credit.algebra import Clock as Clock
from apportion.credit.algebra import Result as Result
from apportion.credit.algebra import Reward as Reward
from apportion.credit.algebra import Stage as Stage
from apportion.credit.algebra import Work as Work
from apportion.credit.algebra import add as add
from apportion.credit.algebra import chain as chain
from apportion.credit.algebra import estimator as estimator
from apportion.credit.algebra import modifier as modifier
from apportion.credit.algebra import per_component as per_component
from apportion.credit.algebra import scale as scale
from apportion.credit.algebra import shaper as shaper
from apportion.credit.algebra import token_filter as token_filter
from apportion.credit.assign import Credit as Credit
from apportion.credit.assign import assign as assign
from apportion.credit.attention_rhythm import attention_rhythm
from apportion.credit.baselines import grpo, none, rloo
from apportion.credit.gae import gae
from apportion.credit.gigpo import gigpo
from apportion.credit.implicit_reward import implicit_reward
from apportion.credit.min_form import min_form as min_form
from apportion.credit.oprl import oprl
from apportion.credit.pure import pure
from apportion.credit.shaping import kl_in_reward as kl_in_reward
from apportion.credit.tempo import tempo
from apportion.errors import InputError

METHODS: dict[str, Callable[..., Stage]] = {
    "none": none,
    "grpo": grpo,
    "rloo": rloo,
    "tempo": tempo,
    "gae": gae,
    "pure": pure,
    "gigpo": gigpo,
    "oprl": oprl,
    "attention_rhythm": attention_rhythm,
    "token_dpo": implicit_reward,
}


def build(spec: str) -> Stage:
    """The method a spec names: ``grpo``, ``tempo(norm_by_std=False)`` or ``package.module:name(...)``."""
    stage = registry.build(spec, METHODS, "credit method")
    if not isinstance(stage, Stage):
        raise InputError(f"{spec!r} made a {type(stage).__name__}, expected a credit.Stage.")
    return stage
