"""Paths of search trees as rollouts, and the trees that stored rollouts hold.

Suffix legend: N tokens, S steps, B responses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.makers import maker_of
from apportion.sampling.search.requests import Path
from apportion.sampling.search.tree import SearchTree

COLUMNS = ("node", "parent", "value", "visits", "kind")
"""What a stored step says of its node."""


def rollouts_of(
    found: Sequence[Sequence[Path]],
    prompts: Sequence[Sequence[int]],
    temperature: float,
    first_group: int = 0,
    policy_version: int = 0,
) -> Rollouts:
    """Paths as responses, those to one prompt as a group.

    Nodes that several paths share are in every one of them. A token has the weight 1 over the number of the group's
    paths that begin with the tokens up to it and train it, so that every one is trained once in all.

    Args:
        found: by prompt, its paths.
        prompts: token ids of every prompt.
        temperature: they were drawn at.
        first_group: id of the first group.
        policy_version: which weights drew them.

    Returns:
        what the group sampler records, with spans of kind ``step``, one a node, ``step:reward/prm`` with the labels
        (unknown of a path without), ``step:node``, ``step:parent``, ``step:value``, ``step:visits``, ``step:kind``,
        ``weight``, ``trained`` (False behind the last label), the reward ``outcome`` and ``episode:reason``.
    """
    paths = [path for of_prompt in found for path in of_prompt]
    of_path = [prompt for prompt, of_prompt in enumerate(found) for _ in of_prompt]
    device = paths[0].row.log_probs.device
    lengths = [len(path.ids) for path in paths]
    prompt_ids, prompt_offsets = ragged.flatten(prompts, torch.int64)
    kept = [len(path.ends) if path.labels is None else len(path.labels) for path in paths]

    def numbers(values: Sequence[float], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    precise = torch.float32 if device.type == "mps" else torch.float64
    rollouts = Rollouts(
        ids=numbers([token for path in paths for token in path.ids]),
        token_offsets=ragged.offsets_of(numbers(lengths)),
        response_offsets=torch.arange(len(paths) + 1, device=device),
        group_ids=numbers(of_path) + first_group,
        prompt_ids=prompt_ids.to(device),
        prompt_offsets=prompt_offsets.to(device),
        prompts=numbers(of_path),
    )
    trained_to = [path.ends[k - 1] for path, k in zip(paths, kept, strict=True)]
    trained = ragged.position_in_row(rollouts.token_offsets) < numbers(trained_to)[rollouts.response_of_token]
    weight = [
        w
        for prompt in range(len(found))
        for w in _weights([(p.ids, t) for p, t, o in zip(paths, trained_to, of_path, strict=True) if o == prompt])
    ]
    truncated = [path.row.truncated or len(path.ids) < len(path.row.ids) for path in paths]
    scores = [path.checked.score for path in paths]
    rollouts = (
        rollouts.with_column("trained", trained, maker="sampling")
        .with_column("weight", numbers(weight, precise), maker="sampling")
        .with_statistic(
            "log_probs/behaviour",
            torch.cat([path.row.log_probs[:length] for path, length in zip(paths, lengths, strict=True)]),
            "sampling",
        )
        .with_column("response:temperature", numbers([temperature] * len(paths), torch.float32), maker="sampling")
        .with_column("response:truncated", numbers(truncated, torch.bool), maker="sampling")
        .with_column("response:policy_version", numbers([policy_version] * len(paths)), maker="sampling")
        .with_reward(
            "outcome",
            numbers([score or 0.0 for score in scores], precise),
            numbers([score is not None for score in scores], torch.bool),
            maker="verifier",
        )
        .with_column("episode:reason", [path.checked.reason for path in paths], maker="verifier")
    )
    return _with_steps(rollouts, paths, kept)


def _with_steps(rollouts: Rollouts, paths: Sequence[Path], kept: Sequence[int]) -> Rollouts:
    device, starts, ends, labels, scored = rollouts.device, [], [], [], []
    nodes: dict[str, list[float]] = {"node": [], "parent": [], "value": [], "visits": []}
    kinds: list[str] = []
    for path, count, offset in zip(paths, kept, rollouts.token_offsets.tolist(), strict=False):
        starts += [offset + end for end in (0, *path.ends[: count - 1])]
        ends += [offset + end for end in path.ends[:count]]
        labels += [0.0] * count if path.labels is None else list(path.labels)
        scored += [path.labels is not None] * count
        nodes["node"] += path.nodes[:count]
        nodes["parent"] += [0, *path.nodes[: count - 1]]
        nodes["value"] += path.values[:count]
        nodes["visits"] += path.visits[:count]
        kinds += path.kinds[:count]
    precise = torch.float32 if device.type == "mps" else torch.float64
    rollouts = rollouts.with_spans("step", torch.tensor(starts, device=device), torch.tensor(ends, device=device))
    rollouts = rollouts.with_reward(
        "prm",
        torch.tensor(labels, dtype=precise, device=device),
        torch.tensor(scored, device=device),
        level="step",
        maker="search",
    )
    dtypes = dict.fromkeys(nodes, torch.int64) | {"value": precise}
    for name, values in nodes.items():
        dtype = dtypes[name]
        rollouts = rollouts.with_column(
            f"step:{name}", torch.tensor(values, dtype=dtype, device=device), maker="search"
        )
    return rollouts.with_column("step:kind", kinds, maker="search")


def _weights(rows: Sequence[tuple[Sequence[int], int]]) -> list[float]:
    """1 over the number of rows that begin with the same tokens and train the last of them, token by token."""
    nodes: dict[tuple[int, int], int] = {}
    count = [0]
    walks = []
    for ids, trained in rows:
        at, walk = 0, []
        for place, token in enumerate(ids):
            at = nodes.setdefault((at, token), len(count))
            if at == len(count):
                count.append(0)
            count[at] += place < trained
            walk.append(at)
        walks.append(walk)
    return [1 / max(count[at], 1) for walk in walks for at in walk]


def trees_in(rollouts: Rollouts) -> dict[int, SearchTree]:
    """The trees that rollouts of a search hold, as far as they lie on their paths, by group id.

    Nodes are numbered anew in the order of their numbers, the root first, whose value and visits are not stored and 0.

    Raises:
        MissingColumn: these rollouts come from no search.
        InputError: steps that name one node and say different things of it, an orphan, a cycle.

    Example:
        >>> two = Rollouts.from_lists([[5, 6], [5, 7]], groups=[0, 0])
        >>> two = two.with_spans("step", torch.arange(4), torch.arange(4) + 1)
        >>> for name, values in {"node": [1, 2, 1, 3], "parent": [0, 1, 0, 1], "visits": [2, 1, 2, 1]}.items():
        ...     two = two.with_column(f"step:{name}", torch.tensor(values))
        >>> two = two.with_column("step:value", torch.tensor([0.5, 1.0, 0.5, 0.0]))
        >>> two = two.with_column("step:kind", ["reason", "finish", "reason", "finish"])
        >>> trees_in(two)[0].parents
        [None, 0, 1, 1]
    """
    for name in COLUMNS:
        if not rollouts.has(f"step:{name}"):
            raise MissingColumn(f"step:{name}", "a tree of a search", maker_of(f"step:{name}"))
    response = rollouts.response_of_span["step"]
    group = rollouts.group_ids[rollouts.episode_of_response[response]].tolist()
    columns = [rollouts.column(f"step:{name}", reader="a tree of a search").tolist() for name in COLUMNS[:-1]]
    kinds = [kind or "" for kind in rollouts.columns["step:kind"].text]
    found: dict[int, dict[int, tuple[int, float, int, str]]] = {number: {} for number in rollouts.group_ids.tolist()}
    for of_group, node, parent, value, visits, kind in zip(group, *columns, kinds, strict=True):
        said = (parent, value, visits, kind)
        if found[of_group].setdefault(node, said) != said:
            raise InputError(
                f"steps of group {of_group} name node {node} and say different things of it, {found[of_group][node]} "
                f"and {said}: expected one parent, value, number of visits and kind a node."
            )
    return {number: _tree(nodes, number) for number, nodes in found.items()}


def _tree(nodes: dict[int, tuple[int, float, int, str]], group: int) -> SearchTree:
    if 0 in nodes:
        raise InputError(f"a step of group {group} is node 0, expected numbers from 1: 0 is the prompt.")
    order = [0, *sorted(nodes)]
    place = {node: i for i, node in enumerate(order)}
    for node, (parent, *_) in nodes.items():
        if parent not in place:
            raise InputError(
                f"node {node} of group {group} is an orphan: its parent {parent} is not there, expected whole trees: "
                "keep all steps of a path."
            )
    rest = [nodes[node] for node in order[1:]]
    return SearchTree(
        [None, *(place[parent] for parent, *_ in rest)],
        [0.0, *(value for _, value, *_ in rest)],
        [0, *(visits for *_, visits, _ in rest)],
        ["root", *(kind for *_, kind in rest)],
    )
