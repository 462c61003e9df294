"""The naive loops agree with the golden vectors, so that what the library is compared with is itself right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from golden.files import VECTORS, Case, differences, read_cases
from reference import (
    baselines,
    bellman,
    cad,
    flow,
    losses,
    macro,
    mixtures,
    options,
    outcome,
    planning,
    preferences,
    prefixes,
    verdicts,
)


def totals(given: Mapping[str, Any]) -> list[float]:
    return given["rewards"] if "rewards" in given else [sum(row) for row in given["token_rewards"]]


def grpo(given: Mapping[str, Any]) -> dict[str, Any]:
    per_response = outcome.grpo(
        totals(given), given["group_ids"], norm_by_std=given["norm_by_std"], eps=given["eps"], singleton="raw"
    )
    return {"advantages": outcome.on_tokens(per_response, given["response_mask"])}


def rloo(given: Mapping[str, Any]) -> dict[str, Any]:
    per_response = outcome.rloo(totals(given), given["group_ids"], singleton="raw")
    return {"advantages": outcome.on_tokens(per_response, given["response_mask"])}


def tempo(given: Mapping[str, Any]) -> dict[str, Any]:
    ids, rewards, groups = given["response_ids"], given["rewards"], given["group_ids"]
    trained = [[True] * len(row) for row in ids]
    return {
        "advantages": prefixes.tempo(ids, rewards, groups, trained, norm_by_std=given["norm_by_std"], eps=given["eps"]),
        "prefix_values": prefixes.prefix_values(ids, rewards, groups),
    }


def loss_agg(given: Mapping[str, Any]) -> dict[str, Any]:
    mode, masks = given["loss_agg_mode"].replace("-", "_"), given["response_mask"]
    scale = given["loss_scale_factor"] or given["padded_length"]
    return {
        "loss": losses.aggregate(given["per_token_loss"], masks, masks, mode, length=scale, per_episode=False),
    }


def kl(given: Mapping[str, Any]) -> dict[str, Any]:
    both = zip(given["logprobs"], given["ref_logprobs"], strict=True)
    return {"kl": [losses.kl_term(mine, other, given["estimator"]) for mine, other in both]}


def dapo_loss(given: Mapping[str, Any]) -> dict[str, Any]:
    low, high, dual = given["clip_low"], given["clip_high"], given["dual_clip_c"]
    rows = zip(given["logprobs"], given["old_logprobs"], given["advantages"], given["response_mask"], strict=True)
    terms = [
        [losses.clip_term(*token, low=low, high=high, dual=dual) * m for *token, m in zip(*row, strict=True)]
        for row in rows
    ]
    mode, masks = given["loss_agg_mode"].replace("-", "_"), given["response_mask"]
    scale = given["loss_scale_factor"] or max(len(row) for row in masks)
    return {
        "per_token_loss": terms,
        "loss": losses.aggregate(terms, masks, masks, mode, length=scale, per_episode=False),
    }


def b_coder(given: Mapping[str, Any]) -> dict[str, Any]:
    if "programs" in given:
        settings = {name: given[name] for name in ("alpha", "gamma", "beta_adv", "beta_ce", "r_max")}
        programs = [bellman.program_of(program) for program in given["programs"]]
        return bellman.b_coder(programs, cap=given["cap_values"], **settings)
    if "scores" in given:
        return bellman.ranking(given["scores"], given["correct"], given["ks"])
    if "policy" in given:
        return bellman.swept(**given)
    return {"rewards": [bellman.REWARDS[outcome] for outcome in given["outcomes"]]}


def ac_flow(given: Mapping[str, Any]) -> dict[str, Any]:
    return flow.euler(**given) if "slope" in given else flow.ac_flow(**given)


def reinforce_pp(given: Mapping[str, Any]) -> dict[str, Any]:
    masks = given["response_mask"]
    if given["variant"] == "reinforce_pp_baseline":
        both = given["rewards"], given["group_ids"]
        return {"advantages": baselines.reinforce_pp_baseline(*both, masks, singleton="raw")}
    advantages, returns = baselines.reinforce_pp(given["token_rewards"], masks, gamma=given["gamma"], reset=True)
    return {"advantages": advantages, "returns": returns}


def dapo_shaping(given: Mapping[str, Any]) -> dict[str, Any]:
    if given["op"] == "overlong":
        settings = (given["max_length"], given["buffer"], given["factor"])
        return {"penalties": [baselines.overlong_penalty(n, *settings) for n in given["lengths"]]}
    kept = baselines.comparable(given["metric"], given["group_ids"])
    return {"kept_rows": [i for i, k in enumerate(kept) if k]}


def ascent(given: Mapping[str, Any]) -> list[float]:
    total = math.fsum(math.exp(x) for x in given["logits"])
    advantage = baselines.nsr(given["reward"], given["mode"], given["positive_weight"])
    return [advantage * ((v == given["token"]) - math.exp(x) / total) for v, x in enumerate(given["logits"])]


def pass_at_k(n_samples: list[int], n_correct: list[int], k: int) -> dict[str, Any]:
    each = [1 - math.comb(n - c, k) / math.comb(n, k) for n, c in zip(n_samples, n_correct, strict=True)]
    return {"per_problem": each, "mean": outcome.mean(each)}


def nsr(given: Mapping[str, Any]) -> dict[str, Any]:
    if "logits" in given:
        return {"ascent_logits": ascent(given)}
    if "n_samples" in given:
        return {"pass_at_k": {str(k): pass_at_k(given["n_samples"], given["n_correct"], k) for k in given["ks"]}}
    per_response = [baselines.nsr(r, given["mode"], given["positive_weight"]) for r in given["rewards"]]
    masks = [[True] * len(row) for row in given["response_ids"]]
    rows = outcome.on_tokens(per_response, masks)
    terms = [
        [losses.clip_term(*token, low=given["clip_eps"], high=given["clip_eps"]) for token in zip(*row, strict=True)]
        for row in zip(given["logprobs"], given["old_logprobs"], rows, strict=True)
    ]
    return {"advantages": rows, "loss": losses.aggregate(terms, masks, masks, "token_mean")}


def loop(given: Mapping[str, Any]) -> dict[str, Any]:
    advantages = baselines.loop(
        given["rewards"], given["group_ids"], baseline=given["baseline"], normalize=given["normalize"]
    )
    kept = [i for i, a in enumerate(advantages) if abs(a) >= given["min_abs_advantage"]]
    if not given["clip"]:
        return {"advantages": advantages, "kept": kept}
    eps, style, each = given["clip_eps"], given["clip_style"], []
    for i, trained in enumerate(given["is_output"]):
        ratios = [new - old for new, old in zip(given["logprobs"][i], given["old_logprobs"][i], strict=True)]
        segments = list(range(len(trained))) if given["action"] == "token" else [0] * len(trained)
        found = baselines.segment_losses(
            ratios, [advantages[i]] * len(trained), trained, segments, low=eps, high=eps, style=style
        )
        each.append(outcome.mean(list(found.values())))
    total = sum(each[i] for i in kept) / given["loss_divisor"]
    return {"advantages": advantages, "kept": kept, "rollout_losses": each, "loss": total}


def hicra(given: Mapping[str, Any]) -> dict[str, Any]:
    if "solutions" in given:
        frequency = planning.document_frequency(given["solutions"], given["clusters"])
        kept = planning.selected(frequency, given["top_fraction"])
        grams = sorted(gram for c in kept for gram in given["clusters"][c])
        return {"cluster_df": frequency, "selected_clusters": kept, "strategic_grams": grams}
    ids, grams = given["response_ids"], given["strategic_grams"]
    base = outcome.grpo(given["rewards"], given["group_ids"], norm_by_std=given["norm_by_std"], eps=given["eps"])
    plans, counts = [planning.planning(row, grams) for row in ids], planning.counts(ids, grams)
    return {
        "planning_mask": [[int(plan) for plan in row] for row in plans],
        "base_advantages": base,
        "advantages": [planning.hicra([a] * len(row), row, given["alpha"]) for a, row in zip(base, plans, strict=True)],
        "gram_counts": counts,
        "semantic_entropy": planning.entropy(counts),
    }


def ma_rlhf(given: Mapping[str, Any]) -> dict[str, Any]:
    length = len(given["values"])
    begins = {
        "fixed": lambda: macro.fixed(length, given["n"]),
        "sizes": lambda: macro.given(given["sizes"]),
        "ppl": lambda: macro.rising(given["perplexities"]),
    }[given["termination"]]()
    macros = macro.cut(length, begins)
    settings = {name: given[name] for name in ("gamma", "lam", "reward_reduce")}
    result: dict[str, Any] = macro.ma_rlhf(given["token_rewards"], given["values"], macros, **settings)
    result["segment_lengths"] = [end - start for start, end in macros]
    if "logprobs" in given:
        ratios = [new - old for new, old in zip(given["logprobs"], given["old_logprobs"], strict=True)]
        tokens = [(t, t + 1) for t in range(length)]
        for name, pieces in (("token", tokens), ("macro", macros)):
            loss = macro.actor_loss(ratios, result["token_advantages"], pieces, given["clip"])
            result[f"actor_loss_{name}_ratio"] = loss
        of_tokens = [r for (a, b), r in zip(macros, result["macro_returns"], strict=True) for _ in range(a, b)]
        result["critic_loss"] = macro.critic_loss(given["values_pred"], given["values"], of_tokens, given["clip_value"])
    return result


def capo(given: Mapping[str, Any]) -> dict[str, Any]:
    spans, lengths, groups = given["step_spans"], given["response_lengths"], given["group_ids"]
    weights = [
        [verdicts.penalty([step in critique for critique in critiques], given["vote"]) for step in range(len(places))]
        for places, critiques in zip(spans, given["critiques"], strict=True)
    ]
    rewards = verdicts.token_rewards(
        lengths, spans, weights, given["outcomes"], w_whole=given["w_whole"], w_process=given["w_process"]
    )
    trained = [[True] * length for length in lengths]
    return {
        "step_penalty_weights": [{str(s): w for s, w in enumerate(row) if w} for row in weights],
        "token_rewards": rewards,
        "advantages": verdicts.against_tokens(rewards, trained, groups, ddof=given["ddof"], eps=given["eps"]),
    }


def tp_grpo(given: Mapping[str, Any]) -> dict[str, Any]:
    right, groups, alpha = given["correct"], given["group_ids"], given["alpha"]
    worth = {name: given[name] for name in ("r_correct", "r_incorrect", "ddof", "eps")}
    outcomes = verdicts.standardised(
        right, groups, [given["r_incorrect"], given["r_correct"]], given["ddof"], given["eps"]
    )
    sizes = {group: alpha * verdicts.solve_rate(right, groups, group) for group in groups}
    processes = [
        verdicts.process_rewards(labels, o, sizes[g])
        for labels, o, g in zip(given["step_labels"], outcomes, groups, strict=True)
    ]
    return {
        "r_c": {str(group): size for group, size in sizes.items()},
        "standardised_outcome": outcomes,
        "thought_process_rewards": processes,
        "advantages": verdicts.tp_grpo(
            right, groups, given["response_lengths"], given["step_spans"], given["step_labels"], alpha=alpha, **worth
        ),
    }


def trust_grpo(given: Mapping[str, Any]) -> dict[str, Any]:
    read = given["outcome_rewards"], given["thinking_rewards"], given["group_ids"]
    settings = {name: given[name] for name in ("alpha", "step", "total_steps")} | {"code": given["variant"] == "code"}
    trusts, used, rewards = verdicts.trusted(*read, **settings)
    per_response = verdicts.trust_grpo(*read, eps=given["eps"], singleton="raw", **settings)
    return {
        "trust": {str(group): gamma for group, gamma in zip(given["group_ids"], trusts, strict=True)},
        "thinking_used": used,
        "rewards": rewards,
        "advantages": outcome.on_tokens(per_response, [[1] * length for length in given["response_lengths"]]),
    }


def t_reg(given: Mapping[str, Any]) -> dict[str, Any]:
    sides, rewards = [], {}
    for side in ("chosen", "rejected"):
        both = zip(given[f"{side}_better"], given[f"{side}_worse"], strict=True)
        rewards[f"token_rewards_{side}"] = marks = [preferences.mark(*token) for token in both]
        sides.append(preferences.Answer(given[f"{side}_logprobs"], given[f"{side}_ref_logprobs"], marks))
    settings = {name: given[name] for name in ("base", "beta", "alpha", "margin")}
    return {**rewards, **preferences.t_reg([(sides[0], sides[1])], **settings)[0]}


def mm_rlhf(given: Mapping[str, Any]) -> dict[str, Any]:
    if given["part"] == "critique_rm":
        n = len(given["reward_chosen"])
        critiques = [([-given["critique_nll_chosen"]], [-given["critique_nll_rejected"]])] * n
        weights = ("tie_weight", "critic_weight", "reward_weight", "center_coefficient")
        loss = preferences.reward_model(
            list(zip(given["reward_chosen"], given["reward_rejected"], strict=True)),
            critiques,
            given["is_tie"] or [False] * n,
            given["margin"] or [0.0] * n,
            **{name: given[name] for name in weights},
        )
        return {"loss": loss}
    answers = [
        [
            preferences.Answer([new], [old])
            for new, old in zip(given[f"policy_{side}_logp"], given[f"reference_{side}_logp"], strict=True)
        ]
        for side in ("chosen", "rejected")
    ]
    settings = {name: given[name] for name in ("beta", "w", "k", "beta_min")}
    return preferences.mm_dpo(list(zip(*answers, strict=True)), given["reward_margin"], **settings, imitate=0.0)


def cad_rl(given: Mapping[str, Any]) -> dict[str, Any]:
    if given["part"] == "precision":
        masks = [[True] * len(row) for row in given["token_nll"]]
        omega = [[given["omega"] if precise else 1.0 for precise in row] for row in given["is_precision_token"]]
        loss = losses.aggregate(given["token_nll"], masks, masks, "seq_mean_token_mean", omega=omega)
        return {"loss": loss}
    if given["part"] == "reward":
        settings = {n: given[n] for n in ("lambda_geom", "lambda_eval", "failure_penalty", "score_range")}
        boxes = zip(given["generated_box"], given["reference_box"], strict=True)
        rows = zip(given["executes"], boxes, given["evaluator_score"], given["failure_modes"], strict=True)
        columns = zip(*(cad.gated_reward(*row, **settings) for row in rows), strict=True)
        return dict(zip(("geometric", "evaluation", "reward"), map(list, columns), strict=True))
    bounds = {"low": 1 - given["ratio_low"], "high": given["ratio_high"] - 1}
    terms = [
        [losses.clip_term(new, old, advantage, **bounds) for new, old in zip(*row, strict=True)]
        for *row, advantage in zip(given["log_prob"], given["old_log_prob"], given["advantages"], strict=True)
    ]
    masks = [[n < given["max_length"]] * n for n in given["lengths"]]
    loss = losses.aggregate(terms, masks, masks, "seq_mean_token_mean")
    return {"loss": loss, "objective": -loss, "token_objective": [[-x for x in row] for row in terms]}


def edu_align(given: Mapping[str, Any]) -> dict[str, Any]:
    rewards = mixtures.weighted_mean(given["dimension_scores"], given["weights"], given["low"], given["high"])
    advantages = outcome.grpo(rewards, given["group_ids"], norm_by_std=given["scale_rewards"], eps=given["eps"])
    return {"rewards": rewards, "advantages": advantages}


def sotopia_rl(given: Mapping[str, Any]) -> dict[str, Any]:
    if given["kind"] == "aggregate":
        settings = (given["dimensions"], given["weights"], given["output_scale"])
        return dict(zip(("normalised", "rewards"), mixtures.aggregated(*settings), strict=True))
    settings = {name: given[name] for name in ("discount", "key") if name in given}
    return {"rewards": mixtures.attributed(given["method"], given["scores"], given["episode_score"], **settings)}


def calm(given: Mapping[str, Any]) -> dict[str, Any]:
    if given["kind"] == "score":
        return options.quality(given["predictions"], given["annotations"])
    eligible = {"once": given["once"], "ordered": given["ordered"]}
    rewards = options.shaped(
        given["env_rewards"], given["verdicts"], bonus=given["bonus"], gamma=given["gamma"], **eligible
    )
    return {
        "terminations": options.terminations(given["verdicts"], **eligible),
        "shaped_rewards": rewards,
        "returns": options.returns(rewards, given["gamma"]),
    }


NAIVE = {
    "calm": calm,
    "edu_align": edu_align,
    "sotopia_rl": sotopia_rl,
    "cad_rl": cad_rl,
    "t_reg": t_reg,
    "mm_rlhf": mm_rlhf,
    "grpo": grpo,
    "rloo": rloo,
    "tempo": tempo,
    "loss_agg": loss_agg,
    "kl": kl,
    "dapo_loss": dapo_loss,
    "capo": capo,
    "tp_grpo": tp_grpo,
    "trust_grpo": trust_grpo,
    "reinforce_pp": reinforce_pp,
    "dapo_shaping": dapo_shaping,
    "nsr": nsr,
    "loop": loop,
    "b_coder": b_coder,
    "ac_flow": ac_flow,
    "hicra": hicra,
    "ma_rlhf": ma_rlhf,
}
CASES = [
    pytest.param(naive, case, id=f"{slug}/{case.name}")
    for slug, naive in NAIVE.items()
    for case in read_cases(VECTORS / f"{slug}.json")
]


@pytest.mark.parametrize(("naive", "case"), CASES)
def test_naive_loop(naive: Callable[[Mapping[str, Any]], dict[str, Any]], case: Case) -> None:
    result = naive(case.arguments)
    expected = {name: value for name, value in case.expected.items() if name in result}
    assert expected
    assert list(differences(result, expected, case.atol)) == []
