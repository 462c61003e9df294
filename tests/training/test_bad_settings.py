"""What does not fit together is found before a run begins: devices, prompts and contexts, statistics, adapters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError, MissingColumn
from apportion.tasks.task import Task
from apportion.training import checks
from apportion.training.checks import check_prompts
from apportion.training.setup import set_up
from runs import DIGITS, TABULAR


class Bytes:
    """Reads texts byte by byte, with three tokens around them; counts what it is asked."""

    end_ids = ()

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, task: Task) -> list[int]:
        self.asked += 1
        return [1, *task.text.encode(), 2, 3]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()


class Words(Bytes):
    """Fewer tokens than bytes: one for every word of up to 4 characters, else one a character."""

    def encode(self, task: Task) -> list[int]:
        self.asked += 1
        return [1, *(4 for word in task.text.split() for _ in (word if len(word) > 4 else "w")), 2]


@given(
    texts=st.lists(st.text(alphabet="aé∑ 𝔸", min_size=1, max_size=30), min_size=1, max_size=20),
    codec=st.sampled_from([Bytes, Words]),
    beyond=st.integers(-2, 2),
)
def test_a_prompt_is_refused_if_and_only_if_it_is_too_long(texts: list[str], codec: Any, beyond: int) -> None:
    tasks = [Task(text, "1", "texts") for text in texts]
    longest = max(len(codec().encode(task)) for task in tasks)
    context = longest + 4 - beyond
    if beyond > 0:
        with pytest.raises(InputError, match="context"):
            check_prompts(tasks, codec(), context, 4)
    else:
        check_prompts(tasks, codec(), context, 4)


def test_short_prompts_are_not_encoded() -> None:
    codec = Bytes()
    check_prompts([Task("a" * (i % 50), "1", "texts") for i in range(10_000)], codec, 200, 20)
    assert codec.asked == 1


def test_no_more_than_so_many_prompts_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_ENCODED", 7)
    codec = Words()
    texts = [Task(f"{'aa ' * 30}{i}", "1", "texts") for i in range(50)]
    check_prompts(texts, codec, 100, 10)
    assert codec.asked == 8
    texts.append(Task("a" * 99, "1", "texts"))  # the most bytes: looked at among the first
    with pytest.raises(InputError, match="has 101 tokens, which with max_new_tokens 10 exceed"):
        check_prompts(texts, codec, 100, 10)


def test_the_sentence_shows_the_prompt() -> None:
    with pytest.raises(InputError) as refused:
        check_prompts([Task("so\nlong " * 40, "1", "texts")], Bytes(), 64, 8)
    assert "'so long so long so long so long so long '..." in str(refused.value)


def test_a_policy_without_a_limit_takes_any_prompt() -> None:
    check_prompts([Task("a" * 1000, "1", "texts")], Bytes(), None, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:99"}, "device is 'cuda:99', but torch sees"),
        ({"device": "mps"}, "device is 'mps', which has no float64, and credit is summed in it: use --device cpu."),
        ({"device": "meta"}, "device is 'meta', expected auto, cpu, cuda"),
        ({"device": "nothing:at:all"}, "device is 'nothing:at:all', expected auto, cpu, cuda"),
        ({"record": ("entropy", "surprise")}, "unknown policy statistic 'surprise'"),
        ({"warm_start": "imitation(teacher='nowhere:at_all')"}, "cannot import 'nowhere'"),
        ({"model": "digits(heads=3)"}, "hidden=64, layers=2, heads=3"),
        ({"model": "digits(hidden=0)"}, "expected all at least 1 and hidden a multiple of twice heads"),
    ],
    ids=lambda v: "" if isinstance(v, str) else str(v),
)
def test_a_transformer_that_cannot_run(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        set_up(dataclasses.replace(DIGITS, **changes))
    assert message in str(refused.value)


def test_a_table_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"device is 'cuda', but model 'tabular.*' runs on cpu only"):
        set_up(dataclasses.replace(TABULAR, device="cuda"))
    assert set_up(dataclasses.replace(TABULAR, device="auto")).policy.device.type == "cpu"


def test_reading_what_nobody_makes_is_refused() -> None:
    with pytest.raises(MissingColumn) as refused:
        set_up(dataclasses.replace(DIGITS, objective=("value",)))
    assert "values/critic" in str(refused.value)


@pytest.mark.parametrize("rank", [1, 2])
def test_one_module_may_be_named_for_adapters(rank: int) -> None:
    parts = set_up(dataclasses.replace(DIGITS, lora_rank=rank, lora_targets="q_proj"))
    names = [name for name, _ in parts.policy.named_parameters()]
    assert len(names) == 2
    assert all("q_proj.lora_" in name for name in names)
    both = set_up(dataclasses.replace(DIGITS, lora_rank=rank, lora_targets="q_proj,v_proj"))
    assert len(list(both.policy.named_parameters())) == 4


def test_settings_reach_a_model_made_from_scratch() -> None:
    parts = set_up(dataclasses.replace(DIGITS, autocast="bfloat16", dtype="float64", device="cpu"))
    policy: Any = parts.policy
    assert policy.autocast is torch.bfloat16
    assert {p.dtype for _, p in policy.named_parameters()} == {torch.float64}
