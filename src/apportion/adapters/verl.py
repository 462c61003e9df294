"""Credit methods as verl's advantage estimators, each by the name ``apportion_<method>``.

    VERL_USE_EXTERNAL_MODULES=apportion.adapters.verl python -m verl.trainer.main_ppo \\
        algorithm.adv_estimator=apportion_rloo ...

verl imports the module, which registers every method of :data:`apportion.credit.METHODS`. Its hook hands over rewards,
mask and uid; a method that needs more is registered too and refuses, by name, when it is called. Other settings are
registered in a module of one's own, named in the same variable:

    from apportion.adapters.verl import register

    register("apportion_rloo_raw", "rloo(singleton='raw')")

Methods that look at token ids, such as TEMPO, run inside :class:`token_ids`; docs/borrow.md has the ten lines that put
verl's ``compute_advantage`` there.

Suffix legend: B responses, T positions of padded rows, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

from apportion import credit
from apportion.adapters.offers import Offer, check_offered
from apportion.credit import Credit, Stage
from apportion.errors import InputError
from apportion.rollouts import Rollouts, from_padded, to_padded

PREFIX = "apportion_"

STEPWISE = {"pure": "pure(verifiable=None)"}
"""Methods of the scores of steps, made for the one reward that the hook hands over."""

_ids: ContextVar[Tensor | None] = ContextVar("ids", default=None)


@contextmanager
def token_ids(responses: Tensor) -> Iterator[None]:
    """Hand the token ids of a batch to the estimators called inside.

    Args:
        responses: ``[B, T]``, padded as the rewards are.
    """
    token = _ids.set(responses)
    try:
        yield
    finally:
        _ids.reset(token)


def register(name: str, method: str, steps: bool = False) -> None:
    """Register a credit method as an advantage estimator.

    Args:
        name: for ``algorithm.adv_estimator``.
        method: its spec, such as ``rloo(singleton='raw')``.
        steps: every nonzero reward is the score of a step that ends there, as a process reward model gives it, and a
            reward of exactly 0 is none. Else rewards are what their tokens earned.

    Raises:
        InputError: no such method.
    """
    stage = credit.build(method)
    read = [need.removeprefix("reward/") for need in stage.needs if need.startswith("reward/")]
    component = read[0] if steps and read else "outcome"

    def estimator(
        token_level_rewards: Tensor, response_mask: Tensor, index: Any = None, **given: Any
    ) -> tuple[Tensor, Tensor]:
        ids = _ids.get()
        check_offered(name, stage, _offer(component, ids is not None))
        _check_settings(name, given.get("config"))
        rollouts = _rollouts(token_level_rewards, response_mask, _groups(name, stage, response_mask, index), ids)
        rollouts = _with_steps(rollouts, component) if steps else rollouts
        return _advantages(name, stage(rollouts), token_level_rewards)

    estimator.__doc__ = f"Credit method {method}."
    register_adv_est(name)(estimator)


def _check_settings(name: str, config: Any) -> None:
    """Refuse settings of verl's own estimators, which nothing would read."""
    for setting, usual in (("norm_adv_by_std_in_grpo", True), ("gamma", 1.0), ("lam", 1.0)):
        value = usual if config is None else config.get(setting, usual)
        if value != usual:
            raise InputError(
                f"algorithm.{setting} is {value}, and nothing would read it, for {name} makes the advantages: leave it "
                f"{usual} and register a method with settings of its own, such as grpo(norm_by_std=False)."
            )


def _offer(component: str, ids: bool) -> Offer:
    return Offer("verl's hook", columns=(f"reward/{component}",), ids=ids, clock=False, state=False)


def _groups(name: str, stage: Stage, mask: Tensor, index: Any) -> Tensor:
    """``[B]``: responses of one uid are compared with one another."""
    if index is None:
        if stage.compares_groups:
            raise InputError(f"{name} compares the responses to a prompt, and the batch has no uid: give it one.")
        return torch.zeros(len(mask), dtype=torch.int64, device=mask.device)
    if len(index) != len(mask):
        raise InputError(f"got {len(index)} uids for {len(mask)} responses, expected one each.")
    _, number = np.unique(np.asarray(index).astype(str), return_inverse=True)
    return torch.from_numpy(number.astype(np.int64)).to(mask.device)


def _rollouts(rewards: Tensor, mask: Tensor, groups: Tensor, ids: Tensor | None) -> Rollouts:
    """A batch without its padding."""
    if ids is not None and ids.shape != mask.shape:
        raise InputError(f"token ids have shape {tuple(ids.shape)}, expected that of the mask, {tuple(mask.shape)}.")
    if ids is None:
        ids = torch.arange(mask.numel(), device=mask.device).view_as(mask)  # no two alike
    rewards = _on_trained(rewards, mask != 0)
    place = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    lengths = (place * ((mask != 0) | (rewards != 0))).amax(1)
    return from_padded(ids, mask, rewards, groups, lengths=lengths)


def _on_trained(rewards: Tensor, trained: Tensor) -> Tensor:
    """Rewards of untrained tokens, such as a verdict behind a tool's last output, moved to the trained token before
    them, or to the first where there is none before; a row without any stays as it is."""
    place = torch.arange(trained.shape[1], device=trained.device).expand_as(trained)
    before = torch.where(trained, place, -1).cummax(1).values
    first = trained.long().argmax(1, keepdim=True).expand_as(before)
    target = torch.where(before >= 0, before, torch.where(trained.any(1, keepdim=True), first, place))
    return torch.zeros_like(rewards).scatter_add(1, target, rewards)


def _with_steps(rollouts: Rollouts, component: str) -> Rollouts:
    """Rewards of tokens as scores of the steps they end; a response that has none is one step of score 0."""
    reward = rollouts.column("token:reward/outcome")
    marked = reward != 0
    bare = rollouts.token_offsets.diff() > 0
    bare[rollouts.response_of_token[marked]] = False
    last = torch.zeros_like(marked).index_fill(0, rollouts.token_offsets[1:][bare] - 1, True)
    ends = (marked | last).nonzero().squeeze(1) + 1
    row = rollouts.response_of_token[ends - 1]
    first = torch.ones_like(ends, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    starts = torch.where(first, rollouts.token_offsets[row], ends.roll(1))
    kept = {name: c for name, c in rollouts.columns.items() if not name.endswith(("reward/outcome", "scored/outcome"))}
    with_spans = replace(rollouts, columns=kept).with_spans("step", starts, ends)
    return with_spans.with_reward(component, reward[ends - 1], level="step")


def _advantages(name: str, given: Credit, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages and returns ``[B, T]``."""
    dropped = int((given.rollouts.trained & ~given.counted).sum())
    if dropped:
        raise InputError(
            f"{name} takes {dropped} tokens out of the normaliser, which verl makes of its own mask: choose settings "
            "that keep them."
        )
    width = rewards.shape[1]
    advantages = to_padded(given.rollouts, given.advantages, width).to(rewards.dtype)
    made = given.columns.get("token:credit/returns")
    if made is None:
        return advantages, advantages
    returns = torch.where(given.rollouts.trained, made.tensor, 0.0)
    return advantages, to_padded(given.rollouts, returns, width).to(rewards.dtype)


def _register_all() -> None:
    for name in credit.METHODS:
        register(PREFIX + name, STEPWISE.get(name, name), steps=name in STEPWISE)


_register_all()
