"""What may come before reinforcement learning: imitation of a teacher, or the weights of another run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from apportion import credit, objectives, registry
from apportion.errors import InputError
from apportion.models.codec import Codec
from apportion.models.policy import Policy
from apportion.rollouts import Rollouts
from apportion.tasks.task import Task
from apportion.training.checkpoints import MODEL, Checkpoints
from apportion.training.gradient import accumulate, micro_batches
from apportion.training.seeds import numpy_generator

WarmStart = Callable[[Policy, Codec, Sequence[Task], int, Callable[[int, float], None]], None]
"""``(policy, codec, tasks, seed, report) -> None``; reports (step, loss) as it goes."""


def imitation(
    teacher: str,
    learning_rate: float = 3e-3,
    batch: int = 64,
    ramp: int = 20,
    target: float = 0.5,
    decay: int = 60,
    max_steps: int = 600,
) -> WarmStart:
    """Maximise the likelihood of a teacher's answers until the loss is low, then anneal.

    The learning rate rises over ``ramp`` steps; when the smoothed loss falls under ``target`` it is taken linearly to
    0 over ``decay`` steps, and that is the end.

    Args:
        teacher: ``package.module:name`` of a function ``(prompt, numpy generator) -> answer``.
        learning_rate: of AdamW with betas 0.9 and 0.95 and weight decay 0.01.
        batch: demonstrations a step.
        ramp: steps over which the learning rate rises.
        target: nats a token.
        decay: steps of the annealing.
        max_steps: begin to anneal by then in any case.

    Raises:
        InputError: no such teacher, or a number out of range.
    """
    for name, value, least in (
        ("batch", batch, 1),
        ("ramp", ramp, 1),
        ("decay", decay, 1),
        ("max_steps", max_steps, 0),
    ):
        if not isinstance(value, int) or value < least:
            raise InputError(f"imitation has {name}={value!r}, expected a whole number from {least}.")
    for name, number in (("learning_rate", learning_rate), ("target", target)):
        if not isinstance(number, int | float) or not 0 <= number < math.inf:
            raise InputError(f"imitation has {name}={number!r}, expected a finite number from 0.")
    demonstrate = registry.lookup(teacher, {}, "teacher")
    if not callable(demonstrate):
        raise InputError(f"the teacher {teacher!r} is a {type(demonstrate).__name__}, expected a function of a prompt.")

    def run(
        policy: Policy, codec: Codec, tasks: Sequence[Task], seed: int, report: Callable[[int, float], None]
    ) -> None:
        if getattr(codec, "tokenizer", None) is None:
            raise InputError("imitation needs a policy with a tokenizer, and this one has none: leave warm_start out.")
        parameters = [p for _, p in policy.named_parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
        objective, nothing = objectives.imitation(), credit.METHODS["none"]()
        smoothed, left, step = None, decay, 0
        while left > 0:
            rng = numpy_generator(seed, "imitation", step)
            shown = [tasks[i] for i in rng.integers(len(tasks), size=batch)]
            rollouts = _demonstrations(codec, shown, [demonstrate(task.text, rng) for task in shown])
            rollouts = rollouts.to(policy.device)
            rate = min((step + 1) / ramp, 1.0) * left / decay
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * rate
            optimiser.zero_grad(set_to_none=True)
            loss = accumulate(policy, objective, rollouts, nothing(rollouts), micro_batches(rollouts, 1 << 14))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            value = float(loss.value)
            smoothed = value if smoothed is None else 0.9 * smoothed + 0.1 * value
            if smoothed < target or left < decay or step >= max_steps:
                left -= 1
            step += 1
            report(step, value)

    return run


def _demonstrations(codec: Any, tasks: Sequence[Task], answers: Sequence[str]) -> Rollouts:
    tokenizer = codec.tokenizer
    ids = [tokenizer(answer, add_special_tokens=False).input_ids for answer in answers]
    ends = [row if row and row[-1] in codec.end_ids else [*row, codec.end_ids[0]] for row in ids]
    rollouts = Rollouts.from_lists(ends, groups=list(range(len(ids))), prompts=[codec.encode(t) for t in tasks])
    return rollouts.with_column("response:origin", ["demonstration"] * len(ids), maker="warm start")


def weights(checkpoint: str) -> WarmStart:
    """Begin with the weights of a checkpoint; its optimiser and everything else stay behind.

    Args:
        checkpoint: the folder of one checkpoint of a run of the same model, such as ``run/checkpoints/step_000000``.

    Raises:
        InputError: there is no whole checkpoint; when run, it is one of another model.
    """
    path = Path(checkpoint)
    number = path.name.removeprefix("step_")
    if not number.isdigit() or not Checkpoints(path.parent, keep=1).is_whole(int(number)):
        raise InputError(f"{checkpoint} is no whole checkpoint, expected a folder such as checkpoints/step_000000.")

    def run(
        policy: Policy, codec: Codec, tasks: Sequence[Task], seed: int, report: Callable[[int, float], None]
    ) -> None:
        policy.load_weights(path / MODEL)

    return run


WARM_STARTS: dict[str, Callable[..., WarmStart]] = {"imitation": imitation, "weights": weights}
