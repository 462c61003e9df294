"""The two models of the speed measurements: one whose layers cost most, one whose output head does."""

from __future__ import annotations

from typing import Any

import torch

from apportion.models.digits import digit_llama
from apportion.models.huggingface import HuggingFacePolicy

SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 512,
    },
    "large vocabulary": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
}


def llama(size: str, dtype: torch.dtype = torch.float32) -> Any:
    """A Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[size], max_position_embeddings=2048, eos_token_id=None, bos_token_id=None)
    return LlamaForCausalLM(config).to(dtype).eval()


def policy(size: str, dtype: torch.dtype = torch.float32) -> HuggingFacePolicy:
    """The same as a policy; nothing here is read as text, so the tokenizer does not matter."""
    return HuggingFacePolicy(llama(size, dtype), digit_llama().tokenizer)
