"""What a reward model of decisions minimises: the squared error of its score after each of them.

Suffix legend: T steps (decisions).
"""

from __future__ import annotations

from apportion.credit.algebra import Clock, last_of_row
from apportion.credit.assign import Credit
from apportion.errors import MissingColumn
from apportion.objectives.protocol import Loss, Now, Objective
from apportion.rollouts import Rollouts, steps
from apportion.rollouts.makers import maker_of


def score_regression(target: str = "target/utterance", head: str = "reward") -> Objective:
    """Regression of scores of decisions.

        L = mean over decisions t of (s_t - r_t)^2

    s_t is the model's score after the last trained token of the decision, r_t its target. Decisions without trained
    tokens or without a target are left out; the mean over none is 0.

    Args:
        target: the column of decisions that holds r, without its level.
        head: which score head.

    ``now`` is the reward model's.

    Metrics: ``score_error`` (root of the mean), ``score`` and ``target`` (means).

    Source: arXiv 2508.03905.
    """
    score, column = f"scores/{head}", f"steps:{target}"

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        full = rollouts.find(column)
        if full is None:
            raise MissingColumn(column, "this objective", maker_of(column))
        given, step_N = rollouts.columns[full], steps(rollouts).step_of_token
        last = last_of_row(step_N, credit.trained & (step_N >= 0)).nonzero().squeeze(1)
        if given.present is not None:
            last = last[given.present[step_N[last]]]
        scores = now[score][last]
        targets = given.tensor[step_N[last]].to(scores.dtype)
        value = ((scores - targets) ** 2).sum() / max(len(last), 1)
        means = {"score": scores.detach(), "target": targets}
        metrics = {name: values.double().sum() / max(len(last), 1) for name, values in means.items()}
        return Loss(value, {"score_error": value.detach().double().sqrt(), **metrics})

    return Objective("episode", (score,), (column,), evaluate)
