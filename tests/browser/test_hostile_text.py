"""Model output is hostile text: it is shown, all of it as text, and none of it does anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser.conftest import until
from viewer.worlds import write_jsonl

pytestmark = pytest.mark.system

SCRIPTS = [
    "<script>window.hit = 1; alert(1)</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg onload=\"window.hit = 1\"><animate onbegin='window.hit = 1' attributeName=x dur=1s>",
    "</script><script>window.hit = 1</script><!--",
    "</style><style>body { display: none }</style>",
    "javascript:window.hit=1",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "${window.hit = 1}`{{constructor.constructor('window.hit = 1')()}}",
    "<a href='javascript:window.hit=1' autofocus onfocus='window.hit=1'>x</a>",
    "<base href='http://evil.example/'><meta http-equiv=refresh content='0;url=http://evil.example'>",
    '" onmouseover="window.hit=1" x=\'',
    "&lt;script&gt;window.hit=1&lt;/script&gt;",
    "__proto__",
    "constructor",
]
UNSEEN = {
    "\u202e": "RLO", "\u2066": "LRI", "\u200f": "RLM", "\u200b": "ZWSP", "\u200d": "ZWJ", "\ufeff": "BOM",
    "\u2028": "LS", "\x00": "\u2400", "\x1b": "\u241b", "\x07": "\u2407", "\x7f": "\u2421", "\x85": "U+0085",
    "\n": "\u23ce", "\t": "\u21e5", "\ud800": "U+D800", "\U000e0041": "U+E0041", "\u00ad": "SHY",
}  # fmt: skip
LONG = "x" * (1 << 20)


def hostile_file(path: Path) -> Path:
    """Every string in every place where a model, a task or a verifier can write."""
    records: list[dict[str, object]] = [
        {"columns": {"episode:reason": {"dtype": "text"}}, "spans": ["step"], "pairs": True}
    ]
    for g, text in enumerate(SCRIPTS):
        for e in range(2):
            records.append(
                {
                    "group": f"{g} {text}",
                    "episode": f"{g} {e} {text}",
                    "prompt": text,
                    "response": text,
                    "ids": [1, 2 + e],
                    "reward": float(e),
                    "token": {"text": [text, text], text: [0.5, 0.25], f"note {text}": [text, text]},
                    "episode_columns": {"reason": text, f"also {text}": text},
                    "spans": {"step": {"ranges": [[0, 1]], f"note {text}": [text]}},
                }
            )
        records.append({"pair": {"preferred": f"{g} 1 {text}", "other": f"{g} 0 {text}", f"note {text}": text}})
    return write_jsonl(path, records)


@pytest.fixture(params=["page", "report"])
def open_file(
    request: pytest.FixtureRequest, served: Callable[..., str], reported: Callable[..., str]
) -> Callable[..., str]:
    """A file of rollouts, served and as a report."""
    return served if request.param == "page" else reported


def settled(page: Any) -> None:
    """Nothing of the text ran, became an element, or left the machine."""
    assert page.evaluate("window.hit") is None
    made = page.evaluate(
        "['img', 'iframe', 'base', 'animate', 'form:not(.filters)', 'object', 'embed', 'main script', 'main style']"
        ".filter((name) => document.querySelector(name))"
    )
    assert made == []
    handlers = page.evaluate(
        "[...document.querySelectorAll('main *')].flatMap((e) => [...e.attributes])"
        ".filter((a) => a.name.startsWith('on') || (a.name !== 'title' && /^\\s*javascript:/i.test(a.value)))"
        ".map((a) => a.name)"
    )
    assert handlers == []
    assert page.complaints == []


def test_nothing_in_any_text_runs(page: Any, open_file: Callable[..., str], tmp_path: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    address = open_file(hostile_file(tmp_path / "<img src=x onerror=alert(1)>.jsonl"))
    page.goto(f"{address}#/groups")
    until(page, f"document.querySelectorAll('.rows .row').length >= {len(SCRIPTS)}")
    settled(page)
    shown = page.locator(".rows .c-group").all_inner_texts()
    assert shown == [f"{g} {text}" for g, text in enumerate(SCRIPTS)]
    groups = page.evaluate("[...document.querySelectorAll('.rows a.row')].map((a) => a.getAttribute('href'))")
    for text, link in zip(SCRIPTS, groups, strict=True):
        page.goto(address + link + "&token=0.0")
        page.wait_for_selector(".panel")
        until(page, "document.body.dataset.ready === location.hash")
        assert page.inner_text(".prompt .prose") == text
        assert page.locator(".tok .word").first.text_content() == text
        page.hover(".tok >> nth=0")
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        settled(page)
    page.goto(address + groups[0].replace("#/group", "#/compare") + "&credit=grpo&credit=tempo")
    page.wait_for_selector(".matrix")
    settled(page)
    assert [url for url in requests if not url.startswith((address.split("#")[0], "http://127.0.0.1"))] == []


def test_an_address_is_text_too(page: Any, open_file: Callable[..., str], tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "mine.jsonl", [{"group": 0, "ids": [1], "reward": 1.0}])
    address = open_file(path)
    for text in ("<img src=x onerror='window.hit=1'>", "javascript:window.hit=1"):
        for hash in (f"#/{text}", f"#/group?group=0&credit={text}", f"#/groups?text={text}", f"#/run?run={text}"):
            page.goto("about:blank")
            page.goto(address + hash)
            until(page, "document.body.dataset.ready")
            assert page.evaluate("window.hit") is None
            assert page.locator("img").count() == 0
    page.complaints.clear()  # a question that cannot be answered is an error in the browser's own log


def test_what_cannot_be_seen_is_shown_by_name(page: Any, open_file: Callable[..., str], tmp_path: Path) -> None:
    records = [
        {
            "group": 0,
            "ids": list(range(len(UNSEEN))),
            "reward": float(e),
            "prompt": "".join(UNSEEN),
            "token": {"text": list(UNSEEN)},
        }
        for e in range(2)
    ]
    page.goto(f"{open_file(write_jsonl(tmp_path / 'unseen.jsonl', records))}#/group?group=0&layout=fan")
    page.wait_for_selector(".tok")
    words = page.eval_on_selector_all(".tok .word", "all => all.map((w) => w.textContent)")
    assert words == list(UNSEEN.values())
    body = page.evaluate("document.body.innerText")
    assert not set("\u202e\u2066\u200f\u200b\x00\x1b\u2028") & set(body)


def test_turned_text_turns_nothing_beside_it(page: Any, open_file: Callable[..., str], tmp_path: Path) -> None:
    """Right-to-left words and marks stay inside their token: tokens keep their order on the line."""
    texts = ["abc", "\u202e", "\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627", "def", "!"]
    records = [{"group": 0, "ids": list(range(6)), "reward": float(e), "token": {"text": texts}} for e in range(2)]
    address = open_file(write_jsonl(tmp_path / "turned.jsonl", records))
    for layout in ("fan", "outline"):
        page.goto("about:blank")
        page.goto(f"{address}#/group?group=0&layout={layout}")
        page.wait_for_selector(f".{layout} .tok")
        lefts = page.eval_on_selector_all(".tok", "all => all.map((t) => t.getBoundingClientRect().left)")
        assert len(lefts) == 6
        assert lefts == sorted(lefts)


def test_tokens_of_a_megabyte_are_cut_and_counted(page: Any, open_file: Callable[..., str], tmp_path: Path) -> None:
    records = [
        {"group": 0, "ids": [1, 2], "reward": float(e), "prompt": LONG, "response": LONG,
         "token": {"text": [LONG, "end"]}, "episode_columns": {"reason": LONG}}
        for e in range(2)
    ]  # fmt: skip
    page.goto(f"{open_file(write_jsonl(tmp_path / 'long.jsonl', records))}#/group?group=0&token=0.0")
    page.wait_for_selector(".panel")
    assert "1,048,576 characters" in page.locator(".tok .word").first.text_content()
    assert page.evaluate("document.body.textContent.length") < 200_000


def test_broken_utf_8_is_refused_in_a_sentence_on_the_page(
    page: Any, served: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b'{"group": 0, "ids": [1], "response": "\xff\xfe\x80"}\n')
    page.goto(f"{served(path)}#/groups")
    page.wait_for_selector(".warning")
    assert "broken.jsonl" in page.inner_text(".warning")


def test_bytes_that_are_no_character_are_shown_as_the_decoder_writes_them(
    page: Any, open_file: Callable[..., str], tmp_path: Path
) -> None:
    texts = ["caf\ufffd", "\ufffd", "\ud83d", "\ude00"]
    records = [{"group": 0, "ids": [1, 2, 3, 4], "reward": float(e), "token": {"text": texts}} for e in range(2)]
    page.goto(f"{open_file(write_jsonl(tmp_path / 'bytes.jsonl', records))}#/group?group=0&layout=fan")
    page.wait_for_selector(".tok")
    words = page.eval_on_selector_all(".tok .word", "all => all.map((w) => w.textContent)")
    assert words == ["caf\ufffd", "\ufffd", "U+D83D", "U+DE00"]
