"""From tasks to prompt tokens and from response tokens to text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from apportion.errors import InputError
from apportion.tasks.task import Task


class Codec(Protocol):
    """How one policy reads tasks and writes answers.

    Attributes:
        end_ids: tokens that end a response.
    """

    end_ids: tuple[int, ...]

    def encode(self, task: Task) -> list[int]:
        """Prompt tokens of a task."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response."""
        ...


class TokenizerCodec:
    """A Hugging Face tokenizer, with the model's chat template where there is one.

    Args:
        tokenizer: a transformers tokenizer.
        end_ids: tokens that end a response.
        instruction: text around every prompt (the last message of a chat), with ``{prompt}`` in it.
        chat: render prompts as chat messages; None: if the tokenizer has a chat template.

    Raises:
        InputError: ``chat`` asked for without a template.
    """

    def __init__(
        self, tokenizer: Any, end_ids: tuple[int, ...], instruction: str = "{prompt}", chat: bool | None = None
    ) -> None:
        if chat and not tokenizer.chat_template:
            raise InputError("chat=True, but this tokenizer has no chat template: leave chat out or give it one.")
        self.tokenizer, self.end_ids, self.instruction = tokenizer, end_ids, instruction
        self.chat = bool(tokenizer.chat_template) if chat is None else chat

    def encode(self, task: Task) -> list[int]:
        if isinstance(task.prompt, str):
            messages = [{"role": "user", "content": task.prompt}]
        else:
            messages = [dict(m) for m in task.prompt]
        messages[-1]["content"] = self.instruction.replace("{prompt}", messages[-1]["content"])
        text = "\n".join(m["content"] for m in messages)
        if self.chat:
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        # A chat template writes its own special tokens.
        return list(self.tokenizer(text, add_special_tokens=not self.chat).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


class NumberCodec:
    """Tasks whose prompt is a number and responses read as numbers: the tabular policy's.

    Args:
        end_ids: tokens that end a response.
        prompts: how many prompts there are.
    """

    def __init__(self, end_ids: tuple[int, ...] = (), prompts: int = 1) -> None:
        self.end_ids, self.prompts = end_ids, prompts

    def encode(self, task: Task) -> list[int]:
        if not task.text.isdecimal() or int(task.text) >= self.prompts:
            raise InputError(
                f"the prompt {task.text!r} is none of the policy's {self.prompts}: a tabular policy reads the numbers "
                f"0 to {self.prompts - 1}; give it more prompts, or choose other tasks."
            )
        return [int(task.text)]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(str(i) for i in ids)
