"""Objectives of every scope through the trainer: any cut gives the gradient of one naive pass."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion import credit, objectives
from apportion.objectives import OBJECTIVES, Loss, Now, Objective, Terms
from apportion.rollouts import Rollouts
from apportion.training.gradient import accumulate, micro_batches
from builders import gradients, random_rollouts, small_llama


def random_cut(n: int, seed: int) -> list[Tensor]:
    """All rows in random parts of random sizes."""
    dice = random.Random(seed)
    order = torch.tensor(dice.sample(range(n), n))
    return list(torch.tensor_split(order, sorted(dice.sample(range(1, n), 3))))


def statistics(logits: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """From whole logits, without the library."""
    logs = logits.log_softmax(-1)
    return {
        "log_probs": logs.gather(1, ids[:, None]).squeeze(1),
        "vocab_mean": logs.mean(1),
        "entropy": -(logs.exp() * logs).sum(1),
    }


def naive(policy: Any, objective: Objective, given: credit.Credit) -> tuple[Loss, dict[str, Tensor]]:
    """One pass over every row by itself, plain autograd."""
    rollouts = given.rollouts
    now: dict[str, list[Tensor]] = {name: [] for name in (*objective.now, *objective.watches)}
    for b in range(rollouts.n_responses):
        start, end = rollouts.token_offsets[b : b + 2].tolist()
        p = int(rollouts.prompts[b])
        prompt = rollouts.prompt_ids[rollouts.prompt_offsets[p] : rollouts.prompt_offsets[p + 1]]
        row = torch.cat([prompt, rollouts.ids[start:end]])[None]
        logits = policy.model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1]
        at = statistics(logits / rollouts.temperature[b], rollouts.ids[start:end])
        for name, rows in now.items():
            rows.append(at[name] if name in objective.now else at[name].detach())
    loss = objective({name: torch.cat(rows) for name, rows in now.items()}, rollouts, given)
    loss.value.backward()
    return Loss(loss.value.detach(), loss.metrics), gradients(policy)


def batch() -> Rollouts:
    """Three groups of four with verdicts, means over the vocabulary and pairs."""
    rollouts = random_rollouts()
    generator = torch.Generator().manual_seed(5)
    verdicts = (torch.arange(12) % 3 == 0).double()
    rollouts = rollouts.with_reward("outcome", verdicts)
    means = -2 - torch.rand(rollouts.n_tokens, generator=generator, dtype=torch.float64)
    rollouts = rollouts.with_column("vocab_mean/old", means)
    return rollouts.with_pairs(torch.tensor([0, 4, 9]), torch.tensor([3, 7, 8]))


def with_stored(rollouts: Rollouts) -> Rollouts:
    """The last group comes from a file."""
    return rollouts.with_column("response:origin", ["policy"] * 8 + ["stored"] * 4)


def in_turns(rollouts: Rollouts) -> Rollouts:
    """Neighbouring responses are turns of one episode."""
    return Rollouts(
        *(rollouts.ids, rollouts.token_offsets, torch.arange(0, 13, 2), rollouts.group_ids[::2].contiguous()),
        *(rollouts.prompt_ids, rollouts.prompt_offsets, rollouts.prompts),
        {name: column for name, column in rollouts.columns.items() if not name.startswith("episode:")},
    ).with_reward("outcome", torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]))


def spread(now: Now, at: Mapping[str, Tensor]) -> Terms:
    """A term with a slope through the mean over the vocabulary."""
    drift = now["vocab_mean"] - at["vocab_mean/old"]
    return Terms(drift**2 - 0.1 * now["log_probs"], {"drift": drift})


SPREAD = objectives.token_objective(
    spread, objectives.AGGREGATIONS["token_mean"](), ("vocab_mean", "log_probs"), ("vocab_mean/old",)
)
LABELS = "none(component='outcome')"
CENTRED = "grpo(norm_by_std=False, singleton='raw')"
CASES = {
    "token": (OBJECTIVES["dph_rl"](), "grpo", with_stored(batch())),
    "token, averaged over episodes": (
        objectives.mix(
            policy=objectives.add(objectives.clip(aggregate="seq_mean_token_mean"), objectives.entropy_bonus(0.05)),
            stored=objectives.divergence("alpha", aggregate="seq_mean_token_sum"),
        ),
        "rloo",
        with_stored(batch()),
    ),
    "token, through the whole vocabulary": (
        objectives.mix(policy=SPREAD, stored=objectives.imitation()),
        "grpo",
        with_stored(batch()),
    ),
    "episode": (OBJECTIVES["rover"](rho=0.7, next_q_scale=0.5), CENTRED, in_turns(batch())),
    "group": (OBJECTIVES["pacs"](), LABELS, batch()),
    "group, standardised": (
        OBJECTIVES["pacs"](estimator="grpo", reward_proxy="mean_logprob"),
        LABELS,
        in_turns(batch()),
    ),
    "group of trajectories": (OBJECTIVES["implicit_prm"](beta=0.3), LABELS, in_turns(batch())),
    "pair": (OBJECTIVES["dpo"](beta=0.3), "token_dpo", batch()),
    "mixed scopes": (
        objectives.mix(policy=objectives.add(OBJECTIVES["pacs"](), objectives.clip()), stored=OBJECTIVES["dpo"]()),
        "rloo",
        with_stored(batch()),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_any_cut_gives_the_gradient_of_one_naive_pass(case: str) -> None:
    policy = small_llama("float64")
    objective, method, rollouts = CASES[case]
    assert case.split(",")[0].split()[0] in (objective.scope, "mixed")
    given = credit.build(method)(rollouts)
    loss, expected = naive(policy, objective, given)
    assert all(bool(slope.any()) for slope in expected.values())
    cuts = [random_cut(rollouts.n_responses, seed) for seed in range(3)]
    cuts += [[torch.tensor([b]) for b in range(rollouts.n_responses)], micro_batches(rollouts, 40)]
    for fused in [True, False] if objective.scope == "token" else [None, False]:
        for cut in cuts:
            found = accumulate(policy, objective, rollouts, given, cut, fused=fused)
            assert float(found.value) == pytest.approx(float(loss.value), abs=1e-10)
            assert {n: float(m) for n, m in found.metrics.items()} == pytest.approx(
                {n: float(m) for n, m in loss.metrics.items()}, abs=1e-10
            )
            for name, slope in gradients(policy).items():
                error = (slope - expected[name]).norm() / expected[name].norm()
                assert error <= 1e-10, (name, float(error))


def test_in_float32_too() -> None:
    policy = small_llama("float32")
    objective, method, rollouts = CASES["group"]
    given = credit.build(method)(rollouts)
    _, expected = naive(policy, objective, given)
    accumulate(policy, objective, rollouts, given, random_cut(12, 0))
    for name, slope in gradients(policy).items():
        assert (slope - expected[name]).norm() / expected[name].norm() <= 1e-5, name


def test_an_update_batch_without_any_stored_response() -> None:
    policy = small_llama("float64")
    given = credit.build("grpo")(batch())
    for fused in (True, False):
        accumulate(policy, OBJECTIVES["dph_rl"](), given.rollouts, given, [torch.arange(12)], fused=fused)
        mixed = gradients(policy)
        accumulate(policy, objectives.clip(0.2, 0.28, 3.0), given.rollouts, given, [torch.arange(12)], fused=fused)
        assert all(torch.equal(slope, mixed[name]) for name, slope in gradients(policy).items())
