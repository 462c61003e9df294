"""The theory of credit assignment: exact values and identities on trees, and expected gradients by listing groups."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from apportion.credit import METHODS, Stage
from apportion.credit.step_returns import step_relative
from apportion.errors import InputError
from apportion.evals.calibration import groups, theory
from apportion.evals.calibration.estimators import total_return, turn_index, zero_padded
from apportion.evals.calibration.measure import group_gradients
from apportion.evals.calibration.tree import Node, Tree
from apportion.evals.calibration.worlds import World
from apportion.rollouts import ragged
from golden.adapters._build import rows

Result = dict[str, Any]


def run(*, quantity: str, **given: Any) -> Result:
    if "nodes" in given:
        given["tree"] = tree_of(given.pop("nodes"))
    return QUANTITIES[quantity](**given)


def tree_of(nodes: Sequence[Mapping[str, Any]]) -> Tree:
    def by_token(values: Mapping[str, float]) -> dict[int, float]:
        return {int(token): value for token, value in values.items()}

    return Tree([Node(tuple(n["prefix"]), by_token(n["probs"]), by_token(n.get("edge_reward", {}))) for n in nodes])


def of_states(tree: Tree, values: Tensor, inner: bool = False) -> list[Result]:
    chosen = torch.unique(tree.state).tolist() if inner else range(tree.n_states)
    return [{"prefix": list(tree.places[s][1]), "value": float(values[s])} for s in chosen]


def of_edges(tree: Tree, values: Tensor) -> list[Result]:
    return [{**place(tree, k), "value": float(values[k])} for k in range(tree.n_edges)]


def place(tree: Tree, edge: int) -> Result:
    return {"prefix": list(tree.places[int(tree.state[edge])][1]), "token": int(tree.token[edge])}


def of_leaves(tree: Tree, values: Tensor) -> list[list[float]]:
    return ragged.unflatten(values, tree.offsets)


def exact(tree: Tree) -> Result:
    values = tree.values()
    leaves = zip(tree.leaf_tokens(), tree.leaf_probability.tolist(), tree.leaf_return.tolist(), strict=True)
    return {
        "reach": of_states(tree, tree.reach),
        "V": of_states(tree, values.state),
        "Q": of_edges(tree, values.edge),
        "A": of_edges(tree, values.advantage),
        "policy_gradient": of_edges(tree, values.gradient),
        "J": values.total,
        "leaves": [{"prefix": ids, "probability": p, "return": r} for ids, p, r in leaves],
    }


def world(tree: Tree) -> World:
    """The tree with every token a turn that is paid."""
    return World("golden", "a tree of the vectors", tree, dense=True, turns=False)


def estimators(eps: float) -> dict[str, Stage]:
    return {
        "total_return": total_return(),
        "reward_to_go": METHODS["reinforce_pp"](whiten=False),
        "group_mean": METHODS["dr_grpo"](),
        "leave_one_out": METHODS["rloo"](),
        "group_mean_std": METHODS["grpo"](eps=eps),
        "turn_index_mean": turn_index(),
        "turn_index_leave_one_out": turn_index(leave_one_out=True),
        "return_to_go_turn_leave_one_out": step_relative("outcome"),
        "zero_padded_leave_one_out": zero_padded(),
    }


def leaves_as_turns(tree: Tree) -> Any:
    """The leaves' rollouts with a turn a token."""
    leaves = world(tree).leaves
    return leaves.with_spans("turn", torch.arange(leaves.n_tokens), torch.arange(1, leaves.n_tokens + 1))


def group_advantages(tree: Tree, responses: Sequence[Sequence[int]], eps: float) -> Result:
    known = tree.leaf_tokens()
    for response in responses:
        if list(response) not in known:
            raise InputError(f"the response {response} is no leaf, expected a finished one of the tree.")
    drawn = torch.tensor([known.index(list(response)) for response in responses])
    group = groups.gathered(leaves_as_turns(tree), drawn, torch.zeros_like(drawn))
    return {name: rows(group, stage(group).advantages) for name, stage in estimators(eps).items()}


def expected_group_gradient(tree: Tree, group_size: int, eps: float) -> Result:
    if group_size < 2:
        raise InputError(f"the group size is {group_size}, expected at least 2 to leave one out.")
    every, true = groups.listed(tree, group_size), tree.values().gradient
    rollouts = every.rollouts(leaves_as_turns(tree))
    leaf = every.leaf.flatten()
    edge = tree.path[ragged.ranges(tree.offsets[leaf], tree.offsets[leaf + 1])]
    group = rollouts.group_of_episode[rollouts.episode_of_token]
    result: Result = {"true_gradient": of_edges(tree, true)}
    for name, stage in estimators(eps).items():
        each = group_gradients(tree, stage(rollouts).advantages, edge, group, len(every), group_size)
        mean = (every.weight[:, None] * each).sum(0)
        lengths = float(mean.norm()), float(true.norm())
        small = min(lengths) < 1e-12
        result[name] = {
            "expected_gradient": of_edges(tree, mean),
            "max_abs_bias": float((mean - true).abs().max()),
            "cosine_to_true": 0.0 if small else float(mean @ true) / lengths[0] / lengths[1],
            "scale_along_true": 0.0 if small else float(mean @ true) / lengths[1] ** 2,
        }
    return result


def turn_index_population(tree: Tree) -> Result:
    means, gradient = theory.turn_index_limit(tree)
    true = tree.values().gradient
    return {
        "turn_means": means,
        "gradient": of_edges(tree, gradient),
        "true_gradient": of_edges(tree, true),
        "bias": of_edges(tree, gradient - true),
    }


def potential_shaping(tree: Tree, potential: Sequence[Mapping[str, Any]]) -> Result:
    given = {tuple(row["prefix"]): row["value"] for row in potential}
    phi = torch.tensor([given.get(prefix, 0.0) for _, prefix in tree.places], dtype=torch.float64)
    shaped = theory.shaped_rewards(tree, phi)
    after = tree.values(shaped)
    return {
        "shaped_edge_reward": of_edges(tree, shaped),
        "A_before": of_edges(tree, tree.values().advantage),
        "A_after": of_edges(tree, after.advantage),
        "V_after": of_states(tree, after.state),
    }


def return_redistribution(tree: Tree) -> Result:
    g, shares = of_leaves(tree, theory.expected_returns(tree)), of_leaves(tree, theory.redistributed(tree))
    leaves = zip(tree.leaf_tokens(), tree.leaf_return.tolist(), g, shares, strict=True)
    return {
        "rows": [
            {
                "response": ids,
                "return": total,
                "expected_return_given_prefix": [*before, total],
                "redistributed": parts,
                "offset": before[0],
            }
            for ids, total, before, parts in leaves
        ]
    }


def hindsight(tree: Tree) -> Result:
    found = theory.hindsight(tree)
    columns = (c.tolist() for c in (found.edge, found.value, found.probability, found.share))
    return {
        "rows": [
            {**place(tree, edge), "return_to_go": z, "hindsight_probability": h, "p_return": p}
            for edge, z, h, p in zip(*columns, strict=True)
        ],
        "A": of_edges(tree, theory.hindsight_advantages(tree, found)),
    }


def counterfactual(tree: Tree, agent_of_depth: Sequence[int]) -> Result:
    """Of agents that take turns, the counterfactual advantage is the ordinary one of the turn."""
    values = tree.values()
    sums = []
    for ids, credit in zip(tree.leaf_tokens(), of_leaves(tree, values.advantage[tree.path]), strict=True):
        by_agent = {str(agent): 0.0 for agent in agent_of_depth}
        for agent, amount in zip(agent_of_depth, credit, strict=False):
            by_agent[str(agent)] += amount
        sums.append({"response": ids, "by_agent": by_agent})
    return {
        "baseline": of_states(tree, values.state, inner=True),
        "advantage": of_edges(tree, values.advantage),
        "per_agent_sum_over_rollouts": sums,
    }


def shapley(segments: int, value_table: Sequence[Mapping[str, Any]]) -> Result:
    value = {frozenset(row["segments"]): row["value"] for row in value_table}
    whole = range(segments)
    upto = [theory.value_of(value, whole[:k]) for k in range(segments + 1)]
    return {
        "shapley": theory.shapley(value, segments),
        "prefix_differences": [after - before for before, after in itertools.pairwise(upto)],
        "leave_one_out": [upto[-1] - theory.value_of(value, set(whole) - {k}) for k in whole],
        "total": upto[-1] - upto[0],
    }


def monte_carlo_values(tree: Tree, rollouts_per_prefix: int) -> Result:
    expected, variance = tree.values().advantage, theory.fresh_variance(tree, rollouts_per_prefix)
    edges = range(tree.n_edges)
    return {"rows": [{**place(tree, k), "expected": float(expected[k]), "variance": float(variance[k])} for k in edges]}


def implicit_process_reward(tree: Tree, beta: float) -> Result:
    value, q = theory.soft_values(tree, beta)
    implicit = q - value[tree.state]
    leaves = zip(tree.leaf_tokens(), of_leaves(tree, implicit[tree.path]), tree.leaf_return.tolist(), strict=True)
    return {
        "soft_value": of_states(tree, value),
        "optimal_policy": of_edges(tree, tree.probability * (implicit / beta).exp()),
        "rows": [{"response": ids, "implicit_rewards": parts, "return": total} for ids, parts, total in leaves],
    }


QUANTITIES = {
    "exact": exact,
    "group_advantages": group_advantages,
    "expected_group_gradient": expected_group_gradient,
    "turn_index_population": turn_index_population,
    "potential_shaping": potential_shaping,
    "return_redistribution": return_redistribution,
    "hindsight": hindsight,
    "counterfactual": counterfactual,
    "shapley": shapley,
    "monte_carlo_values": monte_carlo_values,
    "implicit_process_reward": implicit_process_reward,
}
