"""B-Coder (arXiv 2310.03173): a Q-function made of a checkpoint's logits, fitted to outcomes, ranks new programs.

World: programs of four digits below five for each of five targets. A digit after itself does not compile (-1), a
running sum that comes back to 0 before the end fails to run (-0.6); a program passes (+1) if the sum is the target
modulo 5, else it fails a test (-0.3). The state of the policy is target, place and running sum, so that what is fitted
on some programs is said of others; what does not compile cannot be told from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from statistics import fmean

import torch

from apportion.evals.program_ranking import program_scores, ranked_pass, unranked_pass
from apportion.models.tabular import TabularPolicy
from apportion.objectives.bellman import Scale
from apportion.rollouts import Rollouts
from apportion.rollouts.joining import join
from apportion.studies.claim import Claim
from apportion.studies.shared import SharedPolicy
from apportion.studies.tabular import Trained, rewarded, sample
from apportion.training.seeds import torch_generator

DIGITS, LENGTH, TARGETS = 5, 4, 5
PASSED, FAILED, RUNTIME, COMPILE = 1.0, -0.3, -0.6, -1.0
VALUE_STEPS, STEPS, RATE = 100, 300, 0.02
PROGRAMS, HUMAN, CANDIDATES = 64, 4, 32
FRESH = 30_000
"""Seeds that were not looked at."""


def outcome(prompt: int, tokens: tuple[int, ...]) -> float:
    """What running a program comes to.

    Example:
        >>> [outcome(0, program) for program in ((1, 2, 3, 4), (1, 2, 3, 1), (1, 4, 1, 2), (1, 1, 2, 3))]
        [1.0, -0.3, -0.6, -1.0]
    """
    if any(a == b for a, b in itertools.pairwise(tokens)):
        return COMPILE
    if any(sum(tokens[:place]) % DIGITS == 0 for place in range(1, len(tokens))):
        return RUNTIME
    return PASSED if sum(tokens) % DIGITS == prompt else FAILED


def _state(prompt: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
    return (prompt * LENGTH + prefix.shape[1]) * DIGITS + prefix.sum(1) % DIGITS


class _World:
    """A checkpoint and programs to learn from: its own, and a few of people that pass.

    Args:
        seed: of everything random.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.generator = seed, torch_generator("cpu", seed, "b_coder")
        self.checkpoint = SharedPolicy(
            DIGITS, LENGTH, states=TARGETS * LENGTH * DIGITS, prompts=TARGETS, state_of=_state
        )
        with torch.no_grad():
            self.checkpoint.logits.copy_(0.5 * torch.randn(self.checkpoint.logits.shape, generator=self.generator))
        own = self.draw(PROGRAMS)
        people = rewarded(sample(TabularPolicy(DIGITS, LENGTH, TARGETS), range(TARGETS), 256, self.generator), outcome)
        passed = (people.column("episode:reward/outcome") == PASSED).nonzero().squeeze(1)
        first = torch.cat([passed[people.group_ids[passed] == target][:HUMAN] for target in range(TARGETS)])
        people = people.select(first)
        self.programs = join(
            [own, people.with_column("response:origin", ["demonstration"] * people.n_responses, maker="given")]
        )

    def draw(self, programs: int) -> Rollouts:
        """Programs of the checkpoint for every target, with what they come to."""
        return rewarded(sample(self.checkpoint, range(TARGETS), programs, self.generator), outcome)

    def unseen(self, programs: int) -> list[Rollouts]:
        """For every target, programs of the checkpoint that are not among those learnt from, each once."""
        seen = set(_written(self.programs))
        fresh = self.draw(8 * programs)
        first = {program: e for e, program in reversed(list(enumerate(_written(fresh)))) if program not in seen}
        of = [[e for (target, *_), e in first.items() if target == wanted] for wanted in range(TARGETS)]
        return [fresh.select(torch.tensor(sorted(episodes)[:programs])) for episodes in of]


def _written(rollouts: Rollouts) -> list[tuple[int, ...]]:
    """Target and digits of every program."""
    targets = rollouts.prompt_ids[rollouts.prompt_offsets[:-1]][rollouts.prompts]
    return [(t, *row) for t, row in zip(targets.tolist(), rollouts.ids.reshape(-1, LENGTH).tolist(), strict=True)]


def _trained(world: _World) -> Trained:
    return Trained(
        world.checkpoint.clone(),
        "none(component='outcome')",
        f"b_coder(value_steps={VALUE_STEPS})",
        learning_rate=RATE,
        optimizer="adamw",
        learners=[f"pretrained_value(learning_rate={RATE}, value_steps={VALUE_STEPS})"],
        seed=world.seed,
    )


def _ranking(seed: int) -> Mapping[str, float]:
    world = _World(seed)
    trained = _trained(world)
    for _ in range(VALUE_STEPS + STEPS):
        trained.step(world.programs)
    ranked, unranked = [], []
    scores: dict[float, list[float]] = {PASSED: [], FAILED: [], RUNTIME: [], COMPILE: []}
    for candidates in world.unseen(CANDIDATES):
        score = program_scores(trained.policy, trained.others[0].model, candidates, Scale()).tolist()
        came_to = candidates.column("episode:reward/outcome").tolist()
        passed = [int(reward == PASSED) for reward in came_to]
        ranked.append(ranked_pass(score, passed, 1))
        unranked.append(unranked_pass(passed, 1))
        for reward, one in zip(came_to, score, strict=True):
            scores[reward].append(one)
    names = {PASSED: "passed", FAILED: "failed", RUNTIME: "runtime error", COMPILE: "compile error"}
    figures = {f"score, {names[reward]}": fmean(of) for reward, of in scores.items()}
    figures |= {"pass@1, ranked": fmean(ranked), "pass@1, unranked": fmean(unranked)}
    return {"effect": figures["pass@1, ranked"] - figures["pass@1, unranked"], **figures}


def _errors(checkpoint: SharedPolicy, programs: Rollouts) -> torch.Tensor:
    """Bellman errors of a checkpoint's Q at every token, with a value of 0 ``[programs, LENGTH]``."""
    every = torch.arange(programs.n_responses)
    now = checkpoint.statistics(programs, every, ["log_probs", "max_log_prob"])
    errors = (now["max_log_prob"] - now["log_probs"]).detach().view(-1, LENGTH)
    errors[:, -1] += programs.column("episode:reward/outcome")
    return errors


def _first_errors(seed: int) -> Mapping[str, float]:
    """Mean squares, on programs not fitted to: of a pretrained value, of a constant fitted to the same, and of 0."""
    world = _World(FRESH + seed)
    trained, errors = _trained(world), []
    for _ in range(VALUE_STEPS + 1):
        programs = world.draw(PROGRAMS)
        trained.step(programs)
        errors.append(_errors(world.checkpoint, programs))
    *fitted, last = errors
    adds = torch.full((LENGTH,), Scale().gamma - 1, dtype=last.dtype)  # what a constant of 1 adds to every error
    adds[-1] = -1.0
    constant = -(torch.cat(fitted) * adds).mean() / (adds**2).mean()
    squares = {"pretrained": trained.metrics["td_loss"], "constant": float(((last + constant * adds) ** 2).mean())}
    return {"effect": 1 - squares["pretrained"] / squares["constant"], **squares, "without": float((last**2).mean())}


WORLD = (
    "Programs of four digits for five targets, with outcomes 1, -0.3, -0.6 and -1; a checkpoint of random logits over "
    "target, place and running sum, with a value of each."
)

CLAIMS = (
    Claim(
        "b_coder",
        "ranking programs unseen",
        "The reward recovered from Q ranks programs that were never run: handing in the first of them passes more "
        "often.",
        f"{WORLD} Learnt from 64 programs of the checkpoint and 4 that pass for each target, 100 steps of stage 1 and "
        "300 of stage 2, AdamW 0.02; then 32 programs a target that are not among them. Effect: pass@1 of the highest "
        "score, minus that of one drawn without regard to score; the paper gains 0.07.",
        "The highest score passes no more often than any.",
        0.05,
        _ranking,
    ),
    Claim(
        "b_coder_value",
        "small first errors",
        "A value of states, fitted to the checkpoint before all else, makes the first Bellman errors of Q smaller than "
        "a constant does.",
        f"{WORLD} 100 steps of stage 1 on fresh programs, 64 a target. Effect: by what share the Bellman error of "
        "stage 2 on further programs, before its first step, is less than with the constant that makes it least on the "
        "programs of stage 1. At first it was held against a value of 0: 0.38; these are other seeds.",
        "Errors are hardly smaller: most of them is what a value of states cannot say.",
        0.25,
        _first_errors,
    ),
)
