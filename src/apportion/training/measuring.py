"""A model out of a checkpoint, to measure rollouts that somebody sampled before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from apportion import objectives
from apportion.errors import InputError
from apportion.models import build_policy
from apportion.models.huggingface import HuggingFacePolicy
from apportion.rollouts import Rollouts, ragged
from apportion.training.annotate import annotate, sources_in
from apportion.training.checkpoints import MANIFEST
from apportion.training.checks import check_device
from apportion.training.config import TrainConfig
from apportion.training.run_folder import RunFolder
from apportion.training.setup import make_policy


class Measuring:
    """A policy and, out of a run, the reference policy it began from.

    Args:
        policy: with the weights of the checkpoint.
        name: of the checkpoint.
        run: the run it is of; None: it is of none, so that there is no reference policy beside it.
        step: of the checkpoint.
        max_tokens: padded tokens in one forward pass.
    """

    def __init__(
        self, policy: Any, name: str, run: RunFolder | None = None, step: int = 0, max_tokens: int = 1 << 14
    ) -> None:
        self.policy, self.name, self.max_tokens = policy, name, max_tokens
        self._run, self._step = run, step

    @property
    def reference_name(self) -> str:
        """Of the checkpoint that the reference policy is of: the first of the run; without a run, this one."""
        return self.name if self._run is None else str(self._run.checkpoints.path(0))

    @cached_property
    def reference(self) -> Any:
        """The policy as the run began; without a run, the policy itself."""
        if self._run is None:
            return self.policy
        if not self._run.checkpoints.is_whole(0):
            raise InputError(f"{self.reference_name} is not whole, and the reference policy is its: restore it.")
        self.policy.load_weights(self._run.checkpoints.model(0))
        reference = self.policy.frozen_copy()
        self.policy.load_weights(self._run.checkpoints.model(self._step))
        return reference

    def add(self, rollouts: Rollouts, needs: Sequence[str]) -> Rollouts:
        """Add those statistics ``<name>/old`` and ``<name>/reference`` that are asked for, not there, and the policy's.

        Args:
            rollouts: on any device.
            needs: names of columns, of any kind.

        Raises:
            InputError: the policy cannot read these tokens, or would have to be its own reference.
        """
        asked = sources_in([name for name in needs if not rollouts.has(name)])
        wanted = {source: [name for name in names if name in self.policy.provides] for source, names in asked.items()}
        wanted = {source: names for source, names in wanted.items() if names}
        if not wanted:
            return rollouts
        if self._run is None and len(wanted) == 2:
            raise InputError(
                f"the columns of the policy and of its reference would both come from {self.name}, so they would not "
                "differ: give the folder of a run, whose first checkpoint is the reference, or rollouts that bring one "
                "of the two."
            )
        models = {"old": self.policy} | ({"reference": self.reference} if "reference" in wanted else {})
        makers = {"old": f"checkpoint {self.name}", "reference": f"checkpoint {self.reference_name}"}
        return annotate(self.readable(rollouts), models, wanted, self.max_tokens, makers).to(rollouts.device)

    def readable(self, rollouts: Rollouts) -> Rollouts:
        """The rollouts where the policy is.

        Raises:
            InputError: tokens it does not know, or more than it can read at once.
        """
        of_prompts = [rollouts.prompt_ids] if isinstance(self.policy, HuggingFacePolicy) else []  # tables count prompts
        known = self.policy.vocabulary
        for ids in (rollouts.ids, *of_prompts):
            outside = ids[(ids < 0) | (ids >= known)]
            if len(outside):
                raise InputError(
                    f"the rollouts have token {int(outside[0])}, and the model of {self.name} knows 0 to {known - 1}: "
                    "give a checkpoint of the model that sampled them."
                )
        lengths = ragged.lengths_of(rollouts.token_offsets)
        lengths = lengths + ragged.lengths_of(rollouts.prompt_offsets)[rollouts.prompts]
        longest = int(lengths.max()) if len(lengths) else 0
        if longest > self.policy.context:
            raise InputError(
                f"a prompt and response have {longest} tokens, and the model of {self.name} reads {self.policy.context}"
                ": give a checkpoint of the model that sampled them."
            )
        return rollouts.to(self.policy.device)


def open_checkpoint(name: str) -> Measuring:
    """Open what ``--annotate`` names.

    Args:
        name: the folder of a run, whose newest whole checkpoint it is; the folder of one of its checkpoints; or a
            model: a folder, a registered name, or ``package.module:name``.

    Raises:
        InputError: there is none, or it cannot be loaded.
    """
    path = Path(name)
    if (path / MANIFEST).is_file():
        run, config = RunFolder.open(path.resolve().parent.parent)
        run.checkpoints.folder = path.parent  # as the user wrote it
        return _of_run(run, config, next((s for s in run.checkpoints.steps() if _is(run, s, path)), None), name)
    if (path / "environment.json").is_file():
        run, config = RunFolder.open(path)
        return _of_run(run, config, run.checkpoints.newest_good(), name)
    policy = build_policy(name, device=check_device("auto"), dtype="float32", autocast=None, seed=0)
    return Measuring(policy, name)


def _is(run: RunFolder, step: int, path: Path) -> bool:
    return run.checkpoints.path(step).name == path.resolve().name


def _of_run(run: RunFolder, config: TrainConfig, step: int | None, name: str) -> Measuring:
    if step is None or not run.checkpoints.is_whole(step):
        raise InputError(f"{name} has no whole checkpoint: wait for the first, or give another.")
    policy = make_policy(config, objectives.build(*config.objective))
    policy.load_weights(run.checkpoints.model(step))
    return Measuring(policy, str(run.checkpoints.path(step)), run, step, config.micro_batch_tokens)
