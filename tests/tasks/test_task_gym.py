"""Tasks from reasoning-gym."""

from __future__ import annotations

import json
import sys

import pytest

from apportion.errors import InputError
from apportion.tasks import normalise, reasoning_gym

pytest.importorskip("reasoning_gym")

ONE_DIGIT = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def test_tasks_carry_what_their_verifier_needs() -> None:
    import reasoning_gym as gym

    source = reasoning_gym("chain_sum", size=40, held_out=8, seed=5, **ONE_DIGIT)
    assert (source.name, source.verifier, len(source.held_out)) == ("chain_sum", "reasoning_gym", 8)
    scorer = gym.get_score_answer_fn("chain_sum")
    for task in (*source.train, *source.held_out):
        assert task.source == "chain_sum"
        assert task.metadata["dataset"] == "chain_sum"
        assert task.metadata["config"] == ONE_DIGIT
        assert task.prompt == task.metadata["entry"]["question"]
        assert scorer(answer=task.answer, entry=task.metadata["entry"]) == 1.0
        assert json.loads(json.dumps(task.metadata))["entry"]["answer"] == task.answer


def test_the_same_seed_gives_the_same_tasks() -> None:
    one, two = (reasoning_gym("letter_counting", size=30, held_out=5, seed=2) for _ in range(2))
    assert (one.train, one.held_out) == (two.train, two.held_out)
    assert one.held_out != reasoning_gym("letter_counting", size=30, held_out=5, seed=40).held_out


def test_the_trap_of_neighbouring_seeds_is_real() -> None:
    """Why seeds cannot divide: the next seed's items are this seed's, moved by one."""
    texts = [
        {task.text for task in (*source.train, *source.held_out)}
        for source in (reasoning_gym("chain_sum", size=50, held_out=5, seed=seed) for seed in (0, 1))
    ]
    assert len(texts[0] & texts[1]) >= 49


def test_a_small_space_is_used_up_and_no_more() -> None:
    source = reasoning_gym("chain_sum", size=5000, held_out=50, **ONE_DIGIT)
    assert len({normalise(task.text) for task in source.train}) == 150
    assert len(source.held_out) == 50
    # Train keeps the repetitions of the prompts that were not held out.
    assert len(source.train) > 3000
    with pytest.raises(InputError) as caught:
        reasoning_gym("chain_sum", size=5000, held_out=256, **ONE_DIGIT)
    assert str(caught.value) == (
        "the reasoning-gym data set 'chain_sum' has 200 distinct prompts in 5000 tasks, so holding out 256 of them "
        "leaves none to train on: ask for held_out below 200, or give more different prompts."
    )


def test_a_set_without_reference_answers() -> None:
    source = reasoning_gym("propositional_logic", size=6, held_out=2)
    assert {task.answer for task in source.train} == {None}


def test_sources_can_be_named() -> None:
    source = reasoning_gym("gcd", size=6, held_out=2, name="easy")
    assert source.name == "easy"
    assert {task.source for task in source.train} == {"easy"}
    assert source.train[0].metadata["dataset"] == "gcd"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dataset": "chain_sums"},
            r"^unknown reasoning-gym data set 'chain_sums': did you mean 'chain_sum'\? Known: ",
        ),
        (
            {"dataset": "chain_sum", "min_term": 2},
            r"^unknown setting of the reasoning-gym data set 'chain_sum' 'min_term': did you mean 'min_terms'\? Known: "
            r"allow_negation, max_digits, max_terms, min_digits, min_terms\.$",
        ),
        (
            {"dataset": "chain_sum", "min_terms": 0},
            r"^the reasoning-gym data set 'chain_sum' cannot be made with min_terms=0: min_terms must be positive\.$",
        ),
        (
            {"dataset": "chain_sum", "min_terms": "two"},
            r"^the reasoning-gym data set 'chain_sum' cannot be made with min_terms='two': '>' not supported",
        ),
        (
            {"dataset": "composite"},
            r"^the reasoning-gym data set 'composite' cannot be made with no settings: Must specify at least one",
        ),
        ({"dataset": "chain_sum", "size": 1}, r"^chain_sum has size=1, expected a whole number of items from 2\.$"),
        ({"dataset": "chain_sum", "size": "9"}, r"^chain_sum has size='9', expected a whole number of items from 2\.$"),
        ({"dataset": "chain_sum", "seed": "x"}, r"^the reasoning-gym data set 'chain_sum' cannot be made with no sett"),
    ],
)
def test_unusable_settings(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        reasoning_gym(**arguments)  # type: ignore[arg-type]


def test_without_reasoning_gym(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(InputError) as caught:
        reasoning_gym("chain_sum")
    assert str(caught.value) == 'reasoning-gym is not installed: run pip install "apportion[train]".'
