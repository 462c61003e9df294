"""One picture of how credit methods trade bias, noise and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apportion.errors import InputError

COLOURS = {"outcome": "#0072B2", "annotated": "#D55E00", "textbook": "#5A5A5A"}
"""Of families, from the palette of Okabe and Ito, which colour-blind readers tell apart; markers differ too."""

TITLES = {
    "outcome": "read rewards and tokens only",
    "annotated": "read what a critic, a judge or a model says",
    "textbook": "the textbook's, for comparison",
}
MARKERS = {"outcome": "o", "annotated": "s", "textbook": "D"}

NOUGHT = 0.2
"""Where 0 degrees stand on the logarithmic axis of angles."""


def check_drawable() -> None:
    """Refuse before the work whose result could not be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError('this needs matplotlib, which is not installed: run pip install "apportion[dev]".') from None


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw a calibration: a row a method, with its direction error, its noise, its agreement and its cost.

    Args:
        found: as :func:`~apportion.evals.calibration.report.report` makes it.
        path: of the picture, by whose ending its format is chosen.
    """
    check_drawable()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = _rows(found)
    with rc_context(
        {"svg.hashsalt": "apportion", "svg.fonttype": "path", "font.size": 9, "font.family": "DejaVu Sans"}
    ):
        places = _places(rows)
        height = 0.235 * (max(places.values()) + 1) + 2.5
        figure = Figure(figsize=(13.5, height))
        panels = figure.subplots(1, 4, sharey=True, gridspec_kw={"width_ratios": [3.2, 3.2, 2.2, 2.4], "wspace": 0.06})
        top, bottom = 1 - 1.55 / height, 0.95 / height
        figure.subplots_adjust(left=0.245, right=0.985, top=top, bottom=bottom)
        _angles(panels[0], rows, places)
        _noise(panels[1], rows, places)
        _agreement(panels[2], rows, places)
        _cost(panels[3], rows, places)
        _labels(panels[0], rows, places)
        for panel in panels:
            panel.set_ylim(max(places.values()) + 0.8, -1.2)
            panel.spines[["top", "right", "left"]].set_visible(False)
            panel.tick_params(axis="y", length=0)
            for y in places.values():
                panel.axhline(y, color="#eeeeee", lw=0.7, zorder=0)
        _words(figure, found, height)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def _rows(found: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Lines by spec, with one line for every noise, in the order they are drawn."""
    order = list(COLOURS)
    by_spec: dict[str, list[Mapping[str, Any]]] = {}
    for line in found["methods"]:
        if line["pictured"] and line["angle"] is not None and line["noise_against_baseline"] is not None:
            by_spec.setdefault(line["spec"], []).append(line)
    for lines in by_spec.values():
        lines.sort(key=lambda line: line["noise"] or 0.0)
    key = {s: (order.index(v[0]["family"]), v[0]["angle"], v[0]["noise_against_baseline"]) for s, v in by_spec.items()}
    return {spec: by_spec[spec] for spec in sorted(by_spec, key=lambda s: key[s])}


def _places(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """The height of every row, with room for a title above each family."""
    places, y, family = {}, 0.0, None
    for spec, lines in rows.items():
        if lines[0]["family"] != family:
            y += 1.5 if family is not None else 0.0
            family = lines[0]["family"]
        places[spec] = y
        y += 1
    return places


def _dots(panel: Any, lines: Sequence[Mapping[str, Any]], y: float, xs: Sequence[float]) -> None:
    """The right annotations filled, the wrong ones hollow, joined."""
    colour, marker = COLOURS[lines[0]["family"]], MARKERS[lines[0]["family"]]
    panel.plot(xs, [y] * len(xs), color=colour, lw=1, zorder=2)
    for i, x in enumerate(xs):
        panel.plot([x], [y], marker, ms=5.5, mec=colour, mfc=colour if i == 0 else "white", mew=1.3, zorder=4 - i)


def _angles(panel: Any, rows: Mapping[str, Sequence[Mapping[str, Any]]], places: Mapping[str, float]) -> None:
    panel.set_xscale("log")
    for spec, lines in rows.items():
        worst = max(lines[0]["largest_angle"], NOUGHT)
        colour = COLOURS[lines[0]["family"]]
        panel.plot(
            [max(lines[0]["angle"], NOUGHT), worst], [places[spec]] * 2, color=colour, lw=3, alpha=0.22, zorder=1
        )
        _dots(panel, lines, places[spec], [max(line["angle"], NOUGHT) for line in lines])
    panel.axvline(NOUGHT, color="#009E73", lw=1, zorder=1)
    panel.set_xticks([NOUGHT, 1, 3, 10, 30, 90], ["0", "1°", "3°", "10°", "30°", "90°"])
    panel.minorticks_off()
    panel.set_xlim(0.15, 190)
    panel.set_xlabel("← exact        direction error of the\nexpected gradient", fontsize=9)
    panel.set_title("BIAS", loc="left", fontsize=10, weight="bold")


def _noise(panel: Any, rows: Mapping[str, Sequence[Mapping[str, Any]]], places: Mapping[str, float]) -> None:
    panel.set_xscale("log")
    for spec, lines in rows.items():
        line, y, colour = lines[0], places[spec], COLOURS[lines[0]["family"]]
        panel.plot([line["smallest_ratio"], line["largest_ratio"]], [y, y], color=colour, lw=3, alpha=0.22, zorder=1)
        _dots(panel, lines, y, [line["noise_against_baseline"] for line in lines])
        if line["cost"] > 1.05:
            at, to = line["noise_against_baseline"], line["noise_against_baseline"] * line["cost"]
            arrow = {"arrowstyle": "->", "color": colour, "lw": 1.2, "ls": "--", "shrinkA": 4, "shrinkB": 0}
            panel.annotate("", (to, y), (at, y), arrowprops=arrow, zorder=3)
            panel.text(to * 1.08, y, "per rollout", va="center", fontsize=7.5, color=colour)
    panel.axvline(1, color="#009E73", lw=1, zorder=1)
    panel.set_xlim(0.02, 60)
    panel.set_xticks([1 / 30, 0.1, 0.3, 1, 3, 10, 30], ["÷30", "÷10", "÷3", "1", "×3", "×10", "×30"])
    panel.minorticks_off()
    panel.set_xlabel("← fewer     responses needed for an equally\nclear gradient; leave-one-out = 1", fontsize=9)
    panel.set_title("VARIANCE", loc="left", fontsize=10, weight="bold")


def _agreement(panel: Any, rows: Mapping[str, Sequence[Mapping[str, Any]]], places: Mapping[str, float]) -> None:
    for spec, lines in rows.items():
        _dots(panel, lines, places[spec], [line["correlation"] or 0.0 for line in lines])
    panel.axvline(1, color="#009E73", lw=1, zorder=1)
    panel.set_xlim(-0.25, 1.08)
    panel.set_xticks([0, 0.5, 1])
    panel.set_xlabel("correlation of credit with\nthe exact advantage → 1", fontsize=9)
    panel.set_title("AGREEMENT", loc="left", fontsize=10, weight="bold")


def _cost(panel: Any, rows: Mapping[str, Sequence[Mapping[str, Any]]], places: Mapping[str, float]) -> None:
    panel.set_xlim(0, 1)
    panel.set_xticks([])
    panel.spines["bottom"].set_visible(False)
    for spec, lines in rows.items():
        dear = lines[0]["cost"] > 1.05
        weight = "bold" if dear else "normal"
        panel.text(0.2, places[spec], f"{lines[0]['cost']:.3g}", ha="right", va="center", fontsize=8.5, weight=weight)
        needs = "" if lines[0]["family"] == "textbook" and not dear else ", ".join(lines[0]["needs"])
        panel.text(0.3, places[spec], needs or "–", va="center", fontsize=8.5, color="#333333" if needs else "#999999")
    panel.set_title("COST", loc="left", fontsize=10, weight="bold")
    panel.set_xlabel("rollouts drawn for each one\ncredited; what must be made", fontsize=9)


def _labels(panel: Any, rows: Mapping[str, Sequence[Mapping[str, Any]]], places: Mapping[str, float]) -> None:
    """Names on the left, coloured by family, and a title over each."""
    panel.set_yticks(list(places.values()), [_name(spec) for spec in places], fontsize=8.5)
    family = None
    for text, (spec, lines) in zip(panel.get_yticklabels(), rows.items(), strict=True):
        text.set_color(COLOURS[lines[0]["family"]])
        if lines[0]["family"] != family:
            family = lines[0]["family"]
            panel.annotate(
                TITLES[family],
                (0, places[spec] - 0.85),
                xycoords=("axes fraction", "data"),
                xytext=(-6, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8.5,
                style="italic",
                color=COLOURS[family],
            )


def _name(spec: str) -> str:
    """A spec as it fits beside the picture."""
    for long, short in (
        ("components=('outcome',), low=-2, high=3", "outcome"),
        ("dimensions=('outcome',)", "outcome"),
        ("kl_coefficient=0.0, score_clamp=None", ""),
        ("lam=0.0, whiten=False, head='fresh'", "lam=0, fresh continuations"),
        ("lam=0.0, ", "lam=0, "),
        ("start=2.0", ""),
        ("beta=0.5", ""),
    ):
        spec = spec.replace(long, short)
    return spec.replace("()", "")


def _words(figure: Any, found: Mapping[str, Any], height: float) -> None:
    noise = max(found["settings"]["noise"])
    figure.text(0.012, 1 - 0.22 / height, "Credit methods against exact values", fontsize=14, weight="bold", va="top")
    figure.text(
        0.012,
        1 - 0.55 / height,
        f"{len(found['worlds'])} enumerable worlds, groups of {found['size_shown']}. A dot is the mean over "
        "those a method can run in, a pale bar reaches to the worst (variance: best to worst).\n"
        f"Filled: what the method reads is right. Hollow: it is wrong by noise {noise:g} (numbers err by {noise:g} "
        f"standard deviations, verdicts are turned round with probability {noise / 2:g}).\n"
        "Green line: exact; for variance, leave-one-out (rloo). On forks: responses branch, and variance counts every "
        "token drawn.",
        fontsize=9,
        va="top",
        color="#333333",
        linespacing=1.45,
    )
