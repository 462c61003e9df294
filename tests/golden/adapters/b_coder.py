"""B-Coder: programs with whole logits, ranking, the operators on a small decision process, rewards of outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.evals.bellman_operators import (
    DecisionProcess,
    conservative_q,
    greedy_of,
    optimal_q,
    recovered_reward,
)
from apportion.evals.program_ranking import rank, ranked_pass, unranked_pass
from apportion.models.statistics import from_logits
from apportion.objectives import OBJECTIVES
from apportion.objectives.bellman import GREEDY, Scale, bellman_errors, read_values
from apportion.rewards.execution import reward_of_outcome
from apportion.rollouts import Rollouts
from golden.adapters._build import rows


def run(**given: Any) -> dict[str, Any]:
    """One of the four kinds of case."""
    for key, kind in (("programs", on_programs), ("scores", on_ranking), ("policy", on_process)):
        if key in given:
            return kind(**given)
    return {"rewards": [reward_of_outcome(outcome) for outcome in given["outcomes"]]}


def doubles(values: Sequence[Any]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def on_programs(
    *, programs: Sequence[Mapping[str, Any]], beta_adv: float, beta_ce: float, **scale: Any
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(
        [p["actions"] for p in programs], groups=range(len(programs)), rewards=[p["reward"] for p in programs]
    )
    origin = ["demonstration" if p["human"] else "policy" for p in programs]
    rollouts = rollouts.with_column("response:origin", origin)
    logits, checkpoint, residual, pretrained = (
        doubles([at for p in programs for at in p[name]])
        for name in ("logits", "ckpt_logits", "value_residual", "value_pretrained")
    )
    warmth = torch.ones(rollouts.n_tokens, dtype=torch.float64)
    greedy = from_logits(checkpoint, rollouts.ids, warmth, ["greedy"])["greedy"]
    rollouts = rollouts.with_column("values/pretrained", pretrained).with_column("greedy/reference", greedy)
    others = {"greedy/reference": greedy}
    now = from_logits(logits, rollouts.ids, warmth, ["log_probs", "max_log_prob", GREEDY], others)
    now = {**now, "values/residual": residual}
    credit = METHODS["none"](component="outcome")(rollouts)
    objective = OBJECTIVES["b_coder"](beta_adv=beta_adv, beta_ce=beta_ce, value_steps=0, **scale)
    loss = objective(now, rollouts, credit)

    how = Scale(**scale)
    at = read_values(now, rollouts, credit, how)
    errors = bellman_errors(at, "outcome", rollouts, credit)
    of_all = [
        from_logits(logits, torch.full_like(rollouts.ids, a), warmth, ["log_probs", "max_log_prob"])
        for a in range(logits.shape[1])
    ]
    advantages = torch.stack([how.advantage(s["log_probs"], s["max_log_prob"]) for s in of_all], 1)
    by_token = {
        "advantages": advantages,
        "values": at.values,
        "greedy_actions": greedy,
        "q_taken": at.q,
        "targets": errors.targets,
        "td": errors.targets - at.q,
        "reward_model": at.reward_model,
        "reward_model_exact": at.reward_model_exact,
    }
    by_program = {"score": at.scores.tolist(), "td_loss": errors.by_program.tolist()}
    tables = {name: rows(rollouts, values) for name, values in by_token.items()} | by_program
    return {
        "programs": [{name: table[i] for name, table in tables.items()} for i in range(len(programs))],
        "loss_q": loss.metrics["td_loss"],
        "loss_adv": loss.metrics["advantage_size"],
        "loss_ce": loss.metrics["human_nll"],
        "loss": loss.value,
    }


def on_ranking(*, scores: Sequence[float], correct: Sequence[int], ks: Sequence[int]) -> dict[str, Any]:
    return {
        "order": rank(scores),
        "ranked_pass": {str(k): ranked_pass(scores, correct, k) for k in ks},
        "unranked_pass": {str(k): unranked_pass(correct, k) for k in ks},
    }


def on_process(
    *,
    next_state: Sequence[Sequence[int]],
    rewards: Sequence[Sequence[float]],
    policy: Sequence[Sequence[float]],
    gamma: float,
    iterations: int,
) -> dict[str, Any]:
    process = DecisionProcess(torch.tensor(next_state), doubles(rewards), gamma)
    conservative = conservative_q(process, doubles(policy), iterations)
    return {
        "q_conservative": conservative,
        "q_optimal": optimal_q(process, iterations),
        "greedy_of_policy": greedy_of(doubles(policy)),
        "recovered_reward": recovered_reward(conservative, process, doubles(policy)),
    }
