r"""Units behind a number: which phrase is a unit, of what dimension, and how large.

Only phrases whose every word is known count. An unknown word may change the value (``5 dozen``, ``5 squared``), so it
makes the answer unreadable instead of being skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from apportion.rewards.mathematics.notation import Token, words

Dimensions = Mapping[str, int]


@dataclass(frozen=True)
class Unit:
    """A unit as powers of base units and a factor.

    Attributes:
        dimensions: base unit to exponent, without zeros, sorted; ``(("metre", 1), ("second", -1))`` for a speed.
        factor: how many of the product of base units one of this unit is.
    """

    dimensions: tuple[tuple[str, int], ...]
    factor: Fraction

    def times(self, other: Unit, power: int) -> Unit:
        """This unit times ``other`` to a power."""
        total = dict(self.dimensions)
        for base, exponent in other.dimensions:
            total[base] = total.get(base, 0) + exponent * power
        kept = tuple(sorted((base, exponent) for base, exponent in total.items() if exponent))
        return Unit(kept, self.factor * other.factor**power)


ONE = Unit((), Fraction(1))


def _scaled(factor: str | int, **dimensions: int) -> Unit:
    return Unit(tuple(sorted(dimensions.items())), Fraction(factor))


def _spread(table: Mapping[str, Unit]) -> dict[str, Unit]:
    return {name: unit for names, unit in table.items() for name in names.split()}


_UNITS = _spread(
    {
        "nm nanometer nanometre": _scaled("1e-9", metre=1),
        "mm millimeter millimetre": _scaled("0.001", metre=1),
        "cm centimeter centimetre": _scaled("0.01", metre=1),
        "dm decimeter decimetre": _scaled("0.1", metre=1),
        "m meter metre": _scaled(1, metre=1),
        "km kilometer kilometre": _scaled(1000, metre=1),
        "in inch inche": _scaled("0.0254", metre=1),
        "ft foot feet": _scaled("0.3048", metre=1),
        "yd yard": _scaled("0.9144", metre=1),
        "mi mile": _scaled("1609.344", metre=1),
        "ha hectare": _scaled(10000, metre=2),
        "acre": _scaled("4046.8564224", metre=2),
        "mL ml milliliter millilitre cc": _scaled("1e-6", metre=3),
        "cL cl centiliter centilitre": _scaled("1e-5", metre=3),
        "L l liter litre": _scaled("0.001", metre=3),
        "gal gallon": _scaled("0.003785411784", metre=3),
        "qt quart": _scaled("0.000946352946", metre=3),
        "pint": _scaled("0.000473176473", metre=3),
        "mg milligram": _scaled("1e-6", kilogram=1),
        "g gm gram": _scaled("0.001", kilogram=1),
        "kg kilogram kilo": _scaled(1, kilogram=1),
        "tonne": _scaled(1000, kilogram=1),
        "oz ounce": _scaled("0.028349523125", kilogram=1),
        "lb pound": _scaled("0.45359237", kilogram=1),
        "ms millisecond": _scaled("0.001", second=1),
        "s sec second": _scaled(1, second=1),
        "min minute": _scaled(60, second=1),
        "h hr hour": _scaled(3600, second=1),
        "day": _scaled(86400, second=1),
        "week": _scaled(604800, second=1),
        "month": _scaled(1, month=1),
        "yr year": _scaled(12, month=1),
        "mph": _scaled("0.44704", metre=1, second=-1),
        "kmh kph kmph": _scaled("5/18", metre=1, second=-1),
        "Hz hertz": _scaled(1, second=-1),
        "N newton": _scaled(1, kilogram=1, metre=1, second=-2),
        "J joule": _scaled(1, kilogram=1, metre=2, second=-2),
        "kJ kilojoule": _scaled(1000, kilogram=1, metre=2, second=-2),
        "W watt": _scaled(1, kilogram=1, metre=2, second=-3),
        "kW kilowatt": _scaled(1000, kilogram=1, metre=2, second=-3),
        "Pa pascal": _scaled(1, kilogram=1, metre=-1, second=-2),
        "kPa": _scaled(1000, kilogram=1, metre=-1, second=-2),
        "V volt": _scaled(1, volt=1),
        "A amp ampere": _scaled(1, ampere=1),
        "ohm": _scaled(1, volt=1, ampere=-1),
        "K kelvin": _scaled(1, kelvin=1),
        "celsius Celsius": _scaled(1, celsius=1),
        "fahrenheit Fahrenheit": _scaled(1, fahrenheit=1),
        "mol mole": _scaled(1, mole=1),
        "rad radian": _scaled(1, radian=1),
        "unit": ONE,
        "$ dollar USD": _scaled(1, dollar=1),
        "¢ cent": _scaled("0.01", dollar=1),
        "€ euro EUR": _scaled(1, euro=1),
        "£ GBP": _scaled(1, sterling=1),
        "¥ yen": _scaled(1, yen=1),
        "₹ rupee Rs": _scaled(1, rupee=1),
    }
)
_COUNTED = words(
    "apple ball banana bag book bottle box boy candy car card cat chair child children coin cookie cow cup customer "
    "digit dog edge egg employee element face factor flower game girl guest house integer item kid letter marble man "
    "men member mark number orange outcome page passenger pen pencil penny people person pie piece player point "
    "problem question rabbit row seat shirt slice solution step sticker student subset team term ticket toy tree "
    "triangle trip value vertex vertices vote way woman women word worker"
)
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_IRREGULAR = {"children": "child", "men": "man", "women": "woman", "people": "person", "vertices": "vertex"}


def unit(found: Sequence[Token]) -> Unit | None:
    r"""The unit a phrase means, or None if any part of it is not known.

    Example:
        >>> from apportion.rewards.mathematics.notation import tokens
        >>> unit(tokens(r"\text{ km/h}")) == unit(tokens("kilometers per hour"))
        True
        >>> unit(tokens("dozen")) is None
        True
    """
    total, sign, raise_next = ONE, 1, 1
    last: tuple[Unit, int] | None = None
    phrase = _phrase(found)
    index = 0
    while index < len(phrase):
        word = phrase[index]
        index += 1
        if word in ("/", "per"):
            sign = -1
        elif word in (r"\cdot", "*", "{", "}", "."):
            continue
        elif word in ("squared", "cubed") or (word == "^" and last):
            if last is None:
                return None
            power = _POWERS.get(word) or _digit(phrase[index : index + 3])
            if not power:
                return None
            index += 0 if word != "^" else 3 if phrase[index] == "{" else 1
            total = total.times(last[0], (power - 1) * last[1])
            last = None
        elif word in _POWERS:
            raise_next = _POWERS[word]
        else:
            one = _one(word)
            if one is None:
                return None
            total = total.times(one, sign * raise_next)
            last, sign, raise_next = (one, sign * raise_next), 1, 1
    return total if phrase and sign == raise_next == 1 else None


def _phrase(found: Sequence[Token]) -> list[str]:
    """Words and marks of a phrase; text markup such as ``\\text{km/h}`` is taken apart."""
    phrase: list[str] = []
    for token in found:
        text = token.text.replace("/", " / ").replace("^", " ^ ") if token.kind == "word" else token.text
        phrase += text.split()
    if len(phrase) == 2 and phrase[0] == "°" and phrase[1] in ("C", "F"):
        return [{"C": "celsius", "F": "fahrenheit"}[phrase[1]]]
    return phrase


def _digit(following: Sequence[str]) -> int:
    """A small power, bare or in braces; 0 if there is none."""
    text = "".join(following).strip("{}") if following[:1] == ["{"] else "".join(following[:1])
    return int(text) if text in ("1", "2", "3") else 0


def _one(word: str) -> Unit | None:
    known = _UNITS.get(word)
    if known or len(word) < 3:
        return known
    lower = word.lower()
    for name in (lower, lower.removesuffix("s"), lower.removesuffix("es")):
        if len(name) > 2 and name in _UNITS:
            return _UNITS[name]
        if name in _COUNTED:
            return Unit(((_IRREGULAR.get(name, name), 1),), Fraction(1))
    return None
