"""Everything about one group, as JSON for a page: responses, their tree, token columns, and credit by method.

Suffix legend: N tokens, B responses, E episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from apportion.credit import Credit, trace
from apportion.errors import ApportionError, InputError
from apportion.rollouts import Column, Rollouts, steps
from apportion.rollouts.columns import split_name
from apportion.viewer.alternatives import IDS, LOG_PROBS, alternatives
from apportion.viewer.crediting import ADVANTAGES, Methods
from apportion.viewer.index import real
from apportion.viewer.rewards import components, episode_rewards, health
from apportion.viewer.source import Source
from apportion.viewer.texts import Decode, of_ids, pieces, prompt_text, shortened
from apportion.viewer.tree import as_record, trie

OWN_PLACE = ("token:text", "token:trained", "response:text", "response:prompt_text", "response:prompt", IDS, LOG_PROBS)
"""Columns that have a place of their own on the page."""


def group_record(
    source: Source, part: int, group: int, specs: Sequence[str], methods: Methods, decode: Decode | None
) -> dict[str, Any]:
    """One group, with its credit under some methods.

    Args:
        source: of the rollouts.
        part: step of it.
        group: id.
        specs: methods on offer, or ``stored``.
        methods: what is on offer.
        decode: turns tokens into text; None: nothing here can.

    Raises:
        InputError: there is no such group.
    """
    whole = source.read(part)
    members = whole.group_ids == group
    if not bool(members.any()):
        raise InputError(f"{source.name} has no group {group} in step {part}: choose one from the list.")
    rollouts = whole.select(members)
    named = components(rollouts)
    rewards = episode_rewards(rollouts, named[0] if named else "outcome")
    names = rollouts.columns.get("episode:group_name")
    return {
        "part": part,
        "is_run": source.is_run,
        "group": group,
        "name": names.text[0] if names is not None else None,
        "first_episode": int(members.nonzero()[0, 0]),
        "prompt": prompt_text(rollouts, 0, decode),
        "prompts": _later_prompts(rollouts, decode),
        "health": health(rewards.value[rewards.known]),
        "component": named[0] if named else None,
        "has_text": decode is not None or "token:text" in rollouts.columns,
        "token_offsets": rollouts.token_offsets.tolist(),
        "response_offsets": rollouts.response_offsets.tolist(),
        "ids": rollouts.ids.tolist(),
        "texts": [shortened(p) for b in range(rollouts.n_responses) for p in pieces(rollouts, b, decode)],
        "trained": rollouts.trained.int().tolist(),
        "rewards": {name: _rewards(rollouts, name) for name in named},
        "columns": _columns(rollouts),
        "alternatives": alternatives(rollouts, decode),
        "spans": {kind: _spans(rollouts, kind) for kind in rollouts.spans},
        "pairs": _pairs(rollouts),
        "turns": _turns(rollouts),
        "tree": as_record(trie(rollouts), rollouts, rewards),
        "credits": {spec: _credited(source, part, group, spec, methods) for spec in specs},
    }


def _credited(source: Source, part: int, group: int, spec: str, methods: Methods) -> dict[str, Any]:
    try:
        credit = methods.credit(source, part, spec, group)
    except ApportionError as error:
        return {"error": str(error)}
    return credit_record(credit)


def credit_record(credit: Credit) -> dict[str, Any]:
    """Credit as JSON: advantages and masks of tokens, the method's details by level and name, and what its stages made.

    A stage that left the advantages as they are in the end has no values of its own.
    """
    details: dict[str, dict[str, Any]] = {}
    for name, column in trace.own_details(credit).items():
        level, short = split_name(name)
        details.setdefault(level, {})[short.removeprefix("credit/")] = listed(column)
    return {
        "advantages": [real(a) for a in credit.advantages.tolist()],
        "trained": credit.trained.int().tolist(),
        "counted": credit.counted.int().tolist(),
        "unknown": credit.unknown.tolist(),
        "details": details,
        "stages": [_stage(found, credit) for found in trace.traces(credit)],
    }


def _stage(found: trace.Trace, credit: Credit) -> dict[str, Any]:
    given = found.values.tensor.to(credit.advantages.dtype)
    final = found.kind != "shaper" and found.values.present is None and torch.equal(given, credit.advantages)
    values = None if final else listed(found.values)
    return {"stage": found.stage, "kind": found.kind, "component": found.component, "values": values}


def listed(column: Column) -> list[Any]:
    """The entries of a column as JSON, None where missing or not finite; text is shortened."""
    values = column.tensor.tolist() if isinstance(column.values, torch.Tensor) else list(column.values)
    there = [True] * len(values) if column.present is None else column.present.tolist()
    return [_plain(value) if here else None for value, here in zip(values, there, strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, str):
        return shortened(value, 2000)
    return real(value) if isinstance(value, float) else value


def _columns(rollouts: Rollouts) -> dict[str, dict[str, Any]]:
    """Columns by level and name, without credit and what has a place of its own."""
    found: dict[str, dict[str, Any]] = {}
    for name, column in rollouts.columns.items():
        level, short = split_name(name)
        if name in OWN_PLACE or name == ADVANTAGES or short.startswith("credit/") or level in rollouts.spans:
            continue
        if level != "pair":
            found.setdefault(level, {})[short] = listed(column)
    return found


def _rewards(rollouts: Rollouts, component: str) -> list[dict[str, Any]]:
    """A reward of every episode: its value where known, and whether anybody asked."""
    rewards = episode_rewards(rollouts, component)
    rows = zip(rewards.value.tolist(), rewards.known.tolist(), rewards.asked.tolist(), strict=True)
    return [{"value": real(value) if known else None, "asked": asked} for value, known, asked in rows]


def _later_prompts(rollouts: Rollouts, decode: Decode | None) -> dict[int, str]:
    """What was heard before the later responses of episodes, by response: the new part of their prompts."""
    offsets, prompts = rollouts.token_offsets.tolist(), rollouts.prompts.tolist()
    ids, words, bounds = rollouts.ids.tolist(), rollouts.prompt_ids.tolist(), rollouts.prompt_offsets.tolist()
    heard = {}
    for first, end in pairwise(rollouts.response_offsets.tolist()):
        for b in range(first + 1, end):
            before, prompt = (words[bounds[p] : bounds[p + 1]] for p in (prompts[b - 1], prompts[b]))
            so_far = before + ids[offsets[b - 1] : offsets[b]]
            if prompt[: len(so_far)] == so_far and prompt:
                heard[b] = shortened("".join(of_ids(prompt[len(so_far) :], decode)), 2000) or ""
            else:
                heard[b] = shortened(prompt_text(rollouts, b, decode), 2000) or ""
    return heard


def _spans(rollouts: Rollouts, kind: str) -> dict[str, Any]:
    table = rollouts.spans[kind]
    columns = {
        split_name(name)[1]: listed(column)
        for name, column in rollouts.columns.items()
        if split_name(name)[0] == kind and not split_name(name)[1].startswith("credit/")
    }
    return {"starts": table.starts.tolist(), "ends": table.ends.tolist(), "columns": columns}


def _pairs(rollouts: Rollouts) -> dict[str, Any] | None:
    if rollouts.pairs is None:
        return None
    columns = {split_name(n)[1]: listed(c) for n, c in rollouts.columns.items() if split_name(n)[0] == "pair"}
    return {
        "preferred": rollouts.pairs.preferred.tolist(),
        "other": rollouts.pairs.other.tolist(),
        "columns": columns,
    }


def _turns(rollouts: Rollouts) -> dict[str, Any] | None:
    """The decisions of episodes with several, with their state keys, numbered where they are shared."""
    table = steps(rollouts)
    if len(table) <= rollouts.n_episodes and f"{table.level}:state_key" not in rollouts.columns:
        return None
    columns = {
        split_name(name)[1]: listed(column)
        for name, column in rollouts.columns.items()
        if split_name(name)[0] == table.level and name not in OWN_PLACE
    }
    return {
        "level": table.level,
        "episode": table.episode.tolist(),
        "index": table.index.tolist(),
        "starts": table.starts.tolist(),
        "ends": table.ends.tolist(),
        "columns": columns,
    }
