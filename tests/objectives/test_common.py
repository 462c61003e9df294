"""What holds of every objective; the table is in ``cases.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES, Loss, bind
from apportion.rollouts.columns import qualify
from objectives.batches import Batch, cut
from objectives.cases import CASES, Case

SEEDS = (1, 2, 3)


def every(promise: Callable[[Case], bool] = lambda case: True) -> pytest.MarkDecorator:
    """Run for every row of the table that makes a promise."""
    return pytest.mark.parametrize("case", [pytest.param(c, id=str(c)) for c in CASES if promise(c)])


def reads(case: Case) -> tuple[str, ...]:
    return (*case.made.now, *case.made.watches)


def loss_and_gradient(case: Case, given: Batch, now: Mapping[str, Tensor]) -> tuple[Loss, dict[str, Tensor]]:
    """The loss, and its gradient at all tokens."""
    watched = {name: values if name in case.moved else values.detach() for name, values in now.items()}
    loss = case.made(watched, given.rollouts, given.credit)
    slopes = torch.autograd.grad(loss.value, [now[name] for name in case.moved])
    return loss, dict(zip(case.moved, slopes, strict=True))


def close(given: Tensor, expected: Tensor | float) -> None:
    torch.testing.assert_close(given, torch.as_tensor(expected, dtype=given.dtype), rtol=1e-12, atol=1e-12)


def test_every_objective_is_in_the_table() -> None:
    assert {case.objective for case in CASES} == set(OBJECTIVES), "add a row to CASES in tests/objectives/cases.py"


@every(lambda case: case.naive is not None)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_the_naive_loop(case: Case, weighted: bool, seed: int) -> None:
    given = case.batch(seed, weighted=weighted and case.branches)
    now = given.now(reads(case))
    assert case.naive is not None
    close(case.made(now, given.rollouts, given.credit).value, case.naive(given, now))


@every(lambda case: not case.bootstraps)
@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_is_the_slope(case: Case, seed: int) -> None:
    """Finite differences at trained tokens; everything else is NaN and gets no gradient."""
    given = case.batch(seed)
    now = given.now(reads(case))

    def value(*at_trained: Tensor) -> Tensor:
        filled = {
            name: torch.full((given.rollouts.n_tokens,), torch.nan, dtype=torch.float64).index_put((given.trained,), x)
            for name, x in zip(case.moved, at_trained, strict=True)
        }
        return case.made({**now, **filled}, given.rollouts, given.credit).value

    inputs = [now[name].detach()[given.trained].requires_grad_() for name in case.moved]
    assert torch.autograd.gradcheck(value, inputs, eps=1e-6, atol=1e-8, rtol=1e-5)


@every()
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_leaks_from_tokens_that_are_not_trained(case: Case, seed: int) -> None:
    """Policy statistics are NaN there in every batch of this suite, and columns where the rollouts do not train."""
    given = case.batch(seed)
    now = given.now(reads(case))
    assert all(now[name][~given.credit.trained].isnan().all() for name in now)
    assert 0 < len(given.trained) < given.rollouts.n_tokens
    loss, gradient = loss_and_gradient(case, given, now)
    assert loss.value.isfinite()
    assert all(metric.isfinite() for metric in loss.metrics.values())
    assert not any(metric.requires_grad for metric in loss.metrics.values())
    for slope in gradient.values():
        assert slope.isfinite().all()
        assert not slope[~given.credit.trained].any()
    assert all(slope.any() for slope in gradient.values())


@every()
@pytest.mark.parametrize("seed", SEEDS)
def test_any_cut_gives_the_same_loss_metrics_and_gradient(case: Case, seed: int) -> None:
    given = case.batch(seed, weighted=case.branches)
    if case.made.scope != "token":
        with pytest.raises(InputError, match="expected scope token"):
            bind(case.made, given.rollouts, given.credit)
        return
    now = given.now(reads(case))
    whole, gradient = loss_and_gradient(case, given, now)
    bound = bind(case.made, given.rollouts, given.credit)
    pieces = [bound({name: values[piece] for name, values in now.items()}, piece) for piece in cut(given.trained, seed)]
    value = torch.stack([loss for loss, _ in pieces]).sum()
    close(value, whole.value)
    assert pieces[0][1].keys() == whole.metrics.keys()
    for name, metric in whole.metrics.items():
        close(torch.stack([shares[name] for _, shares in pieces]).sum(), metric)
    slopes = torch.autograd.grad(value, [now[name] for name in case.moved])
    for name, slope in zip(case.moved, slopes, strict=True):
        close(slope, gradient[name])


@every()
def test_the_order_of_episodes_does_not_matter(case: Case) -> None:
    given = case.batch(1)
    now = given.now(reads(case))
    order = torch.tensor([4, 2, 5, 0, 3, 1])
    tokens = given.rollouts.indices(order)["token"]
    moved = given.select(order)
    there, slope_there = loss_and_gradient(
        case, moved, {n: v[tokens].detach().requires_grad_() for n, v in now.items()}
    )
    here, slope_here = loss_and_gradient(case, given, now)
    close(there.value, here.value)
    for name, metric in here.metrics.items():
        close(there.metrics[name], metric)
    for name in slope_here:
        close(slope_there[name], slope_here[name][tokens])


@every()
def test_an_episode_of_several_responses_is_one_episode(case: Case) -> None:
    given = case.batch(2)
    assert given.rollouts.n_responses > given.rollouts.n_episodes
    first = given.rollouts.response_offsets[:-1]
    starts, ends = given.rollouts.token_offsets[:-1], given.rollouts.token_offsets[1:]
    columns = given.rollouts.columns
    single = replace(
        given.rollouts,
        token_offsets=given.rollouts.episode_offsets,
        response_offsets=torch.arange(len(first) + 1),
        prompts=given.rollouts.prompts[first],
        columns={n: c.take(first) if n.startswith("response:") else c for n, c in columns.items()},
    ).with_spans("turn", starts[starts < ends], ends[starts < ends])
    now = given.now(reads(case))
    credit = replace(given.credit, rollouts=single)
    close(case.made(now, single, credit).value, case.made(now, given.rollouts, given.credit).value)


@every()
def test_only_what_is_declared_is_read(case: Case) -> None:
    given = case.batch(1)
    now = given.now(reads(case))
    kept = {given.rollouts.find(name) for name in case.made.needs} | {"token:trained", "response:origin"}
    kept |= {name.replace("reward/", "scored/") for name in kept if name}
    lean = replace(given.rollouts, columns={n: c for n, c in given.rollouts.columns.items() if n in kept})
    full = case.made(now, given.rollouts, given.credit).value
    close(case.made(now, lean, replace(given.credit, rollouts=lean)).value, full)


@every()
def test_a_missing_column_is_named(case: Case) -> None:
    given = case.batch(1)
    for name in case.made.needs:
        if name == "credit/advantages":
            continue
        full = given.rollouts.find(name)
        lean = replace(given.rollouts, columns={n: c for n, c in given.rollouts.columns.items() if n != full})
        columns = {n: c for n, c in given.credit.columns.items() if n != qualify(name)}
        with pytest.raises(MissingColumn) as raised:
            case.made(given.now(reads(case)), lean, replace(given.credit, rollouts=lean, columns=columns))
        assert raised.value.column in (name, qualify(name))


@every()
def test_entries_missing_at_trained_tokens_are_an_error(case: Case) -> None:
    given = case.batch(1)
    for name in case.made.needs:
        if name.startswith("credit/") or not (full := given.rollouts.find(name) or "").startswith("token:"):
            continue
        values = given.rollouts.columns[full].tensor.nan_to_num(-1.0)
        holed = given.rollouts.with_column(full, values, ~given.credit.trained)
        with pytest.raises(InputError, match=r"at \d+ rows where it is missing"):
            case.made(given.now(reads(case)), holed, replace(given.credit, rollouts=holed))


@every()
def test_nothing_to_train_on_costs_nothing(case: Case) -> None:
    given = case.batch(1)
    nothing = torch.zeros_like(given.credit.trained)
    everyone = torch.ones_like(given.credit.unknown)
    credit = replace(given.credit, trained=nothing, counted=nothing, unknown=everyone)
    idle = Batch(given.rollouts, credit)
    now = idle.now(reads(case))
    loss = case.made(now, given.rollouts, credit)
    assert loss.value.item() == 0.0
    assert all(metric.item() == 0.0 for metric in loss.metrics.values())
    if loss.value.requires_grad:
        slopes = torch.autograd.grad(loss.value, [now[name] for name in case.moved], allow_unused=True)
        assert all(slope is None or not slope.any() for slope in slopes)


@every()
def test_statistics_in_float32_give_the_same_loss(case: Case) -> None:
    given = case.batch(1)
    narrow = given.now(reads(case), torch.float32)
    wide = {name: values.double() for name, values in narrow.items()}
    losses_of = [case.made(now, given.rollouts, given.credit).value.double() for now in (narrow, wide)]
    torch.testing.assert_close(*losses_of, rtol=1e-5, atol=1e-6)


@every(lambda case: not case.branches)
def test_branched_rows_are_refused(case: Case) -> None:
    given = case.batch(1, weighted=True)
    with pytest.raises(InputError, match="whole responses"):
        case.made(given.now(reads(case)), given.rollouts, given.credit)
