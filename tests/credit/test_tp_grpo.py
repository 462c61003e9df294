"""What is TP-GRPO's own: thoughts, the closed form of their accumulated rewards, and labels that fit the outcome."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given

from apportion.credit import METHODS, Credit
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from credit.cases import close
from credit.worlds import DICE

SHORT = {"c": "correct", "i": "incorrect", "m": "match", "u": "uncertain", "?": None}


def labelled(
    labels: Sequence[str],
    rewards: Sequence[float],
    *,
    groups: Sequence[int] | None = None,
    size: int = 1,
    after: int = 0,
    **given: Any,
) -> Rollouts:
    """Responses whose steps have ``size`` tokens, and ``after`` tokens follow; a letter a step."""
    ids = [[0] * (size * len(row) + after) for row in labels]
    rollouts = Rollouts.from_lists(ids, groups=groups or [0] * len(ids), rewards=rewards, **given)
    starts = [
        first + size * j
        for first, row in zip(rollouts.token_offsets.tolist(), labels, strict=False)
        for j in range(len(row))
    ]
    places = torch.tensor(starts, dtype=torch.int64)
    rollouts = rollouts.with_spans("step", places, places + size)
    return rollouts.with_column("step:label", [SHORT[letter] for row in labels for letter in row])


def tp_grpo(rollouts: Rollouts, **settings: Any) -> Credit:
    return METHODS["tp_grpo"](**settings)(rollouts)


def detail(credit: Credit, name: str) -> list[Any]:
    return credit.columns[name.replace(":", ":credit/")].tensor.tolist()


def test_a_right_and_a_wrong_response_by_hand() -> None:
    credit = tp_grpo(labelled(["cic", "um"], [1.0, 0.0], size=2, after=1), eps=0.0)
    high = math.sqrt(0.5)
    expected = [high] * 2 + [high - 0.5] * 2 + [high] * 3 + [0.0] * 2 + [-high] * 3
    assert credit.advantages.tolist() == pytest.approx(expected)
    assert detail(credit, "episode:process_size") == [0.5, 0.5]
    assert detail(credit, "step:thought") == [0, 1, 2, 0, 1]
    assert detail(credit, "step:process_reward") == pytest.approx([0.5, -0.5, 0.0, high, 0.0])


@given(dice=DICE)
def test_the_closed_form_is_the_rewards_of_thoughts_accumulated(dice: random.Random) -> None:
    rewards = [float(dice.random() < 0.5) for _ in range(dice.randint(1, 6))]
    labels = ["".join(dice.choices("ci" if r else "mu", k=dice.randint(0, 6))) + ("c" if r else "m") for r in rewards]
    groups = dice.choices([0, 1], k=len(rewards))
    credit = tp_grpo(labelled(labels, rewards, groups=groups), alpha=dice.choice([0.0, 0.3, 1.0]))
    outcomes = detail(credit, "episode:standardised_outcome")
    thoughts, process = detail(credit, "step:thought"), detail(credit, "step:process_reward")
    at, expected = 0, []
    for outcome, row in zip(outcomes, labels, strict=True):
        mine = list(zip(thoughts[at : at + len(row)], process[at : at + len(row)], strict=True))
        assert [len(list(run)) for _, run in groupby(mine)] == [len(list(run)) for _, run in groupby(row)]
        once = dict(mine)  # a reward a thought, not a step
        expected += [outcome + math.fsum(r for later, r in once.items() if later >= own) for own, _ in mine]
        at += len(row)
    close(credit.advantages, torch.tensor(expected, dtype=torch.float64))


def test_many_small_steps_count_no_more_than_one() -> None:
    few, many = labelled(["ic", "m"], [1.0, 0.0], size=3), labelled(["iiiccc", "mmm"], [1.0, 0.0])
    assert torch.equal(tp_grpo(few).advantages, tp_grpo(many).advantages)


def test_labels_without_errors_are_grpo() -> None:
    rollouts = labelled(["ccc", "mm", "m"], [1.0, 0.0, 0.0], after=1)
    close(tp_grpo(rollouts, r_incorrect=0.0).advantages, METHODS["grpo"](eps=1e-4)(rollouts).advantages)


def test_a_group_that_is_all_right_learns_from_its_errors() -> None:
    credit = tp_grpo(labelled(["ic", "cic"], [1.0, 1.0]), alpha=0.25, eps=0.0)
    assert credit.advantages.tolist() == [-0.25, 0.0, 0.0, -0.25, 0.0]


def test_a_group_that_is_all_wrong_learns_nothing() -> None:
    assert not tp_grpo(labelled(["um", "muum"], [0.0, 0.0]), eps=0.0).advantages.any()


def test_a_group_of_one_has_no_outcome_to_compare() -> None:
    assert tp_grpo(labelled(["ic"], [1.0])).advantages.tolist() == [-1.0, 0.0]
    assert not tp_grpo(labelled(["um"], [0.0])).advantages.any()


def test_the_process_reward_grows_with_the_solve_rate() -> None:
    for right in range(1, 5):
        labels, rewards = ["ic"] * right + ["m"] * (4 - right), [1.0] * right + [0.0] * (4 - right)
        credit = tp_grpo(labelled(labels, rewards), alpha=0.5)
        assert float(credit.advantages[1] - credit.advantages[0]) == pytest.approx(0.5 * right / 4)


def test_only_the_standardised_outcome_depends_on_what_an_outcome_is_worth() -> None:
    rollouts = labelled(["ic", "um", "m"], [1.0, 0.0, 0.0])
    close(tp_grpo(rollouts, eps=0.0, r_incorrect=0.0).advantages, tp_grpo(rollouts, eps=0.0).advantages)
    close(tp_grpo(rollouts, r_correct=7.0, r_incorrect=5.0).advantages, tp_grpo(rollouts).advantages)
    assert not torch.equal(tp_grpo(rollouts, r_incorrect=0.0).advantages, tp_grpo(rollouts).advantages)


# Steps and tokens


def test_a_response_without_steps_is_all_outcome() -> None:
    credit = tp_grpo(labelled(["", "um"], [1.0, 0.0], after=2))
    high = 1 / (math.sqrt(2) + 1e-4)
    assert credit.advantages.tolist() == pytest.approx([high, high, 0.0, -high, -high, -high])


def test_steps_may_skip_what_is_not_trained() -> None:
    rollouts = Rollouts.from_lists([[0] * 4, [0]], groups=[0, 0], rewards=[1.0, 0.0], trained=[[1, 0, 1, 1], [1]])
    rollouts = rollouts.with_spans("step", torch.tensor([0, 2, 4]), torch.tensor([1, 4, 5]))
    credit = tp_grpo(rollouts.with_column("step:label", ["incorrect", "correct", "match"]), eps=0.0)
    high = math.sqrt(0.5)
    assert credit.advantages.tolist() == pytest.approx([high - 0.5, 0.0, high, high, -high])


@pytest.mark.parametrize("start", [1, 2])
def test_trained_tokens_in_no_step_before_the_last(start: int) -> None:
    rollouts = Rollouts.from_lists([[0] * 4], groups=[0], rewards=[1.0])
    first = [] if start == 1 else [0]
    starts = torch.tensor([*first, start])
    rollouts = rollouts.with_spans("step", starts, starts + 1)
    with pytest.raises(InputError, match="1 trained tokens before the last step of their episode are in none"):
        tp_grpo(rollouts.with_column("step:label", ["correct"] * len(starts)))


def test_thoughts_go_on_from_one_response_of_an_episode_to_the_next() -> None:
    whole, parts = (
        labelled(["ciic", "m"], [1.0, 0.0]),
        labelled(["ci", "ic", "m"], [1.0, 0.0], groups=[0, 0, 0], episodes=[0, 0, 1]),
    )
    assert torch.equal(tp_grpo(whole).advantages, tp_grpo(parts).advantages)
    assert detail(tp_grpo(parts), "step:thought") == [0, 1, 1, 2, 0]


# Labels


@pytest.mark.parametrize("labels", ["?", "?????", "c?c"])
def test_an_episode_without_all_its_labels_keeps_the_outcome_and_is_counted(labels: str) -> None:
    credit = tp_grpo(labelled([labels, "ic", "um"], [1.0, 1.0, 0.0]))
    outcomes = detail(credit, "episode:standardised_outcome")
    assert credit.advantages[: len(labels)].tolist() == [outcomes[0]] * len(labels)
    assert detail(credit, "episode:unlabelled") == [True, False, False]
    assert detail(credit, "step:process_reward")[: len(labels)] == [0.0] * len(labels)
    # It is still one of those that were right.
    assert detail(credit, "episode:process_size") == pytest.approx([2 / 3] * 3)


def test_a_label_that_is_not_present_is_none() -> None:
    rollouts = labelled(["ic", "m"], [1.0, 0.0])
    column = rollouts.columns["step:label"]
    hidden = rollouts.with_column("step:label", column.text, torch.tensor([False, True, True]))
    assert detail(tp_grpo(hidden), "episode:unlabelled") == [True, False]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["mc", "m"], "a step of a right response is labelled 'match', expected correct or incorrect"),
        (["cc", "im"], "a step of a wrong response is labelled 'incorrect', expected match or uncertain"),
        (["ci", "m"], "the last step of a response, which holds its answer, is labelled 'incorrect'"),
        (["c", "mu"], "the last step of a response, which holds its answer, is labelled 'uncertain'"),
    ],
)
def test_labels_that_do_not_fit_the_outcome(labels: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tp_grpo(labelled(labels, [1.0, 0.0]))


def test_labels_of_another_kind() -> None:
    rollouts = labelled(["cc"], [1.0])
    with pytest.raises(InputError, match="unknown label of a step 'corect': did you mean 'correct'"):
        tp_grpo(rollouts.with_column("step:label", ["corect", "correct"]))
    with pytest.raises(InputError, match="holds numbers, expected text"):
        tp_grpo(rollouts.with_column("step:label", torch.ones(2)))


def test_other_spans_may_be_the_steps() -> None:
    rollouts = labelled(["ic", "m"], [1.0, 0.0])
    table = rollouts.spans["step"]
    other = rollouts.with_spans("sentence", table.starts, table.ends)
    other = other.with_column("sentence:label", rollouts.columns["step:label"].text)
    credit = tp_grpo(other, kind="sentence")
    assert torch.equal(credit.advantages, tp_grpo(rollouts).advantages)
    assert "sentence:credit/thought" in credit.columns


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alpha": -0.1}, "alpha is -0.1, expected 0 or more"),
        ({"alpha": math.inf}, "alpha is inf, expected 0 or more"),
        ({"r_correct": -1.0}, "r_correct is -1.0 and r_incorrect -1.0, expected finite numbers, the first larger"),
        ({"r_incorrect": math.nan}, "r_incorrect nan, expected finite numbers"),
        ({"ddof": 2}, "ddof is 2, expected 0 or 1"),
        ({"eps": -1.0}, "eps is -1.0, expected 0 or more"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["tp_grpo"](**settings)


def test_an_outcome_that_is_neither_right_nor_wrong() -> None:
    with pytest.raises(InputError, match=r"'outcome' is 0.5 for 1 episodes, expected 1 \(right\) or 0 \(wrong\)"):
        tp_grpo(labelled(["c"], [0.5]))


def test_thoughts_vary_less_than_steps_rewarded_one_by_one() -> None:
    dice, by_step, by_thought = random.Random(0), [], []
    labels = []
    for _ in range(200):  # chains of thirty steps, each likely to be labelled as the last
        row = [dice.choice("ci")]
        for _ in range(28):
            row.append(row[-1] if dice.random() < 0.8 else "ci"[row[-1] == "c"])
        labels.append("".join(row) + "c")
    credit = tp_grpo(labelled(labels, [1.0] * len(labels)))
    bounds = range(0, len(credit.advantages) + 1, 30)
    for row, (a, b) in zip(labels, pairwise(bounds), strict=True):
        signs = [1.0 if letter == "c" else -1.0 for letter in row[:-1]] + [0.0]
        by_step += [sum(signs[j:]) for j in range(len(signs))]
        by_thought += credit.advantages[a:b].tolist()
    assert torch.tensor(by_thought).var() < torch.tensor(by_step).var() / 20
    assert {a for a, letter in zip(by_thought, "".join(labels), strict=True) if letter == "c"} == {0.0}
