"""Verifiers that compare text: equality, and the quickstart's running sum."""

from __future__ import annotations

import re
import unicodedata

from apportion.rewards.each import answered, shown
from apportion.rewards.verdict import Verdict, Verifier


def exact(strip: bool = True, casefold: bool = False) -> Verifier:
    """The response is the answer, character for character after Unicode normalisation (NFC).

    Args:
        strip: ignore white space at both ends.
        casefold: ignore case.

    Example:
        >>> from apportion.tasks.task import Task
        >>> exact(casefold=True)([Task("Capital of France?", "Paris", "capitals")], [" paris"])[0].score
        1.0
    """

    def normalised(text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        text = text.strip() if strip else text
        return text.casefold() if casefold else text

    def check(answer: str, response: str) -> Verdict:
        if normalised(answer) == normalised(response):
            return Verdict(1.0, f"the response is {shown(answer)}")
        return Verdict(0.0, f"{shown(response)} is not {shown(answer)}")

    return answered(check)


def running_sum() -> Verifier:
    """The quickstart's check: the response ends in a digit and a full stop, and the digit is the total mod 10.

    The prompt is digits such as ``0453496=6``, the response the partial sums and a full stop, and the task's answer the
    last of them. Partial sums are not checked: the outcome alone is rewarded, and credit has to find the step.

    Example:
        >>> from apportion.tasks.task import Task
        >>> running_sum()([Task("0453496=6", "7", "running_sum")], ["6058217."])[0].score
        1.0
    """

    def check(answer: str, response: str) -> Verdict:
        if not re.fullmatch("[0-9]", answer):
            return Verdict(None, f"the task's answer {shown(answer)} is not one digit")
        if not response.endswith("."):
            return Verdict(0.0, f"{shown(response)} does not end in a full stop")
        last = response[-2:-1]
        if last == answer:
            return Verdict(1.0, f"the last digit is {answer}")
        return Verdict(0.0, f"the last digit is {shown(last)}, not {answer}" if last else "there is no digit")

    return answered(check)
