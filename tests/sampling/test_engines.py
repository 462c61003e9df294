"""Engines draw what the policy says, and say what they drew."""

from __future__ import annotations

import pytest
import torch

from apportion.errors import InputError
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import ragged
from apportion.sampling import LocalEngine, SamplingSettings, ScriptedEngine, engine_for, sample_groups
from builders import small_llama


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prompts", [[[1, 2, 3], [4, 5, 6]], [[1], [2, 3, 4, 5, 6], [7, 8]]], ids=["equal", "ragged"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_behaviour_log_probs_are_the_trainers(prompts: list[list[int]], temperature: float) -> None:
    policy = small_llama("float64")
    settings = SamplingSettings(12, temperature, end_ids=(22, 21, 20, 19))
    rollouts = sample_groups(engine_for(policy), prompts, 6, settings, _generator())
    assert len(set(ragged.lengths_of(rollouts.token_offsets).tolist())) > 2  # rows did finish at different times
    rows = torch.arange(rollouts.n_responses)
    trainer = policy.statistics(rollouts, rows, ["log_probs"])["log_probs"]
    assert torch.allclose(trainer, rollouts.column("log_probs/behaviour"), atol=1e-10)


def test_greedy_is_the_argmax_of_a_plain_forward_pass() -> None:
    policy = small_llama("float64")
    prompt = [3, 1, 4, 1, 5]
    rollouts = sample_groups(engine_for(policy), [prompt], 1, SamplingSettings(10, 0.0), _generator())
    row = torch.tensor([prompt])
    for token in rollouts.ids.tolist():
        assert token == int(policy.model(input_ids=row, use_cache=False).logits[0, -1].argmax())
        row = torch.cat([row, torch.tensor([[token]])], 1)
    assert rollouts.column("response:truncated").tolist() == [True]


def test_sampled_frequencies_agree_with_the_probabilities() -> None:
    policy = TabularPolicy(vocabulary=3, depth=2)
    with torch.no_grad():
        policy.logits[0] = torch.tensor([0.0, 1.0, -0.5])
        policy.logits[2] = torch.tensor([0.5, 0.0, 2.0])
    rollouts = sample_groups(ScriptedEngine(policy.next_logits), [[0]], 20_000, SamplingSettings(2), _generator())
    first = rollouts.ids[rollouts.token_offsets[:-1]]
    second = rollouts.ids[rollouts.token_offsets[:-1] + 1][first == 1]
    for drawn, logits in ((first, policy.logits[0]), (second, policy.logits[2])):
        expected = logits.detach().softmax(0)
        observed = torch.bincount(drawn, minlength=3) / len(drawn)
        error = (expected * (1 - expected) / len(drawn)).sqrt()
        assert bool(((observed - expected).abs() < 5 * error).all())


def test_top_k_and_top_p_narrow_the_draw_but_not_the_log_probs() -> None:
    logits = torch.tensor([3.0, 2.0, 1.0, 0.0]).double()
    engine = ScriptedEngine(lambda prompt, prefix: logits.expand(len(prompt), -1))
    for settings, allowed in (
        (SamplingSettings(1, top_k=2), {0, 1}),
        (SamplingSettings(1, top_p=0.5), {0}),
        (SamplingSettings(1, top_p=0.7), {0, 1}),
        (SamplingSettings(1), {0, 1, 2, 3}),
    ):
        rollouts = sample_groups(engine, [[0]], 500, settings, _generator())
        assert set(rollouts.ids.tolist()) == allowed
        assert torch.allclose(rollouts.column("log_probs/behaviour"), logits.log_softmax(0)[rollouts.ids])


def test_same_generator_same_responses_and_groups_in_order() -> None:
    policy = small_llama("float32")
    settings = SamplingSettings(6, end_ids=(22,))
    one, two, other = (
        sample_groups(engine_for(policy), [[1, 2], [3]], 3, settings, _generator(seed), first_group=10)
        for seed in (5, 5, 6)
    )
    assert one.ids.tolist() == two.ids.tolist() != other.ids.tolist()
    assert one.group_ids.tolist() == [10, 10, 10, 11, 11, 11]


def test_an_end_token_ends_a_response_and_is_part_of_it() -> None:
    script = [2, 1, 0]
    engine = ScriptedEngine(
        lambda prompt, prefix: (
            torch.nn.functional.one_hot(torch.tensor(script[prefix.shape[1]]), 3).double().expand(len(prompt), -1) * 100
        )
    )
    rollouts = sample_groups(engine, [[0]], 2, SamplingSettings(3, end_ids=(1,)), _generator())
    assert rollouts.ids.tolist() == [2, 1, 2, 1]
    assert rollouts.column("response:truncated").tolist() == [False, False]


def test_a_bfloat16_copy_follows_the_weights() -> None:
    policy = small_llama("float32")
    engine = LocalEngine(policy.model, policy.context, torch.bfloat16)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(0.5)
    engine.refresh()
    for ours, theirs in zip(engine.model.parameters(), policy.model.parameters(), strict=True):
        assert ours.dtype == torch.bfloat16
        assert torch.equal(ours, theirs.bfloat16())


@pytest.mark.parametrize(
    ("prompts", "tokens", "message"),
    [([[1] * 120], 20, "exceed the model's context of 128"), ([[]], 4, "a prompt has no tokens")],
)
def test_impossible_prompts_are_refused(prompts: list[list[int]], tokens: int, message: str) -> None:
    policy = small_llama("float32")
    with pytest.raises(InputError, match=message):
        sample_groups(engine_for(policy), prompts, 2, SamplingSettings(tokens), _generator())


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"max_new_tokens": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        SamplingSettings(**({"max_new_tokens": 4} | wrong))  # type: ignore[arg-type]
