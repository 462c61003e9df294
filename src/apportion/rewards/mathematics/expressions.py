r"""Tokens of one formula to an exact SymPy expression, by recursive descent.

The reader is strict where notation is ambiguous: ``1/2x``, ``\sin x/2``, ``x2`` and ``2 3`` are refused rather than
guessed, because a wrong guess pays for a wrong answer. Decimals become fractions, so nothing is ever rounded, and
numbers that would take long to write out (towers of powers) are refused before they are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import sympy

from apportion.rewards.mathematics.notation import Token, Undefined, Unreadable, words

LARGEST_BITS = 100_000
"""Integers longer than this are refused."""
DEEPEST = 60
"""Brackets nested deeper than this are refused: every level costs about ten Python frames."""

# Names of symbols carry no assumption but realness: answers are about real quantities unless i occurs.
_CONSTANTS = {r"\pi": sympy.pi, r"\infty": sympy.oo, "e": sympy.E, "i": sympy.I}
GREEK = frozenset(
    "\\" + name
    for name in words(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi varphi chi "
        "psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar vartheta varrho"
    )
)
_FUNCTIONS: dict[str, Callable[..., sympy.Expr]] = {
    r"\sin": sympy.sin, r"\cos": sympy.cos, r"\tan": sympy.tan, r"\cot": sympy.cot, r"\sec": sympy.sec,
    r"\csc": sympy.csc, r"\arcsin": sympy.asin, r"\arccos": sympy.acos, r"\arctan": sympy.atan,
    r"\sinh": sympy.sinh, r"\cosh": sympy.cosh, r"\tanh": sympy.tanh, r"\ln": sympy.log, r"\exp": sympy.exp,
    r"\log": lambda x: sympy.log(x, 10),
}  # fmt: skip
_INVERSES = {r"\sin": sympy.asin, r"\cos": sympy.acos, r"\tan": sympy.atan}
_SEVERAL: dict[str, Callable[..., sympy.Expr]] = {
    r"\max": sympy.Max, r"\min": sympy.Min,
    r"\gcd": lambda *n: sympy.gcd_list(n), r"\lcm": lambda *n: sympy.lcm_list(n),
}  # fmt: skip
_CLOSING = {"{": "}", "(": ")", "[": "]", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", "|": "|"}
_TIMES = frozenset((r"\cdot", r"\times", "*"))
_OVER = frozenset(("/", r"\div"))
_END = Token("", "end")


def expression(found: Sequence[Token], plus_minus: int = 1) -> sympy.Expr:
    r"""The value of a formula.

    Args:
        found: its tokens.
        plus_minus: 1 reads ``\pm`` as plus and ``\mp`` as minus, -1 the other way round.

    Raises:
        Unreadable: not a formula, ambiguous, undefined (0/0) or too large to write out.

    Example:
        >>> from apportion.rewards.mathematics.notation import tokens
        >>> expression(tokens(r"2\frac{1}{2} + 0.25"))
        11/4
    """
    parser = _Parser(found, plus_minus)
    value = parser.sum()
    if parser.next is not _END:
        raise Unreadable(f"{parser.next.text!r} is unexpected")
    return value


def power_of(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    """``base ** exponent``, unless that is undefined or would take long to write out."""
    if exponent.is_infinite or (base.is_zero and not exponent.is_positive):
        raise Undefined("it is undefined")
    if exponent.is_real and exponent.is_number and base not in (0, 1, -1):
        # Formulas are evaluated at fractions of about ten bits.
        length = max(int(base.p).bit_length(), int(base.q).bit_length()) if base.is_Rational else 10
        if abs(exponent) * length > LARGEST_BITS:
            raise Unreadable("too large to write out")
    return sympy.Pow(base, exponent)


def number(text: str) -> sympy.Rational:
    """An exact number from digits, a decimal point and an e-notation exponent."""
    digits, _, exponent = text.lower().partition("e")
    power = int(exponent or 0)
    if abs(power) * 4 + len(digits) * 4 > LARGEST_BITS:
        raise Unreadable("too large to write out")
    ratio = Fraction(digits.rstrip(".") or "0") * Fraction(10) ** power
    return sympy.Rational(ratio.numerator, ratio.denominator)


def symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name.lstrip("\\"), real=True)


class _Parser:
    """One pass over the tokens; each method reads one level of precedence and leaves ``next`` after it."""

    def __init__(self, found: Sequence[Token], plus_minus: int) -> None:
        self.found, self.plus_minus = list(found), plus_minus
        self.position, self.depth, self.bars = 0, 0, 0

    @property
    def next(self) -> Token:
        return self.found[self.position] if self.position < len(self.found) else _END

    def take(self, *texts: str) -> Token | None:
        """The next token if it is one of these."""
        token = self.next
        if token is _END or token.text not in texts or token.kind in ("word", "number"):
            return None
        self.position += 1
        return token

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise Unreadable(f"{text!r} is missing")

    def sum(self) -> sympy.Expr:
        """term ± term ..., or the two halves of ``a \\over b``."""
        total = self.signed_term()
        while sign := self.take("+", "-", r"\pm", r"\mp"):
            total = total + self.sign(sign) * self.signed_term()
        if self.take(r"\over"):
            total = divide(total, self.sum())
        return total

    def sign(self, token: Token) -> int:
        return {"+": 1, "-": -1, r"\pm": self.plus_minus, r"\mp": -self.plus_minus}[token.text]

    def signed_term(self) -> sympy.Expr:
        factor = 1
        while sign := self.take("+", "-", r"\pm", r"\mp"):
            factor *= self.sign(sign)
        return factor * self.term()

    def term(self) -> sympy.Expr:
        value, divided, plain = self.power(), False, False
        while True:
            if self.take(*_TIMES):
                value, divided = value * self.signed_power(), False
            elif self.take(*_OVER):
                plain = self.next.kind == "number"
                value, divided = divide(value, self.signed_power()), True
            elif self.starts_factor():
                # 1/2 x is a half of x; 1/2x may be meant as 1/(2x).
                if divided and not (plain and self.next.spaced):
                    raise Unreadable("what the slash divides by is ambiguous")
                if self.next.kind == "number":
                    raise Unreadable("a number directly after another factor is ambiguous")
                value = value * self.power()
            else:
                return value

    def signed_power(self) -> sympy.Expr:
        factor = 1
        while self.take("-"):
            factor = -factor
        return factor * self.power()

    def starts_factor(self) -> bool:
        token = self.next
        if token.text == "|":
            return self.bars == 0
        if token.kind in ("number", "letters", "word"):
            return True
        return token.text in ("{", "(", "[", r"\lfloor", r"\lceil") or (
            token.kind == "command"
            and (
                token.text in GREEK
                or token.text in _CONSTANTS
                or token.text in _FUNCTIONS
                or token.text in _SEVERAL
                or token.text in (r"\frac", r"\sqrt", r"\binom", r"\overline")
            )
        )

    def power(self) -> sympy.Expr:
        """An atom with what is written behind it: factorial, percent, degrees, exponent."""
        token = self.next
        value = self.function(token) if token.kind == "command" and token.text in _FUNCTIONS else self.atom()
        while mark := self.take("!", "%", "°", "^"):
            if mark.text == "!":
                if value.is_number and not (value.is_Integer and 0 <= value <= 5000):
                    raise Unreadable("a factorial of this is not read")
                value = sympy.factorial(value)
            elif mark.text == "%":
                value = value / 100
            elif mark.text == "°":
                value = value * sympy.pi / 180
            else:
                value = power_of(value, self.argument())
        return value

    def argument(self) -> sympy.Expr:
        """What stands behind ``^``: a group or one symbol; a run of digits counts as one number."""
        factor = -1 if self.take("-") else 1
        if self.next.kind == "letters" and len(self.next.text) > 1:
            raise Unreadable("the extent of the exponent is ambiguous")
        return factor * self.atom(mixed=False)

    def nested(self, opening: str) -> sympy.Expr:
        """The formula between a bracket just taken and its closing one."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("brackets are nested too deeply")
        bars, self.bars = self.bars, 1 if opening == "|" else 0
        value = self.sum()
        self.expect(_CLOSING[opening])
        self.depth, self.bars = self.depth - 1, bars
        return value

    def group(self) -> sympy.Expr:
        r"""``{...}``, or one digit or symbol as in ``\frac12``."""
        if self.take("{"):
            return self.nested("{")
        token = self.next
        if token.kind in ("number", "letters") and len(token.text) > 1:
            # \frac12 reads two single digits out of one token.
            self.found[self.position] = token._replace(text=token.text[1:])
            return number(token.text[0]) if token.kind == "number" else self.letter(token.text[0])
        return self.atom(mixed=False)

    def atom(self, mixed: bool = True) -> sympy.Expr:
        token = self.next
        if token.kind == "number":
            return self.numeral(mixed)
        if token.kind == "letters":
            return self.letters()
        if token.kind == "word" and len(token.text) == 1:
            self.position += 1
            return self.subscripted(token.text)
        if token.kind in ("mark", "command") and self.take(*_CLOSING):
            value = self.nested(token.text)
            wrap = {"|": sympy.Abs, r"\lfloor": sympy.floor, r"\lceil": sympy.ceiling}.get(token.text)
            return wrap(value) if wrap else value
        if token.kind == "command":
            return self.command()
        raise Unreadable("the formula ends early" if token is _END else f"{token.text!r} is unexpected")

    def numeral(self, mixed: bool) -> sympy.Expr:
        text = self.next.text
        self.position += 1
        if self.next.text == "_":
            raise Unreadable("a base suffix inside a formula is not read")
        if "." in text and self.take(r"\overline", r"\dot"):
            return repeating(text, self.raw_digits())
        if mixed and text.isdigit() and (part := self.fraction_part()) is not None:
            return number(text) + part
        return number(text)

    def raw_digits(self) -> str:
        braced = self.take("{")
        token = self.next
        if token.kind != "number" or not token.text.isdigit():
            raise Unreadable("a repeating block must be digits")
        self.position += 1
        if braced:
            self.expect("}")
        return token.text

    def fraction_part(self) -> sympy.Expr | None:
        r"""The fraction of a mixed number, ``2\frac{1}{2}`` or ``2 1/2``, when that is what follows."""
        texts = [token.text for token in self.found[self.position : self.position + 7]]
        start = self.position
        if texts[1:2] == ["/"] and texts[0].isdigit() and texts[2:3] and texts[2].isdigit():
            self.position += 3
            part = sympy.Rational(int(texts[0]), int(texts[2])) if int(texts[2]) else sympy.S.NaN
        elif texts[:1] == [r"\frac"]:
            self.position += 1
            try:
                numerator, denominator = self.group(), self.group()
            except Unreadable:
                numerator = denominator = sympy.S.NaN
            part = numerator / denominator
            if not (numerator.is_Integer and denominator.is_Integer):
                part = sympy.S.NaN
        else:
            return None
        if not part.is_Rational or not 0 < part < 1:
            self.position = start
            return None
        return part

    def letters(self) -> sympy.Expr:
        """A run of letters is a product of one-letter symbols; a subscript belongs to the last."""
        text = self.next.text
        if len(text) > 4:
            raise Unreadable(f"{text!r} is not a formula")
        if len(text) > 1:
            # The rest of the run stays as the next factor, so that xy^2 squares y alone.
            self.found[self.position] = self.next._replace(text=text[1:])
            return self.letter(text[0])
        self.position += 1
        return self.subscripted(text)

    def letter(self, text: str) -> sympy.Expr:
        return _CONSTANTS.get(text, symbol(text))

    def subscripted(self, name: str) -> sympy.Expr:
        if not self.take("_"):
            if self.next.text == "'":
                raise Unreadable("derivatives are not read")
            return self.letter(name)
        if self.take("{"):
            inside = []
            while not self.take("}"):
                if self.next is _END or self.next.text == "{":
                    raise Unreadable("a subscript is never closed")
                inside.append(self.next.text)
                self.position += 1
            return symbol(f"{name}_{''.join(inside)}")
        token = self.next
        if token.kind not in ("number", "letters") or len(token.text) > 1:
            raise Unreadable("the extent of the subscript is ambiguous")
        self.position += 1
        return symbol(f"{name}_{token.text}")

    def command(self) -> sympy.Expr:
        token = self.next
        self.position += 1
        if token.text in _CONSTANTS:
            return _CONSTANTS[token.text]
        if token.text in GREEK:
            return self.subscripted(token.text)
        if token.text == r"\frac":
            if [t.text[:1] for t in self.found[self.position : self.position + 5]] == ["{", "d", "}", "{", "d"]:
                raise Unreadable("derivatives are not read")
            numerator = self.group()
            return divide(numerator, self.group())
        if token.text == r"\binom":
            return binomial(self.group(), self.group())
        if token.text == r"\sqrt":
            return self.root()
        if token.text in _SEVERAL:
            return self.several(_SEVERAL[token.text])
        raise Unreadable(f"{token.text!r} is not read")

    def root(self) -> sympy.Expr:
        degree = self.nested("[") if self.take("[") else sympy.Integer(2)
        radicand = self.nested("(") if self.take("(") else self.group()
        if not degree.is_Integer or not 2 <= degree <= 1000:
            return power_of(radicand, divide(sympy.Integer(1), degree))
        if degree % 2 and not radicand.has(sympy.I):
            # The real root, as in school: the cube root of -8 is -2.
            if radicand.is_negative:
                return -sympy.root(-radicand, degree)
            if not radicand.is_number:
                return sympy.sign(radicand) * sympy.root(sympy.Abs(radicand), degree)
        return sympy.root(radicand, degree)

    def several(self, function: Callable[..., sympy.Expr]) -> sympy.Expr:
        opening = self.take("(", r"\{", "{")
        if opening is None:
            raise Unreadable("a bracket is missing")
        values = [self.sum()]
        while self.take(","):
            values.append(self.sum())
        self.expect({"(": ")", r"\{": r"\}", "{": "}"}[opening.text])
        return function(*values) if len(values) > 1 else values[0]

    def function(self, token: Token) -> sympy.Expr:
        self.position += 1
        apply, exponent = _FUNCTIONS[token.text], None
        if token.text == r"\log" and self.take("_"):
            base = self.group()
            apply = lambda x: sympy.log(x, base)  # noqa: E731
        if self.take("^"):
            exponent = self.argument()
            if exponent == -1:
                if token.text not in _INVERSES:
                    raise Unreadable("an inverse of this function is not read")
                apply, exponent = _INVERSES[token.text], None
        value = defined(apply(self.function_argument()))
        return value if exponent is None else power_of(value, exponent)

    def function_argument(self) -> sympy.Expr:
        r"""A bracketed argument, else the factors up to an operator or another function: ``\sin 2x``."""
        token = self.next
        if token.text in ("(", "{", "["):
            return self.atom()
        value = self.power()
        while self.starts_factor() and self.next.text not in _FUNCTIONS and self.next.text != "(":
            value = value * self.power()
        if self.next.text in _OVER:
            raise Unreadable("where the argument of the function ends is ambiguous")
        return value


def defined(value: sympy.Expr) -> sympy.Expr:
    """The value, unless it is nan or complex infinity."""
    if value.has(sympy.nan, sympy.zoo):
        raise Undefined("it is undefined")
    return value


def divide(numerator: sympy.Expr, denominator: sympy.Expr) -> sympy.Expr:
    if denominator.is_zero:
        raise Undefined("it is undefined")
    return numerator / denominator


def binomial(n: sympy.Expr, k: sympy.Expr) -> sympy.Expr:
    """n (n-1) ... (n-k+1) / k! for an integer k."""
    if not k.is_Integer or not 0 <= k <= 200:
        raise Unreadable("a binomial coefficient with this lower number is not read")
    product = sympy.Integer(1)
    for j in range(int(k)):
        product = product * (n - j) / (j + 1)
    return product


def repeating(text: str, block: str) -> sympy.Rational:
    """A decimal whose ``block`` repeats for ever: 0.1(6) is 1/6."""
    places = len(text.partition(".")[2])
    return number(text) + sympy.Rational(int(block), (10 ** len(block) - 1) * 10**places)
