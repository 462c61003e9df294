"""Marks of tokens by the model itself: likelier when asked to make the answer better than when asked to spoil it.

Suffix legend: N tokens, B responses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from apportion.annotations.annotator import Annotator
from apportion.errors import InputError, MissingColumn
from apportion.models.measuring import measure, micro_batches
from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.columns import split_name
from apportion.rollouts.makers import maker_of
from apportion.tasks.task import Task

BETTER = (
    "Below is a question and an answer to it. Revise the answer into a better one: more helpful, correct, coherent "
    "and concise.\n\nQuestion: {prompt}\n\nAnswer: {answer}\n\nBetter answer:"
)
WORSE = (
    "Below is a question and an answer to it. Revise the answer into a worse one: unhelpful, incorrect, incoherent "
    "and verbose.\n\nQuestion: {prompt}\n\nAnswer: {answer}\n\nWorse answer:"
)
"""In the spirit of the paper, whose wording was not found."""


def marks(better: Tensor, worse: Tensor) -> Tensor:
    """``sigmoid(better - worse) - 0.5`` from log-probs of the same tokens after two prompts ``[N]``.

    Example:
        >>> marks(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -50.0])).tolist()
        [0.0, 0.5]
    """
    return torch.sigmoid(better - worse) - 0.5


def contrastive_marks(
    better: str = BETTER,
    worse: str = WORSE,
    evaluator: Literal["old", "reference"] = "reference",
    chat: bool | None = None,
    micro_batch_tokens: int = 1 << 14,
) -> Annotator:
    """Token column ``mark/contrastive``, between -0.5 and 0.5.

        mark_t = sigmoid(log pi(y_t | better, y_<t) - log pi(y_t | worse, y_<t)) - 0.5

    The answer y is scored as sampled, token by token, behind each of two prompts that show it; a token that is
    likelier where a better answer is asked for gets a positive mark. Equal templates mark nothing.

    Args:
        better: asks for a better answer; ``{prompt}`` and ``{answer}`` stand for the texts.
        worse: asks for a worse one.
        evaluator: who scores: the ``reference`` policy (the paper) or the ``old`` one, as it is before the update.
        chat: put the templates into the model's chat template; None: if it has one.
        micro_batch_tokens: padded tokens in one forward pass.

    Needs ``response:text`` and ``response:prompt_text``. A growing response of several turns is scored as one answer.

    Raises:
        InputError: an unknown evaluator, or a template without ``{answer}``; when applied, a template filled in that
            leaves no room for the answer in the model's context.

    Source: arXiv 2412.02685.
    """
    for name, template in (("better", better), ("worse", worse)):
        if "{answer}" not in template:
            raise InputError(f"the template {name!r} does not show the answer: write {{answer}} where it is to stand.")

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        sides = [_log_probs(rollouts, policy, template, chat, micro_batch_tokens) for template in (better, worse)]
        values = marks(*sides)
        return rollouts.with_statistic("mark/contrastive", values, "contrastive_marks", evaluator=evaluator)

    return Annotator(apply, ("mark/contrastive",), evaluator)


def _log_probs(rollouts: Rollouts, policy: Any, template: str, chat: bool | None, most: int) -> Tensor:
    """Log-probs of the trained tokens behind a template ``[N]``, 0 elsewhere."""
    asked = with_prompts(rollouts, policy, template, chat)
    return measure(policy, asked, ["log_probs"], micro_batches(asked, most))["log_probs"]


def with_prompts(rollouts: Rollouts, policy: Any, template: str, chat: bool | None = None) -> Rollouts:
    """The same tokens behind other prompts: a template with the texts of every response.

    Args:
        rollouts: with ``response:text`` and ``response:prompt_text``.
        policy: whose tokenizer writes the prompts.
        template: may contain ``{prompt}`` and ``{answer}``; what the texts contain is left as it is.
        chat: put it into the model's chat template; None: if it has one.

    Raises:
        MissingColumn: no texts.
        InputError: a response without text, or a prompt that leaves no room for the response.
    """
    for name in ("response:text", "response:prompt_text"):
        if name not in rollouts.columns:
            raise MissingColumn(name, "a prompt about an answer", maker_of(split_name(name)[1]))
    texts = zip(rollouts.columns["response:prompt_text"].text, rollouts.columns["response:text"].text, strict=True)
    codec, rows = policy.codec("{prompt}", chat), []
    for prompt, answer in texts:
        if prompt is None or answer is None:
            raise InputError("a response has no text, expected prompt_text and text of every response: add them.")
        rows.append(codec.encode(Task(_filled(template, prompt, answer), None, "contrastive_marks")))
    ids, offsets = ragged.flatten(rows, torch.int64)
    longest = ragged.lengths_of(offsets) + ragged.lengths_of(rollouts.token_offsets).cpu()
    context = policy.context
    if len(longest) and int(longest.max()) > context:
        raise InputError(
            f"a filled-in template and its answer have {int(longest.max())} tokens, expected at most {context}, the "
            "model's context: give shorter templates."
        )
    at = rollouts.device
    numbers = torch.arange(rollouts.n_responses, device=at)
    return replace(rollouts, prompt_ids=ids.to(at), prompt_offsets=offsets.to(at), prompts=numbers)


def _filled(template: str, prompt: str, answer: str) -> str:
    """The template with both texts in; braces in the texts stay what they are."""
    parts = (part.replace("{prompt}", prompt) for part in template.split("{answer}"))
    return answer.join(parts)
