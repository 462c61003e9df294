"""A Q-function made of a policy's logits and value heads, its Bellman errors, and the reward it stands for.

Backups follow a frozen checkpoint's greedy token and not that of Q, which is conservative and leaves Q and the reward
in one-to-one correspondence.

Suffix legend: n trained tokens, E episodes (programs), m the rewarded ones.

Source: B-Coder arXiv 2310.03173.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from apportion.credit.assign import Credit
from apportion.credit.provenance import made_with
from apportion.credit.recursions import next_in_row, row_ends
from apportion.errors import InputError
from apportion.objectives import episodes
from apportion.objectives.protocol import Now
from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.columns import split_name

RESIDUAL, PRETRAINED = "values/residual", "values/pretrained"
GREEDY = "log_prob_of/greedy/reference"


@dataclass(frozen=True)
class Scale:
    """How logits and value heads are put together; both stages need the same.

        A(s, a) = alpha (log pi(a | s) - max_a' log pi(a' | s)),    never positive
        V(s)    = V_res(s) + V_pre(s),    or with a cap  r_max - softabs(V_res(s) + V_pre(s))
        Q(s, a) = A(s, a) + V(s),         so that pi = softmax(Q / alpha)

    with softabs(x) = (softplus(x) + softplus(-x)) / 2 - ln 2, which is 0 at 0 and about |x| / 2 far from it.

    Attributes:
        alpha: temperature of the policy over values.
        gamma: discount a token.
        cap_values: keep Q at or below ``r_max``.
        r_max: the largest reward there is; read with the cap only.
    """

    alpha: float = 1.0
    gamma: float = 0.999
    cap_values: bool = False
    r_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise InputError(f"alpha is {self.alpha}, expected more than 0.")
        if not 0 < self.gamma <= 1:
            raise InputError(f"gamma is {self.gamma}, expected above 0 to 1.")
        if not math.isfinite(self.r_max):
            raise InputError(f"r_max is {self.r_max}, expected a finite number.")

    def advantage(self, log_probs: Tensor, max_log_prob: Tensor) -> Tensor:
        """A of the tokens these are the log-probs of."""
        return self.alpha * (log_probs - max_log_prob)

    def value(self, raw: Tensor) -> Tensor:
        """V of the sum of the heads."""
        return self.r_max - softabs(raw) if self.cap_values else raw


def softabs(x: Tensor) -> Tensor:
    """``(softplus(x) + softplus(-x)) / 2 - ln 2``, smooth where the absolute value is not.

    Example:
        >>> [round(y, 3) for y in softabs(torch.tensor([0.0, 2.0, -20.0])).tolist()]
        [0.0, 0.434, 9.307]
    """
    return (softplus(x) + softplus(-x)) / 2 - math.log(2)


@dataclass(frozen=True, eq=False)
class Values:
    """What is said of every program's trained tokens, in order, ``[n]`` each.

    Attributes:
        scale: how it was put together.
        tokens: their numbers.
        offsets: of the programs among them ``[E + 1]``.
        advantages: A(s_t, a_t), with gradient.
        values: V(s_t), with gradient.
        next_values: V(s_{t+1}), without; 0 after the last token.
        next_q: Q(s_{t+1}, checkpoint's greedy token), without; 0 after the last token.
    """

    scale: Scale
    tokens: Tensor
    offsets: Tensor
    advantages: Tensor
    values: Tensor
    next_values: Tensor
    next_q: Tensor

    @staticmethod
    def of(scale: Scale, tokens: Tensor, rollouts: Rollouts, advantages: Tensor, greedy: Tensor, raw: Tensor) -> Values:
        """From the advantages of the tokens drawn and of the checkpoint's greedy ones, and the sum of the heads."""
        offsets = ragged.offsets_of(episodes.count_by_episode(tokens, rollouts))
        values = scale.value(raw)
        next_values = next_in_row(values.detach(), offsets)
        next_q = next_in_row((greedy + values).detach(), offsets)
        return Values(scale, tokens, offsets, advantages, values, next_values, next_q)

    @property
    def q(self) -> Tensor:
        """Q(s_t, a_t), with gradient."""
        return self.advantages + self.values

    @property
    def reward_model(self) -> Tensor:
        """The reward Q stands for, ``Q(s_t, a_t) - gamma V(s_{t+1})``: needs no checkpoint."""
        return self.q.detach() - self.scale.gamma * self.next_values

    @property
    def reward_model_exact(self) -> Tensor:
        """The same along the checkpoint's greedy token, ``Q(s_t, a_t) - gamma Q(s_{t+1}, greedy)``."""
        return self.q.detach() - self.scale.gamma * self.next_q

    @property
    def scores(self) -> Tensor:
        """The undiscounted sum of :attr:`reward_model` of every program ``[E]``, to rank programs by."""
        return ragged.sum_rows(self.reward_model, self.offsets)


@dataclass(frozen=True, eq=False)
class Errors:
    """Bellman errors of the programs a reward is known of.

    Attributes:
        targets: ``r_t + gamma Q(s_{t+1}, greedy)``, at all trained tokens ``[n]``.
        by_program: mean squared ``target - Q`` of every program, with gradient ``[m]``.
    """

    targets: Tensor
    by_program: Tensor

    @property
    def mean(self) -> Tensor:
        """Over programs; 0 without any."""
        return self.by_program.sum() / max(len(self.by_program), 1)


def bellman_errors(at: Values, component: str, rollouts: Rollouts, credit: Credit) -> Errors:
    """Bellman errors, rewarded at the last token only.

    Raises:
        InputError: the reward is one of parts of an episode, or unknown of one that the credit did not leave out.
    """
    level = split_name(rollouts.find(f"reward/{component}") or "episode:")[0]
    if level != "episode":
        raise InputError(
            f"reward {component!r} is one a {level}, expected one an episode: these Bellman errors are rewarded after "
            "the last token only."
        )
    members, reward = episodes.rewarded(component, rollouts, credit)
    reward_E = at.values.new_zeros(rollouts.n_episodes).index_put((members,), reward.to(at.values.dtype))
    last = torch.where(row_ends(at.offsets), reward_E[ragged.row_of(at.offsets)], 0.0)
    targets = last + at.scale.gamma * at.next_q
    squares = ragged.sum_rows((targets - at.q) ** 2, at.offsets)
    count = ragged.lengths_of(at.offsets)
    return Errors(targets, squares[members] / count[members])


def read_values(now: Now, rollouts: Rollouts, credit: Credit, scale: Scale) -> Values:
    """What the policy being trained, its residual head and the pretrained values say; see :class:`Scale`.

    Args:
        now: ``log_probs``, ``max_log_prob``, ``log_prob_of/greedy/reference`` and ``values/residual`` of the policy.
        rollouts: with column ``values/pretrained``.
        credit: says which tokens train.
        scale: how they are put together.
    """
    tokens = episodes.trained_tokens(credit)
    pretrained = made_with(rollouts, PRETRAINED, "objective b_coder", **asdict(scale))[tokens]
    top = now["max_log_prob"][tokens]
    advantages, greedy = (scale.advantage(now[name][tokens], top) for name in ("log_probs", GREEDY))
    raw = now[RESIDUAL][tokens]
    return Values.of(scale, tokens, rollouts, advantages, greedy, raw + pretrained.to(raw.dtype))
