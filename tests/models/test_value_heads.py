"""Value heads on a policy, and log-probs of other tokens than those drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion.errors import InputError, MissingColumn
from apportion.models.measuring import measure, micro_batches
from apportion.models.statistics import from_logits
from apportion.models.tabular import TabularPolicy
from apportion.models.value_heads import HasValueHeads
from apportion.rollouts import Rollouts
from builders import random_rollouts, small_llama

OTHER = "log_prob_of/greedy/reference"


def table() -> TabularPolicy:
    policy = TabularPolicy(vocabulary=23, depth=3, prompts=2)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(1)).double())
    return policy


def llama() -> Any:
    return small_llama("float64")


def answers(policy: Any) -> Rollouts:
    """Something both kinds of policy can read."""
    if not isinstance(policy, TabularPolicy):
        return random_rollouts()
    ids, trained = [[3, 1, 4], [1, 5], [9]], [[1, 0, 1], [0, 0], [1]]
    return Rollouts.from_lists(ids, groups=[0, 0, 1], prompts=[[0], [1], [1]], trained=trained)


both = pytest.mark.parametrize("make", [llama, table])


@both
def test_a_head_begins_at_zero_and_learns_with_the_policy(make: Callable[[], Any]) -> None:
    policy = make()
    assert isinstance(policy, HasValueHeads)
    before = {name for name, _ in policy.named_parameters()}
    policy.add_value_head("residual")
    assert "values/residual" in policy.provides
    assert "values/residual" not in make().provides
    added = {name for name, _ in policy.named_parameters()} - before
    assert added
    rollouts = answers(policy)
    parts = micro_batches(rollouts, 20)
    first = measure(policy, rollouts, ["values/residual", "log_probs"], parts)
    assert not first["values/residual"].any()
    assert torch.equal(first["log_probs"], measure(make(), rollouts, ["log_probs"], parts)["log_probs"])
    trained = rollouts.trained.nonzero().squeeze(1)
    target = torch.linspace(-1, 1, rollouts.n_tokens, dtype=torch.float64)

    def error(now: Any, tokens: Tensor) -> Tensor:
        return ((now["values/residual"] - target[tokens]) ** 2).sum()

    parameters = dict(policy.named_parameters())
    optimiser = torch.optim.Adam(parameters.values(), lr=0.01)
    for _ in range(100):
        optimiser.zero_grad()
        for part in parts:
            policy.accumulate(rollouts, part, ["values/residual"], error)
        optimiser.step()
    after = measure(policy, rollouts, ["values/residual"], parts)["values/residual"]
    assert float(((after - target)[trained] ** 2).sum()) < 0.1 * float((target[trained] ** 2).sum())
    assert all(parameters[name].any() for name in added)


def filled(make: Callable[[], Any]) -> Any:
    """A policy with two heads that say something."""
    policy = make()
    generator = torch.Generator().manual_seed(2)
    for head in ("residual", "other"):
        policy.add_value_head(head)
    for name, parameter in policy.named_parameters():
        if name.startswith("values"):
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return policy


@both
def test_heads_are_saved_loaded_and_copied(make: Callable[[], Any], tmp_path: Path) -> None:
    policy, names = filled(make), ["values/other", "values/residual", "log_probs"]
    rollouts = answers(policy)
    parts = micro_batches(rollouts, 1 << 14)
    expected = measure(policy, rollouts, names, parts)
    assert expected["values/other"].any()
    assert not torch.equal(expected["values/other"], expected["values/residual"])
    policy.save(tmp_path)
    again = make()
    again.add_value_head("residual")
    again.add_value_head("other")
    again.load_weights(tmp_path)
    copies = {"loaded": again, "cloned": policy.clone(), "frozen": policy.frozen_copy()}
    for copy in copies.values():
        for name, values in measure(copy, rollouts, names, parts).items():
            assert torch.equal(values, expected[name])
    own = dict(policy.named_parameters())
    assert sum(name.startswith("values") for name in own) >= 2  # what is frozen are the copy's
    for parameter in own.values():
        with torch.no_grad():
            parameter.zero_()
    assert measure(copies["cloned"], rollouts, names, parts)["values/other"].any()
    assert not any(parameter.requires_grad for _, parameter in copies["frozen"].named_parameters())


def test_a_model_without_heads_leaves_no_file_and_reads_one_beside_it(tmp_path: Path) -> None:
    llama().save(tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("value_heads*"))
    filled(llama).save(tmp_path / "heads")
    plain = llama()
    plain.load_weights(tmp_path / "heads")  # as one that only samples would
    assert "values/other" not in plain.provides


@both
def test_log_probs_of_other_tokens(make: Callable[[], Any]) -> None:
    policy = make()
    rollouts = answers(policy)
    parts = micro_batches(rollouts, 20)
    found = measure(policy, rollouts, ["greedy", "max_log_prob", "log_probs"], parts)
    assert found["greedy"].dtype == torch.int64
    rollouts = rollouts.with_statistic("greedy/reference", found["greedy"], "trainer")
    now = measure(policy, rollouts, [OTHER], parts)[OTHER]
    assert torch.allclose(now, found["max_log_prob"], rtol=0, atol=1e-12)  # the likeliest is the greedy one
    rollouts = rollouts.with_statistic("greedy/reference", rollouts.ids, "trainer")
    assert torch.allclose(measure(policy, rollouts, [OTHER], parts)[OTHER], found["log_probs"], rtol=0, atol=1e-12)


@both
def test_columns_of_ids_are_checked(make: Callable[[], Any]) -> None:
    policy = make()
    rollouts = answers(policy)
    parts = micro_batches(rollouts, 1 << 14)
    with pytest.raises(MissingColumn, match="greedy/reference"):
        measure(policy, rollouts, [OTHER], parts)
    beyond = rollouts.with_column("greedy/reference", torch.full_like(rollouts.ids, 23))
    with pytest.raises(InputError, match="log_prob_of/greedy/reference: got the id 23, expected 0 to 22"):
        measure(policy, beyond, [OTHER], parts)
    holes = rollouts.with_column("greedy/reference", rollouts.ids, ~rollouts.trained)
    with pytest.raises(InputError, match="where it is missing"):
        measure(policy, holes, [OTHER], parts)


def test_micro_batches_without_trained_tokens_have_ids_too() -> None:
    policy = llama()
    ids = [[1, 2, 3], [4]]
    rollouts = Rollouts.from_lists(ids, groups=[0, 0], prompts=[[1], [1]], trained=[[0, 0, 0], [1]])
    parts = [torch.tensor([0]), torch.tensor([1])]
    found = measure(policy, rollouts, ["greedy", "log_probs"], parts)
    assert found["greedy"].dtype == torch.int64
    assert found["log_probs"].dtype == torch.float64


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    for drawn in (4, -1):
        with pytest.raises(InputError, match=f"the tokens drawn: got the id {drawn}, expected 0 to 3"):
            from_logits(torch.zeros(1, 4), torch.tensor([drawn]), torch.ones(1), ["log_probs"])


def test_of_equal_logits_the_smallest_id_is_greedy() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    found = from_logits(logits, torch.tensor([0, 0]), torch.ones(2), ["greedy"])
    assert found["greedy"].tolist() == [1, 0]


def test_a_statistic_that_nobody_gives() -> None:
    with pytest.raises(InputError, match="unknown statistic 'values/residual'"):
        measure(llama(), random_rollouts(), ["values/residual"], [torch.tensor([0])])
