"""What an update does: epochs, minibatches, the ratio, the learning rate, clipping, a loss that is not finite."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion import credit, objectives
from apportion.credit import Clock
from apportion.errors import RunStopped
from apportion.models.tabular import TabularPolicy
from apportion.objectives import Loss, Objective
from apportion.rollouts import Rollouts
from apportion.rollouts.store import RolloutStore
from apportion.training.annotate import annotate
from apportion.training.config import TrainConfig
from apportion.training.learner import Learner, UpdateSettings, schedule, split_by_groups
from apportion.training.seeds import numpy_generator
from builders import gradients, random_rollouts, small_llama
from runs import DIGITS, TABULAR, begin, metrics, resume, weights

CONFIG = TrainConfig(learning_rate=0.3, beta1=0.8, beta2=0.95, weight_decay=0.02, max_grad_norm=0.05, seed=3)


def table() -> TabularPolicy:
    policy = TabularPolicy(vocabulary=4, depth=2, prompts=4)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(1)).double())
    return policy


def batch(policy: TabularPolicy, groups: int = 4, size: int = 5) -> Rollouts:
    """Groups of random responses with the log-probs they have now."""
    generator = torch.Generator().manual_seed(2)
    draw = lambda high: int(torch.randint(high, (1,), generator=generator))  # noqa: E731
    ids = [[draw(4) for _ in range(1 + draw(2))] for _ in range(groups * size)]
    rollouts = Rollouts.from_lists(
        ids,
        groups=[i // size for i in range(groups * size)],
        rewards=[draw(3) / 2 for _ in ids],
        prompts=[[i // size] for i in range(groups * size)],
    )
    return annotate(rollouts, {"old": policy}, {"old": ["log_probs"]}, max_tokens=1 << 14)


def learner(policy: Any, objective: Objective | None = None, **changes: Any) -> Learner:
    settings = UpdateSettings.of(dataclasses.replace(CONFIG, **changes))
    return Learner("policy", policy, objective or objectives.clip(), settings)


def credited(rollouts: Rollouts) -> credit.Credit:
    return credit.METHODS["rloo"]()(rollouts)


def naive_loss(logits: Tensor, policy: TabularPolicy, given: credit.Credit) -> Tensor:
    """The clipped surrogate of a batch, token by token in plain Python."""
    rollouts = given.rollouts
    states, old = policy.states_of(rollouts).tolist(), rollouts.column("log_probs/old").tolist()
    terms = []
    for t, (state, token) in enumerate(zip(states, rollouts.ids.tolist(), strict=True)):
        ratio = (logits[state].log_softmax(0)[token] - old[t]).exp()
        advantage = float(given.advantages[t])
        terms.append(torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)))
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (3, 1), (1, 2), (2, 4), (2, 3)])
def test_an_update_is_adamw_on_the_clipped_surrogate_of_every_part(epochs: int, minibatches: int) -> None:
    policy = table()
    reference = policy.logits.detach().clone().requires_grad_()
    adam = torch.optim.AdamW([reference], lr=0.3, betas=(0.8, 0.95), weight_decay=0.02)
    given = credited(batch(policy))
    ours = learner(policy, epochs=epochs, minibatches=minibatches)
    for step in range(2):  # the second begins with moments
        ours.update(given, Clock(step, 10))
        for epoch in range(epochs):
            rng = numpy_generator(3, "policy", "minibatches", step, epoch)
            for part in split_by_groups(given, minibatches, rng):
                adam.zero_grad()
                naive_loss(reference, policy, part).backward()
                torch.nn.utils.clip_grad_norm_([reference], 0.05)
                adam.step()
    # Where a gradient is 0 up to rounding, Adam divides it by its own epsilon of 1e-8.
    assert torch.allclose(policy.logits, reference, rtol=0, atol=1e-9)
    assert not torch.allclose(policy.logits, table().logits, atol=1e-2)


@pytest.mark.parametrize("limit", [0.0, 0.05])
def test_sgd_steps_straight_down_the_gradient(limit: float) -> None:
    policy = table()
    given = credited(batch(policy))
    expected = policy.logits.detach().clone()
    ours = learner(policy, optimizer="sgd", beta1=0.9, beta2=0.99, max_grad_norm=limit, epochs=2)
    # The second pass measures ratios to the policy before the batch, and has no moments of the first.
    reference = expected.clone().requires_grad_()
    for _ in range(2):
        (slope,) = torch.autograd.grad(naive_loss(reference, policy, given), reference)
        norm = float(slope.norm())
        share = min(1.0, limit / (norm + 1e-6)) if limit else 1.0
        reference = (reference * (1 - 0.3 * 0.02) - 0.3 * share * slope).detach().requires_grad_()
    ours.update(given, Clock(0, 10))
    assert torch.allclose(policy.logits, reference, rtol=0, atol=1e-12)
    assert not torch.allclose(policy.logits, expected, atol=1e-3)


def test_twice_the_advantage_is_twice_the_step_of_sgd_and_no_other_of_adamw() -> None:
    def step(optimizer: str, factor: float) -> Tensor:
        policy = table()
        before = policy.logits.detach().clone()
        betas = {"beta1": 0.9, "beta2": 0.99} if optimizer == "sgd" else {}
        ours = learner(policy, optimizer=optimizer, max_grad_norm=0.0, weight_decay=0.0, **betas)
        given = credited(batch(policy))
        ours.update(dataclasses.replace(given, advantages=factor * given.advantages), Clock(0, 10))
        return policy.logits.detach() - before

    assert torch.allclose(step("sgd", 2.0), 2 * step("sgd", 1.0), rtol=0, atol=1e-12)
    once = step("adamw", 1.0)
    assert torch.allclose(step("adamw", 2.0), once, rtol=1e-4, atol=1e-7)
    assert once.abs().max() > 0.1


def test_sgd_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    config = dataclasses.replace(TABULAR, optimizer="sgd", learning_rate=3.0)
    begin(tmp_path / "whole", config)
    begin(tmp_path / "halves", dataclasses.replace(config, steps=2))
    resume(tmp_path / "halves", steps=4)
    assert weights(tmp_path / "halves", 4) == weights(tmp_path / "whole", 4) != weights(tmp_path / "whole", 2)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 9])
def test_a_batch_is_cut_by_whole_groups(parts: int) -> None:
    given = credited(batch(table()))
    cut = split_by_groups(given, parts, numpy_generator(0, "cut"))
    assert len(cut) == min(parts, 4)
    members = [sorted(set(part.rollouts.group_ids.tolist())) for part in cut]
    assert sorted(group for part in members for group in part) == [0, 1, 2, 3]
    for part in cut:
        assert part.rollouts.n_episodes == 5 * len(set(part.rollouts.group_ids.tolist()))
        for group in part.rollouts.group_ids.unique().tolist():
            here = part.rollouts.group_ids[part.rollouts.episode_of_token] == group
            there = given.rollouts.group_ids[given.rollouts.episode_of_token] == group
            assert torch.equal(part.advantages[here], given.advantages[there])


def test_every_epoch_cuts_in_an_order_of_its_own() -> None:
    given = credited(batch(table()))
    orders = {
        tuple(
            tuple(sorted(set(p.rollouts.group_ids.tolist())))
            for p in split_by_groups(given, 4, numpy_generator(3, "policy", "minibatches", 0, epoch))
        )
        for epoch in range(6)
    }
    assert len(orders) > 1


def test_one_pass_in_one_part_has_a_ratio_of_exactly_one() -> None:
    policy = table()
    values = learner(policy).update(credited(batch(policy)), Clock(0, 10))
    assert values["clip_fraction"] == 0
    assert values["kl_old"] == 0


def test_the_ratio_is_to_the_policy_before_the_batch() -> None:
    policy = table()
    given = credited(batch(policy))
    before = given.rollouts.column("log_probs/old").clone()
    values = learner(policy, epochs=2, max_grad_norm=0.0).update(given, Clock(0, 10))
    assert torch.equal(given.rollouts.column("log_probs/old"), before)
    # The first pass has ratio 1; the second sees the policy after one step of 0.3 on every logit with a gradient.
    assert values["clip_fraction"] > 0
    assert values["kl_old"] != 0


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (3, 1), (1, 4), (2, 2)])
def test_in_a_run_only_the_first_step_on_a_batch_is_on_policy(epochs: int, minibatches: int, tmp_path: Path) -> None:
    config = dataclasses.replace(TABULAR, epochs=epochs, minibatches=minibatches, steps=3, learning_rate=1.0)
    begin(tmp_path / "run", config)
    for line in metrics(tmp_path / "run"):
        assert line["mismatch_max"] < 1e-12  # sampled from the weights that log_probs/old are of
    on_policy = all(line["kl_old"] == 0 for line in metrics(tmp_path / "run"))
    assert on_policy == (epochs == minibatches == 1)


@pytest.mark.parametrize(
    ("warmup", "decay", "expected"),
    [
        (0, "constant", [1, 1, 1, 1]),
        (2, "constant", [0.5, 1, 1, 1]),
        (0, "linear", [1, 0.75, 0.5, 0.25]),
        (2, "linear", [0.5, 1, 2 / 3, 1 / 3]),
        (1, "linear", [1, 0.75, 0.5, 0.25]),
        (4, "linear", [0.25, 0.5, 0.75, 1]),
        (8, "linear", [1 / 8, 2 / 8, 3 / 8, 4 / 8]),
    ],
)
def test_the_learning_rate_rises_and_falls(
    warmup: int, decay: str, expected: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [schedule(Clock(step, 4), warmup, decay) for step in range(4)] == pytest.approx(expected)
    used = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a: (used.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    begin(tmp_path / "run", dataclasses.replace(TABULAR, warmup_steps=warmup, decay=decay, learning_rate=0.2))
    assert used == pytest.approx([0.2 * share for share in expected])
    assert [line["learning_rate"] for line in metrics(tmp_path / "run")] == pytest.approx(used)


def test_the_gradient_is_scaled_down_to_the_norm_and_never_up() -> None:
    def step(limit: float) -> tuple[dict[str, float], Tensor]:
        policy = table()
        ours = learner(policy, max_grad_norm=limit)
        taken: list[Tensor] = []
        ours.optimiser.register_step_pre_hook(lambda *_: taken.append(policy.logits.grad.clone()))  # type: ignore[union-attr]
        return ours.update(credited(batch(policy)), Clock(0, 10)), taken[0]

    values, whole = step(0.0)
    norm = float(whole.norm())
    assert values["grad_norm"] == pytest.approx(norm)
    values, clipped = step(norm / 10)
    assert values["grad_norm"] == pytest.approx(norm)  # as it was before
    assert float(clipped.norm()) == pytest.approx(norm / 10, rel=1e-4)
    assert torch.allclose(clipped * 10, whole, rtol=1e-4)
    _, loose = step(norm * 10)
    assert torch.equal(loose, whole)


def test_the_cut_into_micro_batches_does_not_change_the_update() -> None:
    results = []
    for tokens in (1, 40, 1 << 14):
        llama = small_llama("float64")
        given = credit.METHODS["grpo"]()(random_rollouts())
        ours = learner(llama, micro_batch_tokens=tokens, weight_decay=0.0, max_grad_norm=0.0, learning_rate=0.0)
        taken: dict[str, Tensor] = {}
        ours.optimiser.register_step_pre_hook(lambda *_, p=llama, t=taken: t.update(_gradients_of(p)))
        ours.update(given, Clock(0, 10))
        results.append(taken)
    for name, value in results[0].items():
        assert value.abs().max() > 0, name
        for other in results[1:]:
            assert torch.allclose(value, other[name], rtol=0, atol=1e-12), name


def _gradients_of(policy: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in policy.named_parameters()}


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_changes_nothing(what: str) -> None:
    def evaluate(now: Any, rollouts: Rollouts, given: Any, clock: Any) -> Loss:
        used = now["log_probs"][given.trained]
        if clock.step == 1:
            # The square root of 0 is 0 and its slope infinite.
            return Loss((used - used.detach()).abs().sqrt().sum() if what == "gradient" else used.sum() * math.nan)
        return Loss(-used.mean())

    policy = table()
    ours = learner(policy, Objective("group", ("log_probs",), evaluate=evaluate))
    given = credited(batch(policy))
    ours.update(given, Clock(0, 10))
    before, moments = policy.logits.detach().clone(), copy.deepcopy(ours.state())
    with pytest.raises(RunStopped) as stop:
        ours.update(given, Clock(1, 10))
    assert "at step 2, on the rollouts of groups 0 to 3" in str(stop.value)
    assert ("nan" in str(stop.value)) or ("inf" in str(stop.value))
    assert torch.equal(policy.logits, before)
    for key, value in moments["optimiser"]["state"][0].items():
        assert torch.equal(value, ours.state()["optimiser"]["state"][0][key])


def test_a_learner_goes_on_from_its_state() -> None:
    one, two = table(), table()
    given = credited(batch(one))
    first, second = learner(one), learner(two)
    for step in range(3):
        first.update(given, Clock(step, 10))
    for step in range(2):
        second.update(given, Clock(step, 10))
    third_policy = two.clone()
    third = learner(third_policy)
    third.restore(copy.deepcopy(second.state()))
    third.update(given, Clock(2, 10))
    assert torch.equal(third_policy.logits, one.logits)
    fresh_policy = two.clone()
    learner(fresh_policy).update(given, Clock(2, 10))  # without the moments it would not
    assert not torch.allclose(fresh_policy.logits, one.logits, atol=1e-4)


def test_what_is_not_trained_is_not_touched() -> None:
    llama = small_llama()
    llama.model.model.embed_tokens.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in llama.model.named_parameters()}
    learner(llama).update(credit.METHODS["grpo"]()(random_rollouts(dtype="float32")), Clock(0, 10))
    for name, parameter in llama.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name == "model.embed_tokens.weight"), name


def test_the_forward_pass_may_run_in_bfloat16(tmp_path: Path) -> None:
    config = dataclasses.replace(DIGITS, autocast="bfloat16", mismatch_tolerance=0.2, credit="rloo", seed=1)
    begin(tmp_path / "half", config)
    begin(tmp_path / "whole", dataclasses.replace(config, autocast=None))
    half, whole = metrics(tmp_path / "half"), metrics(tmp_path / "whole")
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in half)
    assert half[0]["mismatch_mean"] > 100 * whole[0]["mismatch_mean"]  # it did run in bfloat16
    from safetensors.torch import load_file

    for name in ("half", "whole"):
        saved = load_file(tmp_path / name / "checkpoints/step_000004/model/model.safetensors")
        assert {value.dtype for value in saved.values()} == {torch.float32}
    # The same batch was drawn, from weights that are in float32 both times.
    one, two = (RolloutStore(tmp_path / name / "rollouts").read(1) for name in ("half", "whole"))
    assert one.ids.tolist() == two.ids.tolist()


def test_gradients_in_bfloat16_point_the_same_way() -> None:
    given = credit.METHODS["grpo"]()(random_rollouts(dtype="float32"))
    found = []
    for autocast in (None, torch.bfloat16):
        llama = small_llama()
        llama.autocast = autocast
        from apportion.training.gradient import accumulate, micro_batches

        accumulate(llama, objectives.clip(), given.rollouts, given, micro_batches(given.rollouts, 64))
        found.append(torch.cat([g.flatten() for g in gradients(llama).values()]))
    cosine = float((found[0] * found[1]).sum() / (found[0].norm() * found[1].norm()))
    assert 0.99 < cosine < 1 - 1e-9
