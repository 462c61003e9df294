"""The gradient does not depend on how a batch is cut, on the path taken, or on what else is in a row."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion import credit, objectives
from apportion.models.tabular import TabularPolicy
from apportion.objectives import Loss, Objective
from apportion.rollouts import Rollouts, ragged
from apportion.training.gradient import accumulate, measure, micro_batches
from builders import gradients, random_rollouts, small_llama

TOKEN = objectives.add(
    objectives.clip(0.2, 0.28, aggregate="seq_mean_token_mean"),
    objectives.kl(0.3),
    objectives.entropy_bonus(0.05),
)


def _coupled(now: Any, rollouts: Rollouts, given: credit.Credit, clock: Any) -> Loss:
    """A loss through sums over episodes and differences within groups."""
    used = given.trained.nonzero().squeeze(1)
    delta = now["log_probs"][used] - rollouts.column("log_probs/old")[used]
    score = delta.new_zeros(rollouts.n_episodes).index_add(0, rollouts.episode_of_token[used], delta)
    group = rollouts.group_of_episode
    mean = score.new_zeros(rollouts.n_groups).index_add(0, group, score)[group] / torch.bincount(group)[group]
    label = (rollouts.column("episode:reward/outcome") > 0.5).to(score.dtype)
    return Loss(torch.nn.functional.binary_cross_entropy_with_logits(score - mean, label))


GROUP = Objective("group", ("log_probs",), ("log_probs/old",), _coupled)
OBJECTIVES = {"token": TOKEN, "group": GROUP}


def random_cut(n: int, seed: int) -> list[Tensor]:
    """All rows in random parts of random sizes."""
    rng = random.Random(seed)
    rows = list(range(n))
    rng.shuffle(rows)
    parts = []
    while rows:
        size = rng.randint(1, len(rows))
        parts.append(torch.tensor(rows[:size]))
        rows = rows[size:]
    return parts


def naive(
    policy: Any, objective: Objective, rollouts: Rollouts, given: credit.Credit
) -> tuple[Tensor, dict[str, Tensor]]:
    """One pass over every row by itself, whole logits, plain autograd."""
    now = {name: [] for name in objective.now}
    for b in range(rollouts.n_responses):
        start, end = rollouts.token_offsets[b : b + 2].tolist()
        p = int(rollouts.prompts[b])
        prompt = rollouts.prompt_ids[rollouts.prompt_offsets[p] : rollouts.prompt_offsets[p + 1]]
        row = torch.cat([prompt, rollouts.ids[start:end]])[None]
        logits = policy.model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1]
        scaled = (logits / rollouts.temperature[b]).log_softmax(-1)
        for name in objective.now:
            if name == "log_probs":
                now[name].append(scaled.gather(1, rollouts.ids[start:end, None]).squeeze(1))
            else:
                now[name].append(-(scaled.exp() * scaled).sum(1))
    loss = objective({name: torch.cat(rows) for name, rows in now.items()}, rollouts, given)
    loss.value.backward()
    return loss.value.detach(), gradients(policy)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_any_cut_gives_the_gradient_of_one_naive_pass(name: str, dtype: str, tolerance: float, tied: bool) -> None:
    policy = small_llama(dtype, tied=tied)
    objective, rollouts = OBJECTIVES[name], random_rollouts(dtype=dtype)
    given = credit.METHODS["grpo"]()(rollouts)
    expected_loss, expected = naive(policy, objective, rollouts, given)
    cuts = [random_cut(rollouts.n_responses, seed) for seed in range(4)]
    cuts += [[torch.tensor([b]) for b in range(rollouts.n_responses)], [torch.arange(rollouts.n_responses)]]
    cuts += [micro_batches(rollouts, 40)]
    for fused in [True, False] if objective.scope == "token" else [False]:
        for cut in cuts:
            loss = accumulate(policy, objective, rollouts, given, cut, fused=fused)
            assert abs(float(loss.value - expected_loss)) <= max(1e-6 * abs(float(expected_loss)), tolerance)
            for parameter, gradient in gradients(policy).items():
                error = (gradient - expected[parameter]).norm() / expected[parameter].norm()
                assert error <= tolerance, (parameter, float(error))


def test_the_loss_changes_by_less_than_a_millionth_of_its_mean_absolute_term() -> None:
    policy, rollouts = small_llama("float32"), random_rollouts(dtype="float32")
    given = credit.METHODS["grpo"]()(rollouts)
    objective = objectives.clip()
    whole = [torch.arange(rollouts.n_responses)]
    log_probs = measure(policy, rollouts, ["log_probs"], whole)["log_probs"]
    used = given.trained
    ratio = (log_probs - rollouts.column("log_probs/old"))[used].exp()
    term = float((given.advantages[used] * ratio).abs().mean())
    losses = [
        float(accumulate(policy, objective, rollouts, given, random_cut(rollouts.n_responses, seed)).value)
        for seed in range(6)
    ]
    assert max(losses) - min(losses) <= 1e-6 * term


def test_untrained_tokens_carry_no_gradient_and_change_nothing_before_them() -> None:
    policy = small_llama("float64")
    rollouts = random_rollouts(holes=False)
    longer_ids, longer_trained, longer_old = [], [], []
    for row, old in zip(
        ragged.unflatten(rollouts.ids, rollouts.token_offsets),
        ragged.unflatten(rollouts.column("log_probs/old"), rollouts.token_offsets),
        strict=True,
    ):
        longer_ids.append([*row, 7, 7])
        longer_trained.append([1] * len(row) + [0, 0])
        longer_old.append([*old, -1.0, -1.0])
    longer = Rollouts.from_lists(
        longer_ids,
        groups=rollouts.group_ids.tolist(),
        rewards=rollouts.column("episode:reward/outcome").tolist(),
        trained=longer_trained,
        prompts=[
            rollouts.prompt_ids[rollouts.prompt_offsets[p] : rollouts.prompt_offsets[p + 1]].tolist()
            for p in rollouts.prompts.tolist()
        ],
        log_probs_old=longer_old,
    ).with_column("response:temperature", rollouts.temperature)
    results = []
    for batch in (rollouts, longer):
        accumulate(policy, objectives.clip(), batch, credit.METHODS["rloo"]()(batch), micro_batches(batch, 64))
        results.append(gradients(policy))
    for name in results[0]:
        assert torch.allclose(results[0][name], results[1][name], rtol=0, atol=1e-12), name


def test_the_tabular_policy_takes_the_same_path() -> None:
    policy = TabularPolicy(vocabulary=3, depth=3, prompts=2)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(0)).double())
    rollouts = Rollouts.from_lists(
        [[0, 1, 2], [0, 1], [2, 2, 2], [1]],
        groups=[0, 0, 1, 1],
        rewards=[1.0, 0.0, 0.5, 0.0],
        prompts=[[0], [0], [1], [1]],
        log_probs_old=[[-1.0] * 3, [-1.0] * 2, [-1.0] * 3, [-1.0]],
    )
    given = credit.METHODS["rloo"]()(rollouts)
    results = []
    for objective in (objectives.clip(10.0), GROUP):
        for cut in (random_cut(4, 1), [torch.arange(4)]):
            accumulate(policy, objective, rollouts, given, cut)
            results.append(gradients(policy)["logits"])
    assert torch.allclose(results[0], results[1], atol=1e-15)
    assert torch.allclose(results[2], results[3], atol=1e-15)
    expected = torch.zeros_like(policy.logits)
    probabilities = policy.logits.detach().softmax(1)
    states = policy.states_of(rollouts)
    for t, state in enumerate(states.tolist()):
        score = -probabilities[state].clone()
        score[rollouts.ids[t]] += 1
        ratio = (probabilities[state, rollouts.ids[t]].log() + 1.0).exp()
        expected[state] -= given.advantages[t] * ratio * score / rollouts.n_tokens
    assert torch.allclose(results[0], expected, atol=1e-12)


def test_a_batch_without_any_trained_token_adds_no_gradient() -> None:
    policy = small_llama("float64")
    rollouts = Rollouts.from_lists(
        [[1, 2], [3]],
        groups=[0, 0],
        rewards=[1.0, 0.0],
        trained=[[0, 0], [0]],
        prompts=[[1], [1]],
        log_probs_old=[[-1.0, -1.0], [-1.0]],
    )
    given = credit.METHODS["grpo"]()(rollouts)
    loss = accumulate(policy, objectives.clip(), rollouts, given, [torch.arange(2)])
    assert float(loss.value) == 0
    assert all(p.grad is None or not p.grad.any() for _, p in policy.named_parameters())
