"""What is return decomposition's own: what is drawn, what that costs, and what cannot be decomposed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.objectives import OBJECTIVES
from apportion.objectives.return_decomposition import draw
from apportion.rollouts import Rollouts
from golden.adapters._build import credit_of
from golden.files import VECTORS, Case, differences, read_cases
from reference import decomposition

LOSSES = [c for c in read_cases(VECTORS / "lare.json") if c.arguments["kind"] == "loss"]


@pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.name)
def test_the_naive_loop_agrees_with_the_golden_file(case: Case) -> None:
    given = case.arguments
    proxies = decomposition.linear(given["latent"], given["weights"], given["bias"])
    value = decomposition.loss(given["loss"], proxies, given["returns"], given.get("sampled_steps"))
    assert not list(differences({"proxy_rewards": proxies, "loss": value}, case.expected, case.atol))


def stepped(lengths: list[int], rewards: list[float | None], **given: Any) -> Rollouts:
    """Episodes whose every token is a step."""
    ids = [range(n) for n in lengths]
    rollouts = Rollouts.from_lists(ids, groups=range(len(ids)), rewards=rewards, **given)
    tokens = torch.arange(rollouts.n_tokens)
    return rollouts.with_spans("step", tokens, tokens + 1)


def value(rollouts: Rollouts, proxy: Tensor, loss: str = "rd", drawn: list[float] | Tensor | None = None) -> float:
    if drawn is not None:
        rollouts = rollouts.with_column("step:drawn", torch.as_tensor(drawn, dtype=torch.float64))
    return OBJECTIVES["return_decomposition"](loss=loss)(
        {"proxy_reward": proxy}, rollouts, credit_of(rollouts)
    ).value.item()


def test_by_hand() -> None:
    two = stepped([2, 1], [3.0, 5.0])
    proxy = torch.tensor([2.0, 1.0, 3.0])
    assert value(two, proxy) == 2.0  # the first sums to its return; the second misses by 2
    assert value(two, proxy, "rrd", [1, 0, 1]) == (0.5**2 + 2**2) / 2
    assert value(two, proxy, "rrd_unbiased", [1, 1, 3]) == 2.0  # everything was drawn, nothing to correct


def test_drawing_more_than_there_are_corrects_the_other_way() -> None:
    one = stepped([2], [0.0])
    # Drawn 2, 2 and -1: mean 1, sample variance 3; 1 - 3 (1 - 3/2) / 3.
    assert value(one, torch.tensor([2.0, -1.0]), "rrd_unbiased", [2, 1]) == pytest.approx(1.5)


def test_a_step_counts_once_however_many_tokens_it_has() -> None:
    one = Rollouts.from_lists([[1, 2, 3, 4]], groups=[0], rewards=[4.0], trained=[[1, 0, 1, 1]])
    one = one.with_spans("step", torch.tensor([0, 1, 2]), torch.tensor([1, 2, 4]))
    # The middle step has nothing that trains; the last is read at its last token.
    assert value(one, torch.tensor([1.0, torch.nan, 9.0, 5.0], dtype=torch.float64)) == (3.0 - 2.0) ** 2


def test_the_unbiased_loss_is_unbiased_and_the_plain_one_is_not() -> None:
    one = stepped([6], [1.5])
    proxy = torch.randn(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    draws = [draw(one, credit_of(one), "step", 3, generator) for _ in range(600)]
    exact = value(one, proxy)
    mean = {loss: sum(value(one, proxy, loss, d) for d in draws) / len(draws) for loss in ("rrd", "rrd_unbiased")}
    assert mean["rrd_unbiased"] == pytest.approx(exact, abs=0.03)
    assert mean["rrd"] > exact + 0.08


def test_what_is_drawn() -> None:
    four = stepped([5, 2, 1], [0.0] * 3, trained=[[1, 1, 0, 1, 1], [1, 1], [0]])
    counts = [draw(four, credit_of(four), "step", 3, torch.Generator().manual_seed(s)) for s in range(40)]
    assert torch.equal(counts[7], draw(four, credit_of(four), "step", 3, torch.Generator().manual_seed(7)))
    for count in counts:
        assert count[2] == count[7] == 0  # nothing there trains
        assert count[:5].sum() == 3
        assert count[:5].max() == 1  # enough steps: none twice
        assert count[5:7].sum() == 3  # too few: with replacement
    together = torch.stack(counts)
    assert (together[:, [0, 1, 3, 4]].sum(0) > 15).all()
    assert together[:, 5:7].max() == 3


def test_unknown_and_absent_returns_are_left_out() -> None:
    two = stepped([1, 1], [1.0, None])
    assert value(two, torch.tensor([3.0, 100.0])) == 4.0
    present = torch.tensor([False, True])
    absent = stepped([1, 1], [0.0, 0.0]).with_reward("outcome", torch.tensor([torch.nan, 1.0]), present=present)
    assert value(absent, torch.tensor([100.0, 3.0])) == 4.0


def test_the_gradient_reaches_what_was_drawn_alone() -> None:
    one = stepped([3], [0.0]).with_column("step:drawn", torch.tensor([1.0, 0.0, 1.0]))
    proxy = torch.ones(3, requires_grad=True)
    OBJECTIVES["return_decomposition"]("rrd")({"proxy_reward": proxy}, one, credit_of(one)).value.backward()
    assert proxy.grad is not None
    assert proxy.grad.tolist() == [1.0, 0.0, 1.0]


def test_what_cannot_be_decomposed() -> None:
    with pytest.raises(InputError, match="unknown loss 'rdd'"):
        OBJECTIVES["return_decomposition"]("rdd")
    one = stepped([2], [1.0])
    with pytest.raises(InputError, match="fewer than 2 decisions drawn for 'rrd_unbiased'"):
        value(one, torch.ones(2), "rrd_unbiased", [1, 0])
    with pytest.raises(InputError, match="fewer than 1 decisions drawn for 'rrd'"):
        value(one, torch.ones(2), "rrd", [0, 0])
    bare = replace(one, spans={}).with_spans("step", torch.tensor([], dtype=torch.int64), torch.tensor([]).long())
    with pytest.raises(InputError, match="1 episodes have no step with trained tokens, expected at least one each"):
        value(bare, torch.ones(2))
