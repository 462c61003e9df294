"""Columns that credit needs, made between sampling and credit."""

from __future__ import annotations

from collections.abc import Callable

from apportion.annotations.annotator import Annotator as Annotator
from apportion.annotations.attention_rhythm import attention_rhythm
from apportion.annotations.partial_sums import partial_sums

ANNOTATORS: dict[str, Callable[..., Annotator]] = {
    "attention_rhythm": attention_rhythm,
    "partial_sums": partial_sums,
}
