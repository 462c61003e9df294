"""A folder of good and bad things that tests of the command line point it at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from apportion.cli.main import main


def lines(path: Path, records: Iterable[Any]) -> None:
    """Write JSON lines; texts are written as they are."""
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))


def snapshot(folder: Path) -> Mapping[str, tuple[int, bytes]]:
    """Every file with its time and content, every folder with its name; not what Python keeps of modules it read."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) if p.is_file() else (0, b"")
        for p in sorted(folder.rglob("*"))
        if "__pycache__" not in p.parts
    }


def _tasks(folder: Path) -> None:
    sums = [{"question": f"{a}{b}=", "answer": a + b} for a in range(2, 6) for b in range(5)]
    lines(folder / "good.jsonl", sums)
    lines(folder / "one.jsonl", sums[:1])
    (folder / "empty.jsonl").write_text("")
    lines(folder / "malformed.jsonl", [*sums[:2], "{not json", *sums[3:]])
    lines(folder / "no_prompt.jsonl", [{"text": "1+1", "answer": 2}] * 3)
    lines(folder / "no_answer_column.jsonl", [{"question": f"{i}"} for i in range(3)])
    lines(folder / "no_answers.jsonl", [{"question": f"{i}", "answer": None} for i in range(3)])
    lines(folder / "long.jsonl", [*sums, {"question": "1" * 70 + "=", "answer": 1}])
    lines(folder / "words.jsonl", [{"question": w, "answer": 1} for w in ("one", "two", "three")])
    (folder / "short_row.csv").write_text("question,answer\n12=,3\n13=\n")
    (folder / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    (folder / "tasks.txt").write_text("1+1\n")


def _rollouts(folder: Path) -> None:
    group = [{"group": 0, "ids": [5, 6], "reward": 1.0}, {"group": 0, "ids": [5, 7], "reward": 0.0}]
    lines(folder / "rollouts.jsonl", group)
    lines(folder / "torn.jsonl", [*group, '{"group": 1, "ids": [5', {"group": 2, "ids": [1], "reward": 0}])
    lines(folder / "no_reward.jsonl", [{"group": 0, "ids": [5, 6]}, {"group": 0, "ids": [5, 7]}])
    lines(folder / "no_ids.jsonl", [*group, {"group": 1, "reward": 1.0}])
    lines(folder / "unknown.jsonl", [*group, {"group": 0, "ids": [9], "reward": None}])
    (folder / "no_rollouts.jsonl").write_text("")
    (folder / "not_arrow.arrow").write_bytes(b"not Arrow at all")


def _models(folder: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

    from apportion.models.digits import digit_llama

    policy = digit_llama(hidden=16, layers=1, heads=2)
    for name in ("model", "model_torn", "model_empty"):
        policy.save(folder / name)
    weights = folder / "model_torn/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (folder / "model_empty/model.safetensors").unlink()
    policy.model.save_pretrained(folder / "model_no_tokenizer")
    (folder / "model_no_config").mkdir()

    small: dict[str, Any] = {"vocab_size": 13, "num_hidden_layers": 1}
    dropless = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    bert = BertConfig(hidden_size=16, intermediate_size=16, num_attention_heads=2, **small, **dropless)
    t5 = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=13)
    for name, model in (("model_bert", BertLMHeadModel(bert)), ("model_t5", T5ForConditionalGeneration(t5))):
        model.save_pretrained(folder / name)
        policy.tokenizer.save_pretrained(folder / name)
    gpt = {"architectures": ["NoSuchModel"], "model_type": "no_such_model"}
    (folder / "model_unheard_of").mkdir()
    (folder / "model_unheard_of/config.json").write_text(json.dumps(gpt))
    policy.tokenizer.save_pretrained(folder / "model_unheard_of")
    dropout = folder / "model_dropout"
    _with_dropout(dropout, policy.tokenizer)
    save_file(load_file(folder / "model/model.safetensors"), folder / "weights_only.safetensors")


def _with_dropout(folder: Path, tokenizer: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=13, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _runs(folder: Path) -> None:
    assert main(["train", "tabular", "--run", str(folder / "run"), "--steps", "2"]) == 0
    for name, text in {
        "run_torn": "{",
        "run_list": "[]",
        "run_of_another_version": '{"no_such_setting": 1}',
        "run_of_wrong_kinds": '{"steps": "many"}',
    }.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
    (folder / "run_without_checkpoint").mkdir()
    for name in ("config.json", "environment.json"):
        (folder / "run_without_checkpoint" / name).write_bytes((folder / "run" / name).read_bytes())
    (folder / "a_file").write_text("")


def _code(folder: Path) -> None:
    (folder / "own.py").write_text(
        '"""What a user may have written."""\n\nimport no_such_package_of_mine  # noqa: F401\n'
    )
    (folder / "mine.py").write_text(
        '"""What a user may have written."""\n\n\n'
        "def not_a_stage() -> int:\n    return 3\n\n\n"
        "def no_tasks() -> list:\n    return []\n\n\n"
        "def takes_nothing() -> float:\n    return 1.0\n\n\n"
        "number = 3\n\n\n"
        "def judged() -> object:\n"
        "    from apportion.credit import estimator\n\n"
        "    return estimator(needs=('step:score/prm',))(lambda work: work.advantages)\n"
    )


def furnish(folder: Path) -> None:
    """Fill a folder."""
    for part in (_tasks, _rollouts, _models, _runs, _code):
        part(folder)
