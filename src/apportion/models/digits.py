"""The quickstart's model: a small Llama over ten digits, with a Hugging Face tokenizer, made from scratch."""

from __future__ import annotations

from apportion.models.characters import EQUALS as EQUALS
from apportion.models.characters import PAD as PAD
from apportion.models.characters import STOP as STOP
from apportion.models.characters import character_llama
from apportion.models.huggingface import HuggingFacePolicy

DIGITS = "0123456789"


def digit_llama(
    hidden: int = 64, layers: int = 2, heads: int = 4, context: int = 64, seed: int = 0, dtype: str = "float32"
) -> HuggingFacePolicy:
    """A Llama of about a hundred thousand parameters whose vocabulary is the digits, ``=`` and ``.``.

    Args:
        hidden: width.
        layers: depth.
        heads: attention heads.
        context: longest prompt and response, in characters.
        seed: of the initial weights.
        dtype: of the parameters.

    Raises:
        InputError: sizes that do not go together.

    Example:
        >>> policy = digit_llama()
        >>> policy.tokenizer("12=").input_ids
        [2, 3, 11]
    """
    return character_llama(DIGITS, hidden, layers, heads, context, seed, dtype)
