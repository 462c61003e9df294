"""Small Llamas over characters, with a Hugging Face tokenizer, made from scratch."""

from __future__ import annotations

import torch

from apportion.errors import InputError
from apportion.models.huggingface import HuggingFacePolicy

PAD, EQUALS, STOP = "<pad>", "=", "."


def character_llama(
    alphabet: str = "abcdefghijklmnopqrstuvwxyz",
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    context: int = 64,
    seed: int = 0,
    dtype: str = "float32",
) -> HuggingFacePolicy:
    """A Llama whose vocabulary is an alphabet, ``=`` and ``.``, which ends a response; other characters are padding.

    Args:
        alphabet: different characters, without ``=`` and ``.``.
        hidden: width.
        layers: depth.
        heads: attention heads.
        context: longest prompt and response, in characters.
        seed: of the initial weights.
        dtype: of the parameters.

    Raises:
        InputError: sizes that do not go together, or an alphabet with a character twice.

    Example:
        >>> character_llama("ab").tokenizer("ba=").input_ids
        [2, 1, 3]
    """
    if min(hidden, layers, heads, context) < 1 or hidden % (2 * heads):
        raise InputError(
            f"the model has hidden={hidden}, layers={layers}, heads={heads}, context={context}: expected all at least "
            "1 and hidden a multiple of twice heads."
        )
    tokens = [PAD, *alphabet, EQUALS, STOP]
    if len(set(tokens)) < len(tokens) or not alphabet:
        raise InputError(f"the alphabet is {alphabet!r}, expected different characters without = and full stop.")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=PAD))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    words.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=PAD)

    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=tokens.index(STOP),
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    for parameter in model.parameters():  # not the rotary frequencies, which loading leaves in float32 too
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return HuggingFacePolicy(model.eval(), tokenizer)
