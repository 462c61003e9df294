"""The page and the picture of the study of trees, made from what was found and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apportion.recipes.tree_study import CREDITS, FIRST, MEASURE, TWICE, controls, difference, is_control, on_trees
from apportion.recipes.trees import RECIPES_OF_TREES
from apportion.studies.picture import COLOURS, check_drawable

Found = Mapping[str, Any]

MEASURES = (MEASURE, MEASURE, "at_the_end")
"""Of the columns of differences in a table."""

EXPLAINED = """\
Does better credit need fewer rollouts? Arms train from the same warm starts on the same prompts and are compared after
equally many sampled tokens. Made by

    {command} --write docs

which goes on where it was interrupted; `--seeds`, `--warm-starts` and `--steps` make it longer. This one has {runs}
runs an arm from {warm} warm starts, each with a budget of {steps} steps of flat sampling.

![Accuracy of every arm less that of GRPO, with intervals, in every task](studies/trees.svg)

## What is compared

{tasks}
- **grpo** and **tempo** draw 16 responses a prompt. **td, flat** is `tree_td` on the same samples: differences of
  prefix values, without the outcome.
- **tree**, **tree_td**, **tree_shrunk** and **tree, leaves** credit trees: {forked}
- **{twice}** is a control: a method whose gradient is longer must not win by that. Arms that end in *sgd* take steps of
  SGD, which a longer gradient makes longer; the others of AdamW, which it does not.
- Arms that draw fewer tokens a step take more steps for the same tokens; where trees do, the control at twice the rate
  is the one to be above. Where every response forks once, leaf means are draw means, and **tree, leaves** is **tree**.
- The learning rate of every arm is chosen among {factors} times its own, on seeds and warm starts that the comparison
  does not use. Gradients are not clipped.
- The measure is the accuracy of sampled answers to held-out prompts, averaged over the budget. Intervals are of 95 %,
  over warm starts, seeds and questions together; differences are paired. In {comparisons} comparisons with GRPO, about
  {chance:.0f} may exclude 0 by chance.

## What was found

{verdict}
"""


def page(found: Found) -> str:
    """docs/tree_study.md."""
    size = found["size"]
    reports = list(found["looked_at"].values())
    settings = next(arm["changes"]["sampling"] for arm in reports[0]["arms"] if "sampling" in arm["changes"])
    comparisons = sum(not is_control(arm["name"]) for report in reports for arm in report["arms"])
    tasks = [f"- **{name}**: {_lower(recipe.__doc__)}" for name, recipe in RECIPES_OF_TREES.items()]
    parts = [
        "# Trees: does better credit need fewer rollouts?",
        "",
        EXPLAINED.format(
            command=found["command"],
            runs=size["seeds"] * size["warm_starts"],
            warm=size["warm_starts"],
            steps=size["steps"],
            tasks="\n".join(tasks),
            forked=f"`{settings}`.",
            twice=TWICE,
            factors=", ".join(f"{factor:g}" for factor in reports[0]["tune"]),
            comparisons=comparisons,
            chance=0.05 * comparisons,
            verdict=verdict(found),
        ),
    ]
    for title, part in (("Looked at", "looked_at"), ("On fresh seeds and an unseen task", "confirmed")):
        parts += [f"## {title}", ""]
        for name, report in found[part].items():
            parts += [f"### {name}", "", *_table(report), ""]
    parts += ["## Gradients before training", "", *_signals(found["looked_at"]), ""]
    parts += ["Every run's figures and all pairs of arms: [trees.json](studies/trees.json).", ""]
    return "\n".join(parts)


def verdict(found: Found) -> str:
    """What the study says, in sentences made of its figures."""
    said = []
    helped, nearest = (
        [f"{c['arm']} in {c['task']}" for c in found["conditions"] if c["helped"] == wanted] for wanted in (True, False)
    )
    if helped:
        said.append(f"Where it was looked, above GRPO and above GRPO at twice the rate: {'; '.join(helped)}.")
    else:
        said.append("Nowhere was an arm above GRPO and above GRPO at twice the rate with both intervals free of 0.")
    if nearest:
        of_all, of_trees = "What came nearest, of all arms and of those on trees,", "The arm on trees that came nearest"
        first = of_trees if helped else of_all
        said.append(f"{first} was taken to fresh seeds all the same: {'; '.join(nearest)}.")
    held = []
    for task, report in found["confirmed"].items():
        for arm in (arm["name"] for arm in report["arms"] if not is_control(arm["name"])):
            less = [difference(report, arm, control) for control in controls(arm)]
            holds = all(d["low"] > 0 for d in less)
            held += [arm] if holds else []
            said.append(
                f"On fresh seeds, {arm} in {task}: {_signed(less[0])} against GRPO, {_signed(less[1])} against twice "
                f"the rate. It {'holds' if holds else 'does not hold'}."
            )
    if not any(on_trees(arm) for arm in held):
        said.append(
            "In these tasks, with models this small and budgets this short, credit on trees was not seen to need fewer "
            "rollouts than GRPO on flat samples. That is no proof that it never does."
        )
    return "\n".join(f"- {sentence}" for sentence in said)


def _table(report: Found) -> list[str]:
    goals = [f"tokens (responses) to {goal:.2f}" for goal in report["goals"]]
    head = [
        "arm",
        "rate",
        "tokens a step",
        "on the way",
        "less grpo",
        "less twice the rate",
        "at the end, less grpo",
        *goals,
    ]
    edges = {line["arm"] for line in report["tuning"] if line["at_the_edge"]}
    lines = [_row(head), "|" + "---|" * len(head)]
    for arm in report["compared"]:
        name, at = arm["arm"], arm["sampled"]
        less = [
            _signed(difference(report, name, control, measure)) if control != name else ""
            for control, measure in zip((*controls(name), controls(name)[0]), MEASURES, strict=True)
        ]
        needed = [
            "never" if tokens["median"] is None else f"{tokens['median']:,} ({responses['median']:,})"
            for tokens, responses in zip(arm["tokens_to"], arm["responses_to"], strict=True)
        ]
        rate = f"{arm['learning_rate']:.2g}{' (edge)' if name in edges else ''}"
        drawn = f"{arm['tokens_a_step']:.0f}"
        lines.append(_row([name, rate, drawn, f"{at[MEASURE]['value']:.3f}", *less, *needed]))
    stopped = sum(arm["stopped"] for arm in report["compared"])
    runs, questions = len(report["run_seeds"]), report["questions"]
    lines += [
        "",
        f"{runs} runs an arm, {report['budget']:,.0f} sampled tokens each, {questions} held-out questions"
        f"{f'; {stopped} runs had to stop' if stopped else ''}. *Edge*: no smaller or no larger rate was tried.",
    ]
    return lines


def _signals(reports: Mapping[str, Found]) -> list[str]:
    """Signal over noise of every arm's gradient."""
    with_signal = {
        name: [line for line in report["signal"] if line["arm"] in (FIRST, *CREDITS)]
        for name, report in reports.items()
        if report["signal"]
    }
    if not with_signal:
        return ["Not measured."]
    arms = [line["arm"] for line in next(iter(with_signal.values()))]
    lines = [
        "Squared norm of the expected gradient over the variance, a thousand sampled tokens, with standard errors over "
        "warm starts. Twice as much means that half the tokens give an equally clear gradient; it says nothing about "
        "where a biased gradient points.",
        "",
        _row(["arm", *with_signal]),
        "|" + "---|" * (1 + len(with_signal)),
    ]
    for i, arm in enumerate(arms):
        cells = [f"{s[i]['per_1000_tokens']:.3f} ± {s[i]['standard_error']:.3f}" for s in with_signal.values()]
        lines.append(_row([arm, *cells]))
    return lines


def _signed(line: Mapping[str, float]) -> str:
    return f"{line['value']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]"


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _lower(text: str | None) -> str:
    """A docstring as the rest of a sentence."""
    words = " ".join((text or "").split())
    return words[:1].lower() + words[1:]


def draw_studies(found: Found, path: Path) -> None:
    """A panel a study: every arm's accuracy over the budget less GRPO's, with its interval.

    Args:
        found: everything the command found.
        path: of the picture, by whose ending its format is chosen.
    """
    check_drawable()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = [*found["looked_at"].items(), *((f"fresh: {n}", r) for n, r in found["confirmed"].items())]
    columns = 3
    rows = -(-len(panels) // columns)
    with rc_context({"svg.hashsalt": "apportion", "svg.fonttype": "path"}), rc_context({"font.size": 9}):
        figure = Figure(figsize=(13, 2.7 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, (name, report) in zip(axes.flat, panels, strict=False):
            _panel(axis, name, report)
        figure.suptitle("Accuracy averaged over the budget, less that of GRPO on flat samples; 95 % intervals")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def _panel(axis: Any, name: str, report: Found) -> None:
    arms = [arm["name"] for arm in report["arms"] if arm["name"] != controls(arm["name"])[0]]
    axis.axvline(0, color="#bbbbbb", lw=1)
    for y, arm in enumerate(arms):
        line = difference(report, arm, controls(arm)[0])
        colour = COLOURS[6] if is_control(arm) else COLOURS[1] if on_trees(arm) else COLOURS[0]
        axis.plot([line["low"], line["high"]], [y, y], color=colour, lw=1.6)
        axis.plot([line["value"]], [y], "o", ms=5, color=colour)
    axis.set_yticks(range(len(arms)), arms)
    axis.set_ylim(len(arms) - 0.5, -0.5)
    axis.set_title(name, fontsize=9, loc="left")
    axis.locator_params(axis="x", nbins=5)
    axis.spines[["top", "right"]].set_visible(False)
