"""Objectives by origin: what each sees, and what it does not."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion import objectives
from apportion.credit import METHODS, Credit
from apportion.errors import InputError
from apportion.objectives import OBJECTIVES, Objective, bind, mix
from apportion.objectives.mixing import from_origin
from apportion.rollouts import Rollouts
from objectives.batches import Batch, batch, cut

CLIP, KL = OBJECTIVES["clip"](), OBJECTIVES["kl"](coefficient=0.5)
IMITATION, BONUS = OBJECTIVES["imitation"](), OBJECTIVES["entropy_bonus"](coefficient=0.1)
PACS = OBJECTIVES["pacs"]()


def of_origins(seed: int, origins: tuple[str, ...] = ("policy", "stored", "policy")) -> Batch:
    """A batch whose episodes come from several origins in turn."""

    def prepare(rollouts: Rollouts) -> Rollouts:
        place = rollouts.episode_of_response.tolist()
        return rollouts.with_column("response:origin", [origins[e % len(origins)] for e in place])

    return batch(seed, prepare=prepare)


def by_hand(parts: dict[str, Objective], some: Batch, now: dict[str, Tensor]) -> Tensor:
    """Each part on its own selection."""
    values = []
    for origin, part in parts.items():
        mask = from_origin(some.rollouts, origin)
        tokens = some.rollouts.indices(mask)["token"]
        chosen = some.select(mask)
        values.append(part({n: v[tokens] for n, v in now.items()}, chosen.rollouts, chosen.credit).value)
    return torch.stack(values).sum()


MIXES: list[dict[str, Objective]] = [
    {"policy": CLIP, "stored": KL},
    {"policy": OBJECTIVES["clip"](aggregate="seq_mean_token_mean"), "stored": IMITATION},
    {"stored": objectives.add(KL, BONUS), "policy": CLIP},
    {"policy": PACS, "stored": KL},
    {"policy": CLIP, "stored": OBJECTIVES["pacs"](estimator="naive")},
    {"stored": KL},
]


@pytest.mark.parametrize("parts", MIXES)
@given(seed=st.integers(0, 2**16))
def test_each_on_its_own_episodes(parts: dict[str, Objective], seed: int) -> None:
    some = of_origins(seed)
    mixed = mix(**parts)
    now = some.now(mixed.now)
    loss = mixed(now, some.rollouts, some.credit)
    expected = by_hand(parts, some, now)
    torch.testing.assert_close(loss.value, expected, rtol=1e-12, atol=1e-12)
    leaves = list(now.values())
    slopes = [torch.autograd.grad(value, leaves, allow_unused=True) for value in (loss.value, expected)]
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 2**16))
def test_sums_over_tokens_stay_sums_over_tokens(seed: int) -> None:
    some = of_origins(seed)
    mixed = mix(policy=CLIP, stored=objectives.add(KL, BONUS))
    assert mixed.scope == "token"
    now = some.now(mixed.now)
    whole = mixed(now, some.rollouts, some.credit)
    bound = bind(mixed, some.rollouts, some.credit)
    pieces = [bound({n: v[piece] for n, v in now.items()}, piece) for piece in cut(some.trained, seed)]
    torch.testing.assert_close(sum(value for value, _ in pieces), whole.value, rtol=1e-12, atol=1e-12)
    for name, metric in whole.metrics.items():
        torch.testing.assert_close(sum(m[name] for _, m in pieces), metric, rtol=1e-12, atol=1e-12)


def test_a_mix_declares_what_its_parts_declare() -> None:
    mixed = mix(policy=CLIP, stored=KL)
    assert (mixed.now, mixed.needs) == (("log_probs",), ("log_probs/old", "credit/advantages", "log_probs/reference"))
    assert mix(policy=PACS, stored=KL).scope == "group"
    assert mix(policy=CLIP, stored=OBJECTIVES["dpo"]()).scope == "pair"


def test_nothing_is_read_at_other_origins() -> None:
    """Neither columns, which are missing there, nor the policy, which is not a number there."""
    rollouts = Rollouts.from_lists([[1, 2], [3], [4]], groups=[0, 0, 1], rewards=[1.0, 0.0, 0.0])
    rollouts = rollouts.with_column("response:origin", ["policy", "policy", "demonstration"])
    old = torch.tensor([-1.0, -1.0, -1.0, torch.nan], dtype=torch.float64)
    rollouts = rollouts.with_column("log_probs/old", old, torch.tensor([True, True, True, False]))
    credit = METHODS["rloo"]()(rollouts)
    log_probs = torch.tensor([-0.9, -1.1, -1.05, -0.3], dtype=torch.float64, requires_grad=True)
    entropy = torch.tensor([torch.nan, torch.nan, torch.nan, 1.0], dtype=torch.float64, requires_grad=True)
    mixed = mix(policy=CLIP, demonstration=objectives.add(IMITATION, BONUS))
    loss = mixed({"log_probs": log_probs, "entropy": entropy}, rollouts, credit)
    loss.value.backward()
    assert loss.value.isfinite()
    assert log_probs.grad is not None
    assert log_probs.grad.all()
    assert entropy.grad is not None
    assert entropy.grad.tolist() == [0.0, 0.0, 0.0, -0.1]
    assert loss.metrics["demonstration/nll"].item() == 0.3
    assert loss.metrics["demonstration/entropy_bonus"].item() == 1.0
    assert loss.metrics["policy/kl_old"].item() == pytest.approx(0.05 / 3)


def test_other_origins_carry_no_loss() -> None:
    some = of_origins(1, origins=("policy", "stored", "hinted"))
    mixed = mix(policy=CLIP, stored=KL)
    now = some.now(mixed.now)
    mixed(now, some.rollouts, some.credit).value.backward()
    tokens = some.rollouts.indices(from_origin(some.rollouts, "hinted"))["token"]
    slope = now["log_probs"].grad
    assert slope is not None
    assert len(tokens)
    assert not slope[tokens].any()


@pytest.mark.parametrize("policy", [CLIP, PACS])
def test_an_origin_without_episodes_is_nothing(policy: Objective) -> None:
    """Its columns need not exist at all, and sampled rollouts need not name their origin."""
    rollouts = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 0.0], log_probs_old=[[-1.0], [-1.0]])
    credit = METHODS["rloo"]()(rollouts)
    now = {"log_probs": torch.tensor([-0.5, -1.5], dtype=torch.float64)}
    mixed = mix(policy=policy, stored=KL, demonstration=OBJECTIVES["dpo"]())
    assert mixed(now, rollouts, credit).value == policy(now, rollouts, credit).value
    nobody = mix(stored=KL, hinted=PACS)(now, rollouts, credit)
    assert nobody.value == 0
    assert not nobody.metrics


def test_a_mix_of_a_mix_is_what_both_cover() -> None:
    some = of_origins(2)
    now = some.now(("log_probs",))
    inner = mix(policy=CLIP, stored=KL)
    outer = mix(stored=inner)
    assert outer(now, some.rollouts, some.credit).value == mix(stored=KL)(now, some.rollouts, some.credit).value


def test_whole_responses_are_needed_only_where_they_are_averaged() -> None:
    """Branches among what was sampled do not matter to an average over stored responses."""
    some = of_origins(3)
    dice = random.Random(0)
    stored = from_origin(some.rollouts, "stored")[some.rollouts.episode_of_token]
    weight = torch.tensor([dice.choice([0.5, 0.25]) for _ in range(some.rollouts.n_tokens)], dtype=torch.float64)
    rollouts = some.rollouts.with_column("weight", torch.where(stored, 1.0, weight))
    given_credit = some.credit
    credit = Credit(
        *(rollouts, given_credit.advantages, given_credit.trained, given_credit.counted),
        *(given_credit.columns, None, given_credit.unknown),
    )
    now = some.now(("log_probs",))
    whole = OBJECTIVES["kl"](aggregate="seq_mean_token_mean")
    assert mix(policy=CLIP, stored=whole)(now, rollouts, credit).value.isfinite()
    with pytest.raises(InputError, match="needs whole responses"):
        mix(policy=whole, stored=KL)(now, rollouts, credit)


def test_origins_that_cannot_be_told_apart() -> None:
    with pytest.raises(InputError, match="unknown origin 'replay'"):
        mix(replay=KL)
    with pytest.raises(InputError, match="no objectives to add"):
        mix()
    rollouts = Rollouts.from_lists([[1], [2]], groups=[0, 0], episodes=[0, 0], log_probs_reference=[[-1.0], [-1.0]])
    rollouts = rollouts.with_column("response:origin", ["stored", "policy"])
    with pytest.raises(InputError, match="responses of origin 'stored' and others, expected one origin an episode"):
        mix(stored=KL)({"log_probs": torch.zeros(2)}, rollouts, METHODS["none"]()(rollouts))
