"""Columns that credit needs, made between sampling and credit."""

from __future__ import annotations

from collections.abc import Callable

from apportion.annotations.annotator import Annotator as Annotator
from apportion.annotations.attention_rhythm import attention_rhythm
from apportion.annotations.attribution import attribution
from apportion.annotations.ches import ches, ches_filter
from apportion.annotations.contrastive_marks import contrastive_marks
from apportion.annotations.critiques import critiques
from apportion.annotations.dimensions import dimensions
from apportion.annotations.hidden_states import hidden_states
from apportion.annotations.latent_reward import latent_reward
from apportion.annotations.macro_actions import macro_actions
from apportion.annotations.partial_sums import partial_sums
from apportion.annotations.planning_grams import planning_grams
from apportion.annotations.precision_tokens import precision_tokens
from apportion.annotations.segmentation import steps, thoughts
from apportion.annotations.subgoals import subgoals
from apportion.annotations.thinking_scores import thinking_scores
from apportion.annotations.thought_labels import thought_labels

ANNOTATORS: dict[str, Callable[..., Annotator]] = {
    "attention_rhythm": attention_rhythm,
    "attribution": attribution,
    "ches": ches,
    "ches_filter": ches_filter,
    "contrastive_marks": contrastive_marks,
    "critiques": critiques,
    "dimensions": dimensions,
    "hidden_states": hidden_states,
    "latent_reward": latent_reward,
    "macro_actions": macro_actions,
    "partial_sums": partial_sums,
    "precision_tokens": precision_tokens,
    "planning_grams": planning_grams,
    "steps": steps,
    "subgoals": subgoals,
    "thinking_scores": thinking_scores,
    "thought_labels": thought_labels,
    "thoughts": thoughts,
}
