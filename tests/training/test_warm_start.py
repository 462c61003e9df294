"""The warm start: imitation of a teacher until the loss is low."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.models.digits import digit_llama
from apportion.models.tabular import TabularPolicy
from apportion.objectives import imitation as likelihood
from apportion.rollouts import Rollouts
from apportion.tasks.running_sum import demonstrate, running_sum, solve
from apportion.tasks.task import Task
from apportion.training.gradient import accumulate, micro_batches
from apportion.training.loop import Event
from apportion.training.warm_start import WARM_STARTS, imitation
from runs import DIGITS, begin, resume

TEACHER = "apportion.tasks.running_sum:demonstrate"
TASKS = running_sum(digits=3, train=200, held_out=40)


def perfect(prompt: str, rng: np.random.Generator) -> str:
    """A teacher that makes no mistakes, and does not end its answers."""
    return solve(prompt).removesuffix(".")


def small(seed: int = 0) -> Any:
    return digit_llama(hidden=16, layers=1, heads=2, seed=seed)


def nats(policy: Any) -> float:
    """Mean negative log-likelihood of correct answers to held-out prompts, a token."""
    codec = policy.codec()
    ids = [policy.tokenizer(solve(task.text)).input_ids for task in TASKS.held_out]
    prompts = [codec.encode(task) for task in TASKS.held_out]
    rollouts = Rollouts.from_lists(ids, groups=list(range(len(ids))), prompts=prompts)
    loss = accumulate(policy, likelihood(), rollouts, METHODS["none"]()(rollouts), micro_batches(rollouts, 1 << 14))
    return float(loss.value)


def warm(policy: Any, seed: int = 0, **settings: Any) -> list[tuple[int, float]]:
    said: list[tuple[int, float]] = []
    settings = {"teacher": "test_warm_start:perfect", "max_steps": 60, "decay": 20, "batch": 32} | settings
    imitation(**settings)(policy, policy.codec(), TASKS.train, seed, lambda step, loss: said.append((step, loss)))
    return said


def test_it_lowers_the_loss_on_prompts_it_has_not_seen() -> None:
    policy = small()
    before = nats(policy)
    said = warm(policy)
    assert nats(policy) < before - 0.5
    assert [step for step, _ in said] == list(range(1, len(said) + 1))
    assert said[-1][1] < said[0][1] - 0.5


def test_it_teaches_to_end() -> None:
    """The teacher does not write the full stop; demonstrations end with it all the same."""
    policy = small()
    warm(policy, max_steps=100, target=0.0)
    generator = torch.Generator().manual_seed(0)
    from apportion.sampling import SamplingSettings, engine_for

    codec = policy.codec()
    prompts = [codec.encode(task) for task in TASKS.held_out]
    drawn = engine_for(policy).generate(prompts, 1, SamplingSettings(8, 0.0, end_ids=codec.end_ids), generator)
    assert float(drawn.truncated.double().mean()) < 0.1
    lengths = drawn.offsets[1:] - drawn.offsets[:-1]
    assert float((lengths == 3).double().mean()) > 0.9  # two sums and the full stop


def test_it_follows_from_its_seed() -> None:
    one, two, other = small(), small(), small()
    said = [warm(policy, seed, max_steps=3, decay=2) for policy, seed in ((one, 4), (two, 4), (other, 5))]
    assert said[0] == said[1] != said[2]
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_it_anneals_from_where_the_loss_is_low(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    said = warm(small(), learning_rate=1.0, ramp=4, max_steps=6, decay=3, target=0.0)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 2 / 3, 1 / 3])
    assert len(said) == len(rates)
    rates.clear()
    warm(small(), learning_rate=1e-3, ramp=1, max_steps=50, decay=3, target=100.0)  # low at once
    assert rates == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])


def test_the_run_begins_from_what_it_taught(tmp_path: Path) -> None:
    said: list[Event] = []
    spec = f"imitation(teacher='{TEACHER}', max_steps=5, decay=3)"
    config = dataclasses.replace(DIGITS, warm_start=spec, objective=("clip", "kl(coefficient=0.1)"), steps=2)
    begin(tmp_path / "run", config, [said.append])
    warming = [event for event in said if event.name == "warming"]
    assert len(warming) == 8  # the loss is low nowhere near: five steps, then the annealing
    assert all(event.step == 0 for event in warming)
    # The reference is the policy after the warm start: on the first batch the divergence is 0.
    first = next(event for event in said if event.name == "stepped")
    assert first.values["kl_reference"] == pytest.approx(0, abs=1e-6)
    weights = [tmp_path / f"{name}/checkpoints/step_000000/model/model.safetensors" for name in ("run", "cold")]
    begin(tmp_path / "cold", dataclasses.replace(config, warm_start=None))
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_it_is_not_done_again_at_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(DIGITS, warm_start=f"imitation(teacher='{TEACHER}', max_steps=2, decay=2)", steps=2)
    begin(tmp_path / "run", config)
    fail = lambda **settings: lambda *given: pytest.fail("warmed up again")  # noqa: E731
    monkeypatch.setitem(WARM_STARTS, "imitation", lambda teacher, max_steps, decay: fail())
    summary = resume(tmp_path / "run", steps=3)
    assert summary is not None
    assert summary["steps"] == 3


def test_a_policy_without_words_cannot_imitate() -> None:
    policy = TabularPolicy(vocabulary=4, depth=2, prompts=4)
    start = imitation(teacher=TEACHER)
    with pytest.raises(InputError, match="imitation needs a policy with a tokenizer, and this one has none: leave"):
        start(policy, policy.codec(), [Task("1", "1", "numbers")], 0, lambda step, loss: None)


def test_the_teacher_is_looked_up_before_anything_else() -> None:
    with pytest.raises(InputError, match="cannot import 'nowhere'"):
        imitation(teacher="nowhere:teacher")
    with pytest.raises(InputError, match="unknown teacher"):
        imitation(teacher="teacher")
    assert demonstrate("111=0", np.random.default_rng(0)) == solve("111=0")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "imitation has batch=0, expected a whole number from 1"),
        ({"decay": "x"}, "imitation has decay='x', expected a whole number from 1"),
        ({"max_steps": -1}, "imitation has max_steps=-1, expected a whole number from 0"),
        ({"learning_rate": -1.0}, "imitation has learning_rate=-1.0, expected a finite number from 0"),
        ({"target": "low"}, "imitation has target='low', expected a finite number from 0"),
        ({"teacher": "test_warm_start:TEACHER"}, "the teacher 'test_warm_start:TEACHER' is a str, expected a function"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_numbers_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        imitation(**({"teacher": TEACHER} | settings))
    assert message in str(refused.value)
