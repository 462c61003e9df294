"""Tokens of a final answer to an :data:`~apportion.rewards.mathematics.answers.Answer`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import sympy

from apportion.rewards.mathematics.answers import (
    Answer,
    Named,
    Numeral,
    Ordered,
    Quantity,
    Region,
    Relation,
    Several,
    Table,
    Words,
)
from apportion.rewards.mathematics.expressions import DEEPEST, GREEK, expression
from apportion.rewards.mathematics.identity import identical
from apportion.rewards.mathematics.notation import Token, Undefined, Unreadable, refusals, spelling, tokens
from apportion.rewards.mathematics.units import Unit, unit

_OPENING = frozenset(("(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil"))
_CLOSING = frozenset((")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil"))
_PARTNERS = {"(": (")", "]"), "[": (")", "]"), "{": ("}",), r"\{": (r"\}",), r"\langle": (r"\rangle",)}
_LIST = (",", ";", r"\lor", r"\land")
_RELATIONS = ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in")
_SET_OPERATIONS = (r"\cup", r"\cap", r"\setminus")
_NUMBER_SETS = {
    "R": sympy.S.Reals, "Z": sympy.S.Integers, "N": sympy.S.Naturals, "Q": sympy.S.Rationals,
}  # fmt: skip
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_CURRENCIES = frozenset(("$", "€", "£", "¥", "₹"))
_FINAL = frozenset((".", ",", ";", ":", "?"))
_NO_ANSWER = frozenset(("nan", "null"))
_BASE = re.compile(r"\(? ?([0-9][0-9A-Fa-f ]*?|[A-F][0-9A-F ]+) ?\)? _ (?:\{ )?([0-9]{1,2})(?: \})?")
_NAME = re.compile(rf"(?:[A-Za-z]|[A-Z]{{2,3}}|{'|'.join(map(re.escape, GREEK))})(?: _ (?:\{{ [^{{}}]+ \}}|\S+))?")
_HEAD = re.compile(r"[A-Za-z](?: ')* \( .* \)|(?:m )?\\angle .*|\| ?[A-Z]{2} ?\||\\overline \{ [A-Z]{2} \}")


def read(text: str) -> Answer:
    r"""The answer a text states.

    Raises:
        Unreadable: the text is no answer that this module can represent exactly.

    Example:
        >>> read(r"x = 1 \text{ or } x = -1").value.items[1].value
        -1
    """
    with refusals():
        return _read(clean(tokens(text)))


def clean(found: list[Token]) -> list[Token]:
    """Tokens without the dollar signs around formulas, emphasis marks and final punctuation."""
    if sum(token.text == "$" for token in found) % 2 == 0:
        found = [token for token in found if token.text != "$"]
    found = [token._replace(text="$") if token.text == r"\$" else token for token in found]
    while True:
        if found and found[-1].text in _FINAL and found[-1].kind == "mark":
            found = found[:-1]
        elif len(found) > 2 and found[0].text == found[-1].text and found[0].text in ("*", "^"):
            found = found[1:-1]
        elif len(found) > 3 and found[0].text == r"\boxed" and _whole(found[1:]):
            found = found[2:-1]
        elif len(found) > 2 and found[0].text == "{" and _whole(found):
            found = found[1:-1]
        else:
            return found


def _read(found: Sequence[Token], depth: int = 0) -> Answer:
    found = clean(list(found))
    if not found:
        raise Unreadable("empty")
    if depth > DEEPEST:
        raise Unreadable("brackets are nested too deeply")
    if listed := _numbers(found):
        return listed
    parts, marks = split(found, _LIST)
    if marks:
        return _several([_read(part, depth + 1) for part in parts if part], marks)
    parts, marks = split(found, _RELATIONS)
    if marks:
        return _relation(parts, marks, depth + 1)
    parts, marks = split(found, _SET_OPERATIONS)
    if marks:
        return _combined([_read(part, depth + 1) for part in parts], marks)
    if matrix := _matrix(found):
        return matrix
    if _whole(found) and (bracketed := _bracketed(found, depth + 1)):
        return bracketed
    return _single(found)


def split(found: Sequence[Token], marks: Collection[str]) -> tuple[list[list[Token]], list[str]]:
    """The parts between marks that stand outside all brackets, and those marks."""
    parts: list[list[Token]] = [[]]
    seen: list[str] = []
    depth = 0
    for token in found:
        opens = token.text in _OPENING or token.text.startswith(r"\begin")
        depth += opens - (token.text in _CLOSING or token.text.startswith(r"\end"))
        if depth == 0 and token.kind != "word" and token.text in marks:
            seen.append(token.text)
            parts.append([])
        else:
            parts[-1].append(token)
    return parts, seen


def _whole(found: Sequence[Token]) -> bool:
    """Whether one pair of brackets encloses everything; round and square ones may be mixed, as in ``[1, 2)``."""
    if not found or found[-1].text not in _PARTNERS.get(found[0].text, ()):
        return False
    depth = 0
    for index, token in enumerate(found):
        depth += (token.text in _OPENING) - (token.text in _CLOSING)
        if depth == 0:
            return index == len(found) - 1
    return False


def _numbers(found: Sequence[Token]) -> Answer | None:
    r"""A number set such as ``\mathbb{R}``, the empty set, or a numeral with its base."""
    text = spelling(found)
    if text in (r"\emptyset", r"\{ \}"):
        return Several(())
    if found[0].text == r"\mathbb" and (name := text[len(r"\mathbb") :].strip("{} ")) in _NUMBER_SETS:
        return Region(_NUMBER_SETS[name])
    if match := _BASE.fullmatch(text):
        digits, base = match[1].replace(" ", ""), int(match[2])
        if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits):
            raise Unreadable(f"{digits} is no numeral in base {base}")
        return Numeral(digits.lstrip("0") or "0", base)
    return None


def _several(values: list[Answer], marks: list[str]) -> Answer:
    """A list: values of one name make a set, of different names a tuple, conditions on one variable a region."""
    if len(values) == 1:
        return values[0]
    regions = [value.points for value in values if isinstance(value, Region) and value.name]
    if len(regions) == len(values):
        names = {value.name for value in values if isinstance(value, Region)}
        if len(names) != 1:
            raise Unreadable("conditions on several variables")
        whole = sympy.Union(*regions) if r"\lor" in marks else sympy.Intersection(*regions)
        return Region(whole, names.pop())
    named = [value for value in values if isinstance(value, Named)]
    names = {value.name for value in named}
    if len(names) > 1 and len(named) == len(values):
        return Ordered(tuple(value.value for value in named), tuple(value.name for value in named))
    if len(names) > 1 or any(isinstance(value, Words | Relation) for value in values):
        raise Unreadable("the list mixes things of different kinds")
    items: list[Answer] = []
    for value in values:
        plain = value.value if isinstance(value, Named) else value
        items += plain.items if isinstance(plain, Several) else (plain,)
    whole_set = Several(tuple(items))
    return Named(named[0].name, whole_set) if named else whole_set


def _relation(parts: list[list[Token]], marks: list[str], depth: int) -> Answer:
    if not all(parts):
        raise Unreadable("one side of a relation is empty")
    if set(marks) == {"="}:
        return _equation(parts, depth)
    if marks == [r"\in"] and _NAME.fullmatch(spelling(parts[0])):
        points = _read(parts[1], depth)
        region = as_region(points)
        if isinstance(points, Several) or region is None:
            return Named(spelling(parts[0]), points)
        return Region(region, spelling(parts[0]))
    if "=" in marks or r"\in" in marks:
        raise Unreadable("a chain of different relations")
    sides = [expression(part) for part in parts]
    variables = set().union(*(side.free_symbols for side in sides))
    if len(variables) == 1:
        variable = variables.pop()
        solved = [_solutions(*step, variable) for step in zip(sides, marks, sides[1:], strict=False)]
        return Region(sympy.Intersection(*solved), variable.name)
    if len(variables) < 2 or len(marks) > 1 or marks == [r"\ne"]:
        raise Unreadable("this chain of inequalities is not read")
    left, right = sides if marks[0] in (">", r"\ge") else sides[::-1]
    return Relation(left - right, ">" if marks[0] in "<>" else r"\ge")


def _equation(parts: list[list[Token]], depth: int) -> Answer:
    """``name = value``, a true chain ``a = b = c`` (its last value), or an equation in several variables."""
    head = spelling(parts[0])
    # A word, f(x) and an angle name a value without being a variable of it.
    if _HEAD.fullmatch(head) or all(token.kind == "word" and len(token.text) > 1 for token in parts[0]):
        return _agreed([_read(part, depth) for part in parts[1:]])
    if _NAME.fullmatch(head):
        return Named(head, _agreed([_read(part, depth) for part in parts[1:]]))
    if len(parts) == 2 and _NAME.fullmatch(spelling(parts[1])):
        return Named(spelling(parts[1]), _read(parts[0], depth))
    sides = [expression(part) for part in parts]
    if any(side.free_symbols for side in sides):
        if len(sides) > 2:
            raise Unreadable("a chain of equations in variables")
        return Relation(sides[0] - sides[1], "=")
    return _agreed([Quantity(side) for side in sides])


def _agreed(values: list[Answer]) -> Answer:
    """The last value of a chain, if the chain is true."""
    quantities = [value for value in values if isinstance(value, Quantity)]
    if len(values) > 1 and (
        len(quantities) < len(values) or not all(identical(q.value, quantities[-1].value) for q in quantities)
    ):
        raise Unreadable("the sides of the chain differ")
    return values[-1]


def _solutions(left: sympy.Expr, mark: str, right: sympy.Expr, variable: sympy.Symbol) -> sympy.Set:
    """The real numbers for which one inequality in one variable holds."""
    if left == variable and not right.free_symbols:
        if mark == r"\ne":
            return sympy.S.Reals - sympy.FiniteSet(right)
        if mark in ("<", r"\le"):
            return sympy.Interval(-sympy.oo, right, right_open=mark == "<")
        return sympy.Interval(right, sympy.oo, left_open=mark == ">")
    if right == variable and not left.free_symbols:
        mirrored = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
        return _solutions(right, mirrored[mark], left, variable)
    if mark == r"\ne":
        return sympy.S.Reals - sympy.solveset(left - right, variable, sympy.S.Reals)
    kind = {"<": sympy.Lt, ">": sympy.Gt, r"\le": sympy.Le, r"\ge": sympy.Ge}[mark]
    return sympy.solve_univariate_inequality(kind(left, right), variable, relational=False)


def as_region(answer: Answer) -> sympy.Set | None:
    """The set of reals an answer means where a set of reals is expected: ``(1, 2)`` is then an open interval."""
    if isinstance(answer, Region):
        return answer.points
    items = answer.items if isinstance(answer, Ordered | Several) else ()
    values = [item.value for item in items if isinstance(item, Quantity) and item.unit is None]
    if len(values) != len(items):
        return None
    if isinstance(answer, Several):
        return sympy.FiniteSet(*values)
    if isinstance(answer, Ordered) and len(values) == 2 and not answer.names:
        return _interval("(", values[0], values[1], ")")
    return None


def _interval(opening: str, start: sympy.Expr, end: sympy.Expr, closing: str) -> sympy.Set:
    if (end - start).is_negative or sympy.I in (start.atoms(sympy.I) | end.atoms(sympy.I)):
        raise Unreadable("an interval whose ends are not in order")
    return sympy.Interval(start, end, opening == "(", closing == ")")


def _combined(values: list[Answer], marks: list[str]) -> Answer:
    """Union, intersection and difference, from the left."""
    regions = [as_region(value) for value in values]
    whole = regions[0]
    for mark, region in zip(marks, regions[1:], strict=True):
        if whole is None or region is None:
            raise Unreadable("set operations on something that is no set")
        operation = {r"\cup": sympy.Union, r"\cap": sympy.Intersection, r"\setminus": sympy.Complement}[mark]
        whole = operation(whole, region)
    assert whole is not None
    return Region(whole)


def _matrix(found: Sequence[Token]) -> Table | None:
    """A matrix environment, alone or inside one pair of brackets."""
    inner = list(found[1:-1]) if _whole(found) else list(found)
    if not (inner and inner[0].text.startswith(r"\begin") and inner[-1].text.startswith(r"\end")):
        return None
    kind = inner[0].text[len(r"\begin{") : -1]
    if kind not in ("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"):
        raise Unreadable(f"the environment {kind} is not read")
    body = inner[1:-1]
    if kind == "array" and body and body[0].text == "{":
        body = body[[token.text for token in body].index("}") + 1 :]
    rows = [split(row, ("&",))[0] for row in split(body, (r"\\",))[0] if row]
    cells = tuple(tuple(expression(cell) for cell in row) for row in rows)
    if len({len(row) for row in cells}) != 1:
        raise Unreadable("the rows of the matrix differ in length")
    return Table(cells)


def _bracketed(found: Sequence[Token], depth: int) -> Answer | None:
    """A set, a tuple or an interval; None for brackets around a formula."""
    opening, inner, closing = found[0].text, found[1:-1], found[-1].text
    if opening == r"\{":
        return _braced(inner, depth)
    parts, marks = split(inner, (",",) if opening == r"\langle" else (",", ";"))
    if not marks:
        return None
    values = tuple(_read(part, depth) for part in parts)
    if len(values) == 2 and opening + closing in ("()", "(]", "[)", "[]"):
        ends = [value.value for value in values if isinstance(value, Quantity) and value.unit is None]
        if len(ends) == 2 and (opening + closing != "()" or any(end.is_infinite for end in ends)):
            return Region(_interval(opening, ends[0], ends[1], closing))
    if opening + closing in ("()", "[]", r"\langle\rangle"):
        return Ordered(values)
    raise Unreadable("brackets that do not belong together")


def _braced(inner: Sequence[Token], depth: int) -> Answer:
    r"""``\{1, 2\}`` or ``\{x \mid x > 3\}``."""
    parts, marks = split(inner, ("|", ":"))
    if len(marks) == 1:
        variable, domain = split(parts[0], (r"\in",))
        condition = _read(parts[1], depth)
        if not isinstance(condition, Region) or condition.name != spelling(variable[0]):
            raise Unreadable("the condition of the set is not read")
        within = as_region(_read(variable[1], depth)) if domain else sympy.S.Reals
        if within is None:
            raise Unreadable("the domain of the set is not read")
        return Region(sympy.Intersection(condition.points, within))
    items = [_read(part, depth) for part in split(inner, (",", ";"))[0]]
    flat = [one for item in items for one in (item.items if isinstance(item, Several) else (item,))]
    return Several(tuple(flat))


def _single(found: Sequence[Token]) -> Answer:
    """One quantity with its unit, two of them written with ±, or words."""
    if text := _as_words(found):
        return Words(text)
    if any(token.text in (r"\pm", r"\mp") for token in found):
        return Several((_quantity(found, 1), _quantity(found, -1)))
    return _quantity(found, 1)


def _as_words(found: Sequence[Token]) -> str:
    """The text, if it is words that no product of variables would be, or a time or ratio such as 10:30."""
    kinds = {token.kind if token.kind in ("letters", "word", "number") else token.text for token in found}
    text = " ".join(token.text for token in found)
    if ":" in kinds and kinds <= {":", "number", "letters", "word"}:
        return text
    if not kinds <= {"letters", "word", "-", "'", ".", "&"}:
        return ""
    if text.lower() in _NO_ANSWER:
        raise Undefined("it states no value")
    # Variables multiplied are seldom more than two letters with a vowel among them; "no" is the exception.
    wordy = any(
        len(token.text) > 1 and (token.kind == "word" or (len(token.text) > 2 and set("aeiouAEIOU") & set(token.text)))
        for token in found
    )
    return text if wordy or text.lower() == "no" else ""


def _quantity(found: Sequence[Token], plus_minus: int) -> Quantity:
    found, measure = _measured(list(found))
    scale = sympy.Integer(1)
    if len(found) > 1 and found[-1].text.lower() in _SCALES:
        scale = sympy.Integer(10) ** _SCALES[found[-1].text.lower()]
        found = found[:-1]
    value = expression(found, plus_minus) * scale
    if found[-1].text not in ("%", "°"):
        return Quantity(value, measure)
    return Quantity(value, measure, bare=expression(found[:-1], plus_minus), mark=found[-1].text)


def _measured(found: list[Token]) -> tuple[list[Token], Unit | None]:
    """The tokens of the value and the unit in front of it or behind it."""
    sign = found[:1] if found[0].text == "-" else []
    rest = found[len(sign) :]
    if len(rest) > 1 and rest[0].text in _CURRENCIES:
        return sign + rest[1:], unit(rest[:1])
    plain = True
    for start in range(1, len(found)):
        token, before = found[start], found[start - 1]
        plain = plain and (before.kind == "number" or before.text in ("-", "+", "/", ".", r"\frac", "{", "}"))
        if not plain and token.kind != "word":
            continue
        # A lone letter behind a formula is a variable; behind a number and a space it is a unit.
        lone = token.kind == "letters" and len(token.text) == 1 and not token.spaced
        starts = token.kind in ("word", "letters") or token.text in ("°", "$", "€", "£", "¥", "¢")
        if starts and not lone and (measure := unit(found[start:])):
            return found[:start], measure
    return found, None
