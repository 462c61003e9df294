"""One half of the signal of a binary verifier: praise for the right answers, or blame for the wrong ones."""

from __future__ import annotations

from torch import Tensor

from apportion.credit.algebra import Bias, Claim, Stage, Work, estimator
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError, unknown_name

MODES = {
    "psr": Bias(Claim.EXACT),
    "nsr": Bias(Claim.EXACT),
    "weighted": Bias(Claim.EXACT_UP_TO_SCALE, "1 + positive_weight times the gradient"),
}
"""Which half counts how much, and what is claimed of it: a constant per half changes no expected direction."""


def nsr(mode: str = "nsr", positive_weight: float = 0.1, component: str = "outcome") -> Stage:
    """A constant advantage by whether an episode is right; no group, no baseline, no critic.

        psr        A_it = r_i          1 if right, 0 if wrong
        nsr        A_it = r_i - 1      0 if right, -1 if wrong
        weighted   A_it = positive_weight if right, -1 if wrong     (W-REINFORCE; 1 is plain REINFORCE)

    Tokens with advantage 0 train nothing but count in normalisers, so few wrong answers make a small step. In
    expectation all modes have the same direction; what differs is what a finite sample, clipping and several updates
    make of it: a penalised token gives its probability to the others in proportion to what they have.

    Args:
        mode: ``psr``, ``nsr`` or ``weighted``.
        positive_weight: of right answers, read by ``weighted``.
        component: the reward, exactly 0 or 1 an episode.

    Raises:
        InputError: an unknown mode or a negative weight; when run, a reward other than 0 and 1.

    Source: arXiv 2506.01347; TianHongZXY/RLVR-Decomposed.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> pair = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> [nsr(mode)(pair).advantages.tolist() for mode in ("psr", "nsr", "weighted")]
        [[1.0, 0.0], [0.0, -1.0], [0.1, -1.0]]
    """
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    check_coefficient("positive_weight", positive_weight)
    praise = {"psr": 1.0, "nsr": 0.0, "weighted": positive_weight}[mode]
    blame = {"psr": 0.0, "nsr": 1.0, "weighted": 1.0}[mode]

    @estimator(needs=(f"reward/{component}",), bias=MODES[mode], by_group=True)
    def by_verdict(work: Work) -> Tensor:
        reward_E = work.up(component)
        odd = (reward_E != 0) & (reward_E != 1)
        if bool(odd.any()):
            raise InputError(
                f"an episode has the reward {float(reward_E[odd][0]):g}, expected 0 or 1: choose a verifier that says "
                "right or wrong, or another method."
            )
        return work.spread(praise * reward_E - blame * (1 - reward_E))

    return by_verdict
