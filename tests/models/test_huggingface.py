"""Transformers as policies: statistics from whole logits, chunks, what is refused, and files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion import objectives
from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.models import build_policy, statistics
from apportion.models.digits import digit_llama
from apportion.models.huggingface import HuggingFacePolicy, load
from apportion.models.statistics import STATISTICS
from apportion.training.gradient import accumulate, measure, micro_batches
from builders import gradients, random_rollouts, small_llama

TOKENIZER = digit_llama().tokenizer


def by_whole_logits(policy: HuggingFacePolicy, rollouts: Any) -> dict[str, Tensor]:
    """Every statistic from the logits of every row by itself, in plain formulas."""
    found: dict[str, list[Tensor]] = {name: [] for name in STATISTICS}
    for b in range(rollouts.n_responses):
        start, end = rollouts.token_offsets[b : b + 2].tolist()
        p = int(rollouts.prompts[b])
        prompt = rollouts.prompt_ids[rollouts.prompt_offsets[p] : rollouts.prompt_offsets[p + 1]]
        ids = rollouts.ids[start:end]
        with torch.no_grad():
            logits = policy.model(input_ids=torch.cat([prompt, ids])[None], use_cache=False).logits[0]
        # The state before a token is what has read everything up to the one before it.
        log_probs = (logits[len(prompt) - 1 : -1] / float(rollouts.temperature[b])).log_softmax(-1)
        found["log_probs"].append(log_probs.gather(1, ids[:, None]).squeeze(1))
        found["entropy"].append(-(log_probs.exp() * log_probs).sum(1))
        found["vocab_mean"].append(log_probs.mean(1))
        found["max_log_prob"].append(log_probs.amax(1))
        found["greedy"].append(log_probs.argmax(1))
    return {name: torch.cat(rows) for name, rows in found.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("tied", [False, True])
def test_statistics_are_those_of_whole_logits(dtype: str, tolerance: float, tied: bool) -> None:
    policy, rollouts = small_llama(dtype, tied=tied), random_rollouts(dtype=dtype)
    expected = by_whole_logits(policy, rollouts)
    for parts in ([torch.arange(rollouts.n_responses)], micro_batches(rollouts, 30)):
        found = measure(policy, rollouts, list(STATISTICS), parts)
        for name, values in found.items():
            used = rollouts.trained
            assert torch.allclose(values[used], expected[name][used].to(values.dtype), rtol=0, atol=tolerance), name
            assert not values[~used].any()
    assert (expected["log_probs"] < -0.5).any()
    assert (expected["entropy"] > 0.1).any()


def test_the_order_of_rows_is_kept() -> None:
    policy, rollouts = small_llama("float64"), random_rollouts()
    responses = torch.tensor([5, 2, 9])
    found = policy.statistics(rollouts, responses, ["log_probs"])["log_probs"]
    expected = by_whole_logits(policy, rollouts)["log_probs"]
    tokens = torch.cat([torch.arange(*rollouts.token_offsets[b : b + 2].tolist()) for b in responses.tolist()])
    tokens = tokens[rollouts.trained[tokens]]
    assert torch.allclose(found, expected[tokens], atol=1e-10)


@pytest.mark.parametrize("elements", [23, 23 * 3 + 1, 23 * 7])
def test_chunks_change_nothing(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = random_rollouts()
    given = METHODS["grpo"]()(rollouts)
    objective = objectives.add(objectives.clip(), objectives.entropy_bonus(0.1))
    results = []
    for limit in (1 << 24, elements):
        monkeypatch.setitem(statistics.CHUNK_ELEMENTS, "cpu", limit)
        policy = small_llama("float64")
        read: list[int] = []
        whole = policy.read
        policy.read = lambda hidden, *rest, w=whole, r=read: (r.append(len(hidden)), w(hidden, *rest))[1]  # type: ignore[method-assign]
        loss = accumulate(policy, objective, rollouts, given, [torch.arange(rollouts.n_responses)])
        results.append((float(loss.value), gradients(policy), max(read)))
    (one, whole_gradients, most), (two, chunked, few) = results
    assert most == int(rollouts.trained.sum())
    assert few == elements // 23
    assert one == pytest.approx(two, abs=1e-12)
    for name, value in whole_gradients.items():
        assert torch.allclose(value, chunked[name], rtol=0, atol=1e-12), name
        assert value.abs().max() > 0


def test_an_unknown_statistic_is_refused() -> None:
    with pytest.raises(InputError, match="'log_prob': did you mean 'log_probs'"):
        small_llama().statistics(random_rollouts(dtype="float32"), torch.arange(2), ["log_prob"])


def _gemma(cap: float | None) -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=13,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        final_logit_softcapping=cap,
    )
    return Gemma2ForCausalLM(config).eval()


def _cohere(scale: float) -> Any:
    from transformers import CohereConfig, CohereForCausalLM

    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=13,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        logit_scale=scale,
        bos_token_id=1,
        eos_token_id=2,
    )
    return CohereForCausalLM(config).eval()


def _gpt2(dropout: float) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=13,
        n_positions=64,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=1,
        eos_token_id=1,
        resid_pdrop=dropout,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return GPT2LMHeadModel(config).eval()


def _bert(decoder: bool) -> Any:
    from transformers import BertConfig, BertLMHeadModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=13,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=decoder,
    )
    return BertLMHeadModel(config).eval()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "capped logits": (lambda: _gemma(30.0), "Gemma2ForCausalLM changes its logits after the output head"),
    "scaled logits": (lambda: _cohere(0.0625), "CohereForCausalLM changes its logits after the output head"),
    "dropout": (lambda: _gpt2(0.1), "the model has dropout 0.1 at"),
    "an encoder": (lambda: _bert(False), "in BertLMHeadModel tokens see what comes after them"),
    "a head of its own": (lambda: _bert(True), "BertLMHeadModel changes its logits after the output head"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_whose_probabilities_would_be_wrong_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        HuggingFacePolicy(make(), TOKENIZER)


@pytest.mark.parametrize(
    "make", [lambda: _gemma(None), lambda: _cohere(1.0), lambda: _gpt2(0.0)], ids=["gemma2", "cohere", "gpt2"]
)
def test_the_same_model_without_it_is_served(make: Callable[[], Any]) -> None:
    policy, rollouts = HuggingFacePolicy(make(), TOKENIZER), random_rollouts(dtype="float32")
    rollouts = type(rollouts)(
        **{
            **{name: getattr(rollouts, name) for name in rollouts.__dataclass_fields__},
            "ids": rollouts.ids % 13,
            "prompt_ids": rollouts.prompt_ids % 13,
        }
    )
    expected = by_whole_logits(policy, rollouts)["log_probs"]
    found = measure(policy, rollouts, ["log_probs"], micro_batches(rollouts, 64))["log_probs"]
    assert torch.allclose(found[rollouts.trained], expected[rollouts.trained], atol=1e-5)
    assert not any(module._forward_hooks for module in policy.model.modules())  # the check leaves nothing behind


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_saved_is_loaded_bit_for_bit(tied: bool, dtype: str, tmp_path: Path) -> None:
    small_llama(tied=tied).save(tmp_path / "first")
    small_llama(scale=5.0, tied=tied).save(tmp_path / "other")
    policy, other = (load(tmp_path / name, dtype=dtype) for name in ("first", "other"))
    policy.save(tmp_path / "saved")
    again = load(tmp_path / "saved", dtype=dtype)
    other.load_weights(tmp_path / "saved")
    assert again.tokenizer("12=").input_ids == policy.tokenizer("12=").input_ids
    rollouts = random_rollouts(dtype="float32")
    everything = [torch.arange(rollouts.n_responses)]
    expected = measure(policy, rollouts, list(STATISTICS), everything)
    for loaded in (again, other):
        theirs = loaded.model.state_dict()
        for name, value in policy.model.state_dict().items():
            assert torch.equal(theirs[name], value), name
            assert theirs[name].dtype == getattr(torch, dtype)
        shared = loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
        assert shared == tied
        for name, values in measure(loaded, rollouts, list(STATISTICS), everything).items():
            assert torch.equal(values, expected[name]), name


def test_the_digits_model_is_the_same_after_loading_in_any_dtype(tmp_path: Path) -> None:
    """Frequencies of rotary embeddings are no weights: they are not stored, so they must not be rounded either."""
    for dtype in ("float32", "bfloat16", "float64"):
        policy = digit_llama(hidden=16, layers=1, heads=2, dtype=dtype)
        policy.save(tmp_path / dtype)
        again = load(tmp_path / dtype, dtype=dtype)
        ids = torch.arange(60)[None] % 13
        with torch.no_grad():
            assert torch.equal(policy.model(input_ids=ids).logits, again.model(input_ids=ids).logits), dtype
        assert {p.dtype for p in policy.model.parameters()} == {getattr(torch, dtype)}


def test_a_copy_has_weights_of_its_own_and_a_frozen_one_does_not_train() -> None:
    policy = small_llama()
    clone, frozen = policy.clone(), policy.frozen_copy()
    with torch.no_grad():
        for _, parameter in policy.named_parameters():
            parameter.zero_()
    for copy in (clone, frozen):
        assert all(p.abs().sum() > 0 for p in copy.model.parameters())
    assert list(frozen.named_parameters()) == []
    assert len(list(clone.named_parameters())) == len(list(policy.named_parameters())) > 0


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    _gpt2(0.0).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(InputError, match="holds weights this model does not have, such as"):
        small_llama().load_weights(tmp_path / "gpt2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_llama().save(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="save the tokenizer into the same folder"):
        load(folder)


def test_a_folder_with_half_the_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"the weights in .* cannot be loaded .*: save the model anew"):
        load(folder)


def test_a_folder_that_is_not_there(folder: Path) -> None:
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="there is no model folder"):
        load(folder)


def test_dropout_can_be_set_to_nothing_in_the_folder(tmp_path: Path) -> None:
    _gpt2(0.1).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="set the dropout of the model"):
        load(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"resid_pdrop": 0.1', '"resid_pdrop": 0.0'))
    assert load(tmp_path).context == 64


def test_a_model_is_named_in_four_ways(folder: Path) -> None:
    common: dict[str, Any] = {"device": "cpu", "dtype": "float32", "autocast": None, "seed": 3}
    assert build_policy("digits", **common).context == 64
    assert build_policy("digits(context=32)", **common).context == 32
    assert build_policy("apportion.models.digits:digit_llama(context=16)", **common).context == 16
    assert build_policy(str(folder), **common).context == 128
    seeds = [build_policy("digits", **(common | {"seed": seed})).model.lm_head.weight for seed in (3, 3, 4)]
    assert torch.equal(seeds[0], seeds[1])
    assert not torch.equal(seeds[0], seeds[2])
    half = build_policy("digits", **(common | {"autocast": "bfloat16"}))
    assert half.autocast is torch.bfloat16
    with pytest.raises(InputError, match="has one dtype only: leave autocast out"):
        build_policy("tabular(vocabulary=3, depth=2)", **(common | {"autocast": "bfloat16"}))
