"""The branching sampler: responses that fork, within a budget of tokens a prompt.

Suffix legend: N tokens, B responses, R responses of one round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.columns import Column, qualify
from apportion.sampling.engine import Engine, ForkingEngine, Generated, SamplingSettings, columns_of
from apportion.sampling.fork_rules import ForkRule, build_rule

Annotate = Callable[[Rollouts, Sequence[str]], Rollouts]
"""``(rollouts, names of columns) -> rollouts`` with those of the columns that it can make."""

BY_ENGINES = ("entropy/behaviour",)
"""Columns that engines record while they draw."""


@dataclass(frozen=True)
class Limits:
    """How far a tree may grow.

    Attributes:
        budget: tokens a prompt. What a continuation *may* take is set aside when it is decided on, and what it leaves
            is given to no other: were it, whether a response forks would depend on how long it becomes.
        roots: responses drawn from the prompt.
        children: continuations drawn at a fork, beside the one that was there.
        forks: the most forks of one response, the first ones; None: as many as the rule says.
        max_depth: rounds of forking; branches of the last round do not fork.
        max_width: the most responses a prompt; None: as many as the budget allows.
        whole: a branch may be ``max_new_tokens`` long without what it inherits, not with it.

    Raises:
        InputError: a number that cannot be.
    """

    budget: int
    roots: int = 4
    children: int = 1
    forks: int | None = 1
    max_depth: int = 1
    max_width: int | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        for name in ("budget", "roots", "children", "max_depth"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1.")
        if self.forks is not None and self.forks < 1:
            raise InputError(f"forks is {self.forks}, expected at least 1, or None for no limit.")
        if self.max_width is not None and self.max_width < self.roots:
            raise InputError(
                f"max_width is {self.max_width} and roots {self.roots}, expected room for at least the responses drawn "
                "from the prompt."
            )


@dataclass
class _Row:
    """A response and where it came from; ``own`` of its tokens, statistics and places are its own."""

    group: int
    branch: int
    parent: int | None
    place: int
    depth: int
    ids: Tensor
    log_probs: Tensor
    truncated: bool
    statistics: dict[str, Tensor]
    forks: dict[int, int]


def sample_branching(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    rule: ForkRule | str,
    limits: Limits,
    settings: SamplingSettings,
    generator: torch.Generator,
    annotate: Annotate | None = None,
    weigh: bool = True,
    first_group: int = 0,
    policy_version: int = 0,
) -> Rollouts:
    """Draw a tree of responses to every prompt; the responses to one prompt are a group.

    ``roots`` responses are drawn from every prompt. Then, round by round, the rule marks tokens of the newest
    responses, and ``children`` further continuations are drawn before each marked token, for all prompts at once, as
    long as the budget lasts. Places are granted by their distance from the prompt, nearest first, so that nothing
    behind a place has a say in it.

    A token has the weight 1 over the product of k over the forks passed, k the continuations drawn there, the original
    included: where the rule looks at the prefix alone, weighted sums over the tree estimate what flat sampling gives.
    Every token is trained once, by the response that drew it.

    Args:
        engine: what draws; it must be able to continue from the middle.
        prompts: token ids of every prompt.
        rule: where to fork, or a spec of it, see :mod:`apportion.sampling.fork_rules`.
        limits: how far trees may grow.
        settings: how to draw; ``max_new_tokens`` is the length of a path from the prompt to its end.
        generator: source of randomness; the same state gives the same trees.
        annotate: makes the columns the rule needs that engines do not.
        weigh: record the weights; False: all are 1.
        first_group: id of the first group; the others follow.
        policy_version: which weights drew them, in updates since the start.

    Returns:
        what the group sampler records, with ``weight``, ``trained`` (False where inherited), ``response:branch``,
        ``response:parent``, ``response:fork``, ``response:looks`` (see :mod:`apportion.rollouts.branches`), and
        ``response:draws``, k at the fork a branch was drawn at. Its ``log_probs/behaviour`` are missing where
        inherited.

    Raises:
        InputError: a budget below the responses from the prompt, an engine that cannot fork, a rule that needs a column
            nobody makes or marks tokens by what follows them although it says otherwise.
    """
    rule = build_rule(rule)
    reserved = limits.roots * settings.max_new_tokens
    if reserved > limits.budget:
        raise InputError(
            f"the budget is {limits.budget} tokens a prompt, but {limits.roots} responses from the prompt may take "
            f"{settings.max_new_tokens} each: raise budget to at least {reserved} or lower roots or max_new_tokens."
        )
    if not isinstance(engine, ForkingEngine):
        raise InputError(
            f"a {type(engine).__name__} cannot continue responses from the middle, expected an engine with forks(): "
            "sample with --sampling groups, or from a local model."
        )
    tree = _Trees(engine, prompts, rule, limits, settings, generator, annotate)
    tree.begin()
    for depth in range(1, limits.max_depth + 1):
        if not tree.grow(depth):
            break
    return tree.rollouts(weigh, first_group, policy_version)


class _Trees:
    """The trees of all prompts while they grow."""

    def __init__(
        self,
        engine: ForkingEngine,
        prompts: Sequence[Sequence[int]],
        rule: ForkRule,
        limits: Limits,
        settings: SamplingSettings,
        generator: torch.Generator,
        annotate: Annotate | None,
    ) -> None:
        self.prompts, self.rule, self.limits, self.annotate = prompts, rule, limits, annotate
        self.settings, self.generator = settings, generator
        record = tuple(name.removesuffix("/behaviour") for name in rule.needs if name in BY_ENGINES)
        both = tuple(dict.fromkeys([*settings.record, *record]))
        self.forks = engine.forks(replace(settings, record=both), generator)
        self.rows: list[_Row] = []
        self.newest: list[int] = []
        self.reserved = [limits.roots * settings.max_new_tokens] * len(prompts)
        self.width = [limits.roots] * len(prompts)

    def begin(self) -> None:
        """Draw from the prompts."""
        drawn = self.forks.begin(self.prompts, self.limits.roots, self.settings.max_new_tokens)
        self._add(drawn, [(prompt, None, 0) for prompt in range(len(self.prompts)) for _ in range(self.limits.roots)])

    def grow(self, depth: int) -> bool:
        """One round of forks; False where there is none."""
        places = self._granted(self._marked(first=depth == 1))
        if not places:
            return False
        rows, at = torch.tensor(places).unbind(1)
        room = torch.tensor([self._room(place) for _, place in places])
        device = self.generator.device
        drawn = self.forks.fork(rows.to(device), at.to(device), self.limits.children, room.to(device))
        for row, place in places:
            self.rows[row].forks[place] = 1 + self.limits.children
        self._add(drawn, [(self.rows[r].group, r, place) for r, place in places for _ in range(self.limits.children)])
        return True

    def _room(self, place: int) -> int:
        return self.settings.max_new_tokens - (0 if self.limits.whole else place)

    def _marked(self, first: bool) -> list[list[int]]:
        """Places of the newest rows that the rule wants forked, the first ones that a row may have."""
        rollouts = self._newest_rollouts()
        chosen = _ask(self.rule, rollouts)
        if first and self.rule.looks == "prefix":
            _check_looks(self.rule, rollouts, chosen)
        place = ragged.position_in_row(rollouts.token_offsets)
        start = torch.tensor([self.rows[row].place for row in self.newest], device=place.device)
        # Where a row begins it was itself drawn at a fork; only a rule that looks ahead may begin it anew.
        anew = (place == start[rollouts.response_of_token]) & (self.rule.looks == "prefix")
        marked = chosen & rollouts.trained & ~anew
        found: list[list[int]] = [[] for _ in self.newest]
        for row, at in zip(rollouts.response_of_token[marked].tolist(), place[marked].tolist(), strict=True):
            if self.limits.forks is None or len(found[row]) < self.limits.forks:
                found[row].append(at)
        return found

    def _granted(self, marked: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
        """The places that budget and width allow, nearest to the prompt first; by prompt, row and place."""
        wanted = sorted((place, row) for row, places in zip(self.newest, marked, strict=True) for place in places)
        granted = []
        for place, row in wanted:
            group, cost = self.rows[row].group, self.limits.children * self._room(place)
            width, widest = self.width[group] + self.limits.children, self.limits.max_width
            if self.reserved[group] + cost > self.limits.budget or (widest is not None and width > widest):
                continue
            self.reserved[group] += cost
            self.width[group] = width
            granted.append((row, place))
        return sorted(granted, key=lambda fork: (self.rows[fork[0]].group, *fork))

    def _add(self, drawn: Generated, places: Sequence[tuple[int, int | None, int]]) -> None:
        """Rows as they were drawn."""
        lengths = ragged.lengths_of(drawn.offsets).tolist()
        ids, log_probs = torch.split(drawn.ids, lengths), torch.split(drawn.log_probs, lengths)
        statistics = {name: torch.split(values, lengths) for name, values in drawn.statistics.items()}
        numbers = [0] * len(self.prompts)
        for row in self.rows:
            numbers[row.group] = max(numbers[row.group], row.branch + 1)
        before = len(self.rows)
        for i, ((group, parent, place), cut) in enumerate(zip(places, drawn.truncated.tolist(), strict=True)):
            own = {name: parts[i] for name, parts in statistics.items()}
            whole = ids[i] if parent is None else torch.cat([self.rows[parent].ids[:place], ids[i]])
            depth = 0 if parent is None else self.rows[parent].depth + 1
            self.rows.append(_Row(group, numbers[group], parent, place, depth, whole, log_probs[i], cut, own, forks={}))
            numbers[group] += 1
        self.newest = list(range(before, len(self.rows)))

    def _newest_rollouts(self) -> Rollouts:
        """The newest rows with what the rule needs.

        Raises:
            MissingColumn: nobody makes it.
        """
        rows = [self.rows[row] for row in self.newest]
        rollouts = _table(rows, self.prompts, first_group=0)
        coins = torch.rand(rollouts.n_tokens, generator=self.generator, device=rollouts.device, dtype=torch.float64)
        of_row = torch.rand(len(rows), generator=self.generator, device=rollouts.device, dtype=torch.float64)
        temperature = torch.full((len(rows),), self.settings.temperature or 1.0, device=rollouts.device)
        rollouts = rollouts.with_column("coin", coins).with_column("response:coin", of_row)
        rollouts = rollouts.with_column("response:temperature", temperature)
        for name in rows[0].statistics:
            rollouts = rollouts.with_statistic(f"{name}/behaviour", _own(rollouts, rows, name), "sampling")
        missing = [name for name in self.rule.needs if not rollouts.has(name)]
        if missing and self.annotate is not None:
            rollouts = self.annotate(rollouts, missing)
        for name in missing:
            if not rollouts.has(name):
                raise MissingColumn(
                    name if name.startswith("reward/") else qualify(name),
                    "the fork rule",
                    "neither this engine nor what samples from it makes it: choose another rule, or a model that gives "
                    "it (a value head is trained by an objective such as value)",
                )
        return rollouts

    def rollouts(self, weigh: bool, first_group: int, policy_version: int) -> Rollouts:
        """All rows, those of a prompt together."""
        order = sorted(range(len(self.rows)), key=lambda i: (self.rows[i].group, self.rows[i].branch))
        rows = [self.rows[i] for i in order]
        result = _table(rows, self.prompts, first_group)
        device, count = result.device, len(rows)
        branched = torch.tensor([row.parent is not None for row in rows], device=device)

        def numbers(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        parents = numbers([-1 if row.parent is None else self.rows[row.parent].branch for row in rows])
        draws = numbers([1 if row.parent is None else self.rows[row.parent].forks[row.place] for row in rows])
        looks = [None if row.parent is None else self.rule.looks for row in rows]
        result = (
            result.with_statistic("log_probs/behaviour", _own(result, rows, None), "sampling")
            .with_column("response:temperature", torch.full((count,), self.settings.temperature or 1.0, device=device))
            .with_column("response:truncated", torch.tensor([row.truncated for row in rows], device=device))
            .with_column("response:policy_version", numbers([policy_version] * count))
            .with_column("response:branch", numbers([row.branch for row in rows]))
            .with_column("response:parent", parents, branched)
            .with_column("response:fork", numbers([row.place for row in rows]), branched)
            .with_column("response:draws", draws, branched)
            .with_column("response:looks", looks)
        )
        for name in columns_of(self.settings.record):
            result = result.with_statistic(f"{name}/behaviour", _own(result, rows, name), "sampling")
        if weigh:
            weights = self._weights(torch.float32 if device.type == "mps" else torch.float64)
            result = result.with_column("weight", torch.cat([weights[i] for i in order]))
        made = {name: Column(c.values, c.present, "sampling") for name, c in result.columns.items()}
        return Rollouts(
            result.ids,
            result.token_offsets,
            result.response_offsets,
            result.group_ids,
            result.prompt_ids,
            result.prompt_offsets,
            result.prompts,
            made,
        )

    def _weights(self, dtype: torch.dtype) -> list[Tensor]:
        """1 over the product of the draws at the forks passed, for every token of every row; parents come first."""
        weights: list[Tensor] = []
        for row in self.rows:
            weight = torch.ones(len(row.ids), dtype=dtype, device=row.ids.device)
            if row.parent is not None:
                parent = weights[row.parent]
                weight[: row.place] = parent[: row.place]
                weight[row.place :] = parent[row.place]
            for place, draws in row.forks.items():
                weight[place:] /= draws
            weights.append(weight)
        return weights


def _table(rows: Sequence[_Row], prompts: Sequence[Sequence[int]], first_group: int) -> Rollouts:
    """Rows as rollouts that say which tokens are their own."""
    device = rows[0].ids.device
    prompt_ids, prompt_offsets = ragged.flatten(prompts, torch.int64)
    group = torch.tensor([row.group for row in rows], device=device)
    result = Rollouts(
        ids=torch.cat([row.ids for row in rows]),
        token_offsets=ragged.offsets_of(torch.tensor([len(row.ids) for row in rows], device=device)),
        response_offsets=torch.arange(len(rows) + 1, device=device),
        group_ids=group + first_group,
        prompt_ids=prompt_ids.to(device),
        prompt_offsets=prompt_offsets.to(device),
        prompts=group,
    )
    place = torch.tensor([row.place for row in rows], device=device)
    own = ragged.position_in_row(result.token_offsets) >= place[result.response_of_token]
    return result.with_column("trained", own, maker="sampling")


def _own(rollouts: Rollouts, rows: Sequence[_Row], statistic: str | None) -> Tensor:
    """A statistic of own tokens (None: the log-probs), 0 where inherited."""
    parts = [row.log_probs if statistic is None else row.statistics[statistic] for row in rows]
    values = torch.cat(parts)
    result = values.new_zeros((rollouts.n_tokens, *values.shape[1:]))
    result[rollouts.trained] = values
    return result


def _ask(rule: ForkRule, rollouts: Rollouts) -> Tensor:
    chosen = rule.choose(rollouts)
    if not isinstance(chosen, Tensor) or chosen.dtype != torch.bool or chosen.shape != (rollouts.n_tokens,):
        what = f"{chosen.dtype} of shape {tuple(chosen.shape)}" if isinstance(chosen, Tensor) else type(chosen).__name__
        raise InputError(f"the fork rule returned {what}, expected bool of shape ({rollouts.n_tokens},).")
    return chosen


def _check_looks(rule: ForkRule, rollouts: Rollouts, chosen: Tensor) -> None:
    """Refuse a rule that says it looks at prefixes and decides otherwise when what follows is cut off."""
    lengths = ragged.lengths_of(rollouts.token_offsets)
    kept = (lengths + 1) // 2
    tokens = ragged.ranges(rollouts.token_offsets[:-1], rollouts.token_offsets[:-1] + kept)
    columns = {name: c.take(tokens) for name, c in rollouts.columns.items() if name.startswith("token:")}
    columns["response:coin"] = rollouts.columns["response:coin"]
    cut = Rollouts(
        rollouts.ids[tokens],
        ragged.offsets_of(kept),
        rollouts.response_offsets,
        rollouts.group_ids,
        rollouts.prompt_ids,
        rollouts.prompt_offsets,
        rollouts.prompts,
        columns,
    )
    own = cut.trained
    if not torch.equal(_ask(rule, cut)[own], chosen[tokens][own]):
        raise InputError(
            "the fork rule says it looks at the prefix, but marks other tokens when what follows them is cut off: "
            "declare looks='ahead', or let it decide on every token by those before it."
        )
