"""Every paper's claim in miniature: one file a card, each with a tuple ``CLAIMS``."""

from __future__ import annotations

from importlib import import_module

from apportion.studies.claim import Claim

CARDS: tuple[str, ...] = (
    "ac_flow",
    "attention_rhythm",
    "b_coder",
    "cad_rl",
    "calm",
    "capo",
    "ches",
    "clip",
    "constrained_rlhf",
    "cure",
    "dapo",
    "dph_rl",
    "edu_align",
    "gae",
    "ghpo",
    "gigpo",
    "grounded_prm",
    "grpo",
    "hicra",
    "imitation",
    "implicit_prm",
    "lare",
    "loop",
    "ma_rlhf",
    "med_s3",
    "mm_rlhf",
    "nsr",
    "oprl",
    "pacs",
    "pure",
    "reinforce_pp",
    "return_decomposition",
    "reward_model",
    "rover",
    "segment_clip",
    "sotopia_rl",
    "t_reg",
    "tempo",
    "token_dpo",
    "tp_grpo",
    "trees",
    "trust_grpo",
)
"""The files of this folder."""

WITHOUT: dict[str, str] = {
    "none": "it assigns no credit: the objective brings its own signal",
    "reinforce": "it is the policy gradient itself, exact by the calibration; other claims measure updates by it",
}
"""Registered credit methods and objectives that no claim is about, and why."""


def of_card(card: str) -> tuple[Claim, ...]:
    """The claims of one file."""
    claims: tuple[Claim, ...] = import_module(f"{__name__}.{card}").CLAIMS
    return claims
