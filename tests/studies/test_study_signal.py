"""Signal and noise of gradients: against known ones, and through a run that learns nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from apportion.errors import InputError
from apportion.studies.signal import FILE, Gradients, jackknife, read_signal, signal
from apportion.training.loop import train
from apportion.training.run_folder import RunFolder
from apportion.training.setup import set_up
from runs import TABULAR, weights

STILL = dataclasses.replace(TABULAR, learning_rate=0.0, max_grad_norm=0.0, steps=5, save_every=5)


def products(mean: float, spread: float, batches: int, size: int, seed: int) -> np.ndarray:
    """Of gradients around a mean of this length."""
    noise = np.random.default_rng(seed).normal(size=(batches, size)) * spread / np.sqrt(size)
    noise[:, 0] += mean
    return noise @ noise.T


def test_signal_and_noise_are_unbiased() -> None:
    found = [signal(products(0.5, 2.0, 6, 30, seed), np.full(6, 100.0)) for seed in range(3000)]
    assert np.mean([f.signal for f in found]) == pytest.approx(0.25, abs=0.02)
    assert np.mean([f.noise for f in found]) == pytest.approx(4.0, abs=0.05)
    assert any(f.signal < 0 for f in found)  # unbiased, so not clipped at 0


def test_by_hand() -> None:
    found = signal(np.array([[5.0, 1.0, 0.0], [1.0, 3.0, 2.0], [0.0, 2.0, 4.0]]), np.array([10.0, 20.0, 30.0]))
    assert (found.signal, found.noise, found.tokens) == (1.0, 3.0, 20.0)
    assert found.per_token == pytest.approx(1000 / 3 / 20)


def test_the_jackknife_says_how_far_it_may_be_off() -> None:
    runs = [jackknife([products(1.0, 1.0, 40, 50, seed)], [np.full(40, 1000.0)]) for seed in range(300)]
    values = [value for value, _ in runs]
    assert np.mean([error for _, error in runs]) == pytest.approx(np.std(values), rel=0.2)


def test_several_warm_starts_are_the_repeats() -> None:
    tokens = [np.full(3, 1000.0)] * 2
    one, other = np.eye(3) + 1.0, np.eye(3) + 3.0
    assert jackknife([one, other], tokens) == (pytest.approx(2.0), pytest.approx(1.0))


def test_one_batch_says_nothing() -> None:
    with pytest.raises(InputError, match="gradients of 1 batches"):
        signal(np.ones((1, 1)), np.ones(1))


def test_a_run_that_learns_nothing_measures_its_gradients(tmp_path: Path) -> None:
    parts = set_up(STILL)
    taken: list[torch.Tensor] = []
    parts.learner.optimiser.register_step_pre_hook(lambda *_: taken.append(parts.policy.logits.grad.clone()))
    run = RunFolder.create(tmp_path / "run", STILL)
    train(run, parts, [Gradients(run.path, parts)])
    found, tokens = read_signal(run.path)
    expected = torch.stack([g.flatten() for g in taken])
    assert np.allclose(found, (expected @ expected.T).numpy(), atol=1e-12)
    assert tokens.tolist() == [line["tokens_sampled"] for line in run.lines("metrics.jsonl")] == [32.0] * 5
    assert weights(run.path, 0) == weights(run.path, 5)
    assert set(json.loads((run.path / FILE).read_text())) == {"tokens", "products"}
    assert found.diagonal().min() > 0
