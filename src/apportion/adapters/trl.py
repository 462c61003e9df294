"""TRL's GRPOTrainer with the advantages of any credit method in its loss.

    from apportion.adapters.trl import CreditGRPOTrainer

    trainer = CreditGRPOTrainer(model, reward_funcs, args=GRPOConfig(...), train_dataset=..., credit="tempo",
                                record="runs/trl")

GRPOTrainer gives every completion one advantage, but its loss takes a matrix of one a token too. Nothing else of it
changes: it samples, asks the reward functions, and updates as ever.

Suffix legend: B completions, T positions of padded completions, F reward functions.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from apportion import credit as credits
from apportion.adapters.offers import Offer, check_offered, keeps_state
from apportion.adapters.trl_recorder import Recorder
from apportion.credit import Clock, Credit
from apportion.errors import InputError
from apportion.rollouts import Rollouts, from_padded, ragged, to_padded


@dataclass(frozen=True)
class _Scored:
    """What the trainer does not keep: rewards ``[B, F]`` of all processes, and the own completions as sampled."""

    rewards: Tensor
    completions: list[list[int]]


class CreditGRPOTrainer(GRPOTrainer):
    """A GRPOTrainer that takes its advantages from a credit method.

    The method sees completions with their tokens, groups, the weighted sum of the rewards as ``reward/outcome``, with
    several reward functions each of them as ``reward/<its name>``, ``response:truncated`` and, where the trainer makes
    them, log-probs of the reference (``beta`` above 0) and of the policy before the update. A completion that no
    function scored gets no advantage and no share of the normaliser. Tokens that a method takes out of the normaliser
    leave the loss's mask; tokens it only does not train keep their place there with advantage 0. Losses that average
    over completions go on counting those without any token left.

    Args:
        *args: of GRPOTrainer.
        credit: a credit method: ``tempo``, ``rloo(singleton='raw')`` or ``package.module:name``.
        record: a new folder for the run's rollouts and metrics, which ``apportion view`` and ``apportion compare``
            open; None: none is kept. It grows with the run.
        **kwargs: of GRPOTrainer.

    Raises:
        InputError: the method needs what TRL does not hand over, or the trainer's settings would undo it.
    """

    def __init__(
        self, *args: Any, credit: str = "grpo", record: str | os.PathLike[str] | None = None, **kwargs: Any
    ) -> None:
        method = credits.build(credit)
        super().__init__(*args, **kwargs)
        self.credit_method = method
        self.credit_state: Any = None
        self._scored: _Scored | None = None
        check_settings(self.args)
        check_offered(credit, self.credit_method, self._offer())
        self.recorder = None if record is None else Recorder(Path(record), credit, self.args)
        if self.recorder is not None:
            self.add_callback(self.recorder)

    def _offer(self) -> Offer:
        columns = ["reward/outcome", *self._components(), "response:truncated"]
        # TRL measures the policy before the update only where it may have moved since it sampled, or vLLM sampled.
        every = self.args.steps_per_generation * self.num_iterations
        corrects = self.use_vllm and self.vllm_importance_sampling_correction
        if self.args.gradient_accumulation_steps % every or corrects:
            columns.append("log_probs/old")
        if self.args.beta:
            columns.append("log_probs/reference")
        return Offer("TRL", columns, ids=True, clock=True, state=True)

    def _components(self) -> list[str]:
        names = [str(name) for name in self.reward_func_names]
        if len(names) == 1:
            return []
        if "outcome" in names or len(set(names)) < len(names):
            raise InputError(
                f"the reward functions are named {', '.join(names)}, expected different names other than outcome, "
                "which is their sum: rename them."
            )
        return [f"reward/{name}" for name in names]

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._scored = _Scored(rewards, [list(ids) for ids in completion_ids_list])
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self._scored is None:
            import trl

            raise InputError(
                f"TRL {trl.__version__} no longer scores completions where this adapter looks, expected what 1.16 "
                "does: install trl==1.16.0."
            )
        rollouts = self._rollouts(output, self._scored)
        self._scored = None
        self._refuse_lost_state()
        clock = Clock(self.state.global_step, max(self.state.max_steps, self.state.global_step + 1))
        given = self.credit_method(rollouts, self.credit_state, clock, unscored="drop")
        if self.model.training:
            self.credit_state = given.state
            if self.recorder is not None:
                self.recorder.keep(given)
        self._show(given)
        return output | self._carried(output, given)

    def _refuse_lost_state(self) -> None:
        if self.credit_state is None and self.state.global_step and keeps_state(self.credit_method.init()):
            raise InputError(
                f"training goes on at step {self.state.global_step}, and TRL's checkpoints hold no state of a credit "
                "method, which this one needs: begin anew, or choose a method without a state."
            )

    def _rollouts(self, output: dict[str, Any], scored: _Scored) -> Rollouts:
        """The completions of all processes, the members of a group one after another."""
        ids = self._everywhere(output["completion_ids"], 0)
        mask = self._everywhere(_loss_mask(output), 0)
        lengths = self._everywhere(torch.tensor([len(row) for row in scored.completions], device=ids.device), 0)
        size = self.num_generations if self.model.training else self.num_generations_eval
        groups = torch.arange(len(ids), device=ids.device) // size
        weighted = scored.rewards * self.reward_weights.to(scored.rewards.device)
        outcome = torch.where(scored.rewards.isnan().all(1), torch.nan, weighted.nansum(1))
        rollouts = from_padded(ids, mask, outcome.double(), groups, lengths=lengths)
        for i, name in enumerate(self._components()):
            values = scored.rewards[:, i].double()
            rollouts = rollouts.with_reward(name.removeprefix("reward/"), values, scored=~values.isnan())
        rollouts = self._with_prompts(rollouts, output)
        ended = torch.tensor([bool(row) and row[-1] in self.eos_token_ids for row in scored.completions])
        truncated = ~self._everywhere(ended.to(ids.device), False)
        rollouts = rollouts.with_column("response:truncated", truncated, maker="trl")
        temperature = torch.full((len(ids),), float(self.temperature), device=ids.device)
        rollouts = rollouts.with_column("response:temperature", temperature, maker="trl")
        for name, key in COLUMNS.items():
            if key in output:
                rows = self._everywhere(output[key], 0.0)
                inside = torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]
                values = rows[inside]
                known = rollouts.trained & values.isfinite()  # vLLM may leave out one
                present = None if bool(known.all()) else known
                rollouts = rollouts.with_column(name, torch.where(known, values, 0.0), present, "trl")
        return rollouts

    def _with_prompts(self, rollouts: Rollouts, output: dict[str, Any]) -> Rollouts:
        """Prompts, each of them once."""
        ids, mask = (self._everywhere(output[key], 0, first=True) for key in ("prompt_ids", "prompt_mask"))
        rows, prompts = torch.unique(torch.stack([mask, ids * mask], 1), dim=0, return_inverse=True)
        kept = rows[:, 0].bool()
        return replace(
            rollouts, prompt_ids=rows[:, 1][kept], prompt_offsets=ragged.offsets_of(kept.sum(1)), prompts=prompts
        )

    def _everywhere(self, rows: Tensor, fill: float, first: bool = False) -> Tensor:
        """Rows of all processes, padded to one width."""
        if rows.dim() > 1:
            rows = self.accelerator.pad_across_processes(rows, dim=1, pad_index=fill, pad_first=first)
        gathered: Tensor = self.accelerator.gather(rows)
        return gathered

    def _carried(self, output: dict[str, Any], given: Credit) -> dict[str, Any]:
        """What the loss reads in place of TRL's own."""
        if bool((given.trained & ~given.counted).any()):
            raise InputError(
                "the credit method trains tokens that do not count in normalisers, which TRL's loss cannot tell apart: "
                "choose settings that count them."
            )
        local, width = output["completion_ids"].shape
        first = self.accelerator.process_index * local

        def wide(values: Tensor) -> Tensor:
            rows = to_padded(given.rollouts, values)[first : first + local, :width]
            return torch.nn.functional.pad(rows, (0, width - rows.shape[1]))

        carried: dict[str, Any] = {"advantages": wide(given.advantages).to(output["advantages"].dtype)}
        if not torch.equal(given.counted, given.rollouts.trained):
            carried["tool_mask"] = wide(given.counted).to(output["completion_mask"].dtype)
            carried["num_items_in_batch"] = given.counted.sum().to(output["num_items_in_batch"].dtype)
        return carried

    def _show(self, given: Credit) -> None:
        """Every completion's mean advantage in TRL's table of completions, in place of its own."""
        shown = self._logs["advantages"]
        sums = ragged.sum_rows(given.advantages, given.rollouts.token_offsets)
        means = sums / ragged.lengths_of(given.rollouts.token_offsets).clamp(min=1)
        for _ in range(min(len(means), len(shown))):
            shown.pop()
        shown.extend(means.tolist())


COLUMNS = {
    "log_probs/old": "old_per_token_logps",
    "log_probs/behaviour": "sampling_per_token_logps",
    "log_probs/reference": "ref_per_token_logps",
}
"""Our names of what TRL may hand over, and its own."""


def check_settings(args: Any) -> None:
    """Refuse settings under which token advantages would be lost, or that nothing would read.

    Args:
        args: a GRPOConfig.

    Raises:
        InputError: there is one.
    """
    if args.importance_sampling_level != "token":
        raise InputError(
            f"importance_sampling_level is {args.importance_sampling_level!r}: with one ratio for a whole completion "
            "its tokens' advantages count only by their mean, expected 'token'."
        )
    if args.loss_type in WHOLE_COMPLETIONS:
        raise InputError(
            f"loss_type is {args.loss_type!r}, which weighs whole completions by the sign of one advantage, expected a "
            "loss of tokens such as 'dapo'."
        )
    if args.off_policy_mask_threshold is not None:
        raise InputError(
            "off_policy_mask_threshold is set, which drops whole completions by the sign of one advantage: leave it "
            "out."
        )
    if args.top_entropy_quantile < 1:
        raise InputError(
            f"top_entropy_quantile is {args.top_entropy_quantile:g}, which leaves the credit of most tokens out of the "
            "loss: leave it at 1.0."
        )
    for name, usual in (("scale_rewards", "group"), ("multi_objective_aggregation", "sum_then_normalize")):
        if getattr(args, name) != usual:
            raise InputError(
                f"{name} is {getattr(args, name)!r}, and nothing would read it, for the credit method makes the "
                f"advantages: leave it {usual!r} and choose a method, such as grpo(norm_by_std=False)."
            )


WHOLE_COMPLETIONS = ("vespo",)
"""Losses of completions rather than of tokens."""


def _loss_mask(output: dict[str, Any]) -> Tensor:
    """``[B, T]``: what TRL's loss would take."""
    mask: Tensor = output["completion_mask"]
    return mask * output["tool_mask"] if "tool_mask" in output else mask
