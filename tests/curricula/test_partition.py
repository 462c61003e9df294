"""Which prompts DPH-RL rehearses, explores and drops."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.curricula.partition import Partition, partition
from apportion.errors import InputError


@given(
    prompts=st.lists(st.tuples(st.integers(0, 8), st.booleans())),
    threshold=st.integers(1, 8),
    failed_check=st.sampled_from(["drop", "explore"]),
)
def test_every_prompt_is_in_one_part(prompts: list[tuple[int, bool]], threshold: int, failed_check: str) -> None:
    counts, extra = [count for count, _ in prompts], [right for _, right in prompts]
    parts = partition(counts, extra, k=8, threshold=threshold, failed_check=failed_check)
    assert sorted(parts.rehearse + parts.explore + parts.dropped) == list(range(len(prompts)))
    assert all(list(part) == sorted(part) for part in (parts.rehearse, parts.explore, parts.dropped))
    assert set(parts.rehearse) == {i for i, (count, right) in enumerate(prompts) if count >= threshold and right}
    failed = {i for i, (count, right) in enumerate(prompts) if count >= threshold and not right}
    assert failed <= set(parts.dropped if failed_check == "drop" else parts.explore)
    assert failed_check == "drop" or not parts.dropped


def test_strict_by_default() -> None:
    assert partition([8, 7], [True, True]) == Partition(rehearse=(0,), explore=(1,), dropped=())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 0}, "the threshold is 0, expected 1 to k=8"),
        ({"threshold": 9}, "the threshold is 9, expected 1 to k=8"),
        ({"k": 2, "threshold": 2}, "a prompt was solved 3 times, expected 0 to k=2"),
        ({"n_correct": [-1, 3]}, "a prompt was solved -1 times, expected 0 to k=8"),
        ({"extra_sample_correct": [True]}, "got 1 extra samples for 2 prompts, expected equal"),
        ({"failed_check": "keep"}, "failed_check is 'keep', expected 'drop' or 'explore'"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    given_input = {"n_correct": [1, 3], "extra_sample_correct": [True, False], "k": 8, "threshold": 8, **changes}
    with pytest.raises(InputError, match=message):
        partition(**given_input)
