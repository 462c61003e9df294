"""A checkpoint that measures stored rollouts gives what the run it is of gave."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from apportion.errors import InputError
from apportion.rollouts import Rollouts, RolloutStore
from apportion.training.config import TrainConfig
from apportion.training.measuring import open_checkpoint
from runs import DIGITS, TABULAR, begin

RUNS = {
    "table": TABULAR,
    "transformer": DIGITS,
    "adapters": dataclasses.replace(DIGITS, lora_rank=2, learning_rate=0.05),
}
NEEDS = ["log_probs/old", "entropy/old", "log_probs/reference", "reward/outcome", "values/critic"]


@pytest.mark.parametrize("name", RUNS)
def test_it_measures_what_the_run_measured(name: str, tmp_path: Path) -> None:
    asks = ("clip", "kl")  # the second reads the reference policy
    config: TrainConfig = dataclasses.replace(RUNS[name], objective=asks, save_every=1, keep_checkpoints=9)
    begin(tmp_path / "run", config)
    checkpoints = tmp_path / "run/checkpoints"
    for step, rollouts in RolloutStore(tmp_path / "run/rollouts"):
        measured = {n: c for n, c in rollouts.columns.items() if n.removeprefix("token:") in NEEDS}
        assert set(measured) == {"token:log_probs/old", "token:entropy/old", "token:log_probs/reference"}
        kept = {n: c for n, c in rollouts.columns.items() if n not in measured}
        # What trained at a step had the weights of the checkpoint before it.
        found = open_checkpoint(str(checkpoints / f"step_{step - 1:06d}")).add(
            dataclasses.replace(rollouts, columns=kept), NEEDS
        )
        assert set(found.columns) == set(rollouts.columns)
        for column, expected in measured.items():
            torch.testing.assert_close(found.column(column), expected.tensor, rtol=0, atol=1e-5)
        makers = {n: found.columns[n].maker for n in measured}
        assert makers["token:log_probs/old"] == f"checkpoint {checkpoints / f'step_{step - 1:06d}'}"
        assert makers["token:log_probs/reference"] == f"checkpoint {checkpoints / 'step_000000'}"
    old, reference = (found.column(f"log_probs/{source}") for source in ("old", "reference"))
    assert not torch.allclose(old, reference, atol=1e-4)


def test_the_reference_may_be_asked_for_first_or_last(tmp_path: Path) -> None:
    begin(tmp_path / "run", DIGITS)
    rollouts = RolloutStore(tmp_path / "run/rollouts").read(4)
    kept = {n: c for n, c in rollouts.columns.items() if not n.startswith(("token:log_probs", "token:entropy"))}
    bare = dataclasses.replace(rollouts, columns=kept)
    one, other = open_checkpoint(str(tmp_path / "run")), open_checkpoint(str(tmp_path / "run"))
    early = one.add(one.add(bare, ["log_probs/reference"]), ["log_probs/old"])
    late = other.add(other.add(bare, ["log_probs/old"]), ["log_probs/reference"])
    for name in ("log_probs/old", "log_probs/reference"):
        assert torch.equal(early.column(name), late.column(name))


def test_a_table_says_what_it_cannot_read(tmp_path: Path) -> None:
    begin(tmp_path / "run", TABULAR)
    table = open_checkpoint(str(tmp_path / "run"))
    depth, words = table.policy.depth, table.policy.vocabulary
    for ids, message in (([[words]], f"have token {words}"), ([[0] * (depth + 1)], f"have {depth + 2} tokens")):
        with pytest.raises(InputError, match=message):
            table.add(Rollouts.from_lists(ids, groups=[0], prompts=[[0]]), ["log_probs/old"])


def test_a_model_is_no_reference_of_itself(tmp_path: Path) -> None:
    begin(tmp_path / "run", DIGITS)
    model = open_checkpoint(str(tmp_path / "run/checkpoints/step_000004/model"))
    bare = Rollouts.from_lists([[2, 3]], groups=[0], prompts=[[4]])
    with pytest.raises(InputError, match=r"would both come from .*, so they would not differ"):
        model.add(bare, ["log_probs/old", "log_probs/reference"])
    with_old = bare.with_column("log_probs/old", torch.tensor([-1.0, -2.0]))
    found = model.add(with_old, ["log_probs/old", "log_probs/reference"])
    assert found.column("log_probs/old").tolist() == [-1.0, -2.0]
    assert (found.column("log_probs/reference") < 0).all()
