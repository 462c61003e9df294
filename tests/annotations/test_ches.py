"""Sums of hidden states, CHES by loops over them, and which pairs are kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.annotations import ANNOTATORS
from apportion.annotations.ches import keep_lowest, quantile_window
from apportion.annotations.hidden_states import hidden_sums
from apportion.curricula.pair_filter import with_ches
from apportion.errors import InputError, MissingColumn
from apportion.models.huggingface import HuggingFacePolicy
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from builders import random_rollouts, small_llama

SCORES = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0]), min_size=1, max_size=12)


def states(policy: HuggingFacePolicy, rollouts: Rollouts, b: int) -> list[torch.Tensor]:
    """The state that every trained token of a response was drawn from, from a pass over the row by itself."""
    start, end = rollouts.token_offsets[b : b + 2].tolist()
    p = int(rollouts.prompts[b])
    prompt = rollouts.prompt_ids[rollouts.prompt_offsets[p] : rollouts.prompt_offsets[p + 1]]
    with torch.no_grad():
        output = policy.model(torch.cat([prompt, rollouts.ids[start:end]])[None], output_hidden_states=True)
    hidden = output.hidden_states[-1][0]
    assert torch.allclose(policy.head(hidden), output.logits[0], atol=1e-9)  # they are what the head multiplies
    return [hidden[len(prompt) - 1 + t] for t in range(end - start) if rollouts.trained[start + t]]


def paired(holes: bool = True) -> Rollouts:
    """Three groups of four; a pair of each."""
    return random_rollouts(holes=holes).with_pairs(torch.tensor([0, 5, 11]), torch.tensor([2, 6, 8]))


@pytest.mark.parametrize("budget", [1, 40, 1 << 14])
def test_sums_are_over_the_states_before_trained_tokens(budget: int) -> None:
    policy, rollouts = small_llama("float64"), random_rollouts()
    sums = hidden_sums(rollouts, policy, budget)
    assert sums.shape == (rollouts.n_responses, 32)
    for b in range(rollouts.n_responses):
        expected = torch.stack([*states(policy, rollouts, b), torch.zeros(32, dtype=torch.float64)]).sum(0)
        torch.testing.assert_close(sums[b], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("evaluator", ["old", "reference"])
@pytest.mark.parametrize("holes", [False, True])
def test_scores_equal_a_loop(evaluator: str, holes: bool) -> None:
    policy, rollouts = small_llama("float64"), paired(holes)
    measured = rollouts
    for name in ("hidden_states", "ches"):
        annotator = ANNOTATORS[name](evaluator=evaluator)
        assert annotator.evaluator == evaluator
        measured = annotator.apply(measured, policy)
        assert all(measured.has(made) for made in annotator.makes)
    assert rollouts.pairs is not None
    for k, (one, two) in enumerate(zip(rollouts.pairs.preferred.tolist(), rollouts.pairs.other.tolist(), strict=True)):
        good, bad = states(policy, rollouts, one), states(policy, rollouts, two)
        raw = sum(float(a @ b) for a in good for b in bad) - sum(float(a @ b) for a in good for b in good)
        means = sum(float(a @ b) for a in good for b in bad) / len(good) / len(bad)
        means -= sum(float(a @ b) for a in good for b in good) / len(good) ** 2
        assert float(measured.column("pair:ches")[k]) == pytest.approx(raw, rel=1e-9)
        assert float(measured.column("pair:ches_length_normalised")[k]) == pytest.approx(means, rel=1e-9)


def test_equal_answers_and_answers_of_one_token_score_nothing() -> None:
    rollouts = Rollouts.from_lists(
        [[1, 2, 3], [1, 2, 3], [4], [5]], groups=[0, 0, 1, 1], prompts=[[7, 8], [7, 8], [9], [9]]
    ).with_pairs(torch.tensor([0, 2]), torch.tensor([1, 3]))
    scored = with_ches(rollouts, small_llama("float64"))
    assert scored.column("pair:ches").abs().max() < 1e-9
    assert scored.column("pair:ches_length_normalised").abs().max() < 1e-9
    assert not scored.has("response:hidden_sum/reference")


def test_an_answer_in_two_responses_is_one_answer() -> None:
    policy = small_llama("float64")
    whole = Rollouts.from_lists([[1, 2, 3], [4, 5]], groups=[0, 0], prompts=[[7, 8], [7, 8]])
    cut = Rollouts.from_lists(
        [[1], [2, 3], [4, 5]], groups=[0] * 3, episodes=[0, 0, 1], prompts=[[7, 8], [7, 8, 1], [7, 8]]
    )
    one, two = (
        with_ches(r.with_pairs(torch.tensor([0]), torch.tensor([1])), policy).column("pair:ches") for r in (whole, cut)
    )
    torch.testing.assert_close(one, two)


def test_the_reference_of_a_model_with_adapters_is_without_them() -> None:
    peft = pytest.importorskip("peft")
    plain, rollouts = small_llama("float64"), random_rollouts()
    expected = hidden_sums(rollouts, plain)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    policy = HuggingFacePolicy(peft.get_peft_model(plain.model, config), plain.tokenizer)
    assert not torch.allclose(hidden_sums(rollouts, policy), expected)
    torch.testing.assert_close(hidden_sums(rollouts, policy.frozen_copy()), expected)


def test_what_cannot_be_scored() -> None:
    policy: Any = small_llama("float64")
    rollouts = paired()
    hidden, ches = ANNOTATORS["hidden_states"](), ANNOTATORS["ches"]()
    with pytest.raises(InputError, match="a TabularPolicy has none: choose a transformer"):
        hidden.apply(rollouts, TabularPolicy(vocabulary=2, depth=2))
    with pytest.raises(MissingColumn, match=r"hidden_sum/reference.*--annotators hidden_states"):
        ches.apply(rollouts, policy)
    with pytest.raises(InputError, match="no pairs, expected preferences"):
        ches.apply(random_rollouts(), policy)
    measured = hidden.apply(rollouts, policy)
    with pytest.raises(InputError, match="different prompts, expected the same"):
        ches.apply(measured.with_pairs(torch.tensor([0]), torch.tensor([4])), policy)
    empty = Rollouts.from_lists([[1], []], groups=[0, 0], prompts=[[7], [7]])
    empty = hidden.apply(empty.with_pairs(torch.tensor([0]), torch.tensor([1])), policy)
    with pytest.raises(InputError, match="an episode of a pair has no tokens"):
        ches.apply(empty, policy)
    silent = Rollouts.from_lists([[1], [2]], groups=[0, 0], prompts=[[7], [7]], trained=[[1], [0]])
    silent = hidden.apply(silent.with_pairs(torch.tensor([0]), torch.tensor([1])), policy)
    with pytest.raises(InputError, match="an episode of a pair has no token that trains"):
        ches.apply(silent, policy)
    bare = Rollouts.from_lists([[1], [2]], groups=[0, 0])
    with pytest.raises(InputError, match="an empty prompt has no state before its first token"):
        hidden.apply(bare, policy)
    with torch.no_grad():
        policy.model.model.embed_tokens.weight[:] = torch.nan
    with pytest.raises(InputError, match="'response:hidden_sum/reference' has a value that is not finite"):
        hidden.apply(rollouts, policy)
    with pytest.raises(InputError, match="unknown evaluator 'initial'"):
        ANNOTATORS["ches"](evaluator="initial")


@given(scores=SCORES, fraction=st.floats(0.01, 1))
def test_the_lowest_are_kept_the_first_of_equal_ones(scores: list[float], fraction: float) -> None:
    kept = keep_lowest(torch.tensor(scores), fraction).tolist()
    count = math.ceil(fraction * len(scores) - 1e-12)
    assert kept == sorted(sorted(range(len(scores)), key=lambda i: (scores[i], i))[:count])
    assert len(kept) >= 1


@given(scores=SCORES, quantile=st.floats(0, 1), count=st.integers(1, 14))
def test_the_window_around_a_quantile(scores: list[float], quantile: float, count: int) -> None:
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    start = max(0, round(quantile * (len(scores) - 1)) - count // 2)
    start = min(start, max(0, len(scores) - count))
    assert quantile_window(torch.tensor(scores), quantile, count).tolist() == order[start : start + count]


def test_halves_round_to_the_even_place() -> None:
    ramp = torch.arange(4.0)
    assert quantile_window(ramp, 0.5, 1).tolist() == [2]  # 1.5
    assert quantile_window(torch.arange(6.0), 0.5, 1).tolist() == [2]  # 2.5


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_fractions_that_are_none(fraction: float) -> None:
    with pytest.raises(InputError, match=r"keep_fraction is .*, expected more than 0 and at most 1"):
        keep_lowest(torch.zeros(3), fraction)
    with pytest.raises(InputError, match="keep_fraction is"):
        ANNOTATORS["ches_filter"](keep_fraction=fraction)


def test_windows_that_are_none() -> None:
    for quantile in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="the quantile is"):
            quantile_window(torch.zeros(3), quantile, 1)
    with pytest.raises(InputError, match="count is 0, expected 1 or more"):
        quantile_window(torch.zeros(3), 0.5, 0)


def test_a_batch_keeps_its_least_displacing_pairs() -> None:
    rollouts = paired().with_column("pair:ches_length_normalised", torch.tensor([0.5, -1.0, 0.0]))
    rollouts = rollouts.with_column("pair:ches", torch.tensor([-9.0, 9.0, 0.0]))
    for normalised, expected in ((True, [5, 11]), (False, [0, 11])):
        fewer = ANNOTATORS["ches_filter"](keep_fraction=0.5, length_normalised=normalised).apply(rollouts, None)
        assert fewer.pairs is not None
        assert fewer.pairs.preferred.tolist() == expected
        assert fewer.n_episodes == rollouts.n_episodes
    with pytest.raises(MissingColumn, match="--annotators hidden_states ches"):
        ANNOTATORS["ches_filter"]().apply(paired(), None)
