"""TRL's GRPOTrainer with our advantages in its loss, and its runs in our store."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion import credit
from apportion.cli.main import main
from apportion.credit import Clock, Stage, scale, token_filter
from apportion.errors import InputError
from apportion.models.digits import digit_llama
from apportion.rollouts import RolloutStore, to_padded
from apportion.training.run_folder import RunFolder

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed"),
]

GROUP = 4


def odd(completions: list[str], **given: Any) -> list[float]:
    """1 where a completion has an odd number of different characters."""
    return [float(len(set(text)) % 2) for text in completions]


def long(completions: list[str], **given: Any) -> list[float | None]:
    """Length, and no verdict where a completion begins with one of the later digits."""
    return [None if text[:1] in "56789" else float(len(text)) for text in completions]


def settings(folder: Path, **changed: Any) -> Any:
    from trl import GRPOConfig

    usual: dict[str, Any] = {
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "max_steps": 3,
        "per_device_train_batch_size": 2 * GROUP,
        "num_generations": GROUP,
        "max_completion_length": 6,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 1e-2,
        "disable_tqdm": True,
    }
    return GRPOConfig(output_dir=str(folder / "trl"), **(usual | changed))


def make(
    folder: Path, method: str = "tempo", rewards: Any = odd, **changed: Any
) -> tuple[Any, list[dict[str, Tensor]]]:
    """A trainer of a tiny Llama, and what will be inside its loss, batch by batch."""
    from datasets import Dataset

    from apportion.adapters.trl import CreditGRPOTrainer

    inside: list[dict[str, Tensor]] = []

    class Watched(CreditGRPOTrainer):
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
            inside.append({name: value.clone() for name, value in inputs.items() if isinstance(value, Tensor)})
            return super()._compute_loss(model, inputs)  # type: ignore[no-any-return]

    policy = digit_llama()
    policy.tokenizer.eos_token = "."
    if changed.get("beta"):  # TRL loads the reference from where the model came from
        policy.model.save_pretrained(folder / "model")
        policy.model.config._name_or_path = str(folder / "model")
    trainer = Watched(
        policy.model,
        reward_funcs=rewards,
        args=settings(folder, **changed),
        train_dataset=Dataset.from_dict({"prompt": ["12=", "345=", "6=", "7="]}),
        processing_class=policy.tokenizer,
        credit=method,
        record=folder / "run",
    )
    return trainer, inside


def rows(ids: Tensor, mask: Tensor, values: Tensor) -> list[tuple[Any, ...]]:
    """Padded rows without their padding, in an order of their own: TRL shuffles."""
    return sorted(
        (tuple(i[m].tolist()), tuple(v[m].tolist())) for i, m, v in zip(ids, mask.bool(), values, strict=True)
    )


@pytest.mark.parametrize("method", ["tempo", "rloo", "grpo(norm_by_std=False)"])
def test_the_advantages_inside_its_loss_are_ours(tmp_path: Path, method: str) -> None:
    trainer, inside = make(tmp_path, method)
    trainer.train()
    stored = list(RolloutStore(tmp_path / "run" / "rollouts"))
    assert [step for step, _ in stored] == [1, 2, 3]
    assert len(inside) == 3
    differ = set()
    for (step, rollouts), batch in zip(stored, inside, strict=True):
        ours = credit.build(method)(rollouts, clock=Clock(step - 1, 3))
        ids, mask = to_padded(rollouts, rollouts.ids), to_padded(rollouts, torch.ones_like(rollouts.ids))
        expected = rows(ids, mask, ours.to_padded().float())
        assert rows(batch["completion_ids"], batch["completion_mask"], batch["advantages"]) == expected
        assert not batch["advantages"][batch["completion_mask"] == 0].any()
        differ |= {len(set(values)) > 1 for _, values in expected}
    assert (True in differ) == (method == "tempo")


def test_rewards_groups_and_prompts_are_those_of_the_trainer(tmp_path: Path) -> None:
    trainer, _ = make(tmp_path)
    trainer.train()
    decode = trainer.processing_class.decode
    for _, rollouts in RolloutStore(tmp_path / "run" / "rollouts"):
        bounds, starts = rollouts.token_offsets.tolist(), rollouts.prompt_offsets.tolist()
        texts = [decode(rollouts.ids[a:b], skip_special_tokens=True) for a, b in pairwise(bounds)]
        assert rollouts.column("episode:reward/outcome").tolist() == odd(texts)
        prompts = [decode(rollouts.prompt_ids[a:b]) for a, b in pairwise(starts)]
        assert len(prompts) == rollouts.n_groups == 2
        of_group = [
            {prompts[p] for p in rollouts.prompts[rollouts.group_ids == g].tolist()} for g in range(rollouts.n_groups)
        ]
        assert all(len(own) == 1 for own in of_group)
        assert of_group[0] != of_group[1]
        assert rollouts.column("response:truncated").tolist() == [not self_ended(rollouts, b) for b in range(8)]


def self_ended(rollouts: Any, response: int) -> bool:
    return int(rollouts.ids[rollouts.token_offsets[response + 1] - 1]) == 12  # the token "."


def test_training_moves_the_weights_as_the_advantages_say(tmp_path: Path) -> None:
    """With a method that gives nothing the weights stay; twice the credit is twice the gradient."""
    norms = {}
    for name in ("none", "rloo", f"{__name__}:twice"):
        trainer, _ = make(tmp_path / name.replace(":", "_"), name, max_steps=1, max_grad_norm=1e9)
        trainer.train()
        norms[name] = trainer.state.log_history[0]["grad_norm"]
    assert norms["none"] == 0 < norms["rloo"]
    assert norms[f"{__name__}:twice"] == pytest.approx(2 * norms["rloo"], rel=1e-5)


def twice() -> Stage:
    """RLOO, doubled."""
    return credit.chain(credit.METHODS["rloo"](), scale(2.0))


def test_a_recorded_run_is_one_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, _ = make(tmp_path)
    trainer.train()
    run = str(tmp_path / "run")
    capsys.readouterr()
    assert main(["compare", run, "--credit", "grpo,tempo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == [1, 2, 3]
    assert main(["compare", run, "--credit", "grpo,tempo", "--top", "1"]) == 0  # reads the tokenizer
    assert main(["view", run, "--terminal"]) == 0
    assert "credit: tempo, as stored" in capsys.readouterr().out
    folder, config = RunFolder.open(tmp_path / "run")
    assert (config.credit, config.steps, config.group_size, config.max_new_tokens) == ("tempo", 3, GROUP, 6)
    lines = folder.lines("metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    logged = [record for record in trainer.state.log_history if "grad_norm" in record]
    assert [line["grad_norm"] for line in lines] == [record["grad_norm"] for record in logged]
    assert [line["reward"] for line in lines] == pytest.approx([record["reward"] for record in logged])


def test_a_resumed_training_goes_on_in_its_run(tmp_path: Path) -> None:
    whole, _ = make(tmp_path, save_strategy="steps", save_steps=1)
    whole.train()
    before = {step: rollouts.ids.tolist() for step, rollouts in RolloutStore(tmp_path / "run" / "rollouts")}
    again, _ = make(tmp_path, save_strategy="steps", save_steps=1)
    again.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-2"))
    after = dict(RolloutStore(tmp_path / "run" / "rollouts"))
    assert list(after) == [1, 2, 3]
    assert [after[step].ids.tolist() for step in (1, 2)] == [before[1], before[2]]
    assert [line["step"] for line in RunFolder.open(tmp_path / "run")[0].lines("metrics.jsonl")] == [1, 2, 3]


def test_a_training_resumed_under_another_credit_is_refused(tmp_path: Path) -> None:
    first, _ = make(tmp_path, save_strategy="steps", save_steps=1, max_steps=2)
    first.train()
    other, _ = make(tmp_path, "rloo", max_steps=4)
    with pytest.raises(InputError, match="is of a run under credit 'tempo', and training goes on under 'rloo'"):
        other.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-2"))
    longer, _ = make(tmp_path, max_steps=4)
    longer.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-2"))
    folder, config = RunFolder.open(tmp_path / "run")
    assert config.steps == 4
    assert [line["step"] for line in folder.lines("metrics.jsonl")] == [1, 2, 3, 4]


def test_a_training_that_breaks_off_after_a_checkpoint_has_no_hole(tmp_path: Path) -> None:
    from transformers import TrainerCallback

    class Breaks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step == 2:
                raise KeyboardInterrupt

    first, _ = make(tmp_path, save_strategy="steps", save_steps=1)
    first.callback_handler.callbacks.insert(0, Breaks())
    with pytest.raises(KeyboardInterrupt):
        first.train()
    again, _ = make(tmp_path, save_strategy="steps", save_steps=1)
    again.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-2"))
    assert [line["step"] for line in RunFolder.open(tmp_path / "run")[0].lines("metrics.jsonl")] == [1, 2, 3]


def test_the_policy_before_the_update_is_offered_where_it_is_measured(tmp_path: Path) -> None:
    trainer, _ = make(tmp_path, "token_dpo", beta=0.1, num_iterations=2, max_steps=2)
    trainer.train()
    (_, rollouts), *_ = RolloutStore(tmp_path / "run" / "rollouts")
    assert {"token:log_probs/old", "token:log_probs/reference"} <= set(rollouts.columns)


def test_a_log_prob_that_the_sampler_left_out_is_missing(tmp_path: Path) -> None:
    trainer, _ = make(tmp_path, max_steps=1)
    inner = trainer._generate_and_score_completions

    def gapped(output: dict[str, Any]) -> dict[str, Any]:
        sampled = torch.zeros(output["completion_ids"].shape)
        sampled[0, 0] = torch.nan
        return output | {"sampling_per_token_logps": sampled}

    rollouts_of = trainer._rollouts
    trainer._rollouts = lambda output, scored: rollouts_of(gapped(output), scored)
    trainer._generate_and_score_completions = inner
    trainer.train()
    ((_, rollouts),) = RolloutStore(tmp_path / "run" / "rollouts")
    present = rollouts.columns["token:log_probs/behaviour"].present
    assert present is not None
    assert present.tolist() == [False] + [True] * (rollouts.n_tokens - 1)


def test_rewards_of_another_scale_have_no_accuracy(tmp_path: Path) -> None:
    trainer, _ = make(tmp_path, rewards=lambda completions, **given: [10.0 + len(text) for text in completions])
    trainer.train()
    lines = RunFolder.open(tmp_path / "run")[0].lines("metrics.jsonl")
    assert [line["accuracy"] for line in lines] == [None] * 3
    assert all(line["reward"] > 10 for line in lines)


def test_a_new_training_does_not_write_over_a_run(tmp_path: Path) -> None:
    trainer, _ = make(tmp_path, max_steps=1)
    trainer.train()
    again, _ = make(tmp_path, max_steps=1)
    with pytest.raises(InputError, match="exists already"):
        again.train()


def test_several_reward_functions_are_components(tmp_path: Path) -> None:
    trainer, _ = make(tmp_path, "rloo", [odd, long], reward_weights=[1.0, 0.5])
    trainer.train()
    unknown = 0
    for _, rollouts in RolloutStore(tmp_path / "run" / "rollouts"):
        known = rollouts.column("episode:scored/long").bool()
        unknown += int((~known).sum())
        long_E = torch.where(known, rollouts.column("episode:reward/long"), 0.0)
        outcome = rollouts.column("episode:reward/odd") + 0.5 * long_E
        assert rollouts.column("episode:reward/outcome").tolist() == pytest.approx(outcome.tolist())
    assert 0 < unknown < 24


def test_a_completion_without_a_verdict_leaves_the_loss(tmp_path: Path) -> None:
    trainer, inside = make(tmp_path, "rloo", long)
    trainer.train()
    left_out = 0
    for (_, rollouts), batch in zip(RolloutStore(tmp_path / "run" / "rollouts"), inside, strict=True):
        unknown = ~rollouts.column("episode:scored/outcome").bool()
        left_out += int(unknown.sum())
        counted = rollouts.column("credit/counted").bool()
        assert not counted[unknown[rollouts.episode_of_token]].any()
        assert int(batch["num_items_in_batch"]) == int(counted.sum())
        if bool(unknown.any()):
            assert int((batch["completion_mask"] * batch["tool_mask"]).sum()) == int(counted.sum())
            assert not batch["advantages"][batch["tool_mask"] == 0].any()
    assert left_out


def test_batches_of_several_groups_a_step_are_stored_together(tmp_path: Path) -> None:
    trainer, inside = make(tmp_path, gradient_accumulation_steps=2, steps_per_generation=1, max_steps=2)
    trainer.train()
    stored = dict(RolloutStore(tmp_path / "run" / "rollouts"))
    assert list(stored) == [1, 2]
    assert len(inside) == 4
    assert [(r.n_groups, r.n_responses) for r in stored.values()] == [(4, 16), (4, 16)]
    assert all(torch.bincount(r.group_ids).tolist() == [GROUP] * 4 for r in stored.values())


@pytest.mark.parametrize(
    ("method", "changed", "message"),
    [
        ("gae", {}, "gae needs 'values/critic', and TRL hands over only"),
        ("pure", {}, "pure needs 'reward/prm'"),
        ("tempa", {}, "did you mean 'tempo'"),
        ("tempo", {"importance_sampling_level": "sequence"}, "importance_sampling_level is 'sequence'"),
        ("tempo", {"loss_type": "vespo"}, "loss_type is 'vespo'"),
        ("tempo", {"scale_rewards": "none"}, "scale_rewards is 'none'"),
        ("tempo", {"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold is set"),
        ("tempo", {"top_entropy_quantile": 0.2}, "top_entropy_quantile is 0.2, which leaves the credit of most tokens"),
        ("vine", {}, "vine compares branches, and TRL draws none, so that it would be leave-one-out: choose rloo"),
        ("token_dpo", {"beta": 0.1}, "token_dpo needs 'log_probs/old', and TRL hands over only"),
    ],
)
def test_what_it_cannot_carry_is_refused(tmp_path: Path, method: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path, method, **changed)


def test_tokens_that_train_without_counting_are_refused(tmp_path: Path) -> None:
    trainer, _ = make(tmp_path, f"{__name__}:uncounted")
    with pytest.raises(InputError, match="do not count in normalisers"):
        trainer.train()


def uncounted() -> Stage:
    """RLOO with nothing in the normaliser."""

    @token_filter()
    def none(work: Any) -> tuple[Tensor, Tensor]:
        return work.trained, torch.zeros_like(work.counted)

    return credit.chain(credit.METHODS["rloo"](), none)


def test_reward_functions_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected different names"):
        make(tmp_path, "rloo", [odd, odd])


def test_a_stateful_method_gets_its_state_and_the_clock(tmp_path: Path) -> None:
    SEEN.clear()
    trainer, _ = make(tmp_path, f"{__name__}:counting")
    trainer.train()
    assert list(SEEN) == [(0, Clock(0, 3)), (1, Clock(1, 3)), (2, Clock(2, 3))]


SEEN: list[tuple[int, Clock | None]] = []


def counting() -> Stage:
    """RLOO that notes what it is called with."""
    inner = credit.METHODS["rloo"]()

    def apply(work: Any, state: Any, clock: Clock | None) -> tuple[Any, Any]:
        SEEN.append((state, clock))
        return inner.apply(work, None, clock)[0], state + 1

    first: Callable[[], int] = int
    return replace(inner, apply=apply, init=first, reads_clock=True)


def test_a_state_that_a_checkpoint_lacks_is_not_begun_anew(tmp_path: Path) -> None:
    whole, _ = make(tmp_path, f"{__name__}:counting", save_strategy="steps", save_steps=1)
    whole.train()
    again, _ = make(tmp_path, f"{__name__}:counting", save_strategy="steps", save_steps=1)
    with pytest.raises(InputError, match="hold no state of a credit method"):
        again.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-2"))
