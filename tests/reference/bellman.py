"""B-Coder's Bellman errors, program by program and token by token; backups on a small decision process."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """A program's numbers, one a trained token; no reward: it was never run."""

    taken: Sequence[float]
    """log-probs of its tokens"""
    top: Sequence[float]
    """of the likeliest tokens"""
    greedy: Sequence[float]
    """of the checkpoint's likeliest tokens"""
    residual: Sequence[float]
    pretrained: Sequence[float]
    reward: float | None
    human: bool


def log_softmax(logits: Sequence[float]) -> list[float]:
    """Of one state."""
    normaliser = math.log(math.fsum(math.exp(x) for x in logits))
    return [x - normaliser for x in logits]


def program_of(given: dict) -> Program:
    """A program of the golden vectors."""
    table = [log_softmax(row) for row in given["logits"]]
    first = [row.index(max(row)) for row in given["ckpt_logits"]]
    return Program(
        [row[a] for row, a in zip(table, given["actions"], strict=True)],
        [max(row) for row in table],
        [row[a] for row, a in zip(table, first, strict=True)],
        given["value_residual"],
        given["value_pretrained"],
        given["reward"],
        given["human"],
    )


def value_of(program: Program, t: int, cap: bool, r_max: float) -> float:
    """V of the state before a token."""
    x = program.residual[t] + program.pretrained[t]
    if not cap:
        return x
    return r_max - ((math.log(1 + math.exp(x)) + math.log(1 + math.exp(-x))) / 2 - math.log(2))


def targets(program: Program, *, alpha: float, gamma: float, cap: bool = False, r_max: float = 1.0) -> list[float]:
    """What Q of every token should be."""
    result, last = [], len(program.taken) - 1
    for t in range(last):
        advantage = alpha * (program.greedy[t + 1] - program.top[t + 1])
        result.append(gamma * (advantage + value_of(program, t + 1, cap, r_max)))
    assert program.reward is not None
    return [*result, program.reward]


def td_loss(program: Program, should: Sequence[float], *, alpha: float, cap: bool = False, r_max: float = 1.0) -> float:
    """Mean squared Bellman error of a program."""
    squares = []
    for t, target in enumerate(should):
        q = alpha * (program.taken[t] - program.top[t]) + value_of(program, t, cap, r_max)
        squares.append((target - q) ** 2)
    return math.fsum(squares) / len(squares)


def b_coder(
    programs: Sequence[Program],
    *,
    alpha: float = 1.0,
    gamma: float = 0.999,
    beta_adv: float = 0.1,
    beta_ce: float = 0.5,
    cap: bool = False,
    r_max: float = 1.0,
    fixed: Sequence[Program] | None = None,
) -> dict[str, float]:
    """The loss of a batch and its parts; ``fixed`` are programs that the targets are made of, if not these."""
    human = [p for p in programs if p.human]
    errors = [
        td_loss(p, targets(q, alpha=alpha, gamma=gamma, cap=cap, r_max=r_max), alpha=alpha, cap=cap, r_max=r_max)
        for p, q in zip(programs, fixed or programs, strict=True)
        if p.reward is not None
    ]
    sizes = [abs(alpha * (a - b)) for p in human for a, b in zip(p.taken, p.top, strict=True)]
    nlls = [-x for p in human for x in p.taken]
    parts = {
        "loss_q": math.fsum(errors) / max(len(errors), 1),
        "loss_adv": math.fsum(sizes) / max(len(human), 1),
        "loss_ce": math.fsum(nlls) / max(len(human), 1),
    }
    return {**parts, "loss": parts["loss_q"] + beta_adv * parts["loss_adv"] + beta_ce * parts["loss_ce"]}


REWARDS = {"passed": 1.0, "failed_test": -0.3, "runtime_error": -0.6, "compile_error": -1.0}


def swept(
    next_state: Sequence[Sequence[int]],
    rewards: Sequence[Sequence[float]],
    policy: Sequence[Sequence[float]],
    gamma: float,
    iterations: int,
) -> dict[str, object]:
    """Both operators on a small decision process, from 0, and the reward that the first stands for."""
    greedy = [row.index(max(row)) for row in policy]
    states, actions = range(len(rewards)), range(len(rewards[0]))

    def backed_up(conservative: bool) -> list[list[float]]:
        def ahead(row: list[float], state: int) -> float:
            return row[greedy[state]] if conservative else max(row)

        q = [[0.0 for _ in actions] for _ in states]
        for _ in range(iterations):
            q = [
                [
                    rewards[s][a]
                    if next_state[s][a] < 0
                    else rewards[s][a] + gamma * ahead(q[next_state[s][a]], next_state[s][a])
                    for a in actions
                ]
                for s in states
            ]
        return q

    q = backed_up(True)
    recovered = [
        [
            q[s][a] - (0.0 if next_state[s][a] < 0 else gamma * q[next_state[s][a]][greedy[next_state[s][a]]])
            for a in actions
        ]
        for s in states
    ]
    return {
        "q_conservative": q,
        "q_optimal": backed_up(False),
        "greedy_of_policy": greedy,
        "recovered_reward": recovered,
    }


def ranking(scores: Sequence[float], correct: Sequence[int], ks: Sequence[int]) -> dict[str, object]:
    """Handing in the best k, and any k."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    ranked, unranked = {}, {}
    for k in ks:
        ranked[str(k)] = float(any(correct[i] for i in order[:k]))
        choices = list(itertools.combinations(correct, k))
        unranked[str(k)] = sum(any(choice) for choice in choices) / len(choices)
    return {"order": order, "ranked_pass": ranked, "unranked_pass": unranked}
