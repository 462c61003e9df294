"""One picture of a study: accuracy along sampled tokens, and what differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apportion.errors import InputError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5A5A5A", "#000000")
"""Of arms, from the palette of Okabe and Ito, which colour-blind readers tell apart; line styles differ too."""

STYLES = ("-", "--", "-.", ":")


def check_drawable() -> None:
    """Refuse before the work whose result could not be drawn.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError('this needs matplotlib, which is not installed: run pip install "apportion[dev]".') from None


def draw(found: Mapping[str, Any], path: Path, title: str = "") -> None:
    """Draw a study: curves of sampled accuracy, differences to the first arm, tokens to reach the goals.

    Args:
        found: as :func:`~apportion.studies.report.report` makes it.
        path: of the picture, by whose ending its format is chosen.
        title: above it.
    """
    check_drawable()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {"svg.hashsalt": "apportion", "svg.fonttype": "path", "font.size": 9, "font.family": "DejaVu Sans"}
    with rc_context(settings):
        arms = found["compared"]
        height = max(3.6, 0.32 * len(arms) + 2.0)
        figure = Figure(figsize=(13.5, height))
        panels = figure.subplots(1, 3, gridspec_kw={"width_ratios": [3.2, 2.2, 2.2], "wspace": 0.5})
        figure.subplots_adjust(left=0.05, right=0.985, top=1 - 0.72 / height, bottom=0.62 / height)
        _curves(panels[0], found)
        _differences(panels[1], found)
        _tokens(panels[2], found)
        for panel in panels:
            panel.spines[["top", "right"]].set_visible(False)
        seeds, budget = len(found["run_seeds"]), found["budget"]
        words = f"{title}{': ' if title else ''}{seeds} paired runs an arm, {budget:,.0f} sampled tokens each"
        figure.text(0.012, 1 - 0.16 / height, words, fontsize=11, weight="bold", va="top")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def _look(number: int) -> dict[str, str]:
    return {"color": COLOURS[number % len(COLOURS)], "ls": STYLES[(number // 2 + number // len(COLOURS)) % len(STYLES)]}


def _curves(panel: Any, found: Mapping[str, Any]) -> None:
    for i, arm in enumerate(found["compared"]):
        curve = arm["curve"]
        panel.plot(curve["tokens"], curve["sampled"]["value"], lw=1.6, label=arm["arm"], **_look(i))
        panel.fill_between(
            curve["tokens"],
            curve["sampled"]["low"],
            curve["sampled"]["high"],
            color=_look(i)["color"],
            alpha=0.08,
            lw=0,
        )
    for goal in found["goals"]:
        panel.axhline(goal, color="#bbbbbb", lw=0.7, zorder=0)
    panel.set_xlabel("sampled tokens")
    panel.set_ylabel("held-out accuracy, sampled answers")
    panel.legend(frameon=False, fontsize=8, loc="best")


def _differences(panel: Any, found: Mapping[str, Any]) -> None:
    first = found["compared"][0]["arm"]
    places = {arm["arm"]: i for i, arm in enumerate(found["compared"])}
    panel.axvline(0, color="#bbbbbb", lw=1)
    for line in found["differences"]:
        if line["against"] != first:
            continue
        y, colour = places[line["arm"]], _look(places[line["arm"]])["color"]
        for offset, measure, marker in ((-0.13, "on_the_way", "o"), (0.13, "at_the_end", "s")):
            at = line["sampled"][measure]
            panel.plot([at["low"], at["high"]], [y + offset] * 2, color=colour, lw=1.4)
            panel.plot([at["value"]], [y + offset], marker, ms=5, color=colour)
    panel.set_yticks(list(places.values()), list(places))
    panel.set_ylim(len(places) - 0.4, -0.6)
    panel.set_xlabel(f"accuracy less that of {first}\n● on the way   ■ at the end; 95 %")


def _tokens(panel: Any, found: Mapping[str, Any]) -> None:
    places = {arm["arm"]: i for i, arm in enumerate(found["compared"])}
    for arm in found["compared"]:
        y, colour = places[arm["arm"]], _look(places[arm["arm"]])["color"]
        for offset, reached, marker in zip((-0.13, 0.13), arm["tokens_to"], ("o", "s"), strict=False):
            runs = [tokens for tokens in reached["runs"] if tokens is not None]
            panel.plot(runs, [y + offset] * len(runs), marker, ms=3.5, mec=colour, mfc="none", mew=0.8)
            if reached["median"] is not None:
                panel.plot([reached["median"]], [y + offset], marker, ms=6, color=colour)
    panel.set_yticks(list(places.values()), [""] * len(places))
    panel.set_ylim(len(places) - 0.4, -0.6)
    panel.set_xlim(0, found["budget"])
    goals = "   ".join(f"{mark} {goal:.2f}" for mark, goal in zip("●■", found["goals"], strict=False))
    panel.set_xlabel(f"tokens to an accuracy of\n{goals}; filled: median")
