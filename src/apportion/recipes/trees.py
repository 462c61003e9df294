"""Small tasks in which it matters which token earned the reward: where do trees help?

Each begins with the imitation of a teacher who errs at known places, like the quickstart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from apportion.recipes.quickstart import quickstart
from apportion.tasks import Source, Task, reasoning_gym
from apportion.tasks.running_sum import solve
from apportion.training.config import TrainConfig

FIRST_SUMS = 3
"""Partial sums that the verifier of :func:`late_noise` looks at."""

_HERE = "apportion.recipes.trees"


def late_noise() -> TrainConfig:
    """Many irrelevant late tokens: twelve digits are added, and only the first three partial sums are checked.

    Eight of the twelve tokens of an answer, and the errors the teacher made in them, have no part in its reward.
    """
    return _small(
        tasks=("running_sum(digits=12, train=4000)",),
        verifier=f"{_HERE}:first_sums",
        warm_start="imitation(teacher='apportion.tasks.running_sum:demonstrate')",
        max_new_tokens=12,
    )


def early_choice() -> TrainConfig:
    """An early decisive choice: the first partial sum is wrong in most answers, and all later ones follow from it.

    The last digit is checked, so a slip anywhere is punished alike; but nine slips in ten are in the first token.
    """
    return _small(
        tasks=("running_sum(digits=8, train=4000)",),
        warm_start=f"imitation(teacher='{_HERE}:hasty')",
        max_new_tokens=8,
    )


def spelling() -> TrainConfig:
    """Words backwards, from reasoning-gym: every letter counts, and no prefix of an answer is common to many."""
    return _small(
        model="characters",
        tasks=(f"{_HERE}:backwards",),
        warm_start=f"imitation(teacher='{_HERE}:careless', target=0.6)",
        max_new_tokens=6,
    )


def middle_choice() -> TrainConfig:
    """A decisive choice in the middle: the fourth of seven partial sums is wrong in most answers."""
    return _small(
        tasks=("running_sum(digits=8, train=4000)",),
        warm_start=f"imitation(teacher='{_HERE}:distracted')",
        max_new_tokens=8,
    )


def _small(**settings: object) -> TrainConfig:
    values = {"model": "digits", "steps": 60, "eval_prompts": 256, "save_every": 60, "keep_checkpoints": 1}
    return TrainConfig(**{**_of_quickstart(), **values, **settings})  # type: ignore[arg-type]


def _of_quickstart() -> dict[str, object]:
    given = quickstart()
    names = ("objective", "prompts_per_step", "group_size", "learning_rate", "beta2", "threads")
    return {name: getattr(given, name) for name in names}


def first_sums(prompt: str, response: str, answer: str | None) -> bool:
    """Whether the first three partial sums are right, whatever follows.

    Example:
        >>> first_sums("0453496=6", "6050000.", None), first_sums("0453496=6", "605", None)
        (True, True)
        >>> first_sums("0453496=6", "6158217.", None)
        False
    """
    return response[:FIRST_SUMS] == solve(prompt)[:FIRST_SUMS]


def hasty(prompt: str, rng: np.random.Generator) -> str:
    """A teacher who writes one too much in the first partial sum, 7 times in 10, and later 1 time in 50; the sums that
    follow go on from what was written.

    Args:
        prompt: as ``running_sum`` makes them.
        rng: gives one draw a step.
    """
    return _slipping(prompt, rng, at=0)


def distracted(prompt: str, rng: np.random.Generator) -> str:
    """The same, but the sum that is mostly wrong is the fourth."""
    return _slipping(prompt, rng, at=3)


def _slipping(prompt: str, rng: np.random.Generator, at: int) -> str:
    right = solve(prompt)[:-1]
    rate = np.full(len(right), 0.02)
    rate[at] = 0.7
    offset, written = 0, []
    for digit, slip in zip(right, rng.random(len(right)) < rate, strict=True):
        offset += int(slip)
        written.append(str((int(digit) + offset) % 10))
    return "".join(written) + "."


def backwards(words: int = 4000, held_out: int = 512, seed: int = 0) -> Source:
    """The words of reasoning-gym's ``spell_backward`` as bare prompts, ``sun=`` for ``nus.``, of three to five letters.

    Args:
        words: items to take from it; repetitions and words with capitals are left out.
        held_out: words to evaluate on.
        seed: of its generator and of the division.
    """
    every = reasoning_gym("spell_backward", size=words, held_out=2, seed=seed, min_word_len=3, max_word_len=5)
    found = sorted({task.metadata["entry"]["metadata"]["word"] for task in (*every.train, *every.held_out)})
    tasks = [Task(f"{word}=", f"{word[::-1]}.", "backwards") for word in found if word.isascii() and word.islower()]
    return Source.divided("backwards", tasks, held_out, seed, "exact", "reasoning-gym's spell_backward")


def careless(prompt: str, rng: np.random.Generator) -> str:
    """A teacher who spells words backwards and takes one vowel for the next, 1 time in 3.

    Example:
        >>> careless("bcd=", np.random.default_rng(0))
        'dcb.'
    """
    word = prompt.partition("=")[0][::-1]
    slips = rng.random(len(word)) < 1 / 3
    vowels = "aeioua"
    written = [vowels[vowels.index(c) + 1] if slip and c in vowels else c for c, slip in zip(word, slips, strict=True)]
    return "".join(written) + "."


RECIPES_OF_TREES: dict[str, Callable[[], TrainConfig]] = {
    "late_noise": late_noise,
    "early_choice": early_choice,
    "spelling": spelling,
    "middle_choice": middle_choice,
}
