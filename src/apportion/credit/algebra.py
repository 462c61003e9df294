"""Credit as a small algebra: a method is a stage, and stages chain.

A :class:`Stage` is a pure function from :class:`Work` to :class:`Work` with explicit state. Four kinds, usually in
this order, each lifted from a plain function that returns only what its kind may change:

* :func:`shaper`: rewards to rewards (mixing, annealing, decomposition);
* :func:`estimator`: rewards to advantages, one a token;
* :func:`modifier`: advantages to advantages (re-weighting by annotations);
* :func:`token_filter`: which tokens train, and whether what is dropped still counts in normalisers.

:func:`chain`, :func:`add`, :func:`scale` and :func:`per_component` combine them.

Suffix legend: N tokens, B responses, E episodes, S spans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from apportion.credit import trace
from apportion.errors import InputError
from apportion.rollouts import Rollouts, ragged


@dataclass(frozen=True)
class Clock:
    """Where a run stands: ``step`` of ``total_steps``, counted from 0."""

    step: int
    total_steps: int


class Claim(IntEnum):
    """What is claimed of the expected gradient, strongest first."""

    EXACT = 0
    EXACT_UP_TO_SCALE = 1
    CONSISTENT = 2
    BIASED = 3


@dataclass(frozen=True)
class Bias:
    """A claim about the expected gradient and, unless it is exact, one line why."""

    claim: Claim
    why: str = ""

    def __str__(self) -> str:
        words = self.claim.name.lower().replace("_", " ")
        return f"{words}: {self.why}" if self.why else words


EXACT = Bias(Claim.EXACT)


@dataclass(frozen=True, eq=False)
class Reward:
    """One reward component: values of one level's table. Unknown members are taken out before stages run.

    Attributes:
        level: ``token``, ``response``, ``episode`` or a kind of span.
        values: ``[rows]`` or ``[rows, k]``.
        scored: same shape; False marks a hole in ``[rows, k]`` or a member the method asked to see although unknown.
    """

    level: str
    values: Tensor
    scored: Tensor


@dataclass(frozen=True, eq=False)
class Work:
    """What stages hand on.

    Attributes:
        rollouts: the episodes this method covers and whose rewards are known.
        rewards: by component, as shaped so far.
        advantages: ``[N]``.
        trained: ``[N]``, may carry loss.
        counted: ``[N]``, enters normalisers.
        details: what the viewer shows and objectives may read, by column name.
        shrunk: ``[E]``, the episode's group lost members that were unknown or left out.
        whole: the rollouts with those that are not among ``rollouts``: branches keep their place when the response they
            branched from has no verdict.
        members: bool, which episodes of ``whole`` are those of ``rollouts``.
    """

    rollouts: Rollouts
    rewards: Mapping[str, Reward]
    advantages: Tensor
    trained: Tensor
    counted: Tensor
    shrunk: Tensor
    details: Mapping[str, Tensor] = field(default_factory=dict)
    whole: Rollouts | None = None
    members: Tensor | None = None

    def up(self, component: str, level: str = "episode") -> Tensor:
        """A reward summed to every response ``[B]`` or episode ``[E]``; untrained tokens count too."""
        reward = self.rewards[component]
        values = torch.where(reward.scored, reward.values, 0.0)
        values = values.sum(1) if values.dim() == 2 else values
        rollouts = self.rollouts
        order = ["token", "span", "response", "episode"]
        have = reward.level if reward.level in order else "span"
        if order.index(have) > order.index(level):
            raise InputError(f"reward {component!r} is one an {have}, expected a level below {level}.")
        if have == "token":
            values, have = ragged.sum_rows(values, rollouts.token_offsets), "response"
        elif have == "span":
            at = rollouts.response_of_span[reward.level]
            values, have = values.new_zeros(rollouts.n_responses).index_add_(0, at, values), "response"
        if have == "response" and level == "episode":
            values = ragged.sum_rows(values, rollouts.response_offsets)
        return values

    def down(self, component: str, where: str = "last") -> Tensor:
        """A reward as rewards of tokens ``[N]``.

        Args:
            component: which one.
            where: ``last``: all on the last trained token of its span, response or episode, or on its last token
                where none is trained, so that nothing is lost; ``over``: repeated on every trained token of it.
        """
        if where not in ("last", "over"):
            raise InputError(f"where is {where!r}, expected 'last' or 'over'.")
        reward = self.rewards[component]
        values = torch.where(reward.scored, reward.values, 0.0)
        values = values.sum(1) if values.dim() == 2 else values
        rollouts, trained = self.rollouts, self.rollouts.trained
        if reward.level == "token":
            return values
        row = row_of_token(rollouts, reward.level)
        inside = (row >= 0) & trained
        if where == "last" and not bool(trained.all()):
            trains = torch.zeros_like(values, dtype=torch.bool).index_fill_(0, row[inside], True)
            inside = inside | ((row >= 0) & ~trains[row.clamp(min=0)] if len(values) else inside)
        spread = torch.where(inside, values[row.clamp(min=0)] if len(values) else values.new_zeros(()), 0.0)
        return spread if where == "over" else torch.where(last_of_row(row, inside), spread, 0.0)

    def spread(self, values: Tensor, level: str = "episode") -> Tensor:
        """Values of episodes ``[E]`` or responses ``[B]`` repeated on all their tokens ``[N]``."""
        row = self.rollouts.episode_of_token if level == "episode" else self.rollouts.response_of_token
        return values[row]


def row_of_token(rollouts: Rollouts, level: str) -> Tensor:
    """For every token ``[N]``, its row in the table of ``level``; -1 where it lies in none."""
    if level == "episode":
        return rollouts.episode_of_token
    if level == "response":
        return rollouts.response_of_token
    spans = rollouts.spans[level]
    row = torch.full((rollouts.n_tokens,), -1, dtype=torch.int64, device=rollouts.device)
    numbers = torch.arange(len(spans.starts), device=rollouts.device)
    row[ragged.ranges(spans.starts, spans.ends)] = torch.repeat_interleave(numbers, spans.ends - spans.starts)
    return row


def last_of_row(row: Tensor, inside: Tensor) -> Tensor:
    """Bool ``[N]``: the last token of every row among those ``inside``; rows are contiguous."""
    place = inside.nonzero().squeeze(1)
    result = torch.zeros_like(inside)
    if len(place):
        rows = row[place]
        ends = torch.cat([rows[1:] != rows[:-1], rows.new_ones(1, dtype=torch.bool)])
        result[place[ends]] = True
    return result


@dataclass(frozen=True, eq=False)
class Result:
    """What a lifted function returns when it has more to say than one tensor."""

    value: Any
    details: Mapping[str, Tensor] = field(default_factory=dict)
    state: Any = None


Apply = Callable[[Work, Any, Clock | None], tuple[Work, Any]]


@dataclass(frozen=True, eq=False)
class Stage:
    """A step of credit assignment; complete methods are stages too.

    Calling a stage on rollouts assigns credit: ``stage(rollouts) -> Credit`` (see
    :func:`apportion.credit.assign.assign`).

    Attributes:
        apply: ``(work, state, clock) -> (work, state)``.
        needs: columns it reads; ``reward/<component>`` at whichever level it lives.
        bias: what is claimed of the expected gradient.
        init: makes the first state.
        reads_clock: it must be given a clock.
        covers: origins of the responses it credits; others get advantage 0 and keep their masks.
        sees_unknown: reward components whose unknown members it wants to see instead of having them dropped.
        compares_groups: an episode's credit comes from others of its group, so groups of one get none.
        makes: details that objectives may read, such as ``credit/returns``, and rewards that later stages of a chain
            may, such as ``reward/mixed``.
        leaves_out: by rollouts, the episodes ``[E]`` to be left out as though they had not been sampled: they are in
            no statistic, and their tokens neither train nor count.
        by_group: the credit of a group depends on nothing outside it, so a file may be credited group by group.
        reads_ids: it looks at which tokens were sampled, not only at how many; a trainer that hands no ids cannot
            carry it.
        compares_branches: it is for responses that fork, and on others it is leave-one-out.
    """

    apply: Apply
    needs: tuple[str, ...] = ()
    bias: Bias = EXACT
    init: Callable[[], Any] = lambda: None
    reads_clock: bool = False
    covers: tuple[str, ...] = ("policy", "hinted")
    sees_unknown: tuple[str, ...] = ()
    compares_groups: bool = False
    makes: tuple[str, ...] = ()
    leaves_out: tuple[Callable[[Rollouts], Tensor], ...] = ()
    by_group: bool = False
    reads_ids: bool = False
    compares_branches: bool = False

    def __call__(
        self, rollouts: Rollouts, state: Any = None, clock: Clock | None = None, unscored: str = "error"
    ) -> Any:
        """Assign credit; see :func:`apportion.credit.assign.assign`."""
        from apportion.credit.assign import assign  # the runner imports this module

        return assign(self, rollouts, state, clock, unscored)


def _lift(
    kind: str, change: Callable[[Work, Any], Work], says: str
) -> Callable[..., Callable[[Callable[..., Any]], Stage]]:
    """Make a decorator that turns a plain function into a stage of a kind, and documents itself as ``says``.

    The function takes ``(work)``, or ``(work, state, clock)`` when ``init`` or ``reads_clock`` is given, and returns
    its kind's value or a :class:`Result` around it.
    """

    def decorator(
        needs: Sequence[str] = (),
        bias: Bias = EXACT,
        init: Callable[[], Any] | None = None,
        reads_clock: bool = False,
        **attributes: Any,
    ) -> Callable[[Callable[..., Any]], Stage]:
        def lift(function: Callable[..., Any]) -> Stage:
            def apply(work: Work, state: Any, clock: Clock | None) -> tuple[Work, Any]:
                extended = init is not None or reads_clock
                result = function(work, state, clock) if extended else function(work)
                if not isinstance(result, Result):
                    result = Result(result, state=state)
                work = change(work, result.value)
                details = {**work.details, **result.details}
                if trace.is_recording():
                    details = _noted(details, function.__name__, kind, work, result.value)
                return replace(work, details=details), result.state

            return Stage(apply, tuple(needs), bias, init or (lambda: None), reads_clock, **attributes)

        return lift

    decorator.__doc__ = says
    return decorator


def _noted(details: dict[str, Tensor], stage: str, kind: str, work: Work, value: Any) -> dict[str, Tensor]:
    """Details with what a stage made: advantages, or of a shaper every reward it set."""
    if kind != "shaper":
        return trace.noted(details, stage, kind, work.advantages)
    for component in value:
        details = trace.noted(details, stage, kind, work.down(component, "over"), component)
    return details


def _token_values(work: Work, values: Any, what: str, dtype: torch.dtype) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (work.rollouts.n_tokens,):
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"{what} returned {shape}, expected a tensor of shape ({work.rollouts.n_tokens},).")
    return values.to(dtype)


def _set_rewards(work: Work, rewards: Mapping[str, Reward]) -> Work:
    return replace(work, rewards={**work.rewards, **rewards})


def _set_advantages(work: Work, advantages: Tensor) -> Work:
    checked = _token_values(work, advantages, "a stage", work.advantages.dtype)
    return replace(work, advantages=_only_at(work.trained, checked))


def _set_masks(work: Work, masks: tuple[Tensor, Tensor]) -> Work:
    trained, counted = (_token_values(work, mask, "a filter", torch.bool) for mask in masks)
    trained = trained & work.trained
    return replace(
        work,
        trained=trained,
        counted=counted & work.counted,
        advantages=_only_at(trained, work.advantages),
    )


def _only_at(trained: Tensor, advantages: Tensor) -> Tensor:
    """Zeros elsewhere; large batches notice a copy that changes nothing."""
    return advantages if bool(trained.all()) else torch.where(trained, advantages, 0.0)


shaper = _lift("shaper", _set_rewards, "Lift ``work -> {component: Reward}``.")
estimator = _lift("estimator", _set_advantages, "Lift ``work -> advantages [N]``.")
modifier = _lift("modifier", _set_advantages, "Lift ``work -> advantages [N]``, made from ``work.advantages``.")
token_filter = _lift("filter", _set_masks, "Lift ``work -> (trained [N], counted [N])``.")


def _union(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name in part))


def _combine(stages: Sequence[Stage], apply: Apply, bias: Bias | None) -> Stage:
    if not stages:
        raise InputError("got no stages to combine, expected at least one.")
    covers = {stage.covers for stage in stages}
    if len(covers) > 1:
        raise InputError(f"stages cover different origins {sorted(covers)}, expected the same in one method.")
    return Stage(
        apply,
        needs=_union([stage.needs for stage in stages]),
        bias=bias or max((stage.bias for stage in stages), key=lambda b: b.claim),
        init=lambda: tuple(stage.init() for stage in stages),
        reads_clock=any(stage.reads_clock for stage in stages),
        covers=stages[0].covers,
        sees_unknown=_union([stage.sees_unknown for stage in stages]),
        compares_groups=any(stage.compares_groups for stage in stages),
        makes=_union([stage.makes for stage in stages]),
        leaves_out=tuple(which for stage in stages for which in stage.leaves_out),
        by_group=all(stage.by_group for stage in stages),
        reads_ids=any(stage.reads_ids for stage in stages),
        compares_branches=any(stage.compares_branches for stage in stages),
    )


def chain(*stages: Stage, bias: Bias | None = None) -> Stage:
    """Apply stages one after another.

    Args:
        *stages: in order.
        bias: the claim for the whole; default: the weakest of the parts.

    Example:
        >>> from apportion import credit
        >>> method = credit.chain(credit.METHODS["grpo"](), credit.scale(0.5))
    """

    def apply(work: Work, state: Any, clock: Clock | None) -> tuple[Work, Any]:
        states = []
        for stage, own in zip(stages, state, strict=True):
            work, own = stage.apply(work, own, clock)
            states.append(own)
        return work, tuple(states)

    return replace(_combine(stages, apply, bias), needs=_needs_of_chain(stages))


def _needs_of_chain(stages: Sequence[Stage]) -> tuple[str, ...]:
    """What stages in a row read, but for what one before them makes."""
    needs: list[str] = []
    made: set[str] = set()
    for stage in stages:
        needs += [name for name in stage.needs if name not in made]
        made |= set(stage.makes)
    return _union([needs])


def add(*stages: Stage, bias: Bias | None = None) -> Stage:
    """Sum the advantages of several stages, each run on the same work; a token trains if all of them train it."""

    def apply(work: Work, state: Any, clock: Clock | None) -> tuple[Work, Any]:
        total, states, details = torch.zeros_like(work.advantages), [], dict(work.details)
        trained, counted = work.trained, work.counted
        for stage, own in zip(stages, state, strict=True):
            part, own = stage.apply(work, own, clock)
            states.append(own)
            total = total + part.advantages
            trained, counted = trained & part.trained, counted & part.counted
            details = trace.beside(details, work.details, part.details)
        total = torch.where(trained, total, 0.0)
        if trace.is_recording():
            details = trace.noted(details, "add", "sum", total)
        done = replace(work, advantages=total, trained=trained, counted=counted, details=details)
        return done, tuple(states)

    return _combine(stages, apply, bias)


def scale(factor: float) -> Stage:
    """Multiply advantages by a constant."""

    @modifier(bias=Bias(Claim.EXACT_UP_TO_SCALE, f"multiplied by {factor}") if factor != 1 else EXACT, by_group=True)
    def scaled(work: Work) -> Tensor:
        return work.advantages * factor

    return scaled


def per_component(stages: Mapping[str, Stage], weights: Mapping[str, float], bias: Bias | None = None) -> Stage:
    """One estimator a reward component, then their weighted sum.

    Args:
        stages: by component; each reads its own component.
        weights: by component, the same names.
        bias: the claim for the whole; default: the weakest of the parts.
    """
    if set(stages) != set(weights):
        raise InputError(f"got estimators for {sorted(stages)} but weights for {sorted(weights)}, expected the same.")
    return add(*(chain(stage, scale(weights[name])) for name, stage in stages.items()), bias=bias)
