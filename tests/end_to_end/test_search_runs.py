"""Runs that sample by search: killed and resumed to the same end, trained on labels of steps, refused early."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from apportion.errors import InputError
from apportion.rollouts.store import RolloutStore
from apportion.sampling.search import trees_in
from apportion.training.setup import set_up
from every_method import BASE, killed_and_resumed
from forked import begin

GROUNDED = "search(rule='grounded_prm(rounds=8)', steps='partial_sums', delimiter=None, step_tokens=1)"
MED_S3 = "search(rule='med_s3(completions=4, least_completions=2, nodes=12)', delimiter=None, step_tokens=1)"
TAUGHT = "imitation(teacher='apportion.tasks.running_sum:demonstrate', max_steps=150, decay=10, batch=32)"
SEARCHED = replace(BASE, credit="pure", max_unscored=1.0, warm_start=TAUGHT, prompts_per_step=4, group_size=6)


@pytest.mark.parametrize("sampling", [GROUNDED, MED_S3])
def test_killed_and_resumed_to_the_same_end(sampling: str, tmp_path: Path) -> None:
    whole = killed_and_resumed(replace(SEARCHED, sampling=sampling), tmp_path)
    first = (tmp_path / "whole/checkpoints/step_000000/model/model.safetensors").read_bytes()
    assert whole["weights"]["model/model.safetensors"] != first
    shares = [float(line["groups_mixed"]) for line in whole["metrics"]]
    assert max(shares) > 0
    for step, rollouts in RolloutStore(tmp_path / "whole/rollouts"):
        scored = rollouts.column("step:scored/prm").bool()
        trained = rollouts.column("credit/trained")
        credited = rollouts.column("credit/advantages") != 0
        assert bool((~credited | trained).all())
        for start, end in zip(
            rollouts.spans["step"].starts[~scored], rollouts.spans["step"].ends[~scored], strict=True
        ):
            assert not trained[start:end].any(), step
        assert trees_in(rollouts).keys() == set(rollouts.group_ids.tolist())


def test_labels_of_grounded_steps_are_those_of_the_sums(tmp_path: Path) -> None:
    assert begin(tmp_path / "run", replace(SEARCHED, sampling=GROUNDED, steps=3)) == 0
    seen = set()
    for _, rollouts in RolloutStore(tmp_path / "run/rollouts"):
        texts, prompts = (rollouts.columns[f"response:{name}"].text for name in ("text", "prompt_text"))
        row = rollouts.response_of_span["step"]
        place = rollouts.spans["step"].starts - rollouts.token_offsets[row]
        labels, scored = rollouts.column("step:reward/prm"), rollouts.column("step:scored/prm")
        for b, t, label, known in zip(*(x.tolist() for x in (row, place, labels, scored)), strict=True):
            if known:
                prompt, text = prompts[b] or "", texts[b] or ""
                before = prompt[-1] + text
                right = "." if t == prompt.index("=") else str((int(before[t]) + int(prompt[t])) % 10)
                assert label == (1.0 if text[t] == right else -1.0)
                seen.add(label)
    assert seen == {1.0, -1.0}


def test_outcome_credit_needs_no_labels(tmp_path: Path) -> None:
    assert begin(tmp_path / "run", replace(BASE, sampling=MED_S3, credit="grpo", steps=2)) == 0
    (_, rollouts), *_ = RolloutStore(tmp_path / "run/rollouts")
    assert rollouts.has("step:value")
    assert bool(torch.isfinite(rollouts.column("credit/advantages")).all())


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ("search", "checks steps and was told no verifier: name one"),
        ("search(rule='med_s3', steps='partial_sums')", "checks none: leave it out"),
        ("search(rule='medS3')", "unknown search rule 'medS3'.*did you mean 'med_s3'"),
        ("search(rule='med_s3(depths=3)')", "unknown argument of search rule 'med_s3'"),
        ("search(rule='med_s3', step_tokens=0)", "step_tokens is 0"),
        ("search(rule='med_s3', delimiter='')", "delimiter is empty"),
        ("search(steps='partial')", "unknown verifier 'partial'"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_is_sampled(sampling: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        set_up(replace(SEARCHED, sampling=sampling))
