"""A training step of TRL's GRPOTrainer against ours with shared prefixes: same model, prompts, completions, lengths.

    python benchmarks/trl_step.py           a table
    python benchmarks/trl_step.py --json    the rows, one object each

A row is

    {name, ratio: {median, min, max}, ideal, error, machine}

``ratio`` is TRL's processor time over ours, one thread, five repeats in turns. *loss + backward*: TRL's
``compute_loss`` and ``backward`` on a batch, against our gradient of the clipped surrogate, the making of the prefix
tree included; both read the same advantages and old log-probs. ``ideal`` is what counting multiplications gives, as in
prefix_training.py, and ``error`` the relative difference of the whole gradient in float32. *whole step*: sampling the
group, decoding, reward, credit, gradient and an update by AdamW; TRL's ``training_step`` against our parts, which
also measure the old log-probs, a forward pass that TRL leaves out where a batch makes one update. A group of exactly so
many tokens is sampled by both; trees cannot be sampled by TRL, so there is no whole step of these. TRL runs without
activation checkpointing, which is its default and would slow it down.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from llamas import llama, policy
from measure import alternate, machine, spread
from prefix_training import ALL_AT_ONCE, SHAPES, Shape, Step, group, ideal
from torch import Tensor

from apportion import objectives
from apportion.credit import METHODS, Credit
from apportion.models.huggingface import HuggingFacePolicy
from apportion.models.measuring import measure, micro_batches
from apportion.rollouts import Rollouts, ragged
from apportion.sampling import SamplingSettings, engine_for
from apportion.sampling.groups import sample_groups
from apportion.training.gradient import accumulate

LEARNING_RATE = 1e-5


def tokenizer(vocabulary: int) -> Any:
    """One word a token, so that any ids are a text and the text is those ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocabulary)}, unk_token="t2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0", eos_token="t1")


def even(completions: list[str], **given: Any) -> list[float]:
    """Share of words that end in an even digit."""
    return [sum(word[-1] in "02468" for word in text.split()) / 64 for text in completions]


class Theirs:
    """TRL's trainer around one group a step."""

    def __init__(self, size: str, shape: Shape, folder: str) -> None:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        self.model = llama(size)
        self.shape, words = shape, tokenizer(self.model.config.vocab_size)
        self.example = {"prompt": words.decode(prompt_of(group(shape, self.model.config.vocab_size)))}
        self.trainer = GRPOTrainer(
            self.model,
            reward_funcs=even,
            args=GRPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=False,
                report_to=[],
                activation_checkpointing=False,
                per_device_train_batch_size=shape.copies,
                num_generations=shape.copies,
                max_completion_length=shape.response,
                generation_kwargs={"min_new_tokens": shape.response},
                max_steps=1 << 20,
            ),
            train_dataset=Dataset.from_list([self.example]),
            processing_class=words,
        )
        self.trainer.current_gradient_accumulation_steps = 1  # train() would set it
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)
        self.model.train()

    def inputs(self, rollouts: Rollouts, credit: Credit) -> dict[str, Tensor]:
        """A batch as its loss reads it; responses are of one length."""
        shape = self.shape
        prompt = torch.tensor(prompt_of(rollouts)).expand(shape.copies, -1)
        return {
            "prompt_ids": prompt,
            "prompt_mask": torch.ones_like(prompt),
            "completion_ids": rollouts.ids.view(shape.copies, shape.response),
            "completion_mask": torch.ones(shape.copies, shape.response, dtype=torch.int64),
            "advantages": credit.to_padded().float(),
            "old_per_token_logps": rollouts.column("log_probs/old").float().view(shape.copies, shape.response),
            "num_items_in_batch": torch.tensor(rollouts.n_tokens),
        }

    def gradient_of(self, inputs: dict[str, Tensor]) -> None:
        """Leaves it in the parameters' ``grad``."""
        self.model.zero_grad()
        self.trainer.accelerator.backward(self.trainer.compute_loss(self.model, inputs))

    def step(self) -> None:
        """Sample, score and update."""
        self.model.zero_grad()
        self.trainer.training_step(self.model, [self.example] * self.shape.copies, None)
        self.optimizer.step()


class Ours:
    """The same step out of our parts."""

    def __init__(self, size: str, shape: Shape) -> None:
        self.model: HuggingFacePolicy = policy(size)
        self.model.share_prefixes()
        self.model.prefix_sharing = True
        self.shape, self.words = shape, tokenizer(self.model.vocabulary)
        self.prompt = prompt_of(group(shape, self.model.vocabulary))
        self.engine, self.generator = engine_for(self.model), torch.Generator().manual_seed(0)
        self.objective = objectives.clip()
        parameters = [parameter for _, parameter in self.model.named_parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)

    def step(self) -> None:
        """Sample, score and update."""
        self.optimizer.zero_grad()
        settings = SamplingSettings(self.shape.response)
        drawn = sample_groups(self.engine, [self.prompt], self.shape.copies, settings, self.generator)
        rows = ragged.unflatten(drawn.ids, drawn.token_offsets)
        texts = self.words.batch_decode(rows, skip_special_tokens=True)
        scored = drawn.with_reward("outcome", torch.tensor(even(texts), dtype=torch.float64))
        rollouts = with_old(self.model, scored)
        credit = METHODS["grpo"]()(rollouts)
        parts = micro_batches(rollouts, ALL_AT_ONCE, shared=True)
        accumulate(self.model, self.objective, rollouts, credit, parts)
        self.optimizer.step()
        self.engine.refresh()


def prompt_of(rollouts: Rollouts) -> list[int]:
    """The one prompt of a group."""
    start, end = rollouts.prompt_offsets[:2].tolist()
    ids: list[int] = rollouts.prompt_ids[start:end].tolist()
    return ids


def with_old(model: HuggingFacePolicy, rollouts: Rollouts) -> Rollouts:
    """The policy's log-probs before the update."""
    parts = micro_batches(rollouts, ALL_AT_ONCE, shared=True)
    return rollouts.with_statistic("log_probs/old", measure(model, rollouts, ["log_probs"], parts)["log_probs"], "old")


def loss_and_backward(size: str, shape: Shape, repeats: int, folder: str) -> dict[str, Any]:
    """One row."""
    theirs, model = Theirs(size, shape, folder), policy(size)
    model.share_prefixes()
    rollouts = with_old(model, group(shape, model.vocabulary))
    ours = Step(model, rollouts, shared=True)
    inputs = theirs.inputs(rollouts, ours.credit)
    theirs.gradient_of(inputs)
    expected = torch.cat([p.grad.flatten().double() for p in theirs.model.parameters() if p.grad is not None])
    error = float((ours.gradient() - expected).norm() / expected.norm())
    sides = {"theirs": lambda: theirs.gradient_of(inputs), "ours": ours}
    return row(f"loss + backward, {size}, {shape}", sides, repeats, round(ideal(model, rollouts), 2), error)


def whole_step(size: str, shape: Shape, repeats: int, folder: str) -> dict[str, Any]:
    """One row; what each side samples is its own, so there is no gradient to compare and no count to make."""
    sides = {"theirs": Theirs(size, shape, folder).step, "ours": Ours(size, shape).step}
    return row(f"whole step, {size}, {shape}", sides, repeats, None, None)


def row(
    name: str, sides: dict[str, Callable[[], Any]], repeats: int, best: float | None, error: float | None
) -> dict[str, Any]:
    """Time two sides in turns."""
    times = alternate(sides, repeats)
    ratios = [one / other for one, other in zip(times["theirs"], times["ours"], strict=True)]
    middle = statistics.median(times["theirs"]) / statistics.median(times["ours"])
    return {
        "name": name,
        "ratio": {**{k: round(v, 2) for k, v in spread(ratios).items()}, "median": round(middle, 2)},
        "ideal": best,
        "error": None if error is None else float(f"{error:.1e}"),
        "machine": machine(),
    }


def main() -> None:
    """Print a table, or the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="repeats a case")
    parser.add_argument("--sizes", default="small,large vocabulary", help="which models")
    parser.add_argument("--shapes", default=",".join(map(str, SHAPES)), help="which groups, such as 512/64/8")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = {str(shape): shape for shape in SHAPES}
    unknown = [name for name in arguments.shapes.split(",") if name not in known]
    if unknown:
        parser.error(f"unknown shape {unknown[0]!r}: expected some of {', '.join(known)}")
    rows = []
    for size in arguments.sizes.split(","):
        for shape in (known[name] for name in arguments.shapes.split(",")):
            for case in (loss_and_backward,) if shape.tree else (loss_and_backward, whole_step):
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(case(size, shape, arguments.repeats, folder))
                ratio, error = rows[-1]["ratio"], rows[-1]["error"]
                print(
                    f"{rows[-1]['name']:46} {ratio['median']:5.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"
                    + ("" if error is None else f"  ideal {rows[-1]['ideal']:.2f}  error {error:.0e}"),
                    file=sys.stderr if arguments.json else sys.stdout,
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
