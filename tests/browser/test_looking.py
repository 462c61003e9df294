"""The page and the report of a real quickstart run, driven as a person would."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apportion import credit
from apportion.cli.main import main
from apportion.rollouts import RolloutStore
from apportion.viewer.source import Source
from browser.conftest import until

pytestmark = pytest.mark.system

STEPS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quickstart run under TEMPO."""
    folder = tmp_path_factory.mktemp("looking") / "first"
    words = ["train", "quickstart", "--run", str(folder), "--steps", str(STEPS), "--eval-prompts", "16"]
    words += ["--credit", "tempo", "--save-every", str(STEPS), "--record", "entropy,top5,after"]
    assert main(words) == 0
    return folder


@pytest.fixture(params=["page", "report"])
def address(request: pytest.FixtureRequest, run: Path, served: Callable[..., str], reported: Callable[..., str]) -> str:
    """The run, served and as a file."""
    return served(run) if request.param == "page" else reported(run)


def a_mixed_group(run: Path) -> tuple[int, int]:
    """A step and a group whose rewards differ."""
    for step, rollouts in RolloutStore(run / "rollouts"):
        for group in rollouts.groups():
            rewards = group.column("episode:reward/outcome")
            if 0 < float(rewards.mean()) < 1:
                return step, int(group.group_ids[0])
    raise AssertionError("no group of this run has different rewards")


def credited(run: Path, step: int, group: int, method: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What ``apportion credit --json`` says of a group."""
    capsys.readouterr()
    assert main(["credit", method, str(RolloutStore(run / "rollouts").path(step)), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [record for record in records if record["group"] == group]


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("\N{MINUS SIGN}", "-"))


def hovered(page: Any, node: int, depth: int) -> str:
    """What follows the pointer over a token of the tree."""
    page.hover(f'.tok[data-node="{node}"][data-depth="{depth}"]')
    page.wait_for_selector("#tip:not([hidden]) .tip-value")
    return str(page.inner_text("#tip .tip-value"))


def test_open_a_run_go_to_a_group_switch_method_and_read_the_same_numbers(
    page: Any, address: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step, group = a_mixed_group(run)
    page.goto(address)
    page.wait_for_selector(".chart")
    assert page.inner_text("h1") == "first"
    page.click("text=Look at its groups")
    page.fill('input[name="from"]', str(step))
    page.fill('input[name="to"]', str(step))
    page.click(f'.rows .row:has(.c-group:text-is("{group}"))')
    page.wait_for_selector(".tok")
    assert page.inner_text("h1") == f"Group {group}"

    responses = credited(run, step, group, "tempo", capsys)
    for spec in ("stored", "grpo"):
        page.select_option('select[name="credit"]', spec)
        until(page, f"document.querySelector('select[name=credit]')?.value === {spec!r}")
        page.wait_for_selector(f".legend-title:has-text('{'as stored (tempo)' if spec == 'stored' else 'grpo'}')")
        responses = credited(run, step, group, "tempo" if spec == "stored" else spec, capsys)
        page.click(".reward.full >> nth=0")  # one response alone
        page.wait_for_selector(".reward.full.on")
        chosen = int(re.search(r"response=(\d+)", page.url)[1])  # type: ignore[index]
        tokens = page.eval_on_selector_all(
            ".node:not(.off) > .stem .tok", "all => all.map((t) => [Number(t.dataset.node), Number(t.dataset.depth)])"
        )
        advantages = responses[chosen]["advantages"]
        assert sorted(depth for _, depth in tokens) == list(range(len(advantages)))
        for node, depth in tokens:
            assert number(hovered(page, node, depth)) == pytest.approx(advantages[depth], abs=5.1e-5)


def test_a_shared_token_shows_the_mean_of_the_responses_through_it(
    page: Any, address: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step, group = a_mixed_group(run)
    responses = credited(run, step, group, "tempo", capsys)
    page.goto(f"{address}#/group?part={step}&group={group}")
    page.wait_for_selector(".tok")
    texts = [response["advantages"][0] for response in responses]
    rollouts = RolloutStore(run / "rollouts").read(step)
    own = rollouts.select(rollouts.group_ids == group)
    first = own.ids[own.token_offsets[:-1]].tolist()
    alike = [a for a, i in zip(texts, first, strict=True) if i == first[0]]
    shown = page.eval_on_selector_all(
        ".tok", "all => all.filter((t) => t.dataset.depth === '0').map((t) => t.dataset.node)"
    )
    means = [number(hovered(page, int(node), 0)) for node in shown]
    assert pytest.approx(sum(alike) / len(alike), abs=5.1e-5) in means


def test_the_token_that_earned_most_is_named_and_ringed(page: Any, address: str, run: Path) -> None:
    step, group = a_mixed_group(run)
    rollouts = RolloutStore(run / "rollouts").read(step)
    own = rollouts.select(rollouts.group_ids == group)
    given = credit.METHODS["tempo"]()(own).advantages.tolist()
    ids, offsets = own.ids.tolist(), own.token_offsets.tolist()
    by_prefix: dict[tuple[int, ...], list[float]] = {}
    for start, end in itertools.pairwise(offsets):
        for t in range(start, end):
            by_prefix.setdefault(tuple(ids[start : t + 1]), []).append(given[t])
    most = max(sum(values) / len(values) for values in by_prefix.values())
    page.goto(f"{address}#/group?part={step}&group={group}")
    page.wait_for_selector(".callout.most")
    assert number(page.inner_text(".callout.most .callout-value")) == pytest.approx(most, abs=0.0051)
    marked = page.query_selector(".mark-most")
    if marked is not None:
        assert marked.query_selector(".word").inner_text() == page.inner_text(".callout.most mark")


def test_a_token_that_is_pressed_shows_how_its_credit_came_about(
    page: Any, address: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step, group = a_mixed_group(run)
    record = credited(run, step, group, "tempo", capsys)[2]
    page.goto(f"{address}#/group?part={step}&group={group}&response=2&token=2.3")
    page.wait_for_selector(".panel")
    rows = dict(
        page.eval_on_selector_all(
            ".panel tr", "all => all.map((r) => [r.cells[0].textContent, r.cells[1].firstChild.textContent])"
        )
    )
    assert number(rows["advantage"]) == pytest.approx(record["advantages"][3], abs=5.1e-5)
    assert number(rows["prefix_value_before"]) == pytest.approx(record["credit/prefix_value_before"][3], abs=5.1e-5)
    assert number(rows["prefix_value_after"]) == pytest.approx(record["credit/prefix_value_after"][3], abs=5.1e-5)
    assert {"log-prob when sampled", "log-prob before the update", "entropy before the token"} <= set(rows)


def test_a_token_shows_what_else_it_might_have_been_and_what_the_update_did(page: Any, address: str, run: Path) -> None:
    step, group = a_mixed_group(run)
    rollouts = RolloutStore(run / "rollouts").read(step)
    own = rollouts.select(rollouts.group_ids == group)
    token = int(own.token_offsets[2]) + 3
    page.goto(f"{address}#/group?part={step}&group={group}&response=2&token=2.3")
    page.wait_for_selector(".alternatives")
    shown = page.eval_on_selector_all(".alternatives td", "all => all.map((c) => c.textContent)")
    chances = own.column("top_log_probs/behaviour")[token].exp().tolist()
    assert [float(text.rstrip("%")) for text in shown[:5]] == pytest.approx([100 * c for c in chances], abs=0.051)
    assert page.locator(".alternatives .drawn").count() == 1
    assert page.locator(".alternatives .drawn .alternative").inner_text() == page.inner_text(".panel .context mark")
    moved = float((own.column("log_probs/after") - own.column("log_probs/old"))[token])
    assert number(page.inner_text('.panel tr:has(th:text-is("moved by the update")) td')) == pytest.approx(
        moved, abs=5.1e-5
    )
    assert page.inner_text(".stages th") == "1. prefix change"
    record = page.inner_text(".stages td").split()[0]
    assert record == page.inner_text('.panel tr:has(th:text-is("advantage")) td').split()[0]


def test_two_methods_are_compared_on_a_group_and_over_the_run(page: Any, address: str, run: Path) -> None:
    step, group = a_mixed_group(run)
    page.goto(f"{address}#/group?part={step}&group={group}")
    page.wait_for_selector(".tok")
    page.click("text=Compare >> nth=-1")
    page.wait_for_selector(".matrix")
    assert page.locator(".panels .tree-card").count() == 3, "two methods and their difference"
    assert page.inner_text(".panels .tree-card:nth-child(3) h3") == "as stored (tempo) minus grpo"
    shown = number(page.inner_text(".matrix tbody tr:nth-child(1) td:nth-child(3)").split()[0])
    assert 0.5 < shown < 1
    page.hover(".panels .tok >> nth=0")
    values = page.eval_on_selector_all("#tip b", "all => all.map((b) => Number(b.dataset.value))")
    assert len(values) == 2
    page.click(".apart a >> nth=0")
    page.wait_for_selector(".mark-pin")


def test_filters_sorting_and_their_address(page: Any, address: str, run: Path) -> None:
    page.goto(f"{address}#/groups")
    page.wait_for_selector(".rows .row")
    until(page, f"document.querySelector('#count').textContent.startsWith('{4 * STEPS} of')")
    page.select_option('select[name="health"]', "mixed")
    mixed = 0
    for _, rollouts in RolloutStore(run / "rollouts"):
        mixed += sum(0 < float(g.column("episode:reward/outcome").mean()) < 1 for g in rollouts.groups())
    assert page.inner_text("#count") == f"{mixed} of {4 * STEPS} groups"
    page.click(".head .c-credit")
    largest = [float(t) for t in page.locator(".rows .c-credit").all_inner_texts()]
    assert largest == sorted(largest, reverse=True)
    assert "health=mixed" in page.url
    assert "sort=credit" in page.url
    page.reload()
    page.wait_for_selector(".rows .row")
    assert [float(t) for t in page.locator(".rows .c-credit").all_inner_texts()] == largest
    page.fill('input[name="text"]', "no prompt reads like this")
    page.wait_for_selector("text=No group passes the filters")


def test_sorting_by_disagreement_compares_methods_first(page: Any, address: str) -> None:
    page.goto(f"{address}#/groups?sort=disagreement&down=1")
    until(page, "[...document.querySelectorAll('.rows .c-disagreement')].some((c) => /^\\d/.test(c.textContent))")
    apart = [float(t) for t in page.locator(".rows .c-disagreement").all_inner_texts() if t != "\N{EN DASH}"]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 0


def test_a_link_opens_what_it_was_copied_from(page: Any, address: str, run: Path) -> None:
    step, group = a_mixed_group(run)
    link = f"{address}#/group?part={step}&group={group}&credit=grpo&layout=outline&numbers=0&token=1.2"
    page.goto(link)
    page.wait_for_selector(".outline .mark-pin")
    assert page.input_value('select[name="credit"]') == "grpo"
    assert page.inner_text(".panel h2") == "Token 3"
    assert page.locator(".num").count() == 0
    page.goto(f"{address}#/group?part={step}&group=987654")
    page.wait_for_selector("text=Nothing to show")
    page.complaints.clear()  # the answer 400 is an error in the browser's own log


def test_the_page_is_dark_where_the_machine_is_and_where_it_is_told(browser: Any, address: str) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".chart")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.click(".theme")
    light = page.evaluate(ground)
    assert dark != light
    assert sum(map(int, re.findall(r"\d+", light))) > 600 > 200 > sum(map(int, re.findall(r"\d+", dark)))
    context.close()


def test_a_run_that_goes_on_is_followed(page: Any, served: Callable[..., str], run: Path, tmp_path: Path) -> None:
    going = tmp_path / "going"
    (going / "rollouts").mkdir(parents=True)
    (going / "config.json").write_text((run / "config.json").read_text())
    page.goto(f"{served(going)}#/groups")
    page.wait_for_selector("text=No group is stored yet")
    RolloutStore(going / "rollouts").write(1, Source(run).read(1))
    page.wait_for_selector(".rows .row")
    assert page.inner_text("#count") == "4 of 4 groups"


def test_two_runs_lie_over_one_another(page: Any, served: Callable[..., str], run: Path, tmp_path: Path) -> None:
    other = tmp_path / "second"
    (other / "rollouts").mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl", "evaluations.jsonl"):
        (other / name).write_text((run / name).read_text())
    page.goto(served(run, other))
    page.wait_for_selector(".chart")
    assert page.locator(".curve.run1").count() == 0
    page.click(".overlay >> text=second")
    page.wait_for_selector(".curve.run1")
    page.hover(".chart >> nth=0")
    assert "at step" in page.inner_text(".readout >> nth=0")
