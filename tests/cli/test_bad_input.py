"""Bad input: exit code 2, one sentence with what was given and what to do, no traceback, and nothing on disk changed.

The sentences are those of the command line as users type it; only torch's and transformers' own parts are imported once
for all of them. A few run as real processes.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from places import furnish, snapshot

from apportion.cli import doctor
from apportion.cli.main import main
from apportion.errors import InputError, RunStopped

TABULAR, DIGITS = "train tabular --run new", "train quickstart --run new"

TRAIN = {
    "no recipe": ("train", "needs a recipe, one of quickstart"),
    "a setting in place of the recipe": ("train --steps 3", "needs a recipe, one of quickstart"),
    "unknown recipe": ("train quickstrat --run new", "unknown recipe 'quickstrat': did you mean 'quickstart'?"),
    "unknown setting": (f"{TABULAR} --group-sise 4", "'--group-sise': did you mean '--group-size'?"),
    "unknown setting with a value attached": (f"{TABULAR} --steps=2 --setps=3", "'--setps': did you mean '--steps'?"),
    "a word too many": (f"{TABULAR} --steps 2 more", "'more': see apportion train --help"),
    "no value": (f"{TABULAR} --steps", "--steps has no value"),
    "not a number": (f"{TABULAR} --learning-rate fast", "--learning-rate is 'fast', expected a number"),
    "not a whole number": (f"{TABULAR} --steps 2.5", "--steps is '2.5', expected a whole number"),
    "no such choice": (f"{TABULAR} --chat perhaps", "'perhaps' for argument '--chat'"),
    "out of range": (f"{TABULAR} --save-every 0", "save_every is 0, expected at least 1"),
    "negative": (f"{TABULAR} --steps -1", "steps is -1, expected 0 or more"),
    "learning rate not finite": (f"{TABULAR} --learning-rate nan", "learning_rate is nan, expected a finite number"),
    "moment of 1": (f"{TABULAR} --beta2 1", "beta2 is 1.0, expected a number from 0 to below 1"),
    "negative norm": (f"{TABULAR} --max-grad-norm -1", "max_grad_norm is -1.0, expected a finite number from 0"),
    "greedy training": (f"{TABULAR} --temperature 0", "temperature is 0.0, expected more than 0"),
    "nucleus of nothing": (f"{TABULAR} --top-p 0", "top_p=0.0, expected top_k >= 0 and 0 < top_p <= 1"),
    "nothing to minimise": (f"{TABULAR} --objective", "objective names nothing to minimise: give at least one"),
    "unknown decay": (f"{TABULAR} --decay cosine", "decay is 'cosine', expected one of constant, linear"),
    "unknown dtype": (f"{TABULAR} --dtype float16", "dtype is 'float16', expected one of float32"),
    "no sample to evaluate": (f"{TABULAR} --eval-samples 0", "eval_samples is 0, expected at least 1"),
    "setting nobody reads": (f"{TABULAR} --lora-alpha 8", "lora_alpha is set but lora_rank is not"),
    "instruction without the prompt": (f"{DIGITS} --instruction hello", "instruction is 'hello', expected text with"),
    "unknown credit": (f"{TABULAR} --credit tempa", "unknown credit method 'tempa': did you mean 'tempo'?"),
    "unknown argument of a credit": (
        f"{TABULAR} --credit 'tempo(norm=1)'",
        "unknown argument of credit method 'tempo' 'norm': did you mean 'norm_by_std'?",
    ),
    "credit that cannot be read": (f"{TABULAR} --credit 'tempo('", "cannot read 'tempo(': expected name or name("),
    "credit from a module that is not there": (f"{TABULAR} --credit nowhere:mine", "cannot import 'nowhere'"),
    "credit from a module that cannot be imported": (f"{TABULAR} --credit own:mine", "no_such_package_of_mine"),
    "credit that a module lacks": (f"{TABULAR} --credit mine:nothing", "unknown name in mine 'nothing'"),
    "credit that is none": (f"{TABULAR} --credit mine:not_a_stage", "'mine:not_a_stage' made a int, expected a credit"),
    "credit that cannot be called": (f"{TABULAR} --credit mine:number", "is a int, expected something callable"),
    "unknown objective": (f"{TABULAR} --objective clib", "unknown objective 'clib': did you mean 'clip'?"),
    "objective without its column": (
        f"{TABULAR} --objective value",
        "objective 'value' needs the column 'values/critic'",
    ),
    "credit without its column": (
        f"{TABULAR} --credit mine:judged",
        "credit 'mine:judged' needs the column 'step:score/prm', which these rollouts lack: this recipe does not make",
    ),
    "group of one": (f"{TABULAR} --group-size 1", "group_size is 1, but credit 'grpo' compares the responses"),
    "group of one with tempo": (f"{TABULAR} --group-size 1 --credit tempo", "set group_size to at least 2"),
    "unknown verifier": (f"{TABULAR} --verifier exakt", "unknown verifier 'exakt': did you mean 'exact'?"),
    "verifier of other arguments": (f"{TABULAR} --verifier mine:takes_nothing", "expected a function of (prompt"),
    "unknown statistic": (f"{TABULAR} --record entropi", "unknown policy statistic 'entropi': did you mean 'entropy'?"),
    "unknown tracker": (f"{TABULAR} --trackers trackioo", "unknown tracker 'trackioo': did you mean 'trackio'?"),
    "unknown warm start": (f"{TABULAR} --warm-start imitat", "unknown warm start 'imitat': did you mean 'imitation'?"),
    "warm start without a teacher": (f"{DIGITS} --warm-start imitation", "'imitation' needs teacher"),
    "unknown device": (f"{DIGITS} --device tpu", "device is 'tpu', expected auto, cpu, cuda"),
    "unknown task": (f"{DIGITS} --tasks chain_sam", "unknown task 'chain_sam': did you mean 'chain_sum'?"),
    "task from a module that is not there": (f"{DIGITS} --tasks nowhere:mine", "cannot import 'nowhere'"),
    "task source that is none": (f"{DIGITS} --tasks mine:no_tasks", "expected a task source such as"),
    "no tasks": (f"{DIGITS} --tasks", "given no sources: expected at least one"),
    "weight of nothing": (f"{DIGITS} --tasks '0*good.jsonl'", "has the weight 0.0 in a mixture: expected a positive"),
    "tasks file missing": (f"{DIGITS} --tasks gone.jsonl", "'gone.jsonl' does not exist: give the path"),
    "tasks file empty": (f"{DIGITS} --tasks empty.jsonl", "empty.jsonl is empty: expected at least two rows"),
    "tasks file of one row": (f"{DIGITS} --tasks one.jsonl", "one.jsonl"),
    "tasks file malformed": (f"{DIGITS} --tasks malformed.jsonl", "line 3 of malformed.jsonl is not JSON"),
    "tasks file without prompts": (f"{DIGITS} --tasks no_prompt.jsonl", "no_prompt.jsonl has no prompt column"),
    "tasks file without an answer column": (f"{DIGITS} --tasks no_answer_column.jsonl", "has no answer column"),
    "tasks file without answers": (f"{DIGITS} --tasks no_answers.jsonl", "no_answers.jsonl has no answers"),
    "tasks column that is not there": (
        f"{DIGITS} --tasks \"good.jsonl(prompt='questoin')\"",
        "unknown column of good.jsonl 'questoin': did you mean 'question'?",
    ),
    "tasks file of another kind": (f"{DIGITS} --tasks tasks.txt", "expected a file ending in .jsonl"),
    "CSV with a short row": (f"{DIGITS} --tasks short_row.csv", "line 3 of short_row.csv has 1 fields"),
    "broken Parquet": (f"{DIGITS} --tasks broken.parquet", "broken.parquet cannot be read as Parquet"),
    "prompt longer than the context": (
        f"{DIGITS} --tasks long.jsonl --verifier integer",
        "has 71 tokens, which with max_new_tokens 8 exceed the model's context of 64: shorten",
    ),
    "responses longer than the context": (
        f"{DIGITS} --max-new-tokens 64",
        "max_new_tokens 64 and the model's context 64 leave no room for prompts: lower",
    ),
    "responses longer than the table": (f"{TABULAR} --max-new-tokens 2", "max_new_tokens 2 and the model"),
    "prompt that the table does not have": (f"{TABULAR} --tasks good.jsonl", "is none of the policy's 4"),
    "half a table": (f"{TABULAR} --autocast bfloat16", "autocast is 'bfloat16', but model 'tabular"),
    "a copy of a table": (f"{TABULAR} --sampling-dtype bfloat16", "sampling_dtype is 'bfloat16', but"),
    "adapters on a table": (f"{TABULAR} --lora-rank 2", "is not a Hugging Face model"),
    "words around a number": (f"{TABULAR} --instruction 'say {{prompt}}'", "reads numbers only"),
    "adapters nowhere": (f"{DIGITS} --lora-rank 2 --lora-targets q_prox", "lora_targets is 'q_prox'"),
    "chat without a template": (f"{DIGITS} --chat True", "this tokenizer has no chat template"),
    "model folder missing": (f"{DIGITS} --model ./gone", "there is no model folder './gone': give a folder"),
    "model is a file": (f"{DIGITS} --model a_file", "there is no model folder 'a_file': give a folder"),
    "model without a configuration": (f"{DIGITS} --model model_no_config", "model_no_config has no config.json"),
    "model without a tokenizer": (f"{DIGITS} --model model_no_tokenizer", "save the tokenizer into the same folder"),
    "model without weights": (f"{DIGITS} --model model_empty", "the weights in 'model_empty' cannot be loaded"),
    "model with torn weights": (f"{DIGITS} --model model_torn", "the weights in 'model_torn' cannot be loaded"),
    "encoder": (f"{DIGITS} --model model_bert", "expected a causal language model: choose a decoder"),
    "encoder and decoder": (f"{DIGITS} --model model_t5", "is a t5 model, which is not supported"),
    "model nobody has heard of": (f"{DIGITS} --model model_unheard_of", "cannot load a model from 'model_unheard_of'"),
    "model with dropout": (f"{DIGITS} --model model_dropout", "dropout 0.1"),
    "unknown argument of a model": (
        f"{DIGITS} --model 'digits(width=3)'",
        "unknown argument of model 'digits' 'width'",
    ),
    "run folder that exists": (
        "train tabular --run run",
        "run exists already and is not empty: go on with --resume run",
    ),
    "run folder with something in it": ("train tabular --run model", "model exists already and is not empty: choose"),
    "run folder that is a file": ("train tabular --run a_file", "a_file exists already"),
    "run folder under a file": ("train tabular --run a_file/new", "choose another for the run"),
    "resume of nothing": ("train --resume gone", "gone is not the folder of a run"),
    "resume with a recipe": ("train tabular --resume run", "leave the recipe and --run out"),
    "resume with another setting": ("train --resume run --seed 4", "seed would change: only --steps may"),
    "resume of a finished run": ("train --resume run", "run has done all its 2 steps: give a larger --steps"),
    "resume to the past": ("train --resume run --steps 1", "run has done all its 2 steps: give a larger --steps"),
    "resume with a torn configuration": ("train --resume run_torn", "config.json is not a JSON object"),
    "resume with a list of settings": ("train --resume run_list", "config.json is not a JSON object"),
    "resume of another version": ("train --resume run_of_another_version", "'no_such_setting'"),
    "resume with a wrong kind": ("train --resume run_of_wrong_kinds", "config.json cannot be used"),
}

OTHERS = {
    "unknown verb": ("trian quickstart", "unknown verb 'trian': did you mean 'train'?"),
    "credit: nothing": ("credit", "apportion credit METHOD FILE"),
    "credit: no file": ("credit grpo", "apportion credit METHOD FILE"),
    "credit: unknown method": ("credit tempa rollouts.jsonl", "unknown credit method 'tempa'"),
    "credit: unknown setting": ("credit grpo rollouts.jsonl --jsno", "'--jsno': did you mean '--json'?"),
    "credit: file missing": ("credit grpo gone.jsonl", "gone.jsonl is not a file that exists"),
    "credit: a folder": ("credit grpo run", "run"),
    "credit: file of another kind": ("credit grpo tasks.txt", "tasks.txt ends in '.txt', expected one of .jsonl"),
    "credit: empty file": ("credit grpo no_rollouts.jsonl", "no_rollouts.jsonl"),
    "credit: not Arrow": ("credit grpo not_arrow.arrow", "not_arrow.arrow"),
    "credit: malformed": ("credit grpo torn.jsonl", "line 3"),
    "credit: malformed, into a file": ("credit grpo torn.jsonl --out new.jsonl", "line 3"),
    "credit: record without tokens": ("credit grpo no_ids.jsonl", "line 3"),
    "credit: no rewards": ("credit grpo no_reward.jsonl", "'reward/outcome'"),
    "credit: a column that is missing": (
        "credit mine:judged rollouts.jsonl",
        "needs the column 'step:score/prm', which these rollouts lack",
    ),
    "credit: unknown rewards": ("credit grpo unknown.jsonl", "1 of 3 episodes have an unknown reward: score them, or"),
    "credit: unknown rewards, the way out": ("credit grpo unknown.jsonl", "pass --drop-unknown"),
    "credit: step alone": ("credit grpo rollouts.jsonl --step 1", "--step and --total-steps belong together"),
    "credit: total alone": ("credit grpo rollouts.jsonl --total-steps 1", "--step and --total-steps belong together"),
    "credit: step beyond": (
        "credit grpo rollouts.jsonl --step 4 --total-steps 4",
        "--step is 4 of 4 steps, expected 0",
    ),
    "credit: step no number": ("credit grpo rollouts.jsonl --step two", "--step is 'two', expected a whole number"),
    "credit: two outputs": ("credit grpo rollouts.jsonl --json --out new.jsonl", "give one of them"),
    "methods: example and tables": ("methods --example --markdown", "give one of them"),
    "credit: stages for people": ("credit grpo rollouts.jsonl --stages", "--stages is part of what --json prints"),
    "credit: groups into a file": ("credit grpo rollouts.jsonl --by-group --out new.jsonl", "give one of them"),
    "credit: out exists": ("credit grpo rollouts.jsonl --out good.jsonl", "good.jsonl exists already: choose another"),
    "credit: out of another kind": ("credit grpo rollouts.jsonl --out new.csv", "new.csv ends in '.csv', expected one"),
    "credit: out nowhere": ("credit grpo rollouts.jsonl --out gone/new.jsonl", "gone is not a folder that may be"),
    "credit: annotator that looks at a model": (
        "credit grpo rollouts.jsonl --annotators attention_rhythm",
        "annotator 'attention_rhythm' looks at a model, and there is none: name one with --annotate",
    ),
    "credit: checkpoint that is none": ("credit grpo rollouts.jsonl --annotate model_no_config", "has no config.json"),
    "credit: run without a checkpoint": (
        "credit token_dpo rollouts.jsonl --annotate run_without_checkpoint",
        "run_without_checkpoint has no whole checkpoint: wait for the first, or give another",
    ),
    "compare: nothing": ("compare", "apportion compare RUN --credit a,b,c"),
    "compare: no method": ("compare run", "--credit names no method, expected at least two"),
    "compare: one method": ("compare run --credit grpo", "--credit names grpo alone, expected at least two"),
    "compare: one method of two arguments": (
        "compare run --credit 'tempo(norm_by_std=True, eps=0.0)'",
        "--credit names tempo(norm_by_std=True, eps=0.0) alone",
    ),
    "compare: a method twice": ("compare run --credit grpo,tempo,grpo", "--credit names grpo more than once"),
    "compare: nothing between commas": ("compare run --credit grpo,,tempo", "cannot read 'grpo,,tempo'"),
    "compare: unknown method": ("compare run --credit grpo,tempa", "unknown credit method 'tempa'"),
    "compare: unknown setting": ("compare run --credits grpo,tempo", "'--credits': did you mean '--credit'?"),
    "compare: no such run": ("compare gone --credit grpo,tempo", "gone does not exist: give the folder of a run, or a"),
    "compare: no run": ("compare model --credit grpo,tempo", "model"),
    "compare: empty run": ("compare run_without_checkpoint --credit grpo,tempo", "has no stored rollouts"),
    "compare: file of another kind": ("compare tasks.txt --credit grpo,tempo", "tasks.txt ends in '.txt', expected"),
    "compare: file without needed columns": (
        "compare rollouts.jsonl --credit grpo,gae --json",
        "gae needs the column 'token:values/critic', which these rollouts lack: a critic makes it",
    ),
    "compare: malformed": ("compare torn.jsonl --credit grpo,tempo --json", "line 3"),
    "compare: no rewards": ("compare no_reward.jsonl --credit grpo,tempo", "grpo needs the column 'reward/outcome'"),
    "compare: steps of a file": ("compare rollouts.jsonl --credit grpo,tempo --steps 1", "is a file: leave it out"),
    "compare: steps that are not there": ("compare run --credit grpo,tempo --steps 7:9", "stored steps 1 to 2, none"),
    "compare: steps backwards": (
        "compare run --credit grpo,tempo --steps 2:1",
        "which ends before it begins: write 1:2",
    ),
    "compare: steps of no number": (
        "compare run --credit grpo,tempo --steps last",
        "--steps is 'last', expected a step",
    ),
    "compare: no steps": ("compare run --credit grpo,tempo --steps :", "--steps is ':', expected a step such as 12"),
    "compare: negative top": ("compare run --credit grpo,tempo --top -1", "--top is -1, expected 0 or more"),
    "rollout: nothing": ("rollout", "apportion rollout MODEL_OR_RUN --out FILE"),
    "rollout: no out": ("rollout run", "rollout needs --out FILE"),
    "rollout: out exists": ("rollout run --out good.jsonl", "good.jsonl exists already: choose another"),
    "rollout: out of another kind": ("rollout run --out new.csv", "new.csv ends in '.csv', expected one of .jsonl"),
    "rollout: out nowhere": ("rollout run --out gone/new.jsonl", "gone is not a folder that may be written to"),
    "rollout: no tasks for a model": ("rollout model --out new.jsonl", "name some with --tasks"),
    "rollout: model missing": ("rollout ./gone --tasks good.jsonl --out new.jsonl", "no model folder './gone'"),
    "rollout: unknown part": ("rollout run --out new.jsonl --part test", "part is 'test', expected"),
    "rollout: empty part": ("rollout run --out new.jsonl --part held_out", "choose the other with --part"),
    "rollout: no prompts": ("rollout run --out new.jsonl --prompts 0", "--prompts 0"),
    "rollout: negative group": ("rollout run --out new.jsonl --group-size -1", "--group-size -1"),
    "rollout: unknown verifier": ("rollout run --out new.jsonl --verifier exakt", "unknown verifier 'exakt'"),
    "rollout: unknown setting": ("rollout run --otu new.jsonl", "'--otu': did you mean '--out'?"),
    "rollout: too long": ("rollout model --tasks long.jsonl --max-new-tokens 4 --out new.jsonl", "has 71 tokens"),
    "rollout: no checkpoint": ("rollout run_without_checkpoint --out new.jsonl", "has no whole checkpoint yet"),
    "eval: nothing": ("eval", "apportion eval MODEL_OR_RUN"),
    "eval: no tasks for a model": ("eval model", "name some with --tasks"),
    "eval: nothing held out": ("eval run", "hold nothing out"),
    "eval: no samples": ("eval run --samples 0", "--samples 0"),
    "eval: more than the samples": ("eval run --samples 2 --k 4", "expected 1 <= k <= samples"),
    "eval: no prompts": ("eval run --prompts 0", "--prompts 0, expected at least 1"),
    "eval: no tokens": ("eval model --tasks good.jsonl --max-new-tokens 0", "max_new_tokens is 0, expected at least 1"),
    "eval: negative temperature": ("eval model --tasks good.jsonl --max-new-tokens 4 --temperature -1", "temperature"),
    "eval: unknown tasks": ("eval model --tasks chain_sam", "unknown task 'chain_sam'"),
    "eval: missing tasks file": ("eval model --tasks gone.jsonl", "'gone.jsonl' does not exist"),
    "eval: model without a tokenizer": (
        "eval model_no_tokenizer --tasks good.jsonl",
        "save the tokenizer into the same folder",
    ),
    "eval: no checkpoint": ("eval run_without_checkpoint", "has no whole checkpoint yet: wait for the first"),
    "eval: not a number": ("eval model --k four", "--k cannot be 'four'"),
    "methods: unknown setting": ("methods --jsno", "'--jsno': did you mean '--json'?"),
    "methods: unknown name": ("methods grppo", "'grppo': did you mean 'grpo'?"),
    "doctor: unknown setting": ("doctor --jsno", "'--jsno': did you mean '--json'?"),
    "doctor: a word too many": ("doctor all", "'all': see apportion doctor --help"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder all commands run in."""
    folder = tmp_path_factory.mktemp("place")
    furnish(folder)
    return folder


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(place)
    for name in ("mine", "models", "own"):  # of another test's folder
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    there = set(place.iterdir())
    yield place
    for path in set(place.iterdir()) - there:  # so that one failure does not make the next
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def assert_one_sentence(error: str, expected: str) -> None:
    assert error.startswith("apportion: ")
    assert error.endswith("\n")
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    assert expected in error
    assert len(error) > len("apportion: ") + 30, "too short to say what was given and what to do"


@pytest.mark.parametrize("name", [*TRAIN, *OTHERS])
def test_bad_input_is_refused(name: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line, expected = (TRAIN | OTHERS)[name]
    before = snapshot(inside)
    code = main(shlex.split(line))
    said = capsys.readouterr()
    assert_one_sentence(said.err, expected)
    assert code == 2
    assert snapshot(inside) == before
    if "--json" in line or line.startswith("train"):
        assert said.out == ""


def test_a_device_that_is_not_there(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = snapshot(inside)
    assert main(shlex.split(f"{DIGITS} --device cuda")) == 2
    assert_one_sentence(
        capsys.readouterr().err, "device is 'cuda', but torch sees no CUDA device here: use --device cpu"
    )
    assert snapshot(inside) == before


def test_the_command_line_as_a_module() -> None:
    ended = subprocess.run([sys.executable, "-m", "apportion", "nothing"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert_one_sentence(ended.stderr, "'nothing'")


@pytest.mark.parametrize("name", ["trackio", "wandb", "tensorboard"])
def test_a_tracker_that_is_not_installed(
    name: str, inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *rest: None if wanted == name else find(wanted))
    before = snapshot(inside)
    assert main([*shlex.split(TABULAR), "--trackers", name]) == 2
    assert_one_sentence(
        capsys.readouterr().err, f"tracker '{name}' is not installed: run pip install \"apportion[track]\""
    )
    assert snapshot(inside) == before


def test_a_place_that_may_not_be_written_to(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *given: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)  # root, whom these tests may run as, may write anywhere
    assert main(shlex.split(TABULAR)) == 2
    assert_one_sentence(capsys.readouterr().err, "cannot make the folder new (Permission denied): choose another")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("what others say\n  may have lines:\nmend it all the same."), "say may have lines: mend it all"),
        (RunStopped("the run stopped for a reason:\nthis one, so mend it."), "stopped for a reason: this one, so mend"),
        (PermissionError(13, "Permission denied", "some/file"), "cannot use some/file (Permission denied): choose"),
        (OSError(28, "No space left on device"), "the disk is full (No space left on device): make room on it"),
        (ModuleNotFoundError("gone", name="gone.deep"), 'doctor needs gone, which is not installed: run pip install "'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_verb_raises_on_purpose_is_one_line(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: object) -> int:
        raise error

    monkeypatch.setattr(doctor, "main", fail)
    assert main(["doctor"]) == 2
    assert_one_sentence(capsys.readouterr().err, expected)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a bug"), OSError("no file"), ModuleNotFoundError("x", name="apportion.x")]
)
def test_a_bug_is_not_called_bad_input(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: object) -> int:
        raise error

    monkeypatch.setattr(doctor, "main", fail)
    with pytest.raises(type(error)):
        main(["doctor"])


# What real processes do.

COMMAND = Path(sys.executable).parent / "apportion"


def process(arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *shlex.split(arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", ["run folder that exists", "credit: malformed"])
def test_bad_input_is_refused_by_a_real_process(name: str, place: Path) -> None:
    line, expected = (TRAIN | OTHERS)[name]
    before = snapshot(place)
    done = process(line, place)
    assert done.returncode == 2
    assert_one_sentence(done.stderr, expected)
    assert snapshot(place) == before


def test_a_hub_name_without_a_hub(place: Path) -> None:
    before = snapshot(place)
    done = process(f"{DIGITS} --model nobody/no-such-model", place, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert_one_sentence(done.stderr, "cannot load a model from 'nobody/no-such-model'")
    assert snapshot(place) == before


@pytest.mark.parametrize("verb", ["train", "rollout", "credit", "compare", "eval", "methods", "doctor"])
def test_help_is_no_error(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    said = capsys.readouterr()
    assert stop.value.code == 0
    assert said.out.startswith("usage: apportion " + verb)
    assert said.err == ""


def test_no_verb_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "credit stored rollouts under a method" in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error(place: Path) -> None:
    command = f"{shlex.quote(str(COMMAND))} credit grpo rollouts.jsonl --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""
