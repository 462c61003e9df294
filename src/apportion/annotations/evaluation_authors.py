"""An evaluation function written by a judge: several drafts, one that merges them, tried out and mended.

The judge answers at its own temperature; a draft a candidate needs one above 0 to differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from apportion.annotations import running_sum_factors
from apportion.annotations.judging import Judge, ask
from apportion.annotations.sandbox import NAME, Function, FunctionFailed, Inputs
from apportion.errors import InputError

KEYS = ("understanding", "analysis", "function")
"""What a reply must say, as a JSON object."""


@dataclass(frozen=True)
class Brief:
    """What a judge is told.

    Attributes:
        task: what the agent is to do.
        layout: what the inputs of the function are.
    """

    task: str
    layout: str

    def first(self) -> str:
        """The request for a function."""
        return f"""An agent acts step by step and is told only at the end how well it did. Find out which step earned \
what: write a Python function that scores single steps by several criteria, from which a reward of every step will be \
learned.

The task: {self.task}

{self.layout}

First understand the task, then analyse which criteria say how much a step contributes to the final result, then write
def {NAME}(observation, action): ... return [factor_1, factor_2, ...]
It gets a batch of B decisions and returns a list of numpy arrays of shape (B, 1), one a criterion, all finite: avoid \
division by zero. It may use numpy (as np) and math and nothing else, no file and no network, and no information that \
is not in its inputs.
{_FORM}"""

    def merge(self, drafts: Sequence[str]) -> str:
        """The request to make one function of several replies."""
        shown = "\n\n".join(f"Proposal {i + 1}:\n{draft}" for i, draft in enumerate(drafts))
        return f"""{self.first()}

Here are {len(drafts)} proposals. Write one function that covers all criteria in them that matter, each once.

{shown}"""

    def repair(self, reply: str, problem: str) -> str:
        """The request to mend a reply."""
        return f"""{self.first()}

You replied:
{reply}

It was tried and cannot be used: {problem}
Reply again in the same form with what is wrong mended."""


_FORM = (
    "Reply with a JSON object and nothing else, with the keys "
    f"{', '.join(map(repr, KEYS[:-1]))} (texts) and {KEYS[-1]!r} (the Python code as a text)."
)


def source_in(reply: str) -> str:
    """The code in a reply: of the JSON object that begins at its first brace, whatever is around it.

    Raises:
        ValueError: there is no such object, or no code in it.

    Example:
        >>> source_in('Sure! {"understanding": "", "analysis": "", "function": "def evaluation_func(o, a): ..."}')
        'def evaluation_func(o, a): ...'
    """
    start = reply.find("{")
    if start < 0:
        raise ValueError(f"there is no JSON object in the reply; {_FORM}")
    try:
        found, _ = json.JSONDecoder(strict=False).raw_decode(reply, start)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the JSON object cannot be read ({error}); {_FORM}") from None
    code = found.get(KEYS[-1])
    if not isinstance(code, str) or f"def {NAME}" not in code:
        raise ValueError(f"the object has no {KEYS[-1]!r} that defines {NAME}; {_FORM}")
    return code


def write_function(
    judge: Judge,
    brief: Brief,
    make: Callable[[str], Function],
    observation: Inputs,
    action: Inputs,
    candidates: int = 5,
    repairs: int = 5,
) -> str:
    """The source of a function that passes on a few decisions.

    With more than one candidate, that many replies are asked for and then one that merges them. The reply is tried;
    while it fails, it goes back with what went wrong.

    Args:
        judge: who writes.
        brief: what it is told.
        make: from source to the function as it will run.
        observation: of the decisions to try it on.
        action: likewise.
        candidates: replies before the merge; 1: no merge.
        repairs: how often a failing reply is sent back.

    Raises:
        InputError: it still fails after the last repair.

    Source: arXiv 2412.11120; thu-rllab/LaRe.
    """

    def said(prompts: Sequence[str]) -> list[str]:
        return [reply or "" for reply in ask(judge, prompts, str)]

    replies = said([brief.first()] * candidates)
    reply = replies[0] if candidates == 1 else said([brief.merge(replies)])[0]
    for attempt in range(repairs + 1):
        try:
            source = source_in(reply)
            make(source)(observation, action)
            return source
        except (FunctionFailed, ValueError) as error:
            problem = str(error)
        if attempt < repairs:
            [reply] = said([brief.repair(reply, problem)])
    raise InputError(
        f"the judge wrote no evaluation function that works in {repairs + 1} attempts, the last because {problem} "
        "Ask another judge, or write the function yourself and name its file."
    )


def running_sum_author() -> Judge:
    """A scripted author for running sums: it forgets the second dimension of its factors, and mends that when told."""
    good = Path(running_sum_factors.__file__).read_text(encoding="utf-8")
    bad = good.replace(".reshape(-1, 1)", "")

    def author(prompts: Sequence[str]) -> list[str]:
        if not all("digits before the equals sign" in prompt for prompt in prompts):
            raise InputError(
                "the scripted author running_sum_author writes functions for inputs 'running_sum' and was asked for "
                "another: name a judge of your own, with judge='package.module:name'."
            )
        codes = [good if "It was tried" in prompt else bad for prompt in prompts]
        return [
            json.dumps(dict(zip(KEYS, ("a sum modulo ten", "digits follow or not", c), strict=True))) for c in codes
        ]

    return author


AUTHORS: dict[str, Callable[..., Judge]] = {"running_sum_author": running_sum_author}
"""Judges by name that write evaluation functions."""
