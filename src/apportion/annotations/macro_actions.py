"""Where macro actions begin: spans of kind ``macro``, in which several tokens count as one action.

They are made within *runs*: trained tokens one after another in one decision (a turn where turns are marked, else a
response). What the policy did not write ends a macro action, and what it writes after that begins anew.

Suffix legend: n trained tokens, R runs, T tokens of one run.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion import registry
from apportion.annotations.annotator import Annotator
from apportion.annotations.constituents import Parser, begins_of_pieces
from apportion.annotations.spans import mark_spans
from apportion.annotations.token_texts import reader
from apportion.errors import InputError
from apportion.models.policy import Policy
from apportion.rollouts import Rollouts, ragged, steps


@dataclass(frozen=True, eq=False)
class Runs:
    """Trained tokens, cut where something lies between them or a decision ends.

    Attributes:
        rollouts: whose they are.
        tokens: their numbers ``[n]``, ascending.
        offsets: of the runs ``[R + 1]``.
    """

    rollouts: Rollouts
    tokens: Tensor
    offsets: Tensor

    @property
    def ids(self) -> list[list[int]]:
        """Token ids of every run."""
        return ragged.unflatten(self.rollouts.ids[self.tokens], self.offsets)


@dataclass(frozen=True, eq=False)
class Rule:
    """When a macro action is over.

    Attributes:
        begins: ``(runs, policy) -> bool [n]``, the tokens a macro action begins with; the first of every run and the
            last do in any case.
        reads_policy: it looks at the policy.
    """

    begins: Callable[[Runs, Policy], Tensor]
    reads_policy: bool = False


def fixed(n: int = 5) -> Rule:
    """Every macro action has ``n`` tokens, the last two of a run fewer.

    Args:
        n: 1 or more.
    """
    if type(n) is not int or n < 1:
        raise InputError(f"n is {n}, expected a whole number of 1 or more tokens a macro action.")
    return Rule(lambda runs, policy: ragged.position_in_row(runs.offsets) % n == 0)


def sizes(sizes: Sequence[int] = (1, 2, 3, 5, 10), repeat: int = 10, seed: int | None = 0) -> Rule:
    """Macro actions of given sizes in random order; what they do not reach is one more.

    The order is drawn from the seed and the run's own tokens, so that a resumed run of training cuts alike.

    Args:
        sizes: 1 or more each.
        repeat: how many times each is there.
        seed: of the order; None: as given, again and again.
    """
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise InputError(f"sizes is {sizes}, expected at least one, each a whole number of 1 token or more.")
    if type(repeat) is not int or repeat < 1:
        raise InputError(f"repeat is {repeat}, expected a whole number of 1 or more.")
    ends = np.tile(np.asarray(sizes, dtype=np.int64), repeat)

    def begins(runs: Runs, policy: Policy) -> Tensor:
        result = torch.zeros(len(runs.tokens), dtype=torch.bool)
        for first, ids in zip(runs.offsets.tolist(), runs.ids, strict=False):
            order = ends
            if seed is not None:
                order = np.random.default_rng((seed, zlib.crc32(np.asarray(ids).tobytes()))).permutation(ends)
            after = order.cumsum()
            result[torch.from_numpy(first + after[after < len(ids)])] = True
        return result.to(runs.tokens.device)

    return Rule(begins)


def perplexity(column: str = "log_probs/reference") -> Rule:
    """A macro action begins with a token that is likelier than the one after it: where perplexity is about to rise.

    Args:
        column: log-probs whose negative exponential is the perplexity of a token.
    """

    def begins(runs: Runs, policy: Policy) -> Tensor:
        log_probs = runs.rollouts.column(column, reader="macro_actions")[runs.tokens]
        rises = torch.zeros(len(log_probs), dtype=torch.bool, device=log_probs.device)
        rises[:-1] = log_probs[1:] < log_probs[:-1]  # the last of a run begins one in any case
        return rises

    return Rule(begins)


def parsing(parser: str, cutoff: int = 5) -> Rule:
    """Macro actions are constituents: the largest of fewer words than a cutoff; a word alone joins what precedes it.

    A run whose text a parser cuts into other words than it has, or within a token, is taken token by token.

    Args:
        parser: ``package.module:name`` of a function from texts to bracketed trees, a list of them for every text, one
            a sentence.
        cutoff: 2 or more.
    """
    if cutoff < 2:
        raise InputError(f"cutoff is {cutoff}, expected 2 or more words.")
    parse: Parser = registry.lookup(parser, {}, "parser")
    if not callable(parse):
        raise InputError(f"parser {parser!r} is a {type(parse).__name__}, expected a function of texts.")

    def begins(runs: Runs, policy: Policy) -> Tensor:
        read = reader(policy)
        cut = begins_of_pieces([read(ids) for ids in runs.ids], parse, cutoff)
        flat = [begin for row in cut for begin in row]
        return torch.tensor(flat, dtype=torch.bool, device=runs.tokens.device)

    return Rule(begins, reads_policy=True)


RULES: dict[str, Callable[..., Rule]] = {"fixed": fixed, "sizes": sizes, "ppl": perplexity, "parsing": parsing}


def macro_actions(rule: str = "fixed(n=5)") -> Annotator:
    """Spans of kind ``macro`` that hold every trained token, for credit method ``ma_rlhf``.

    The last token of a run is a macro action of its own, so that a reward that stands on it is averaged with nothing.

    Args:
        rule: when a macro action is over: ``fixed(n=5)``, ``sizes(...)``, ``ppl(...)``, ``parsing(parser=...)``, or
            ``package.module:name`` of a function that makes a :class:`Rule`.

    Makes ``macro:size``, how many tokens a macro action has.

    Source: arXiv 2410.02743; ernie-research/MA-RLHF.
    """
    chosen = registry.build(rule, RULES, "rule of macro actions")
    if not isinstance(chosen, Rule):
        raise InputError(f"{rule!r} made a {type(chosen).__name__}, expected a Rule of macro actions.")

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        runs = runs_of(rollouts)
        begins = chosen.begins(runs, policy).clone()
        filled = ragged.lengths_of(runs.offsets) > 0
        begins[runs.offsets[:-1][filled]] = True
        begins[runs.offsets[1:][filled] - 1] = True
        first = begins.nonzero().squeeze(1)
        lengths = torch.cat([first, first.new_tensor([len(begins)])]).diff()
        starts = runs.tokens[first]
        marked = mark_spans(rollouts, "macro", starts, starts + lengths, makes="size")
        return marked.with_column("macro:size", lengths, maker="macro_actions", rule=rule)

    return Annotator(apply, ("macro:size",), reads_policy=chosen.reads_policy)


def runs_of(rollouts: Rollouts) -> Runs:
    """The runs of some rollouts.

    Example:
        >>> one = Rollouts.from_lists([[7, 8, 9], [7]], groups=[0, 0], trained=[[1, 0, 1], [1]])
        >>> [x.tolist() for x in (runs_of(one).tokens, runs_of(one).offsets)]
        [[0, 2, 3], [0, 1, 2, 3]]
    """
    tokens = rollouts.trained.nonzero().squeeze(1)
    first = torch.ones_like(tokens, dtype=torch.bool)
    first[1:] = tokens.diff() > 1
    for row in (rollouts.response_of_token, steps(rollouts).step_of_token):
        first[1:] |= row[tokens].diff() != 0
    places = first.nonzero().squeeze(1)
    return Runs(rollouts, tokens, torch.cat([places, places.new_tensor([len(tokens)])]))
