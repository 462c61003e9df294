"""What the quickstart must be told besides the name of a method, so that it finds what it needs.

The documents, the tests and ``apportion methods`` read this one table.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Addition:
    """Settings that make the quickstart one in which a method works.

    Attributes:
        settings: of :class:`~apportion.training.config.TrainConfig`, besides the method itself.
        specs: what to write in place of the bare name: arguments that suit the task, or an objective beside others.
        before: a command that makes the file they read.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    specs: tuple[str, ...] = ()
    before: str | None = None


REHEARSE = "apportion rollout runs/quickstart --out rehearse.jsonl --only-right --reference"
PAIRS = "apportion rollout runs/quickstart --out pairs.jsonl --pairs --reference"
AGENT = {"environment": "corridor(length=3, limit=4)", "warm_start": None, "max_new_tokens": 1}
FROM_PAIRS = {"rollouts": "pairs.jsonl", "rollouts_per_step": 2, "prompts_per_step": 0}
ATTENTION = "attention_rhythm(window=2, fai_low=1, fai_high=3)"
SUMS = "('right_sums', 'length', 'form')"
MARKS = "contrastive_marks(better='{answer}{prompt}', worse='={answer}={prompt}')"

CREDIT: dict[str, Addition] = {
    "dapo": Addition({"resample": 2}),
    "gae": Addition({"learners": ("critic",)}),
    "constrained_rlhf": Addition(
        {
            "learners": tuple(f"critic(head='{head}', returns='returns/{head}')" for head in ("outcome", "prm", "kl")),
            "annotators": ("partial_sums",),
            "max_unscored": 1.0,
        },
        specs=("constrained_rlhf(components=('outcome', 'prm'), thresholds=(0.4, 1.0))",),
    ),
    "pure": Addition({"annotators": ("partial_sums",), "max_unscored": 1.0}),
    "capo": Addition({"annotators": ("partial_sums", "critiques")}),
    "tp_grpo": Addition({"annotators": ("partial_sums", "thought_labels")}),
    "trust_grpo": Addition({"annotators": ("thinking_scores",)}),
    "gigpo": Addition(AGENT),
    "calm": Addition({"annotators": ("subgoals",), **AGENT}),
    "oprl": Addition({"learners": ("implicit_prm(learning_rate=1e-3)",), **AGENT}),
    "sotopia_rl": Addition(
        {"annotators": ("attribution(dimensions=('outcome',))",), **AGENT},
        specs=("sotopia_rl(dimensions=('outcome',))",),
    ),
    "edu_align": Addition(
        {"annotators": (f"dimensions(dimensions={SUMS})",)}, specs=(f"edu_align(components={SUMS})",)
    ),
    "attention_rhythm": Addition({"annotators": (ATTENTION,)}, specs=(ATTENTION,)),
    "tree": Addition({"sampling": "branching"}),
    "tree_td": Addition({"sampling": "branching"}),
    "tree_shrunk": Addition({"sampling": "branching"}),
    "vine": Addition({"sampling": "branching"}),
    "hicra": Addition({"annotators": ("planning_grams(grams=['.'])",)}),
    "ma_rlhf": Addition({"annotators": ("macro_actions(rule='fixed(n=2)')",), "learners": ("critic",)}),
    "lare": Addition({"annotators": ("latent_reward(each_token=True)",), "learners": ("return_decoder",)}),
    "token_dpo": Addition({"objective": ("dpo",), **FROM_PAIRS}, before=PAIRS),
}
"""By credit method; one that is not listed needs nothing more."""

OBJECTIVES: dict[str, Addition] = {
    "loop": Addition({"credit": "loop"}),
    "kl": Addition(specs=("clip", "kl")),
    "entropy_bonus": Addition(specs=("clip", "entropy_bonus")),
    "value": Addition({"credit": "gae", "learners": ("critic",)}, specs=("clip", "value")),
    "rover": Addition({"credit": "grpo(norm_by_std=False, singleton='raw')"}),
    "pacs": Addition({"credit": "none(component='outcome')"}),
    "dpo": Addition({"credit": "none", **FROM_PAIRS}, before=PAIRS),
    "t_reg": Addition({"annotators": (MARKS,), "credit": "none", **FROM_PAIRS}, before=PAIRS),
    "mm_dpo": Addition({"credit": "none", **FROM_PAIRS}, before=PAIRS),
    "divergence": Addition(specs=("clip", "divergence")),
    "dph_rl": Addition({"rollouts": "rehearse.jsonl", "rollouts_per_step": 2}, before=REHEARSE),
    "cad_rl": Addition({"credit": "cad_rl", "annotators": ("precision_tokens(pattern='[0-9](?=[.])')",)}),
    "b_coder": Addition(
        {"credit": "none(component='outcome')", "learners": ("pretrained_value(value_steps=1)",)},
        specs=("b_coder(value_steps=1)",),
    ),
}
"""By objective."""

LEARNED: dict[str, Addition] = {
    "implicit_prm": Addition({"credit": "oprl", "learners": ("implicit_prm",), **AGENT}),
    "reward_model": Addition(
        {
            "credit": "grpo(component='rm')",
            "learners": ("reward_model",),
            "rollouts": "pairs.jsonl",
            "rollouts_per_step": 2,
        },
        before=PAIRS,
    ),
    "b_coder_value": Addition(
        {
            "credit": "none(component='outcome')",
            "objective": ("b_coder(value_steps=1)",),
            "learners": ("pretrained_value(value_steps=1)",),
        }
    ),
    "return_decomposition": Addition(
        {"credit": "lare", "annotators": ("latent_reward(each_token=True)",), "learners": ("return_decoder",)}
    ),
}
"""Objectives of models beside the policy, by the run in which such a model is trained on them."""


def settings_for(kind: str, name: str) -> dict[str, Any]:
    """Settings of the quickstart that trains with a method.

    Args:
        kind: ``credit`` or ``objective``.
        name: of the method.

    Example:
        >>> settings_for("credit", "trust_grpo")
        {'credit': 'trust_grpo', 'annotators': ('thinking_scores',)}
    """
    if kind == "objective" and name in LEARNED:
        return dict(LEARNED[name].settings)
    found = addition(kind, name)
    specs = found.specs or (name,)
    return {kind: specs if kind == "objective" else specs[0], **found.settings}


def addition(kind: str, name: str) -> Addition:
    """What to add for a method; nothing for one that is in no table."""
    tables = {"credit": CREDIT, "objective": {**OBJECTIVES, **LEARNED}}
    return tables[kind].get(name, Addition())


def command(kind: str, name: str) -> str:
    """The command line that trains the quickstart with a method.

    Example:
        >>> command("credit", "pure")
        'apportion train quickstart --credit pure --annotators partial_sums --max-unscored 1.0'
    """
    words = ["apportion", "train", "quickstart"]
    for setting, value in settings_for(kind, name).items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{setting.replace('_', '-')}", *(_quoted(str(v)) for v in values)]
    return " ".join(words)


def _quoted(word: str) -> str:
    """A word of a shell command; in double quotes where that reads better."""
    return f'"{word}"' if "'" in word and not set('"$`\\!') & set(word) else shlex.quote(word)
