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
from apportion.credit.baselines import dr_grpo, grpo, none, rloo
from apportion.credit.cad_rl import cad_rl
from apportion.credit.calm import calm
from apportion.credit.capo import capo
from apportion.credit.capo import voted as voted
from apportion.credit.constrained_rlhf import constrained_rlhf
from apportion.credit.constrained_rlhf import saturated as saturated
from apportion.credit.dapo import dapo
from apportion.credit.edu_align import edu_align
from apportion.credit.filters import drop_dead_groups as drop_dead_groups
from apportion.credit.filters import drop_overlong as drop_overlong
from apportion.credit.filters import drop_small as drop_small
from apportion.credit.gae import gae
from apportion.credit.gigpo import gigpo
from apportion.credit.hicra import hicra
from apportion.credit.implicit_reward import implicit_reward
from apportion.credit.lare import lare
from apportion.credit.loop import loop
from apportion.credit.ma_rlhf import ma_rlhf
from apportion.credit.min_form import min_form as min_form
from apportion.credit.mixing import mix as mix
from apportion.credit.nsr import nsr
from apportion.credit.oprl import oprl
from apportion.credit.overlong import overlong_penalty as overlong_penalty
from apportion.credit.pure import pure
from apportion.credit.reinforce_pp import reinforce_pp, reinforce_pp_baseline
from apportion.credit.shaping import kl_in_reward as kl_in_reward
from apportion.credit.sotopia_rl import sotopia_rl
from apportion.credit.tempo import tempo
from apportion.credit.tp_grpo import tp_grpo
from apportion.credit.trees import tree, tree_shrunk, tree_td, vine
from apportion.credit.trust_grpo import trust_grpo
from apportion.credit.trust_grpo import trusted_thinking as trusted_thinking
from apportion.errors import InputError

METHODS: dict[str, Callable[..., Stage]] = {
    "none": none,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
    "nsr": nsr,
    "loop": loop,
    "cad_rl": cad_rl,
    "rloo": rloo,
    "tempo": tempo,
    "gae": gae,
    "constrained_rlhf": constrained_rlhf,
    "pure": pure,
    "capo": capo,
    "tp_grpo": tp_grpo,
    "trust_grpo": trust_grpo,
    "gigpo": gigpo,
    "calm": calm,
    "oprl": oprl,
    "sotopia_rl": sotopia_rl,
    "edu_align": edu_align,
    "attention_rhythm": attention_rhythm,
    "hicra": hicra,
    "ma_rlhf": ma_rlhf,
    "token_dpo": implicit_reward,
    "lare": lare,
    "tree": tree,
    "tree_td": tree_td,
    "tree_shrunk": tree_shrunk,
    "vine": vine,
}


def build(spec: str) -> Stage:
    """The method a spec names: ``grpo``, ``tempo(norm_by_std=False)`` or ``package.module:name(...)``."""
    stage = registry.build(spec, METHODS, "credit method")
    if not isinstance(stage, Stage):
        raise InputError(f"{spec!r} made a {type(stage).__name__}, expected a credit.Stage.")
    return stage
