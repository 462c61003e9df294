"""The pictures of the documents and the page about five of them, from two quickstart runs made on the spot.

    cd tests && python -m browser.pictures ../docs

Groups are chosen by rules, so other runs give other groups of the same kind. What the page says of a picture is taken
from the stored rollouts, not from the viewer.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion.cli.main import main
from apportion.rollouts import Rollouts, RolloutStore
from apportion.viewer.texts import open_tokenizer, pieces, prompt_text, tokenizer_of_run
from browser.conftest import WAIT, chromium, serving, until

RUNS = {
    "first": ("--credit", "tempo", "--steps", "150"),
    "forced": ("--credit", "tree_td", "--sampling", "branching", "--steps", "20", "--eval-prompts", "0"),
}
COMMON = ("--seed", "1", "--record", "entropy,top5,after")
THEMES = ("light", "dark")
GAP = 8
"""Pixels around a part of the page."""


@dataclass(frozen=True)
class Earner:
    """The token of a group that earned most.

    Attributes:
        step: of the run.
        group: id.
        prompt: text of the prompt.
        episode: the first of the episodes of the group that pass through it.
        before: the text of that episode before it.
        token: its own text.
        after: the text of that episode after it.
        depth: how many tokens stand before it.
        value: its credit, a mean over the episodes that share it.
        passing: how many episodes of the group pass through it.
        right: how many of them are right.
        others_right: how many others are right.
        leaves: how many different responses there are.
        forced: the sampler forked before it.
        leads: the largest credit of another token, as a share of its own.
    """

    step: int
    group: int
    prompt: str
    episode: int
    before: str
    token: str
    after: str
    depth: int
    value: float
    passing: int
    right: int
    others_right: int
    leaves: int
    forced: bool
    leads: float


def earners(run: Path) -> Iterator[Earner]:
    """The token that earned most in every group of a run in which some token earned anything."""
    tokenizer = tokenizer_of_run(run)
    assert tokenizer is not None
    decode = open_tokenizer(tokenizer)
    for step, rollouts in RolloutStore(run / "rollouts"):
        for group in rollouts.groups():
            found = earner(step, group, [pieces(group, b, decode) for b in range(group.n_responses)], decode)
            if found is not None:
                yield found


def earner(step: int, group: Rollouts, texts: list[list[str]], decode: Any) -> Earner | None:
    """The token of one group that earned most; one response an episode."""
    given, trained = group.column("credit/advantages").tolist(), group.trained.tolist()
    ids, rewards = group.ids.tolist(), group.column("episode:reward/outcome").tolist()
    starts = group.token_offsets.tolist()
    shares: dict[tuple[int, ...], list[float]] = {}
    for start, end in itertools.pairwise(starts):
        for t in range(start, end):
            if trained[t]:
                shares.setdefault(tuple(ids[start : t + 1]), []).append(given[t])
    means = sorted(((sum(s) / len(s), prefix) for prefix, s in shares.items()), reverse=True)
    value, prefix = means[0]
    if value <= 0 or len(means) < 2:
        return None
    rows = [tuple(ids[start:end]) for start, end in itertools.pairwise(starts)]
    passing = [e for e, row in enumerate(rows) if row[: len(prefix)] == prefix]
    forks = group.columns.get("response:fork")
    depth, own = len(prefix) - 1, texts[passing[0]]
    return Earner(
        step,
        int(group.group_ids[0]),
        prompt_text(group, 0, decode),
        passing[0],
        "".join(own[:depth]),
        own[depth],
        "".join(own[depth + 1 :]),
        depth,
        value,
        len(passing),
        sum(rewards[e] >= 1 for e in passing),
        sum(rewards[e] >= 1 for e in range(len(rows)) if e not in passing),
        len(set(rows)),
        forks is not None and any(int(forks.tensor[e]) == depth for e in passing if _there(forks, e)),
        max(means[1][0], 0.0) / value,
    )


def _there(column: Any, row: int) -> bool:
    return column.present is None or bool(column.present[row])


def first_of(found: list[Earner], taken: list[Earner], rule: Callable[[Earner], bool]) -> Earner:
    """The first group that a rule wants, legible and not shown before."""
    shown = {(one.step, one.group) for one in taken}
    legible = [one for one in found if 5 <= one.leaves <= 7 and one.leads < 0.8 and (one.step, one.group) not in shown]
    wanted = [one for one in legible if rule(one)]
    if not wanted:
        sys.exit("no group of these runs shows what a picture wants: change RULES, or the seed in COMMON.")
    return wanted[0]


def take(page: Any, path: Path, selectors: tuple[str, ...]) -> None:
    """A picture of parts of a page, all in one."""
    boxes = [page.locator(selector).first.bounding_box() for selector in selectors]
    left, top = min(b["x"] for b in boxes) - GAP, min(b["y"] for b in boxes) - GAP
    right, bottom = max(b["x"] + b["width"] for b in boxes), max(b["y"] + b["height"] for b in boxes)
    clip = {"x": left, "y": top, "width": right - left + GAP, "height": bottom - top + GAP}
    page.screenshot(path=path, full_page=True, clip=clip)


GROUP = (".callouts", ".tree-card")


def take_all(address: str, forced: str, chosen: dict[str, Earner], folder: Path) -> None:
    """Every picture, light and dark."""

    def at(name: str) -> str:
        one = chosen[name]
        return f"{forced if name == 'forced' else address}#/group?part={one.step}&group={one.group}"

    token, apart = chosen["token"], chosen["compare"]
    shots: list[tuple[str, str, int, str, tuple[str, ...]]] = [
        ("run", f"{address}#/run", 1240, ".chart", ()),
        ("groups", f"{address}#/groups", 1240, ".rows .row", ()),
        *((name, at(name), 1010, ".tok", GROUP) for name in ("group", "late", "forced")),
        ("token", f"{at('token')}&token={token.episode}.{token.depth}", 1340, ".panel", (*GROUP, ".panel")),
        (
            "compare",
            f"{address}#/compare?part={apart.step}&group={apart.group}&credit=stored&credit=grpo",
            1010,
            ".matrix",
            (".panels",),
        ),
    ]
    with chromium() as browser:
        for theme in THEMES:
            for name, where, width, wanted, parts in shots:
                context = browser.new_context(
                    viewport={"width": width, "height": 900}, device_scale_factor=1.4, color_scheme=theme
                )
                page = context.new_page()
                page.set_default_timeout(WAIT)
                page.goto(where)
                page.wait_for_selector(wanted)
                until(page, "document.body.dataset.ready === location.hash || !location.hash.includes('group?')")
                page.wait_for_timeout(400)  # links are drawn after the tree has its size
                file = folder / f"{name}_{theme}.png"
                take(page, file, parts) if parts else page.screenshot(path=file)
                context.close()


RULES: dict[str, tuple[str, Callable[[Earner], bool]]] = {
    "group": ("first", lambda one: one.passing == one.right == 1 and not one.others_right and one.depth > 1),
    "late": ("first", lambda one: one.depth >= 5 and one.passing > 1),
    "token": ("first", lambda one: 2 <= one.depth <= 4 and one.passing > 2 and one.others_right == 0),
    "compare": ("first", lambda one: one.depth >= 2 and one.others_right > 0),
    "forced": ("forced", lambda one: one.forced),
}
"""Of every picture the run and the group that it wants."""


def make(docs: Path) -> dict[str, Earner]:
    """Train, and picture that."""
    with tempfile.TemporaryDirectory() as place:
        for name, words in RUNS.items():
            code = main(["train", "quickstart", "--run", str(Path(place) / name), *words, *COMMON])
            assert code == 0, f"training ended with {code}"
        return picture(Path(place), docs)


def picture(runs: Path, docs: Path) -> dict[str, Earner]:
    """Choose groups of the runs, take pictures of them, and write the page about five of them."""
    found = {name: [*earners(runs / name)] for name in RUNS}
    chosen: dict[str, Earner] = {}
    for name, (run, rule) in RULES.items():
        chosen[name] = first_of(found[run], [*chosen.values()], rule)
    with serving(runs / "first") as first, serving(runs / "forced") as forced:
        take_all(first, forced, chosen, docs / "pictures")
    (docs / "pictures.md").write_text(about(chosen), encoding="utf-8")
    return chosen


HEADS = {
    "group": ("One right answer", "Sixteen responses to one prompt, and a single one of them is right."),
    "late": ("Late", "The responses go together for long, and what decides comes near the end."),
    "token": (
        "A token and how it got there",
        "A token that was pressed, with a panel of everything known about it: its credit and the stages that made it, "
        "what else the policy might have said, and what the update did to it.",
    ),
    "compare": (
        "Two methods, and the difference",
        "The same responses under TEMPO and under GRPO. GRPO gives all tokens of a response the same, so it singles "
        "out none; where a token's number differs from its neighbours', it is shared by responses that ended "
        "differently. Numbers here are in units of each method's root mean square over the run.",
    ),
    "forced": (
        "Branches that the sampler forced",
        "Half of the responses were drawn from the prompt, the others by forking those where the policy was least sure "
        "(dashed). `tree_td` gives every token the value behind it less the value before it, so what follows a fork "
        "earns nothing more: the choice at the fork earned it.",
    ),
}


def about(chosen: dict[str, Earner]) -> str:
    """The page about five pictures."""
    lines = [
        "# Credit in five pictures",
        "",
        "Made by `make pictures` from quickstart runs of a minute: eight digits are added modulo ten, a response "
        "writes down every partial sum, and only the last one is checked. *Which branch, and which token on it, earned "
        "the reward?* Look first; the answer, taken from the stored numbers, is folded away below each picture.",
        "",
        "How to read them: responses that begin alike are drawn once and part where they differ. A number beside a "
        "fork is the mean reward of the responses that pass there, `×` how many do. Blue tokens earned, orange ones "
        "lost; the blue line leads from the prompt to the token that earned most.",
    ]
    for number, (name, (title, text)) in enumerate(HEADS.items(), 1):
        one = chosen[name]
        lines += ["", f"## {number}. {title}", "", text, "", f"![{title}](pictures/{name}_light.png)", ""]
        lines += ["<details><summary>The answer</summary>", "", answer(one), "", "</details>"]
    lines += ["", "The same in the dark: " + ", ".join(f"[{n}](pictures/{n}_dark.png)" for n in HEADS) + "."]
    lines += ["[The viewer](viewer.md) says what each page shows.", ""]
    return "\n".join(wrapped for line in lines for wrapped in wrap(line))


def wrap(line: str) -> list[str]:
    """A paragraph in lines of at most 120 characters."""
    import textwrap

    return textwrap.wrap(line, 119, break_long_words=False, break_on_hyphens=False) or [""]


def answer(one: Earner) -> str:
    """Which branch and which token earned the reward."""
    start = f"after `{one.before}`" if one.before else "at the very beginning"
    shared = f"{one.passing} responses pass through it" if one.passing > 1 else "one response passes through it"
    ends = "and all of them are right" if one.passing == one.right > 1 else f"{one.right} of them right"
    ends = "and it is right" if one.passing == one.right == 1 else ends
    rest = "none of the others is" if not one.others_right else f"of the others {one.others_right} are"
    return (
        f"The token `{one.token}` {start}, token {one.depth + 1} of the branch `{one.before}{one.token}{one.after}`, "
        f"with a credit of {one.value:+.2f}: {shared}, {ends}, {rest}."
    )


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "pictures").is_dir():
        sys.exit("usage: python -m browser.pictures DOCS, a folder with pictures/ in it")
    for name, one in make(Path(sys.argv[1])).items():
        print(f"{name}: step {one.step} group {one.group}: {answer(one)}")
