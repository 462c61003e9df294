"""TP-GRPO: thoughts that were errors lose some of the outcome's advantage, and all others keep it.

Suffix legend: N tokens, S steps, E episodes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, estimator, row_of_token
from apportion.credit.reduce import check_options, relative, statistics
from apportion.credit.shaping import check_coefficient
from apportion.credit.verdicts import right_episodes
from apportion.errors import InputError, unknown_name
from apportion.rollouts import Rollouts, ragged

LABELS = ("incorrect", "correct", "uncertain", "match")
"""Labels of steps: the first two of right responses, the others of wrong ones; the second of each goes with the outcome
and keeps its advantage. Inside they are numbered in this order, -1 for no label."""


def tp_grpo(
    alpha: float = 1.0,
    r_correct: float = 1.0,
    r_incorrect: float = -1.0,
    ddof: int = 1,
    eps: float = 1e-4,
    component: str = "outcome",
    kind: str = "step",
) -> Stage:
    """Outcome advantage, lowered in the thoughts that a judge found to be errors.

        r^_i = (o_i - mean_g o) / (std_g o + eps)       o = r_correct or r_incorrect; 0 in groups that agree
        r_c  = alpha acc_g                              acc_g: share of the group that is right
        A_it = r^_i           right response, thought ``correct``;  wrong response, ``match``;  after the last step
               r^_i - r_c     right response, thought ``incorrect``
               0              wrong response, thought ``uncertain``

    Adjacent steps with equal labels are one *thought*, rewarded once: +r_c and -r_c (``correct``, ``incorrect``), r^_i
    and -r^_i (``match``, ``uncertain``), the last, which holds the answer, 0. A_it is r^_i and the process rewards from
    its thought on, summed: labels of thoughts alternate, so that sum is the closed form above. An episode of which
    some step has no label, because the judge could not be read, keeps r^_i throughout.

    Args:
        alpha: size of the process reward where all of the group are right.
        r_correct: what a right response is worth.
        r_incorrect: what a wrong one is worth, less than ``r_correct``.
        ddof: of the standard deviation of outcomes.
        eps: added to it.
        component: the outcome, 0 or 1.
        kind: of the spans that are steps.

    Needs ``<kind>:label``, text: ``correct`` or ``incorrect`` in right responses, ``match`` or ``uncertain`` in wrong
    ones.

    Details: ``episode:standardised_outcome``, r^; ``episode:process_size``, r_c; ``episode:unlabelled``; and of every
    step ``thought``, the number of its thought in the episode, and ``process_reward``, that thought's.

    Raises:
        InputError: a setting out of range; when run, an outcome other than 0 and 1, a label that is unknown or of the
            other outcome, a last step that does not go with the outcome, or trained tokens in no step before the last.

    Source: arXiv 2507.23317, in its ICLR 2026 version (the authors' code is not public).

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> two = Rollouts.from_lists([[1, 2, 3], [4, 5]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> places = torch.arange(5)
        >>> two = two.with_spans("step", places, places + 1)
        >>> two = two.with_column("step:label", ["correct", "incorrect", "correct", "uncertain", "match"])
        >>> [round(a, 3) for a in tp_grpo(eps=0.0)(two).advantages.tolist()]
        [0.707, 0.207, 0.707, 0.0, -0.707]
    """
    check_options(eps)
    check_coefficient("alpha", alpha)
    if not (math.isfinite(r_correct) and math.isfinite(r_incorrect) and r_correct > r_incorrect):
        raise InputError(
            f"r_correct is {r_correct} and r_incorrect {r_incorrect}, expected finite numbers, the first larger."
        )
    if ddof not in (0, 1):
        raise InputError(f"ddof is {ddof}, expected 0 or 1.")
    bias = Bias(Claim.BIASED, "a judge's labels, not what came of a step, decide which tokens share the outcome")

    @estimator(needs=(f"reward/{component}", f"{kind}:label"), bias=bias, by_group=True)
    def by_thought(work: Work) -> Result:
        rollouts, group_E = work.rollouts, work.rollouts.group_of_episode
        right_E = right_episodes(work, component)
        episode_S = rollouts.episode_of_response[rollouts.response_of_span[kind]]
        label_S = _labels(rollouts, kind)
        unlabelled_E = torch.bincount(episode_S[label_S < 0], minlength=rollouts.n_episodes) > 0
        label_S = torch.where(unlabelled_E[episode_S], -1, label_S)
        thought_S, answer_S = _thoughts(label_S, episode_S, rollouts.n_episodes)
        row_N = row_of_token(rollouts, kind)
        _check_places(rollouts, kind, row_N, episode_S)
        _check_labels(label_S, right_E[episode_S], answer_S)

        outcome_E = r_incorrect + (r_correct - r_incorrect) * right_E.to(work.advantages.dtype)
        whole_E = relative(outcome_E, group_E, norm_by_std=True, ddof=ddof, eps=eps)
        share_E = alpha * statistics(right_E.to(outcome_E.dtype), group_E).mean
        size_E = torch.where(right_E, share_E, whole_E)  # of a process reward; an error loses one

        error_S = (label_S == LABELS.index("incorrect")) | (label_S == LABELS.index("uncertain"))
        step_S = torch.where(error_S, (whole_E - size_E)[episode_S], whole_E[episode_S])
        result_N = work.spread(whole_E)
        result_N[row_N >= 0] = step_S[row_N[row_N >= 0]]
        process_S = torch.where(error_S, -1.0, 1.0) * size_E[episode_S]
        return Result(
            result_N,
            {
                "episode:standardised_outcome": whole_E,
                "episode:process_size": share_E,
                "episode:unlabelled": unlabelled_E,
                f"{kind}:thought": thought_S,
                f"{kind}:process_reward": torch.where(answer_S | (label_S < 0), 0.0, process_S),
            },
        )

    return by_thought


def _labels(rollouts: Rollouts, kind: str) -> Tensor:
    """The label of every step by its number in :data:`LABELS` ``[S]``."""
    column = rollouts.columns[f"{kind}:label"]
    numbers = {label: number for number, label in enumerate(LABELS)}
    present = [True] * len(column) if column.present is None else column.present.tolist()
    given = [text if there else None for text, there in zip(column.text, present, strict=True)]
    for text in dict.fromkeys(given):
        if text is not None and text not in numbers:
            raise unknown_name("label of a step", text, LABELS)
    coded = [-1 if text is None else numbers[text] for text in given]
    return torch.tensor(coded, dtype=torch.int64, device=rollouts.device)


def _thoughts(label_S: Tensor, episode_S: Tensor, episodes: int) -> tuple[Tensor, Tensor]:
    """The thought of every step, numbered in its episode ``[S]``, and whether that is the last, with the answer."""
    offsets = ragged.offsets_of(torch.bincount(episode_S, minlength=episodes))
    begins_S = torch.ones_like(label_S, dtype=torch.bool)
    begins_S[1:] = label_S[1:] != label_S[:-1]
    thought_S = begins_S.cumsum(0)  # an episode counts from its first, so a run that goes on into the next is no harm
    return thought_S - thought_S[offsets[episode_S]], thought_S == thought_S[offsets[episode_S + 1] - 1]


def _check_places(rollouts: Rollouts, kind: str, row_N: Tensor, episode_S: Tensor) -> None:
    """Refuse trained tokens in no step before the last step of their episode."""
    end_E = torch.zeros_like(rollouts.group_of_episode)
    end_E.scatter_reduce_(0, episode_S, rollouts.spans[kind].ends, "amax")
    place_N = torch.arange(rollouts.n_tokens, device=rollouts.device)
    gaps = int((rollouts.trained & (row_N < 0) & (place_N < end_E[rollouts.episode_of_token])).sum())
    if gaps:
        raise InputError(
            f"{gaps} trained tokens before the last {kind} of their episode are in none, expected {kind}s without gaps "
            "from the first token on: segment the whole response."
        )


def _check_labels(label_S: Tensor, right_S: Tensor, answer_S: Tensor) -> None:
    """Refuse labels of the other outcome, and answers that do not go with their outcome."""
    given_S, of_wrong_S = label_S >= 0, label_S >= LABELS.index("uncertain")
    other = label_S[given_S & (of_wrong_S == right_S)]
    if len(other):
        label = LABELS[int(other[0])]
        response, expected = (
            ("right", "correct or incorrect") if label in LABELS[2:] else ("wrong", "match or uncertain")
        )
        raise InputError(f"a step of a {response} response is labelled {label!r}, expected {expected}.")
    astray = label_S[given_S & answer_S & (label_S % 2 == 0)]
    if len(astray):
        label = LABELS[int(astray[0])]
        raise InputError(
            f"the last step of a response, which holds its answer, is labelled {label!r}, expected correct in a right "
            "response and match in a wrong one."
        )
