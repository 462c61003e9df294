"""Properties of TEMPO's card."""

from __future__ import annotations

import torch
from hypothesis import given

from apportion.credit import METHODS
from apportion.rollouts import ragged
from credit.cases import close
from credit.worlds import Flat, flats
from reference.prefixes import passers, prefix_values

PLAIN = {"norm_by_std": False}


def changes(world: Flat) -> list[list[float]]:
    """What every token changed: TEMPO without its group-relative part."""
    trained = Flat(world.ids, world.groups, world.rewards, [[True] * len(row) for row in world.ids])
    rollouts = trained.rollouts()
    credit = METHODS["tempo"](**PLAIN)(rollouts)
    change = credit.advantages - METHODS["grpo"](**PLAIN)(rollouts).advantages
    alone = torch.bincount(rollouts.group_of_episode)[rollouts.group_of_episode] == 1
    assert not credit.advantages[alone[rollouts.episode_of_token]].any()
    return ragged.unflatten(change, rollouts.token_offsets)


@given(world=flats())
def test_changes_of_a_response_that_ends_alone_sum_to_its_group_relative_outcome(world: Flat) -> None:
    through = passers(world.ids, world.groups)
    for row, group, reward, change in zip(world.ids, world.groups, world.rewards, changes(world), strict=True):
        if len(through[group, tuple(row)]) == 1:
            mine = [r for r, g in zip(world.rewards, world.groups, strict=True) if g == group]
            assert abs(sum(change) - (reward - sum(mine) / len(mine))) < 1e-9


@given(world=flats())
def test_nothing_changes_once_alone_or_while_all_are_together(world: Flat) -> None:
    through = passers(world.ids, world.groups)
    for row, group, change in zip(world.ids, world.groups, changes(world), strict=True):
        for t, moved in enumerate(change):
            here, there = through[group, tuple(row[:t])], through[group, tuple(row[: t + 1])]
            if len(here) == 1 or len(there) == len(here):
                assert abs(moved) < 1e-12


@given(world=flats())
def test_with_first_tokens_all_different_the_first_counts_twice(world: Flat) -> None:
    distinct = [[100 + i, *row] for i, row in enumerate(world.ids)]
    apart = Flat(distinct, world.groups, world.rewards, [[True] * len(row) for row in distinct])
    rollouts = apart.rollouts()
    first = rollouts.token_offsets[:-1]
    tempo, grpo = (METHODS[name](**PLAIN)(rollouts).advantages for name in ("tempo", "grpo"))
    close(tempo[first], 2 * grpo[first])
    rest = torch.ones(len(tempo), dtype=torch.bool).index_fill_(0, first, False)
    close(tempo[rest], grpo[rest])


@given(world=flats())
def test_only_which_tokens_are_equal_matters(world: Flat) -> None:
    renamed = Flat([[5 - 7 * token for token in row] for row in world.ids], world.groups, world.rewards, world.trained)
    close(METHODS["tempo"]()(renamed.rollouts()).advantages, METHODS["tempo"]()(world.rollouts()).advantages, 1e-12)


@given(world=flats())
def test_details_are_prefix_values(world: Flat) -> None:
    rollouts = world.rollouts()
    columns = METHODS["tempo"]()(rollouts).columns
    expected = prefix_values(world.ids, world.rewards, world.groups)
    flat = {
        "token:credit/prefix_value_before": [v for row in expected for v in row[:-1]],
        "token:credit/prefix_value_after": [v for row in expected for v in row[1:]],
        "episode:credit/prefix_value_root": [row[0] for row in expected],
    }
    assert columns.keys() == flat.keys()
    for name, values in flat.items():
        close(columns[name].tensor, torch.tensor(values, dtype=torch.float64))


def test_the_path_goes_through_untrained_tokens() -> None:
    """Two responses part at an untrained token, so the trained one after it changes nothing more."""
    world = Flat([[1, 5, 2], [1, 6, 2]], [0, 0], [1.0, 0.0], [[True, False, True]] * 2)
    advantages = METHODS["tempo"](**PLAIN)(world.rollouts()).advantages
    assert advantages.tolist() == [0.5, 0.0, 0.5, -0.5, 0.0, -0.5]


def test_ending_and_going_on_are_branches() -> None:
    world = Flat([[1], [1, 0]], [0, 0], [0.0, 1.0], [[True], [True, True]])
    assert METHODS["tempo"](**PLAIN)(world.rollouts()).advantages.tolist() == [-0.5, 0.5, 1.0]
