"""The page and the report where a step is torn, a method fails, or rewards are no shares of right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser.conftest import until
from viewer.worlds import tear, write_jsonl, write_run

pytestmark = pytest.mark.system

BROKEN = "viewer.worlds:broken"


@pytest.fixture(params=["page", "report"])
def look(
    request: pytest.FixtureRequest, served: Callable[..., str], reported: Callable[..., str]
) -> Callable[..., str]:
    """A run or a file, served and as a report."""
    return served if request.param == "page" else reported


def test_torn_steps_are_named_and_the_others_shown_on_every_page(
    page: Any, look: Callable[..., str], tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", steps=4)
    tear(run, 2, 4)
    address = look(run)
    page.goto(f"{address}#/groups")
    until(page, "document.querySelectorAll('.rows .row').length === 4")
    assert "step_000002.arrow" in page.inner_text(".warning")
    page.goto(f"{address}#/group?part=3&group=6")
    page.wait_for_selector(".tok")
    page.goto(f"{address}#/compare?part=1&group=2")
    page.wait_for_selector(".matrix")
    assert "in 4 groups" in page.inner_text(".overall")
    assert page.locator(".overall .warning p").count() == 2
    assert "step_000004.arrow" in page.inner_text(".overall .warning")


def test_a_method_that_fails_is_named_and_the_others_are_shown(
    page: Any, served: Callable[..., str], tmp_path: Path
) -> None:
    records = [{"group": 0, "ids": [1, t], "reward": float(t)} for t in range(2)]
    address = served(write_jsonl(tmp_path / "mine.jsonl", records), credit=(BROKEN,))
    page.goto(f"{address}#/groups")
    page.wait_for_selector(".warning")
    page.wait_for_selector(".rows .row")
    assert f"the credit method {BROKEN} failed (AttributeError" in page.inner_text(".warning")
    page.goto(f"{address}#/group?group=0")
    page.wait_for_selector("text=No credit under this method")
    assert "no_such_thing" in page.inner_text(".view")
    page.select_option('select[name="credit"]', "grpo")
    page.wait_for_selector(".tok")


def test_rewards_that_leave_0_to_1_are_numbers_without_a_sign(
    page: Any, look: Callable[..., str], tmp_path: Path
) -> None:
    rewards = {"high": [10.0, 60.0, 35.0], "low": [1.0, 0.0, None]}
    records = [
        {"group": name, "ids": [5, t], "reward": reward}
        for name, row in rewards.items()
        for t, reward in enumerate(row)
    ]
    address = look(write_jsonl(tmp_path / "mine.jsonl", records))
    page.goto(f"{address}#/groups")
    until(page, "document.querySelectorAll('.rows .row .dot-number').length === 5")
    shares = "[...document.querySelectorAll('.dot-number')].map((dot) => dot.style.getPropertyValue('--share'))"
    assert [round(float(share.rstrip("%")), 1) for share in page.evaluate(shares)] == [16.7, 100.0, 58.3, 1.7, 0.0]
    assert page.locator(".dot-full, .dot-part, .dot-zero").count() == 0
    assert page.locator(".dot-unknown").count() == 1
    for group, said in ((0, ["60", "35", "10"]), (1, ["1", "0", "unknown"])):
        page.goto(f"{address}#/group?group={group}&layout=fan")
        until(page, f"document.querySelectorAll('.tok').length === 4 && location.hash.includes('group={group}')")
        assert page.locator(".leaf .reward b").all_inner_texts() == said
        assert page.locator(".leaf .reward i").all_inner_texts() == (["?"] if group else [])
        assert page.locator(".leaf .full, .leaf .part, .leaf .zero").count() == 0
    page.goto(f"{address}#/group?group=0&layout=fan")
    until(page, "document.querySelector('.badge-text b')?.textContent === '35'")
    level = page.evaluate("document.querySelector('.tree .gauge span').style.height")
    assert float(level.rstrip("%")) == pytest.approx(100 * 35 / 60, abs=0.1)


def test_rewards_between_0_and_1_keep_their_signs(page: Any, look: Callable[..., str], tmp_path: Path) -> None:
    records = [{"group": 0, "ids": [5, t], "reward": reward} for t, reward in enumerate([1.0, 0.5, 0.0])]
    address = look(write_jsonl(tmp_path / "mine.jsonl", records))
    page.goto(f"{address}#/groups")
    page.wait_for_selector(".dot-full + .dot-part + .dot-zero")
    page.goto(f"{address}#/group?group=0&layout=fan")
    page.wait_for_selector(".tok")
    assert page.locator(".leaf .reward i").all_inner_texts() == ["\u2713", "\u25d0", "\u2717"]
