"""GHPO (arXiv 2507.10628): what a whole group fails is asked again with the beginning of its solution.

An answer of eight symbols out of six, right only as a whole, so that a guess is right once in 1.7 million times. The
policy draws symbols independently; a hint gives the first ones and leaves the others to be drawn.

Suffix legend: E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from apportion import registry
from apportion.rewards.verdict import Verdict
from apportion.rollouts import Rollouts, ragged
from apportion.sampling import SamplingSettings, engine_for
from apportion.studies.claim import Claim
from apportion.studies.positions import PositionPolicy, certain
from apportion.studies.tabular import Trained
from apportion.tasks.task import Task
from apportion.training.strategies import SAMPLING, Source

SYMBOLS, LENGTH, GROUP, GROUPS, BUDGET, RATE = 6, 8, 8, 8, 20_000, 8.0
END = SYMBOLS
ASKED = "?"
"""The question, before a hint."""


class _Writer(PositionPolicy):
    """A position policy that goes on behind a hint: the prompt is how many symbols are given."""

    def __init__(self) -> None:
        super().__init__(vocabulary=SYMBOLS + 1, depth=LENGTH + 1, end_ids=(END,))
        with torch.no_grad():
            self.logits[:, END] = -1e9
        certain(self, torch.tensor([LENGTH]), torch.tensor([END]))

    def state(self, prompt: Tensor, prefix: Tensor) -> Tensor:
        return prompt + prefix.shape[1]

    def states_of(self, rollouts: Rollouts) -> Tensor:
        given = rollouts.prompt_ids[rollouts.prompt_offsets[:-1]][rollouts.prompts]
        return given[rollouts.response_of_token] + ragged.position_in_row(rollouts.token_offsets)

    def success(self, answer: str) -> float:
        """Probability of the answer without a hint."""
        return float(self.likely[0, torch.arange(LENGTH), [int(symbol) for symbol in answer]].prod())


class _Reader:
    """Reads a question with its hint, writes symbols."""

    end_ids: tuple[int, ...] = (END,)

    def encode(self, task: Task) -> list[int]:
        return [len(task.text) - len(ASKED)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(str(token) for token in ids if token != END)


class _Check:
    """Right where hint and response together are the answer; counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        self.asked += len(tasks)
        pairs = zip(tasks, responses, strict=True)
        return [Verdict(float(task.text[len(ASKED) :] + response == task.answer)) for task, response in pairs]


def _nothing(rollouts: Rollouts, names: Sequence[str]) -> Mapping[str, Tensor]:
    return {}


def _learnt(strategy: str, seed: int) -> Mapping[str, float]:
    """Success without a hint after the budget, and the share of groups that held right and wrong responses."""
    generator = torch.Generator().manual_seed(seed)
    answer = "".join(str(k) for k in torch.randint(SYMBOLS, (LENGTH,), generator=generator).tolist())
    task = Task(ASKED, answer, "strings", {"solution": answer})
    policy, check, useful, groups = _Writer(), _Check(), 0, 0
    source = Source(engine_for(policy), _Reader(), {"strings": check}, _nothing)
    collect = registry.build(strategy, SAMPLING, "sampling")(source)
    trained = Trained(policy, "grpo", learning_rate=RATE, seed=seed)
    settings = SamplingSettings(LENGTH + 1, end_ids=(END,))
    while check.asked < BUDGET:
        rollouts = collect([task] * GROUPS, GROUP, settings, generator, policy_version=trained.clock.step)
        trained.step(rollouts)
        right = rollouts.column("episode:reward/outcome").view(GROUPS, GROUP).mean(1)
        useful, groups = useful + int(((right > 0) & (right < 1)).sum()), groups + GROUPS
    return {"success": policy.success(answer), "useful": useful / groups}


def hints(seed: int) -> Mapping[str, float]:
    """Success without a hint, learned with hints and without, from as many sampled responses."""
    guided, plain = _learnt("ghpo(start=0, lead='')", seed), _learnt("groups", seed)
    arms = {"ghpo": guided, "plain": plain}
    figures = {f"{arm}_{name}": value for arm, of in arms.items() for name, value in of.items()}
    return {"effect": guided["success"] - plain["success"], **figures}


CLAIMS = (
    Claim(
        "ghpo",
        "hints",
        "Hints where a whole group fails let a policy learn what it never gets right by itself.",
        "A string of 8 symbols out of 6, 8 groups of 8 a step, 20,000 responses in all, those under hints and those "
        "thrown away included; sampling ghpo against groups, both with GRPO. Effect: difference in success without a "
        "hint.",
        "A success higher by less than a tenth.",
        0.1,
        hints,
    ),
)
