r"""Mathematical text as tokens: one spelling for each thing, whatever markup or Unicode it came in.

``½``, ``\dfrac12``, ``\tfrac{1}{2}`` and ``{1 \over 2}`` mean the same; so do ``≤``, ``<=`` and ``\leqslant``. This
module knows spelling only; what tokens mean is for :mod:`expressions` and :mod:`answers`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

LONGEST = 4000
"""Characters; a final answer longer than this is not read."""


class Unreadable(Exception):
    """Text that is not mathematics this package can read exactly; the message says why."""


class Undefined(Unreadable):
    """A formula without a value, such as 0/0."""


class Token(NamedTuple):
    r"""One token.

    Attributes:
        text: canonical spelling: digits, letters, a command such as ``\frac``, a bracket or an operator.
        kind: ``number``, ``letters`` (a run of letters), ``command``, ``word`` (text markup) or ``mark``.
        spaced: whether white space came before it.
    """

    text: str
    kind: str
    spaced: bool = False


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What SymPy raises for things it cannot order, solve or put in a set, as :class:`Unreadable`."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, NotImplementedError, ArithmeticError, RecursionError) as error:
        raise Unreadable(f"SymPy cannot represent it ({type(error).__name__})") from error


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n")
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "ρ": "rho", "σ": "sigma", "τ": "tau",
    "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta",
    "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_UNICODE = str.maketrans(
    {letter: f" \\{name} " for letter, name in _GREEK.items()}
    | dict.fromkeys("−–—‐‑﹣－", "-")
    | dict.fromkeys("’′", "'")
    | {"\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": None, "\ufeff": None, "\u2061": None, "\u2062": None}
    | {"×": r" \times ", "✕": r" \times ", "·": r" \cdot ", "⋅": r" \cdot ", "∙": r" \cdot ", "÷": r" \div "}
    | {"∕": "/", "⁄": "/", "π": r" \pi ", "∞": r" \infty ", "√": r" \sqrt ", "∛": r" \sqrt[3] "}
    | {"≤": r" \le ", "⩽": r" \le ", "≥": r" \ge ", "⩾": r" \ge ", "≠": r" \ne ", "∈": r" \in ", "≈": r" \approx "}
    | {"∪": r" \cup ", "∩": r" \cap ", "∖": r" \setminus ", "∅": r" \emptyset ", "±": r" \pm ", "∓": r" \mp "}
    | {"°": r"^{\circ}", "º": r"^{\circ}", "∘": r"\circ ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}"}
    | {"ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "∨": r" \lor ", "∧": r" \land ", "〈": r" \langle ", "〉": r" \rangle "}
    | {"“": '"', "”": '"', "∠": r" \angle ", "％": "%", "（": "(", "）": ")", "，": ",", "＝": "=", "＋": "+"}
    | {"．": ".", "／": "/", "＜": "<", "＞": ">"}
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
)
_RUNS = (
    (re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+)"), "^{", _SUPERSCRIPTS),
    (re.compile("([₀₁₂₃₄₅₆₇₈₉₊₋ₙ]+)"), "_{", _SUBSCRIPTS),
)

_TEXT_MARKUP = words(
    "text textbf textit textrm textsf texttt textnormal mbox hbox mathrm mathbf mathit mathsf mathtt mathnormal "
    "boldsymbol bm operatorname emph underline"
)
_LAYOUT = words(
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits "
    "quad qquad nolimits rm bf it mathord mathrel"
)
_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge",
    "neq": "ne", "lt": "<", "gt": ">", "ast": "*", "vee": "lor", "wedge": "land", "dbinom": "binom",
    "tbinom": "binom", "lbrace": "\\{", "rbrace": "\\}", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|",
    "lparen": "(", "rparen": ")", "lbrack": "[", "rbrack": "]", "degree": "circ", "varnothing": "emptyset",
    "backslash": "setminus", "smallsetminus": "setminus", "bar": "overline", "varepsilon": "epsilon", "colon": ":",
    "percent": "%", "euro": "€", "pounds": "£", "textdegree": "circ", "lg": "log",
}  # fmt: skip
NAMED = words(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt pi infty theta alpha beta gamma "
    "delta lambda mu phi omega max min gcd lcm binom"
)
"""Letter runs that mean the command of that name when written without a backslash."""
_PLAIN = {"infinity": "infty", "inf": "infty", "oo": "infty", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_CONNECTIVES = {"or": r"\lor", "and": r"\land"}
_PERCENT = frozenset(("percent", "pct", "percentage"))
_DEGREES = frozenset(("degree", "degrees", "deg"))

_NUMBER = (
    r"[1-9][0-9]{0,2}(?:(?P<separator>,|\{,\}|\\,|\\!,|,\\!)[0-9]{3}(?:(?P=separator)[0-9]{3})*)(?![0-9]|,[0-9])(?:\.[0-9]+)?"
    r"|[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
)
_TOKEN = re.compile(
    rf"""(?P<space>[\s~]+|\\[ ,;:!>]|\\\n)
    |(?P<number>(?:{_NUMBER})(?:[eE][+-]?[0-9]{{1,5}}(?![0-9A-Za-z]))?)
    |(?P<environment>\\(?:begin|end)\s*\{{[A-Za-z]*\*?\}})
    |(?P<command>\\[A-Za-z]+\*?)
    |(?P<letters>[A-Za-z]+)
    |(?P<mark>\\\\|\\[{{}}()\[\]%$\#|&_]|\*\*|<=|>=|!=|==|[-+*/^_=<>(){{}}\[\]|!,;:.%'"&$€£¥₹?])""",
    re.VERBOSE,
)
_MARKS = {"<=": r"\le", ">=": r"\ge", "!=": r"\ne", "**": "^", "==": "=", r"\%": "%", r"\|": "|"}
_SILENT = frozenset(('"', r"\_", r"\(", r"\)", r"\[", r"\]"))


def tokens(text: str) -> list[Token]:
    r"""The tokens of a final answer.

    Raises:
        Unreadable: too long, or a character with no mathematical meaning.

    Example:
        >>> [t.text for t in tokens(r"1,000 \dfrac12 ≤ x²")]
        ['1000', '\\frac', '12', '\\le', 'x', '^', '{', '2', '}']
    """
    if len(text) > LONGEST:
        raise Unreadable(f"longer than {LONGEST} characters")
    for pattern, opening, table in _RUNS:
        text = pattern.sub(lambda run, o=opening, t=table: f"{o}{run.group().translate(t)}}}", text)  # type: ignore[misc]
    text = re.sub(r"√\s*([0-9.]+|[A-Za-z])", r"\\sqrt{\1}", text)
    for sign, ratio in _VULGAR.items():
        text = text.replace(sign, f" \\frac{{{ratio[0]}}}{{{ratio[2:]}}} ")
    return _degree_signs(list(_scan(text.translate(_UNICODE))))


def _degree_signs(found: list[Token]) -> list[Token]:
    r"""``^{\circ}`` and ``^\circ`` as the one mark ``°``."""
    kept: list[Token] = []
    for token in found:
        kept.append(token)
        ending = [t.text for t in kept[-4:]]
        size = 4 if ending == ["^", "{", r"\circ", "}"] else 2 if ending[-2:] == ["^", r"\circ"] else 0
        if size:
            kept[-size:] = [Token("°", "mark", kept[-size].spaced)]
    return kept


def _scan(text: str) -> Iterator[Token]:
    position, spaced = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"{text[position]!r} has no meaning here")
        position, kind, found = match.end(), match.lastgroup, match.group()
        if kind == "space":
            spaced = True
            continue
        if kind == "number":
            yield Token(_plain_digits(found), "number", spaced)
        elif kind == "environment":
            yield Token(re.sub(r"\s", "", found), "mark", spaced)
        elif kind == "command" and found[1:].rstrip("*") in _TEXT_MARKUP:
            content, position = _group(text, position)
            yield from _marked_up(content, spaced)
        elif kind == "command" and found[1:].rstrip("*") not in _LAYOUT:
            name = _SAME.get(found[1:], found[1:])
            yield Token("\\" + name, "command", spaced) if name.isalpha() else Token(name, "mark", spaced)
        elif kind == "letters":
            yield from _letters(found, spaced)
        elif kind == "mark" and found not in _SILENT:
            yield Token(_MARKS.get(found, found), "mark", spaced)
        # What left nothing behind (layout such as \left) does not separate its neighbours.
        spaced = spaced and kind == "command" and found[1:] in _LAYOUT


def _plain_digits(found: str) -> str:
    """A number without separators."""
    return re.sub(r",|\{,\}|\\,|\\!", "", found)


def _group(text: str, position: int) -> tuple[str, int]:
    """Content of the braces that open at or after ``position``, and where they end; without braces, one character."""
    while position < len(text) and text[position].isspace():
        position += 1
    if not text.startswith("{", position):
        return text[position : position + 1], position + 1
    depth = 0
    for index in range(position, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[position + 1 : index], index + 1
    raise Unreadable("a brace is never closed")


def _marked_up(content: str, spaced: bool) -> Iterator[Token]:
    r"""``\text{...}``: one word token, unless it holds a formula, a connective or a word that has a sign."""
    words = " ".join(re.sub(r"\\[ ,;:!]|~", " ", content).split())
    spaced = spaced or content[:1] in " ~"
    bare = words.strip(",; ")
    if bare.lower() in _CONNECTIVES or bare.lower() in _PERCENT | _DEGREES or bare in NAMED:
        yield from _letters(bare, spaced)
    elif re.search("[A-Za-z]{2}", re.sub(r"\\[A-Za-z]+", "", words)) or re.fullmatch("[A-Za-z](?:/[A-Za-z])?", words):
        yield Token(words, "word", spaced)
    else:
        yield from _scan(words)


def _letters(found: str, spaced: bool) -> Iterator[Token]:
    lower = found.lower()
    if lower in _CONNECTIVES:
        yield Token(_CONNECTIVES[lower], "command", True)
    elif lower in _PERCENT:
        yield Token("%", "mark", spaced)
    elif lower in _DEGREES:
        yield Token("°", "mark", spaced)
    elif found in NAMED or lower in _PLAIN:
        yield Token("\\" + _PLAIN.get(lower, found), "command", spaced)
    else:
        yield Token(found, "letters", spaced)


def spelling(found: Sequence[Token]) -> str:
    """Tokens as one string: equal for texts that differ in spacing and markup only."""
    return " ".join(token.text for token in found)
