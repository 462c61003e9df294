"""The local engine: prompts read once, rows dropped and refilled, and models it must read in another way."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from apportion.models.digits import digit_llama
from apportion.models.huggingface import HuggingFacePolicy
from apportion.rollouts import Rollouts, ragged
from apportion.sampling import LocalEngine, SamplingSettings, local, sample_groups
from apportion.sampling.cached_rows import CachedRowsReader
from apportion.sampling.local import left_padded
from apportion.sampling.shared_prompt import SharedPromptReader
from builders import small_llama

PROMPTS = [[1], [2, 3, 4, 5, 6], [7, 8], [9, 10, 11], [2, 3, 4]]
SETTINGS = SamplingSettings(12, 0.75, end_ids=(22, 21, 20, 19))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(engine: LocalEngine, copies: int = 4) -> Rollouts:
    return sample_groups(engine, PROMPTS, copies, SETTINGS, generator())


def has_the_trainers_log_probs(policy: HuggingFacePolicy, rollouts: Rollouts, atol: float) -> None:
    trainer = policy.statistics(rollouts, torch.arange(rollouts.n_responses), ["log_probs"])["log_probs"]
    torch.testing.assert_close(rollouts.column("log_probs/behaviour"), trainer, rtol=0, atol=atol)


@pytest.mark.parametrize("rows", [0, 1, 4, 7, 100])
def test_rows_that_wait_take_the_place_of_those_that_ended(rows: int) -> None:
    policy = small_llama("float64")
    engine = LocalEngine(policy.model, policy.context, rows=rows)
    assert engine.shares_prompts
    rollouts = drawn(engine)
    has_the_trainers_log_probs(policy, rollouts, 1e-10)
    assert rollouts.group_ids.tolist() == [g for g in range(5) for _ in range(4)]
    lengths = ragged.lengths_of(rollouts.token_offsets)
    assert len(set(lengths.tolist())) > 3
    last = rollouts.ids[rollouts.token_offsets[1:] - 1]
    ended = torch.isin(last, torch.tensor(SETTINGS.end_ids))
    assert torch.equal(rollouts.column("response:truncated"), ~ended)
    assert bool((lengths[~ended] == SETTINGS.max_new_tokens).all())
    assert drawn(engine).ids.tolist() == rollouts.ids.tolist()


def test_when_rows_are_dropped_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small_llama("float64")
    found = []
    for share in (0.0, 0.5, 1.0):
        monkeypatch.setattr(local, "DROP_BELOW", share)
        found.append(drawn(LocalEngine(policy.model, policy.context)))
    for other in found[1:]:
        assert other.ids.tolist() == found[0].ids.tolist()


def test_both_readers_read_the_same() -> None:
    policy = small_llama("float64")
    ids, valid = left_padded(PROMPTS, torch.device("cpu"))
    shared, cached = SharedPromptReader(policy.model, 8), CachedRowsReader(policy.model, 8)
    with torch.no_grad():
        torch.testing.assert_close(shared.read_prompts(ids, valid, 2), cached.read_prompts(ids, valid, 2))
        tokens = torch.arange(10) + 5
        for going in ([0, 1, 2, 5, 6, 7, 9], [0, 3, 4, 6], [1, 3], [0]):
            torch.testing.assert_close(shared.read_tokens(tokens), cached.read_tokens(tokens))
            keep = torch.tensor(going)
            shared.keep(keep)
            cached.keep(keep)
            tokens = tokens[keep] + 1


def other_model(name: str) -> HuggingFacePolicy:
    import transformers as t

    shape: dict[str, Any] = {
        "vocab_size": 23,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "eos_token_id": 22,
    }
    built = {
        "window": lambda: t.MistralForCausalLM(t.MistralConfig(**shape, sliding_window=8, max_position_embeddings=64)),
        "learned positions": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(vocab_size=23, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0)
        ),
        "normalised heads": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**shape, head_dim=8, max_position_embeddings=64)),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = built[name]().double().eval()
    return HuggingFacePolicy(model, digit_llama().tokenizer)


@pytest.mark.parametrize(
    ("name", "shares"), [("window", False), ("learned positions", True), ("normalised heads", True)]
)
def test_other_models(name: str, shares: bool) -> None:
    policy = other_model(name)
    engine = LocalEngine(policy.model, 64)
    assert engine.shares_prompts is shares
    has_the_trainers_log_probs(policy, drawn(engine), 1e-6)


def test_a_window_no_row_can_fill_is_none() -> None:
    policy = other_model("window")
    assert LocalEngine(policy.model, 8).shares_prompts
