"""Fork rules and backups against enumeration."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from apportion.evals.calibration.branching import RULES, Branched, branched, exact_gradient, exact_value, state_values
from apportion.evals.calibration.measure import Interval
from apportion.evals.calibration.page import page
from apportion.evals.calibration.report import report
from apportion.evals.calibration.run import QUICK
from apportion.evals.calibration.truths import truths_of_forks
from apportion.models.tabular import TabularPolicy
from apportion.sampling.fork_rules import FORK_RULES


@pytest.fixture(scope="module")
def found() -> list[Branched]:
    return branched(1500, seed=3)


def test_every_registered_rule_is_looked_at() -> None:
    assert {name.partition("(")[0] for name in RULES} >= set(FORK_RULES)


def test_what_a_rule_declares_holds_and_leaf_means_do_not(found: list[Branched]) -> None:
    assert len(found) == 3 * len(RULES)
    for truth in truths_of_forks(found):
        assert truth.holds, truth


def test_the_backup_of_the_other_kind_of_rule_is_found_out(found: list[Branched]) -> None:
    """A rule that looks at outcomes, taken for one that looks at the prefix."""
    wrong = [row for row in found if row.rule.startswith("outcome") and row.backup == "draws"]
    assert wrong[0].value.excludes(0.0)
    assert not truths_of_forks([replace(row, prescribed=row.backup == "draws") for row in found])[0].holds


def test_a_table_without_a_biased_leaf_mean_says_so(found: list[Branched]) -> None:
    nothing = Interval(0.0, -1.0, 1.0)
    assert not truths_of_forks([replace(row, value=nothing) for row in found])[2].holds


def test_the_page_has_a_line_a_rule_and_backup(found: list[Branched]) -> None:
    made = {"command": "apportion calibrate", **report([], [], {}, QUICK, found)}
    lines = [line for line in page(made).splitlines() if line.startswith("| `uniform(rate=0.4)`")]
    assert [line.split(" | ")[2] for line in lines] == ["**draws**", "fresh", "leaves"]
    assert "## Forks" not in page({**made, "forks": []})


def test_exact_values_by_hand() -> None:
    policy = TabularPolicy(2, 3)
    assert exact_value(policy) == pytest.approx((1.0 + 0.2 + 0.9 + 0.3 + 1.0 + 0.1) / 8)
    values = state_values(policy)
    assert values[0] == pytest.approx(exact_value(policy))
    assert values[int(policy.starts[2])] == pytest.approx(0.5)
    # After two first tokens: half of the way to the better of two leaves, weighed with the odds of being there.
    assert exact_gradient(policy)[int(policy.starts[2])].tolist() == pytest.approx([0.25 * 0.25, -0.25 * 0.25])
    assert torch.allclose(exact_gradient(policy).sum(1), torch.zeros(7, dtype=torch.float64))
