"""MA-RLHF: macro actions, their generalised advantages and the losses on them, one response after another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from reference.returns import gae

Numbers = Sequence[float]


def cut(length: int, begins: Sequence[int]) -> list[tuple[int, int]]:
    """Macro actions of a run of tokens: the first token and the last begin one in any case."""
    starts = sorted({0, length - 1, *begins} & set(range(length)))
    return list(itertools.pairwise([*starts, length])) if length else []


def fixed(length: int, n: int) -> list[int]:
    """Every n-th token begins one."""
    return list(range(0, length, n))


def given(sizes: Sequence[int]) -> list[int]:
    """Sizes in order; the rest is one more."""
    return list(itertools.accumulate(sizes))


def rising(perplexities: Numbers) -> list[int]:
    """A token before one of higher perplexity."""
    return [i for i, (one, other) in enumerate(itertools.pairwise(perplexities)) if other > one]


def runs(trained: Sequence[bool]) -> list[tuple[int, int]]:
    """Stretches of trained tokens."""
    stretches, at = [], 0
    for train, group in itertools.groupby(trained):
        before, at = at, at + len(list(group))
        if train:
            stretches.append((before, at))
    return stretches


def weights(size: int, value_function: str) -> list[float]:
    """Of the values of a macro action's tokens."""
    raw = {
        "equal": [1.0] * size,
        "unit": [0.0] * (size - 1) + [1.0],
        "position": [1 / (j + 1) for j in range(size)],
    }[value_function]
    return [w / math.fsum(raw) for w in raw]


def ma_rlhf(
    rewards: Numbers,
    values: Numbers,
    macros: Sequence[tuple[int, int]],
    *,
    gamma: float,
    lam: float,
    reward_reduce: str,
    value_function: str = "equal",
    end_value: float = 0.0,
) -> dict[str, list[float]]:
    """Of one episode; tokens in no macro action get 0."""
    macro_values, macro_rewards = [], []
    for start, end in macros:
        share = weights(end - start, value_function)
        macro_values.append(math.fsum(w * v for w, v in zip(share, values[start:end], strict=True)))
        scale = [1.0] * len(share) if reward_reduce == "sum" else share
        macro_rewards.append(math.fsum(w * r for w, r in zip(scale, rewards[start:end], strict=True)))
    advantages, returns = gae(
        macro_rewards, macro_values, [True] * len(macros), gamma=gamma, lam=lam, end_value=end_value
    )
    on_tokens = [0.0] * len(values)
    for (start, end), advantage in zip(macros, advantages, strict=True):
        on_tokens[start:end] = [advantage] * (end - start)
    return {
        "macro_values": macro_values,
        "macro_rewards": macro_rewards,
        "macro_advantages": advantages,
        "macro_returns": returns,
        "token_advantages": on_tokens,
    }


def actor_loss(log_ratios: Numbers, advantages: Numbers, pieces: Sequence[tuple[int, int]], clip: float) -> float:
    """Mean over pieces of the clipped surrogate, one ratio each."""
    terms = []
    for start, end in pieces:
        ratio, a = math.exp(math.fsum(log_ratios[start:end])), advantages[start]
        terms.append(max(-a * ratio, -a * min(max(ratio, 1 - clip), 1 + clip)))
    return math.fsum(terms) / len(terms)


def critic_loss(values: Numbers, old: Numbers, returns: Numbers, clip: float) -> float:
    """Mean over tokens of the clipped squared error, halved."""
    terms = [
        max((v - r) ** 2, (min(max(v, o - clip), o + clip) - r) ** 2)
        for v, o, r in zip(values, old, returns, strict=True)
    ]
    return 0.5 * math.fsum(terms) / len(terms)
