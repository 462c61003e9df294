"""Sotopia-RL: scores of a finished dialogue, shared out among its utterances by how much each contributed.

Suffix legend: N tokens, T utterances (decisions), E episodes, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.credit.algebra import Bias, Claim, Result, Reward, Stage, Work, chain, shaper
from apportion.credit.mixing import check_weights, min_max, weighted_sum, weights_of
from apportion.credit.reduce import Singleton
from apportion.credit.step_returns import step_relative
from apportion.errors import InputError, check_share, unknown_name
from apportion.rollouts import Steps, ragged, steps

DIMENSIONS = ("goal", "relationship", "knowledge")
"""What the paper rewards of SOTOPIA's seven dimensions."""

SCALES = {"default": 3, "5_scale": 5, "10_scale": 10}
"""The largest attribution."""

UTTERANCE = "utterance"
"""The reward of utterances."""


def sotopia_rl(
    dimensions: Sequence[str] = DIMENSIONS,
    method: str = "direct",
    scale: str = "default",
    weights: Sequence[float] | Mapping[str, float] | None = None,
    output_scale: float = 10.0,
    discount: float = 0.9,
    place: str = "turn",
    norm_by_std: bool = True,
    eps: float = 1e-4,
    singleton: Singleton = "zero",
) -> Stage:
    """Rewards of utterances from a judge's attributions, against those of the group's other attempts.

        r_td = f(a_td, G_d)                                                see :data:`ATTRIBUTIONS`
        r_t  = scale / D sum_d w_d (r_td - min_d) / (max_d - min_d)
        A_t  = (r_t - mean r) / (std r + eps)                              over utterances at the same place

    with G_d the episode's score on dimension d and a_td how much utterance t contributed to it. The two stages are
    :func:`utterance_rewards` and :func:`~apportion.credit.step_returns.step_relative` without returns: an utterance is
    an action of its own. The paper fits a reward model to these rewards and then draws 16 utterances of every history;
    here attempts go on, so utterances are compared by how many came before (``turn``) or, as in the paper, after the
    same history (``state``). With one turn an episode both are the paper's comparison.

    Args:
        dimensions: rewards of episodes.
        method: how a score is shared out, one of :data:`ATTRIBUTIONS`.
        scale: the judge's: attributions go up to 3 (``default``), 5 (``5_scale``) or 10 (``10_scale``).
        weights: w, in the order of the dimensions or by dimension; None: 1 each. The sum is divided by D all the same.
        output_scale: 10 in the authors' code, 1 in the paper.
        discount: of ``discounted``, an utterance.
        place: ``turn`` or ``state``, see :data:`~apportion.credit.step_returns.PLACES`.
        norm_by_std: divide by the standard deviation, as GRPO does.
        eps: added to it.
        singleton: a group of one attempt gets ``zero``, its ``raw`` rewards, or is an ``error``.

    Needs, by method, ``reward/attribution/<dimension>`` of every utterance or, of every episode, the number of its key
    utterance as ``reward/key/<dimension>``. An episode of which one is unknown is left out whole.

    Details: those of :func:`utterance_rewards`, and ``step_returns``, which are the rewards.

    Raises:
        InputError: a setting out of range; when run, attributions that a judge may not give.

    Source: arXiv 2508.03905; sotopia-lab/sotopia-rl.

    Example:
        >>> import torch
        >>> from apportion.rollouts import Rollouts
        >>> ids, episodes = [[1], [2], [1], [2]], [0, 0, 1, 1]
        >>> two = Rollouts.from_lists(ids, groups=[0] * 4, episodes=episodes, rewards=[9.0, 3.0], component="goal")
        >>> two = two.with_reward("attribution/goal", torch.tensor([3.0, 0.0, 2.0, 3.0]), level="response")
        >>> method = sotopia_rl(("goal",), norm_by_std=False, output_scale=9.0)
        >>> method(two).columns["response:credit/utterance_rewards"].tensor.tolist()
        [9.0, 0.0, 2.0, 3.0]
        >>> method(two).advantages.tolist()
        [7.0, -3.0, -7.0, 3.0]
    """
    rewards = utterance_rewards(dimensions, method, scale, weights, output_scale, discount)
    return chain(rewards, step_relative(UTTERANCE, 0.0, place, norm_by_std, eps, singleton))


def utterance_rewards(
    dimensions: Sequence[str] = DIMENSIONS,
    method: str = "direct",
    scale: str = "default",
    weights: Sequence[float] | Mapping[str, float] | None = None,
    output_scale: float = 10.0,
    discount: float = 0.9,
) -> Stage:
    """Scores of episodes as component ``utterance``, a reward of every utterance; see :func:`sotopia_rl`.

    The smallest and the largest of a dimension are of all utterances at hand: the whole data set in the paper, the
    batch in a run. A dimension in which they are equal gives 0, and counts in D. A negative score turns the order of
    what contributed to it round, which the details show.

    Args:
        dimensions: rewards of episodes.
        method: how a score is shared out.
        scale: of the judge.
        weights: by dimension.
        output_scale: of the result.
        discount: of ``discounted``.

    Details: of every utterance ``attributed/<dimension>``, ``normalised/<dimension>`` and ``utterance_rewards``; of
    every episode ``negative_scores``, how many of its scores are.
    """
    weight_of = weights_of(dimensions, weights)
    check_weights(weight_of)
    for kind, name, known in (("method", method, ATTRIBUTIONS), ("scale", scale, SCALES)):
        if name not in known:
            raise unknown_name(kind, name, known)
    if not 0 < output_scale < math.inf:
        raise InputError(f"output_scale is {output_scale}, expected more than 0.")
    check_share("discount", discount)
    shared = ATTRIBUTIONS[method]
    columns = [column.format(dimension) for dimension in dimensions for column in ("reward/{}", *shared.needs)]
    bias = Bias(Claim.BIASED, "a judge's attributions in hindsight stand in for what an utterance was worth")

    @shaper(needs=tuple(columns), bias=bias, makes=(f"reward/{UTTERANCE}",))
    def attributed(work: Work) -> Result:
        table = steps(work.rollouts)
        raw = {name: shared.reward(Dimension(work, table, name, SCALES[scale], discount)) for name in dimensions}
        normalised = {name: min_max(reward_T) for name, reward_T in raw.items()}
        value_T = weighted_sum(normalised, weight_of) * (output_scale / len(dimensions))
        negative_E = torch.stack([work.up(name) < 0 for name in dimensions]).sum(0)
        details = {f"attributed/{name}": reward_T for name, reward_T in raw.items()}
        details |= {f"normalised/{name}": reward_T for name, reward_T in normalised.items()}
        details["utterance_rewards"] = value_T
        return Result(
            {UTTERANCE: Reward(table.level, value_T, torch.ones_like(value_T, dtype=torch.bool))},
            {f"{table.level}:{name}": values for name, values in details.items()}
            | {"episode:negative_scores": negative_E},
        )

    return attributed


@dataclass(frozen=True, eq=False)
class Dimension:
    """What the rewards of utterances on one dimension are made of.

    Attributes:
        work: the dialogues.
        table: their utterances.
        name: of the dimension.
        most: the largest attribution a judge may give.
        discount: an utterance.
    """

    work: Work
    table: Steps
    name: str
    most: int
    discount: float

    @property
    def score_T(self) -> Tensor:
        """The score of the utterance's episode."""
        return self.work.up(self.name)[self.table.episode]

    @property
    def attribution_T(self) -> Tensor:
        """How much the utterance contributed, -1 (it did harm) or 0 to the most."""
        reward = self.work.rewards[f"attribution/{self.name}"]
        level = self.table.level
        if reward.level != level or reward.values.dim() > 1:
            raise InputError(
                f"attributions to {self.name!r} are not one number a {level}, expected as many as the agent has "
                "utterances: ask the judge about each."
            )
        values = reward.values
        wrong = (values != values.round()) | (values < -1) | (values > self.most)
        if bool(wrong.any()):
            raise InputError(
                f"{int(wrong.sum())} attributions to {self.name!r} are others than -1 and 0 to {self.most}, such as "
                f"{float(values[wrong][0]):g}: expected whole numbers on the judge's scale."
            )
        return values

    @property
    def key_T(self) -> Tensor:
        """Bool: the utterance is the key one of its episode."""
        reward, sizes_E = self.work.rewards[f"key/{self.name}"], ragged.lengths_of(self.table.offsets)
        key_E = reward.values
        if reward.level != "episode" or key_E.dim() > 1:
            raise InputError(f"key utterances for {self.name!r} are not one number an episode, expected one each.")
        wrong = ((key_E < 0) | (key_E >= sizes_E) | (key_E != key_E.round())) & (sizes_E > 0)
        if bool(wrong.any()):
            raise InputError(
                f"{int(wrong.sum())} episodes have a key utterance for {self.name!r} that they lack, such as number "
                f"{float(key_E[wrong][0]):g} of {int(sizes_E[wrong][0])}: expected 0 to one less than there are."
            )
        return self.table.index == key_E[self.table.episode]


def _direct(of: Dimension) -> Tensor:
    given_T = of.attribution_T
    return torch.where(given_T == -1, -1.0, given_T / of.most * of.score_T)


def _scaled(of: Dimension) -> Tensor:
    given_T = of.attribution_T
    total_T = ragged.sum_rows(given_T, of.table.offsets)[of.table.episode]
    return torch.where(total_T == 0, 0.0, given_T / torch.where(total_T == 0, 1.0, total_T) * of.score_T)


def _uniform(of: Dimension) -> Tensor:
    return of.score_T


def _discounted(of: Dimension) -> Tensor:
    left_T = ragged.lengths_of(of.table.offsets)[of.table.episode] - 1 - of.table.index
    return of.discount ** left_T.to(of.score_T.dtype) * of.score_T


def _singular(of: Dimension) -> Tensor:
    return torch.where(of.key_T, of.score_T, 0.0)


@dataclass(frozen=True)
class Attribution:
    """A way to share a score out.

    Attributes:
        reward: of every utterance ``[T]``.
        needs: columns it reads, with ``{}`` for the dimension.
    """

    reward: Callable[[Dimension], Tensor]
    needs: tuple[str, ...] = ()


JUDGED = ("reward/attribution/{}",)
ATTRIBUTIONS = {
    "direct": Attribution(_direct, JUDGED),
    "scaled": Attribution(_scaled, JUDGED),
    "uniform": Attribution(_uniform),
    "discounted": Attribution(_discounted),
    "singular": Attribution(_singular, ("reward/key/{}",)),
}
"""By name: ``direct``, ``a_t/A G`` and -1 for a harmful utterance, A the largest attribution; ``scaled``,
``a_t / sum_k a_k G``, 0 where the sum is 0; ``uniform``, G; ``discounted``, ``discount^(utterances left) G``;
``singular``, G for the key utterance and 0 for others."""
