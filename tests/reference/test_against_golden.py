"""The naive loops agree with the golden vectors, so that what the library is compared with is itself right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from golden.files import VECTORS, Case, differences, read_cases
from reference import losses, outcome, prefixes


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


NAIVE = {"grpo": grpo, "rloo": rloo, "tempo": tempo, "loss_agg": loss_agg, "kl": kl, "dapo_loss": dapo_loss}
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
