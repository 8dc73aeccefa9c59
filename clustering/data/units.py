"""Units of measurement in the spelling of CF files: comparison of two units, and conversion between them."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Literal, NamedTuple

Dimensions = tuple[tuple[str, int], ...]
"""Pairs of a base unit and its power, sorted by unit."""


class _Unit(NamedTuple):
    """A unit, converted to base units by ``base = scale · number + offset``."""

    dimensions: Dimensions
    scale: Fraction
    offset: Fraction = Fraction(0)


class Relation(NamedTuple):
    """Conversion of numbers from one unit to another: ``other = factor · number + summand``."""

    kind: Literal["same", "convertible", "different", "unknown"]
    """Convertible: both measure the same quantity. Different: they measure different quantities. Unknown: at least one
    of them cannot be read."""
    factor: float = 1.0
    summand: float = 0.0


def _base(name: str) -> _Unit:
    """Make a base unit."""
    return _Unit(((name, 1),), Fraction(1))


def _times(unit: _Unit, scale: Fraction | int | str, offset: Fraction | int | str = 0) -> _Unit:
    """Make a unit that is a multiple of another, with its own zero point."""
    return _Unit(unit.dimensions, unit.scale * Fraction(scale), Fraction(offset))


def _product(*factors: tuple[_Unit, int]) -> _Unit:
    """Multiply units raised to powers. Offsets are dropped: K and °C are the same in W/m²/K."""
    powers: dict[str, int] = {}
    scale = Fraction(1)
    for unit, power in factors:
        scale *= unit.scale**power
        for name, own in unit.dimensions:
            powers[name] = powers.get(name, 0) + own * power
    return _Unit(tuple(sorted((name, power) for name, power in powers.items() if power)), scale)


_M, _KG, _S, _K, _A, _MOL, _RAD = (_base(name) for name in ("m", "kg", "s", "K", "A", "mol", "rad"))
_G = _times(_KG, Fraction(1, 1000))
_ONE = _Unit((), Fraction(1))
_N = _product((_KG, 1), (_M, 1), (_S, -2))
_PA, _J = _product((_N, 1), (_M, -2)), _product((_N, 1), (_M, 1))
_W, _HZ = _product((_J, 1), (_S, -1)), _product((_S, -1))
_BAR, _LITRE = _times(_PA, 100_000), _times(_product((_M, 3)), Fraction(1, 1000))
_V = _product((_W, 1), (_A, -1))
_PERCENT, _MILLIBAR, _FOOT = _times(_ONE, "1/100"), _times(_BAR, "1/1000"), _times(_M, "0.3048")
_HOUR, _DAY = _times(_S, 3600), _times(_S, 86400)
_CELSIUS = _times(_K, 1, "273.15")
_FAHRENHEIT = _times(_K, "5/9", Fraction("459.67") * 5 / 9)
_YEAR = _times(_DAY, "365.242198781")
"""The tropical year, as in UDUNITS."""
_DEGREE = _times(_RAD, Fraction(math.pi) / 180)

_PREFIXED = {
    "m": _M, "g": _G, "s": _S, "K": _K, "A": _A, "mol": _MOL, "N": _N, "Pa": _PA, "J": _J, "W": _W, "Hz": _HZ, "V": _V,
    "bar": _BAR, "L": _LITRE, "l": _LITRE, "rad": _RAD,
}  # fmt: skip
"""Symbols that may have a prefix of the SI. Case matters."""
_SYMBOLS = {
    "t": _times(_KG, 1000), "min": _times(_S, 60), "h": _HOUR, "hr": _HOUR, "d": _DAY, "yr": _YEAR, "C": _CELSIUS,
    "mb": _MILLIBAR, "%": _PERCENT, "ppm": _times(_ONE, "1e-6"), "ppmv": _times(_ONE, "1e-6"),
    "ppb": _times(_ONE, "1e-9"), "ppbv": _times(_ONE, "1e-9"), "ft": _FOOT,
}  # fmt: skip
"""Symbols without prefixes. Case matters."""
_NAMES = {
    "metre": _M, "meter": _M, "gram": _G, "gramme": _G, "second": _S, "sec": _S, "kelvin": _K, "ampere": _A,
    "mole": _MOL, "newton": _N, "pascal": _PA, "joule": _J, "watt": _W, "hertz": _HZ, "volt": _V, "litre": _LITRE,
    "liter": _LITRE, "radian": _RAD,
}  # fmt: skip
"""Names that may have a prefix of the SI. Case does not matter."""
_WORDS = {
    "minute": _times(_S, 60), "hour": _HOUR, "day": _DAY, "week": _times(_S, 604_800), "month": _times(_YEAR, "1/12"),
    "year": _YEAR, "degree": _DEGREE, "deg": _DEGREE, "percent": _PERCENT, "micron": _times(_M, "1e-6"), "degk": _K,
    "degc": _CELSIUS, "celsius": _CELSIUS, "degf": _FAHRENHEIT, "fahrenheit": _FAHRENHEIT, "tonne": _times(_KG, 1000),
    "millibar": _MILLIBAR, "atm": _times(_PA, 101_325), "inch": _times(_M, "0.0254"), "foot": _FOOT, "feet": _FOOT,
    "mile": _times(_M, "1609.344"), "knot": _product((_times(_M, "1852/3600"), 1), (_S, -1)), "dimensionless": _ONE,
    "unitless": _ONE, "fraction": _ONE,
}  # fmt: skip
"""Names without prefixes. Case does not matter."""
_PREFIXES = {
    "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "d": -1, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12,
}  # fmt: skip
_LONG_PREFIXES = {
    "tera": 12, "giga": 9, "mega": 6, "kilo": 3, "hecto": 2, "deca": 1, "deci": -1, "centi": -2, "milli": -3,
    "micro": -6, "nano": -9, "pico": -12,
}  # fmt: skip
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
"""Raised digits, as in m s⁻¹."""
_ANGLES = re.compile(r"\bdeg(?:ree)?s?_?(?:north|east|south|west|true|[nesw])\b", re.IGNORECASE)
"""Degrees with a direction, such as degrees_north."""
_TEMPERATURES = re.compile(r"(?:\bdeg(?:ree)?s?|°)[ _]?(c|celsius|k|kelvin|f|fahrenheit)\b", re.IGNORECASE)
"""Degrees with a scale of temperature, such as °C and degree_Celsius."""
_TERM = re.compile(
    r"(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?:\^(?P<exponent>[+-]?\d+))?|(?P<name>[^\W\d]+|%)(?:\^?(?P<power>[+-]?\d+))?"
)


def relation(given: str, wanted: str) -> Relation:
    """Compare two units, and find the conversion from the first to the second.

    Parameters
    ----------
    given, wanted
        Units as in an attribute ``units``; ``m s-1``, ``m/s`` and ``metres per second`` are the same.

    Returns
    -------
    Relation
        With factor and summand where the units are convertible.
    """
    given, wanted = (" ".join(unit.split()) for unit in (given, wanted))
    if given == wanted:
        return Relation("same")
    if any(" since " in unit for unit in (given, wanted)):
        # Times since different moments are not converted.
        return Relation("same" if given.lower() == wanted.lower() else "different")
    one, other = _parsed(given), _parsed(wanted)
    if one is None or other is None:
        return Relation("same" if given.lower() == wanted.lower() else "unknown")
    if one.dimensions != other.dimensions:
        return Relation("different")
    if one[1:] == other[1:]:
        return Relation("same")
    return Relation("convertible", float(one.scale / other.scale), float((one.offset - other.offset) / other.scale))


def _parsed(text: str) -> _Unit | None:
    """Read a unit; None where a part of it is unknown."""
    text = _TEMPERATURES.sub(lambda match: f"deg{match[1][0].upper()}", _ANGLES.sub("degree", text))
    text = text.replace("°", "degree").replace("µ", "u").replace("μ", "u")
    text = _RAISED.sub(lambda match: "^" + match[0].translate(_LOWERED), text)
    text = re.sub(r"\bper\b", "/", text.replace("**", "^"))
    factors: list[tuple[_Unit, int]] = []
    # A dot between digits is a decimal point; any other dot means a product.
    for part in re.split(r"(?:[\s*·]|(?<!\d)\.|\.(?!\d))+|(?=/)", text):
        sign, term = (-1, part[1:].strip()) if part.startswith("/") else (1, part)
        if not term:
            if sign < 0:
                # A slash with space around it. A power of 0 remembers it for the next part.
                factors.append((_ONE, 0))
            continue
        match = _TERM.fullmatch(term)
        unit = None if match is None else _factor(match)
        if match is None or unit is None:
            return None
        if factors and factors[-1][1] == 0:
            factors.pop()
            sign = -1
        factors.append((unit, sign * int(match["power"] or 1)))
    if factors and factors[-1][1] == 0:
        return None
    if len(factors) == 1 and factors[0][1] == 1:
        # A product would drop the offset of a temperature.
        return factors[0][0]
    return _product(*factors)


def _factor(term: re.Match[str]) -> _Unit | None:
    """Read a number or a name as a unit, without its power; None where it is unknown."""
    if term["number"] is not None:
        return _times(_ONE, Fraction(term["number"]) ** int(term["exponent"] or 1))
    name = term["name"]
    for symbols in (_PREFIXED, _SYMBOLS):
        if name in symbols:
            return symbols[name]
    # Symbols with a prefix, such as hPa.
    for prefix, power in _PREFIXES.items():
        if name.startswith(prefix) and name[len(prefix) :] in _PREFIXED:
            return _times(_PREFIXED[name[len(prefix) :]], Fraction(10) ** power)
    word = name.lower()
    # Words may be plurals, such as metres and inches.
    for one in (word, word.removesuffix("s"), word.removesuffix("es")):
        if one in _NAMES or one in _WORDS:
            return _NAMES.get(one) or _WORDS[one]
        for prefix, power in _LONG_PREFIXES.items():
            if one.startswith(prefix) and one[len(prefix) :] in _NAMES:
                return _times(_NAMES[one[len(prefix) :]], Fraction(10) ** power)
    return None
