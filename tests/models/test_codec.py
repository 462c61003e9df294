"""From tasks to prompt tokens and back: chat templates, instructions, digits, numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.models.codec import NumberCodec, TokenizerCodec
from apportion.models.digits import EQUALS, PAD, STOP, digit_llama
from apportion.models.huggingface import load
from apportion.tasks.running_sum import running_sum, solve
from apportion.tasks.task import Task
from own_model import save_own_model

DIGITS = digit_llama()


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(save_own_model(tmp_path_factory.mktemp("chat"))).tokenizer


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(save_own_model(tmp_path_factory.mktemp("plain"), chat=False)).tokenizer


def read(tokenizer: Any, task: Task, **settings: Any) -> str:
    return str(tokenizer.decode(TokenizerCodec(tokenizer, (0,), **settings).encode(task)))


QUESTION = Task("1 + 1?", "2", "sums")
TALK = Task(
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}),
    "2",
    "sums",
)


def test_a_template_is_used_where_there_is_one(chat: Any, plain: Any) -> None:
    assert read(chat, QUESTION) == "<|user|>1 + 1?<|end|><|assistant|>"
    assert read(plain, QUESTION) == "1 + 1?"
    assert read(chat, QUESTION, chat=False) == "1 + 1?"
    assert read(chat, QUESTION, chat=True) == read(chat, QUESTION)
    with pytest.raises(InputError, match="this tokenizer has no chat template: leave chat out or give it one"):
        TokenizerCodec(plain, (0,), chat=True)


def test_messages_keep_their_roles(chat: Any, plain: Any) -> None:
    assert read(chat, TALK) == "<|system|>Be brief.<|end|><|user|>1 + 1?<|end|><|assistant|>"
    assert read(plain, TALK) == "Be brief.\n1 + 1?"


def test_the_instruction_goes_around_the_question(chat: Any, plain: Any) -> None:
    settings = {"instruction": "Q: {prompt} A:"}
    assert read(plain, QUESTION, **settings) == "Q: 1 + 1? A:"
    assert read(chat, QUESTION, **settings) == "<|user|>Q: 1 + 1? A:<|end|><|assistant|>"
    # Of several messages the last is the question.
    assert read(chat, TALK, **settings) == "<|system|>Be brief.<|end|><|user|>Q: 1 + 1? A:<|end|><|assistant|>"
    assert read(plain, TALK, **settings) == "Be brief.\nQ: 1 + 1? A:"
    assert TALK.prompt[1]["content"] == "1 + 1?"  # type: ignore[index]


def test_braces_in_a_question_are_just_that(plain: Any) -> None:
    assert read(plain, Task("{x} {prompt}", None, "braces"), instruction="<{prompt}>") == "<{x} {prompt}>"


def test_special_tokens_are_not_added_to_a_template(chat: Any) -> None:
    codec = TokenizerCodec(chat, (0,))
    ids = codec.encode(QUESTION)
    assert [chat.convert_ids_to_tokens(i) for i in (ids[0], ids[-2], ids[-1])] == [
        "<|user|>",
        "<|end|>",
        "<|assistant|>",
    ]
    assert ids.count(0) == 1


def test_a_tokenizer_that_begins_texts_with_a_token_does_so_without_a_template_only(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = load(save_own_model(tmp_path)).tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<|system|> $A", special_tokens=[("<|system|>", 3)])
    assert read(tokenizer, QUESTION) == "<|user|>1 + 1?<|end|><|assistant|>"
    assert read(tokenizer, QUESTION, chat=False) == "<|system|>1 + 1?"


@given(st.text(max_size=20))
def test_responses_are_read_as_they_were_written(text: str) -> None:
    tokenizer = _byte_level()
    codec = TokenizerCodec(tokenizer, (0,))
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if not any(i < 4 for i in ids):  # the text does not spell a special token
        assert codec.decode(ids) == text
        assert codec.decode([*ids, 0]) == text  # the end of a response is not text


_CACHE: list[Any] = []


def _byte_level() -> Any:
    if not _CACHE:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            _CACHE.append(load(save_own_model(Path(folder) / "model")).tokenizer)
    return _CACHE[0]


@given(st.text(alphabet="0123456789" + EQUALS + STOP, min_size=1, max_size=30))
def test_digits_survive(text: str) -> None:
    codec = DIGITS.codec()
    ids = codec.encode(Task(text, "0", "digits"))
    assert len(ids) == len(text)
    assert codec.decode(ids) == text


def test_every_digit_is_a_token_of_its_own_and_a_response_ends_with_the_stop() -> None:
    tokenizer, codec = DIGITS.tokenizer, DIGITS.codec()
    assert len(tokenizer) == 13 == DIGITS.vocabulary
    assert tokenizer(f"0123456789{EQUALS}{STOP}").input_ids == list(range(1, 13))
    assert tokenizer.pad_token == PAD
    assert codec.end_ids == (12,)
    for task in running_sum(digits=8, train=50, held_out=0).train:
        assert codec.encode(task)[-2] == 11
        assert tokenizer(solve(task.text)).input_ids[-1] == codec.end_ids[0]


def test_the_digits_tokenizer_survives_a_file(tmp_path: Path) -> None:
    DIGITS.save(tmp_path)
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("0453496=6").input_ids == DIGITS.tokenizer("0453496=6").input_ids
    assert again.decode([7, 1, 6]) == "605"
    assert load(tmp_path).codec().end_ids == (12,)


def test_all_ends_count(tmp_path: Path) -> None:
    policy = load(save_own_model(tmp_path))
    policy.model.generation_config.eos_token_id = [3, 1]
    assert policy.codec().end_ids == (0, 1, 3)
    policy.model.generation_config.eos_token_id = 2
    assert policy.codec().end_ids == (0, 2)


@pytest.mark.parametrize("text", ["4", "-1", "one", "1.0", "", "²"])
def test_a_number_that_is_no_prompt(text: str) -> None:
    codec = NumberCodec(prompts=4)
    assert codec.encode(Task("3", "3", "numbers")) == [3]
    with pytest.raises(InputError, match="a tabular policy reads the numbers 0 to 3"):
        codec.encode(Task(text, "3", "numbers"))
    assert codec.decode([3, 10]) == "3 10"
