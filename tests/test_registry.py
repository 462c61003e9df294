"""Specs: names with arguments, and what they build."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.objectives import OBJECTIVES
from apportion.registry import build, lookup, parse, split


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("grpo", "grpo", {}),
        ("  grpo ( ) ", "grpo", {}),
        ("tempo(norm_by_std=False, eps=1e-3)", "tempo", {"norm_by_std": False, "eps": 1e-3}),
        ("m(a=-1, b=None, c='x(=,)', d=[1, (2,)], e={'k': {1}},)", "m", None),
        ("pkg.mod:fn(a=1)", "pkg.mod:fn", {"a": 1}),
        ("f(a=\n1)", "f", {"a": 1}),
    ],
)
def test_parse(text: str, name: str, arguments: dict[str, Any] | None) -> None:
    spec = parse(text)
    assert spec.name == name
    assert spec.arguments == (
        {"a": -1, "b": None, "c": "x(=,)", "d": [1, (2,)], "e": {"k": {1}}} if arguments is None else arguments
    )


BAD = [
    *("", "(a=1)", "f(a=1", "f(a=1))", "f((a=1)", "f(a=1) or g(b=2)", "f(a=1)+1", "f(1)", "f(*a)", "f(**{})"),
    *("f(a=b)", "f(a=1+'x')", "f(a=__import__('os'))", "f(a=lambda: 1)", "f(a=1 b=2)", "f(a=\x00)"),
]


@pytest.mark.parametrize("text", BAD)
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError, match=r"^cannot read .*(expected|must)"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("f(a=1)(b=2)", id="a second bracket hides the first"),
        pytest.param("f(a=1).g(b=2)", id="an attribute hides the first bracket"),
        pytest.param("f(a=1, a=2)", id="repeated"),
        pytest.param("f(a={[]: 1})", id="unhashable"),
    ],
)
def test_what_should_not_be_read(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)


LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)


@given(arguments=st.dictionaries(st.sampled_from(["a", "b_c", "eps", "norm"]), LITERALS))
@example(arguments={"a": ")", "eps": "("})
def test_any_literal_goes_through(arguments: dict[str, Any]) -> None:
    text = f"method({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
    assert parse(text).arguments == arguments


@given(text=st.text("abf(){}[]=,:.'\"1 -\\\n", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        spec = parse(text)
    except InputError:
        return
    assert spec.name
    assert spec.name in text


KNOWN: dict[str, Callable[..., Any]] = {
    "scale": lambda factor=2.0, *, offset: ("scale", factor, offset),
    "open": dict,
    "plain": lambda: "plain",
}


def test_build() -> None:
    assert build("scale(offset=1)", KNOWN, "thing") == ("scale", 2.0, 1)
    assert build("scale(offset=1, factor=3)", KNOWN, "thing") == ("scale", 3, 1)
    assert build("plain", KNOWN, "thing") == "plain"
    assert build("fractions:Fraction(numerator=1, denominator=2)", {}, "thing") * 2 == 1


def test_defaults_fill_what_the_builder_takes_and_the_spec_does_not_say() -> None:
    assert build("scale", KNOWN, "thing", offset=5, other=6) == ("scale", 2.0, 5)
    assert build("scale(offset=1)", KNOWN, "thing", offset=5) == ("scale", 2.0, 1)
    assert build("plain", KNOWN, "thing", offset=5) == "plain"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scael", r"unknown thing 'scael': did you mean 'scale'\? Known: open, plain, scale; or package.module:name"),
        ("zzz", r"unknown thing 'zzz': Known: open"),
        ("scale(factr=1, offset=2)", r"unknown argument of thing 'scale' 'factr': did you mean 'factor'"),
        ("scale", r"thing 'scale' needs offset: write scale\(offset=\.\.\.\)"),
        ("plain(x=1)", r"unknown argument of thing 'plain' 'x'"),
        ("math:pi", r"thing 'math:pi' is a float, expected something callable"),
        ("no.such.module:f", r"cannot import 'no.such.module' for the thing .*: no module named 'no'"),
        ("json:loadz", r"unknown name in json 'loadz': did you mean 'load'"),
        ("json:", r"unknown name in json ''"),
    ],
)
def test_what_cannot_be_built(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(text, KNOWN, "thing")


@pytest.mark.parametrize("text", [":f", "..module:f", "builtins:dict(a=1)"])
def test_what_should_be_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InputError):
        build(text, {}, "thing")


def test_modules_of_the_current_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_method.py").write_text("def make(x): return ('made', x)\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert build("my_own_method:make(x=3)", {}, "thing") == ("made", 3)
    assert lookup("my_own_method:make", {}, "thing")(4) == ("made", 4)
    sys.modules.pop("my_own_method")


def test_a_module_that_lacks_something_else_says_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_needy_method.py").write_text("import not_to_be_found\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no module named 'not_to_be_found'"):
        build("my_needy_method:make", {}, "thing")


def test_a_value_of_the_wrong_kind_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"objective \"clip\(low='a'\)\" cannot be made \(.*\): check the kinds"):
        build("clip(low='a')", OBJECTIVES, "objective")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("grpo", ["grpo"]),
        (" grpo , tempo ", ["grpo", "tempo"]),
        (
            "gae(gamma=0.5, lam=1),m:f(a=[1, (2, 3)], b={'k': 1}),c",
            ["gae(gamma=0.5, lam=1)", "m:f(a=[1, (2, 3)], b={'k': 1})", "c"],
        ),
        ("a(x=')', y=\"(,\"),b", ["a(x=')', y=\"(,\")", "b"]),
        (r"a(x='\',('),b(x='\\'),c", [r"a(x='\',(')", r"b(x='\\')", "c"]),
        ("a),b", ["a)", "b"]),
    ],
)
def test_split(text: str, parts: list[str]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize("text", ["", ",", "a,,b", "a,", ",a"])
def test_nothing_between_commas_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected names separated by single commas"):
        split(text)
