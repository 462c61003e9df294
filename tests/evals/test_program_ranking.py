"""Choosing among candidates by score; scores of programs that were learned from outcomes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.evals.program_ranking import program_scores, rank, ranked_pass, unranked_pass
from apportion.models.critic import critic_for
from apportion.models.measuring import measure
from apportion.models.tabular import TabularPolicy
from apportion.objectives import OBJECTIVES
from apportion.objectives.bellman import Scale
from apportion.rewards.execution import OUTCOMES
from apportion.rollouts import Rollouts
from apportion.training.gradient import accumulate
from reference import bellman

SCORES = st.lists(st.sampled_from([-1.0, 0.0, 0.5]), min_size=1, max_size=7)


@given(scores=SCORES, dice=st.randoms(use_true_random=False))
def test_what_choosing_is_worth_is_that_of_the_naive_loop(scores: list[float], dice: Any) -> None:
    correct = [dice.randint(0, 1) for _ in scores]
    ks = range(1, len(scores) + 1)
    naive = bellman.ranking(scores, correct, ks)
    assert rank(scores) == naive["order"]
    for k in ks:
        assert ranked_pass(scores, correct, k) == naive["ranked_pass"][str(k)]
        assert unranked_pass(correct, k) == pytest.approx(naive["unranked_pass"][str(k)])


def test_without_any_difference_the_earlier_go_first() -> None:
    assert rank([0.5] * 40) == list(range(40))


@pytest.mark.parametrize("k", [0, -1, 3, 1.5])
def test_a_choice_of_more_or_less_than_there_are(k: Any) -> None:
    for choose in (lambda: ranked_pass([0.1, 0.2], [0, 1], k), lambda: unranked_pass([0, 1], k)):
        with pytest.raises(InputError, match=f"k is {k} of 2 candidates, expected a whole number from 1 to 2"):
            choose()


def test_bad_scores() -> None:
    with pytest.raises(InputError, match="a score is not finite"):
        rank([0.1, float("nan")])
    with pytest.raises(InputError, match="got 2 scores and 1 verdicts"):
        ranked_pass([0.1, 0.2], [1], 1)


def test_learned_scores_order_programs_by_what_happened() -> None:
    """Every program of three tokens, its outcome by its first; only half are ever run, and the rest ranked."""
    paths = [list(path) for path in itertools.product(range(4), repeat=3)]
    named = list(OUTCOMES)
    outcome = [OUTCOMES[named[path[0]]] for path in paths]
    whole = Rollouts.from_lists(paths, groups=[0] * 64, rewards=outcome, prompts=[[0]] * 64)
    run = torch.tensor([sum(path) % 2 == 0 for path in paths])
    policy, scale = TabularPolicy(vocabulary=4, depth=3), Scale()
    pretrained = critic_for(policy.frozen_copy(), "pretrained")
    greedy = measure(policy.frozen_copy(), whole, ["greedy"], [torch.arange(64)])["greedy"]
    policy.add_value_head("residual")
    batch = whole.with_column("greedy/reference", greedy).with_column("values/pretrained", torch.zeros(192)).select(run)
    objective, credit = OBJECTIVES["b_coder"](value_steps=0), METHODS["none"]()(batch)
    optimiser = torch.optim.Adam([table for _, table in policy.named_parameters()], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        accumulate(policy, objective, batch, credit, [torch.arange(32)])
        optimiser.step()
    for tokens in (1 << 14, 40):
        scores = program_scores(policy, pretrained, whole, scale, max_tokens=tokens)
        means = [float(scores[torch.tensor([path[0] == i for path in paths])].mean()) for i in range(4)]
        assert means == sorted(means, reverse=True)
        assert means[0] > means[1] + 0.1
    best = paths[rank(scores.tolist())[0]]
    assert best[0] == 0
