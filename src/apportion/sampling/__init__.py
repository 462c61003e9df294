"""How responses are drawn: engines, and samplers on top of them."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from apportion.errors import InputError
from apportion.models.huggingface import DTYPES, HuggingFacePolicy
from apportion.models.tabular import TabularPolicy
from apportion.sampling.engine import Engine as Engine
from apportion.sampling.engine import Generated as Generated
from apportion.sampling.engine import SamplingSettings as SamplingSettings
from apportion.sampling.groups import sample_groups as sample_groups
from apportion.sampling.local import LocalEngine as LocalEngine
from apportion.sampling.scripted import ScriptedEngine as ScriptedEngine


@singledispatch
def engine_for(policy: Any, dtype: str | None = None) -> Engine:
    """The engine that samples from a policy in this process.

    Args:
        policy: what to sample from.
        dtype: sample from a copy in this dtype; None: from the policy's own weights.
    """
    raise TypeError(f"no engine samples from a {type(policy).__name__}; register one with engine_for.register.")


@engine_for.register
def _(policy: HuggingFacePolicy, dtype: str | None = None) -> Engine:
    return LocalEngine(policy.model, policy.context, None if dtype is None else DTYPES[dtype])


@engine_for.register
def _(policy: TabularPolicy, dtype: str | None = None) -> Engine:
    if dtype is not None:
        raise InputError(f"sampling_dtype is {dtype!r}, but a tabular policy has one dtype only: leave it out.")
    return ScriptedEngine(policy.next_logits)
