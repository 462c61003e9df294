"""Judges that are scripts: they read their prompt and write a reply as a model would, about running sums only.

They go through the prompts, parsers and retries of real judges, so methods that need one train on the quickstart. They
depend on what they are asked alone, so a resumed run hears the same.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from apportion.annotations.judging import Judge
from apportion.annotations.partial_sums import step_scores
from apportion.errors import InputError
from apportion.tasks.running_sum import solve


@dataclass(frozen=True)
class _Sum:
    """A running sum and its answer, as a prompt shows them.

    Attributes:
        problem: such as ``0453496=6``.
        pieces: the answer, cut as the prompt cuts it.
        suffix: what the prompt's tags end with.
    """

    problem: str
    pieces: list[str]
    suffix: str

    @staticmethod
    def read(prompt: str, name: str) -> _Sum:
        problem = re.search(r"<problem(-[0-9]+|)>(.*?)</problem\1>", prompt, re.DOTALL)
        suffix = problem.group(1) if problem else ""
        whole = re.search(rf"<(solution|thinking){suffix}>(.*?)</\1{suffix}>", prompt, re.DOTALL)
        if problem is None or whole is None or not re.fullmatch("[0-9]+=[0-9]", problem.group(2)):
            raise InputError(
                f"the scripted judge {name} reads running sums such as '0453496=6' and was asked about something "
                "else: name a judge of your own, with judge='package.module:name'."
            )
        steps = re.findall(rf"<step_([0-9]+){suffix}>(.*?)</step_\1{suffix}>", whole.group(2), re.DOTALL)
        return _Sum(problem.group(2), [text for _, text in steps] or [whole.group(2)], suffix)

    def steps_at(self, places: Sequence[int]) -> list[int]:
        """The steps that characters of the answer are in."""
        ends = list(accumulate(len(piece) for piece in self.pieces))
        return sorted({sum(end <= place for end in ends) for place in places})

    def reply(self, remark: str, name: str, content: str) -> str:
        """A remark and something between tags."""
        return f"{remark}\n<{name}{self.suffix}>{content}</{name}{self.suffix}>"


def running_sum_critic(flip: float = 0.1, seed: int = 0) -> Judge:
    """Lists steps that do not follow from the one before, with noise.

    Args:
        flip: probability that it says the contrary of a step; every critique of a response errs in its own way.
        seed: of the noise, which depends on the prompt and on how often the same was asked beside it.
    """
    if not 0 <= flip <= 1:
        raise InputError(f"flip is {flip}, expected a probability from 0 to 1.")

    def running_sum_critic(prompts: Sequence[str]) -> list[str]:
        asked: Counter[str] = Counter()
        replies = []
        for prompt in prompts:
            dice = _dice(seed, asked[prompt], prompt)
            asked[prompt] += 1
            one = _Sum.read(prompt, "running_sum_critic")
            scores = step_scores(one.problem, "".join(one.pieces))
            wrong = set(one.steps_at([place for place, score in enumerate(scores) if score == -1]))
            said = [step for step in range(len(one.pieces)) if (step in wrong) != (dice.random() < flip)]
            listed = ", ".join(map(str, said))
            replies.append(one.reply("Every step was added up again.", "wrong_steps", listed))
        return replies

    return running_sum_critic


def running_sum_labels() -> Judge:
    """Lists partial sums of right responses that are not the true ones, and of wrong ones those off by as much as the
    last digit is."""

    def running_sum_labels(prompts: Sequence[str]) -> list[str]:
        replies = []
        for prompt in prompts:
            one = _Sum.read(prompt, "running_sum_labels")
            answer = "".join(one.pieces)
            both = list(enumerate(zip(answer, solve(one.problem), strict=False)))
            off = {i: (int(mine) - int(true)) % 10 for i, (mine, true) in both if (mine + true).isdecimal()}
            if "<incorrect_steps" in prompt:
                name, listed = "incorrect_steps", [i for i, (mine, true) in both if mine != true]
            else:
                last = off[max(off)] if off else None
                name, listed = "matching_steps", [i for i, error in off.items() if error == last]
            steps = ", ".join(map(str, one.steps_at(listed)))
            replies.append(one.reply("Every partial sum was compared.", name, steps))
        return replies

    return running_sum_labels


def running_sum_thinking() -> Judge:
    """Scores the share of characters that follow from the one before."""

    def running_sum_thinking(prompts: Sequence[str]) -> list[str]:
        replies = []
        for prompt in prompts:
            one = _Sum.read(prompt, "running_sum_thinking")
            scores = step_scores(one.problem, "".join(one.pieces))
            share = sum(score == 1 for score in scores) / max(len(scores), 1)
            replies.append(one.reply("Every step was added up again.", "score", f"{share:.2f}"))
        return replies

    return running_sum_thinking


def _dice(seed: int, copy: int, prompt: str) -> random.Random:
    """Random numbers of the text alone, the same on every machine."""
    return random.Random(hashlib.sha256(f"{seed} {copy} {prompt}".encode("utf-8", "surrogatepass")).digest())


JUDGES: dict[str, Callable[..., Judge]] = {
    "running_sum_critic": running_sum_critic,
    "running_sum_labels": running_sum_labels,
    "running_sum_thinking": running_sum_thinking,
}
"""Scripted judges by name."""
