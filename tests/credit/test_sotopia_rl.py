"""What is Sotopia-RL's own: scores shared out among utterances, put on one scale, and compared at one place."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given

from apportion.credit import METHODS, Credit
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from credit.agents import Agents, flat
from credit.cases import close
from credit.worlds import DICE
from reference import mixtures, outcome

METHODS_OF = ("direct", "scaled", "uniform", "discounted", "singular")


def judged(
    rollouts: Rollouts,
    scores: dict[str, list[float]],
    attributions: dict[str, list[list[int]]],
    level: str = "response",
    keys: dict[str, list[int]] | None = None,
) -> Rollouts:
    """With scores of episodes, attributions of utterances and key utterances, by dimension."""
    for name, values in scores.items():
        rollouts = rollouts.with_reward(name, torch.tensor(values, dtype=torch.float64))
    for name, rows in attributions.items():
        rollouts = rollouts.with_reward(f"attribution/{name}", flat(rows), level=level)
    for name, numbers in (keys or {}).items():
        rollouts = rollouts.with_reward(f"key/{name}", torch.tensor(numbers))
    return rollouts


def attempts(lengths: list[int], groups: list[int] | None = None) -> Rollouts:
    """One response of one token an utterance."""
    episodes = [i for i, length in enumerate(lengths) for _ in range(length)]
    of_group = [0] * len(lengths) if groups is None else groups
    return Rollouts.from_lists([[0]] * len(episodes), groups=[of_group[i] for i in episodes], episodes=episodes)


def two(attributions: list[list[int]], scores: tuple[float, float] = (8.0, 4.0)) -> Rollouts:
    """Two attempts with one dimension."""
    return judged(attempts([len(row) for row in attributions]), {"goal": list(scores)}, {"goal": attributions})


def sotopia(rollouts: Rollouts, unscored: str = "error", **settings: Any) -> Credit:
    return METHODS["sotopia_rl"](**{"dimensions": ("goal",), **settings})(rollouts, unscored=unscored)


def detail(credit: Credit, name: str, level: str = "response") -> torch.Tensor:
    return credit.columns[f"{level}:credit/{name}"].tensor


@pytest.mark.parametrize("method", METHODS_OF)
@given(dice=DICE)
def test_equals_the_naive_loop_however_turns_are_stored(method: str, dice: random.Random) -> None:
    agents, names = Agents.draw(dice), ["goal", "knowledge"][: dice.randint(1, 2)]
    scale, most = dice.choice([("default", 3), ("5_scale", 5), ("10_scale", 10)])
    weights = {name: dice.choice([0.5, 1.0, 2.0]) for name in names}
    scores = {name: [dice.randint(-8, 40) / 4 for _ in agents.groups] for name in names}
    given_to = {name: [[dice.randint(-1, most) for _ in row] for row in agents.rewards] for name in names}
    keys = {name: [dice.randrange(len(row)) for row in agents.rewards] for name in names}
    raw = {
        name: [
            r
            for numbers, score, key in zip(given_to[name], scores[name], keys[name], strict=True)
            for r in mixtures.attributed(method, numbers, score, most=most, discount=0.75, key=key)
        ]
        for name in names
    }
    normalised, rewards = mixtures.aggregated(raw, weights, 10.0)
    places = [(g, t) for g, row in zip(agents.groups, agents.rewards, strict=True) for t in range(len(row))]
    numbers = [sorted(set(places)).index(place) for place in places]
    advantages = outcome.grpo(rewards, numbers, norm_by_std=True, eps=1e-4)
    lonely = [agents.groups.count(g) == 1 for g, _ in places]
    expected = [0.0 if alone else a for a, alone in zip(advantages, lonely, strict=True)]
    sizes = [len(words) for turns in agents.said for words in turns]
    for rollouts, level in agents.stored():
        credit = sotopia(
            judged(rollouts, scores, given_to, level, keys),
            dimensions=names,
            method=method,
            scale=scale,
            weights=weights,
            discount=0.75,
        )
        for name in names:
            close(detail(credit, f"attributed/{name}", level), torch.tensor(raw[name], dtype=torch.float64))
            close(detail(credit, f"normalised/{name}", level), torch.tensor(normalised[name], dtype=torch.float64))
        close(detail(credit, "utterance_rewards", level), torch.tensor(rewards, dtype=torch.float64))
        on_tokens = torch.tensor(expected, dtype=torch.float64).repeat_interleave(torch.tensor(sizes))
        close(credit.advantages[rollouts.trained], on_tokens, atol=1e-8)


# How a score is shared out


def test_direct_does_not_sum_to_the_score_and_harm_costs_one_whatever_it_is() -> None:
    credit = sotopia(two([[3, 3, -1], [-1, 0]], (9.0, 0.0)))
    assert detail(credit, "attributed/goal").tolist() == [9.0, 9.0, -1.0, -1.0, 0.0]


def test_scaled_sums_to_the_score_unless_nothing_contributed() -> None:
    credit = sotopia(two([[3, 1], [0, 0]], (8.0, 5.0)), method="scaled")
    assert detail(credit, "attributed/goal").tolist() == [6.0, 2.0, 0.0, 0.0]
    assert detail(sotopia(two([[1, -1], [1, 0]]), method="scaled"), "attributed/goal").tolist() == [0.0, 0.0, 4.0, 0.0]


def test_discounted_counts_the_agents_own_utterances_only() -> None:
    rollouts = Rollouts.from_lists([[1, 9, 9, 9, 1]], groups=[0], trained=[[1, 0, 0, 0, 1]])
    rollouts = rollouts.with_spans("turn", torch.tensor([0, 4]), torch.tensor([1, 5]))
    rollouts = rollouts.with_reward("goal", torch.tensor([8.0]))
    credit = sotopia(rollouts, method="discounted", discount=0.5)
    assert detail(credit, "attributed/goal", "turn").tolist() == [4.0, 8.0]


def test_a_wider_scale_makes_the_same_number_less() -> None:
    rollouts = two([[3, 0], [0, 3]], (10.0, 10.0))
    parts = {scale: detail(sotopia(rollouts, scale=scale), "attributed/goal")[0] for scale in ("default", "5_scale")}
    assert {scale: float(part) for scale, part in parts.items()} == {"default": 10.0, "5_scale": 6.0}


def test_only_the_method_chosen_says_what_is_needed() -> None:
    assert METHODS["sotopia_rl"](("goal",), "uniform").needs == ("reward/goal",)
    assert METHODS["sotopia_rl"](("goal",), "direct").needs == ("reward/goal", "reward/attribution/goal")
    assert METHODS["sotopia_rl"](("goal",), "singular").needs == ("reward/goal", "reward/key/goal")
    bare = attempts([1]).with_reward("goal", torch.tensor([1.0]))
    for method, column in (("direct", "attribution/goal"), ("singular", "key/goal")):
        with pytest.raises(MissingColumn, match=f"'reward/{column}', which these rollouts lack: a judge makes it"):
            sotopia(bare, method=method)


def test_negative_scores_are_shown() -> None:
    rollouts = judged(attempts([1, 1]), {"goal": [-2.0, 3.0], "secret": [-1.0, -1.0]}, {})
    credit = sotopia(rollouts, dimensions=("goal", "secret"), method="uniform")
    assert detail(credit, "negative_scores", "episode").tolist() == [2, 1]


# One scale


def test_the_range_is_that_of_all_utterances_at_hand() -> None:
    rollouts = judged(attempts([1, 1, 1, 1], [0, 0, 1, 1]), {"goal": [0.0, 1.0, 4.0, 2.0]}, {})
    whole = detail(sotopia(rollouts, method="uniform", output_scale=1.0), "utterance_rewards")
    assert whole.tolist() == [0.0, 0.25, 1.0, 0.5]
    part = rollouts.select(torch.tensor([0, 1]))
    assert detail(sotopia(part, method="uniform", output_scale=1.0), "utterance_rewards").tolist() == [0.0, 1.0]


def test_a_constant_dimension_gives_nothing_and_counts() -> None:
    rollouts = judged(attempts([1, 1]), {"goal": [1.0, 3.0], "secret": [0.1, 0.1]}, {})
    credit = sotopia(rollouts, dimensions=("goal", "secret"), method="uniform", output_scale=10.0)
    assert detail(credit, "normalised/secret").tolist() == [0.0, 0.0]
    assert detail(credit, "utterance_rewards").tolist() == [0.0, 5.0]


def test_weights_are_not_made_to_sum_to_one() -> None:
    rollouts = judged(attempts([1, 1]), {"goal": [1.0, 3.0], "secret": [2.0, 0.0]}, {})
    credit = sotopia(rollouts, dimensions=("goal", "secret"), method="uniform", weights=(3, 1), output_scale=1.0)
    assert detail(credit, "utterance_rewards").tolist() == [0.5, 1.5]


# What is compared


def test_utterances_are_compared_at_their_turn() -> None:
    credit = sotopia(two([[3, 0], [0, 0]], (6.0, 6.0)), eps=0.0)
    assert credit.advantages.tolist() == pytest.approx([0.5**0.5, 0.0, -(0.5**0.5), 0.0])
    alone = sotopia(two([[3, 3], [0]]))
    assert float(alone.advantages[1]) == 0.0


def test_utterances_are_compared_after_the_same_history() -> None:
    keyed = two([[3, 0], [3, 0]], (6.0, 6.0)).with_column("response:state_key", ["a", "b", "b", "c"])
    credit = sotopia(keyed, place="state", eps=0.0)
    assert credit.advantages.tolist() == pytest.approx([0.0, -(0.5**0.5), 0.5**0.5, 0.0])


def test_one_turn_is_grpo_on_the_scores() -> None:
    rollouts = judged(attempts([1] * 4, [0, 0, 1, 1]), {"goal": [0.0, 1.0, 4.0, 2.0]}, {})
    credit = sotopia(rollouts, method="uniform", eps=0.0)
    close(credit.advantages, METHODS["grpo"]("goal", eps=0.0)(rollouts).advantages)


def test_a_group_of_one_attempt() -> None:
    rollouts = judged(attempts([2]), {"goal": [6.0]}, {"goal": [[3, 0]]})
    assert not sotopia(rollouts).advantages.any()
    assert sotopia(rollouts, singleton="raw", norm_by_std=False).advantages.tolist() == [10.0, 0.0]
    with pytest.raises(InputError, match="1 groups have one member, expected at least two"):
        sotopia(rollouts, singleton="error")


def test_an_utterance_without_attribution_takes_its_episode_out() -> None:
    rollouts = judged(attempts([2, 2, 1]), {"goal": [6.0, 9.0, 3.0]}, {"goal": [[3, 0], [1, 1], [2]]})
    known = torch.tensor([True, True, True, False, True])
    numbers = torch.tensor([3.0, 0.0, 1.0, math.nan, 2.0])
    unsure = rollouts.with_reward("attribution/goal", numbers, known, level="response")
    credit = sotopia(unsure, "drop")
    assert credit.unknown.tolist() == [False, True, False]
    kept = torch.tensor([True, False, True])
    close(credit.select(kept).advantages, sotopia(rollouts.select(kept)).advantages)


# What cannot be used


@pytest.mark.parametrize(("number", "shown"), [(4.0, "4"), (-2.0, "-2"), (0.5, "0.5")])
def test_an_attribution_that_is_not_on_the_scale(number: float, shown: str) -> None:
    rollouts = two([[3], [0]]).with_reward("attribution/goal", torch.tensor([3.0, number]), level="response")
    said = f"1 attributions to 'goal' are others than -1 and 0 to 3, such as {shown}: expected whole numbers"
    with pytest.raises(InputError, match=said):
        sotopia(rollouts)
    assert number != 4.0 or sotopia(rollouts, scale="5_scale").advantages.any()


def test_attributions_are_one_an_utterance() -> None:
    scored = attempts([2, 1]).with_reward("goal", torch.tensor([6.0, 3.0]))
    with pytest.raises(InputError, match="attributions to 'goal' are not one number a response, expected as many"):
        sotopia(scored.with_reward("attribution/goal", torch.tensor([1.0, 2.0])))
    pairs = scored.with_reward("attribution/goal", torch.zeros(3, 2), level="response")
    with pytest.raises(InputError, match="attributions to 'goal' are not one number a response"):
        sotopia(pairs)


@pytest.mark.parametrize("key", [-1.0, 2.0, 0.5])
def test_a_key_utterance_that_there_is_not(key: float) -> None:
    scored = attempts([2, 1]).with_reward("goal", torch.tensor([6.0, 3.0]))
    said = f"1 episodes have a key utterance for 'goal' that they lack, such as number {key:g} of 2: expected 0 to"
    with pytest.raises(InputError, match=said):
        sotopia(scored.with_reward("key/goal", torch.tensor([key, 0.0])), method="singular")
    with pytest.raises(InputError, match="key utterances for 'goal' are not one number an episode"):
        sotopia(scored.with_reward("key/goal", torch.zeros(3), level="response"), method="singular")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dimensions": ()}, "expected a list of different names"),
        ({"dimensions": "goal"}, "expected a list of different names"),
        ({"method": "softmax"}, "unknown method 'softmax'.*Known: direct, discounted, scaled, singular, uniform"),
        ({"scale": "7_scale"}, "unknown scale '7_scale'"),
        ({"weights": {"goal": 1}}, "got weights of .* but components .*, expected the same"),
        ({"weights": (1, 1)}, "got 2 weights for 3 components"),
        ({"weights": (0, 0, 0)}, "expected at least one above 0"),
        ({"weights": (1, math.nan, 1)}, "the weight of 'relationship' is nan, expected a number"),
        ({"output_scale": 0.0}, "output_scale is 0.0, expected more than 0"),
        ({"discount": 0.0}, "discount is 0.0, expected more than 0 and at most 1"),
        ({"discount": 1.5}, "discount is 1.5, expected"),
        ({"place": "room"}, "unknown place 'room'"),
        ({"eps": -1.0}, "eps is -1.0, expected 0 or more"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["sotopia_rl"](**settings)
