"""Units: spellings that mean the same, units of one kind, and others."""

from __future__ import annotations

import pytest

from clustering.data.units import relation

SAME = [
    ("m s-1", "m/s"),
    ("m s-1", "m s^-1"),
    ("m s-1", "m.s-1"),
    ("m s-1", "m s**-1"),
    ("m s-1", "metres per second"),
    ("m s-1", "meter second-1"),
    ("m s-1", "m / s"),
    ("W m-2", "W·m⁻²"),
    ("W m-2", "watts/m2"),
    ("kg m-2 s-1", "kg/m2/s"),
    ("degC", "celsius"),
    ("degC", "degree_Celsius"),
    ("degC", "°C"),
    ("degC", "deg C"),
    ("degC", "C"),
    ("K", "kelvin"),
    ("K", "degrees K"),
    ("hPa", "millibar"),
    ("hPa", "mbar"),
    ("degrees_north", "degree"),
    ("1", "dimensionless"),
    ("1e-3", "0.001"),
    ("10^-3", "1e-3"),
    ("%", "percent"),
    ("µm", "micrometres"),
    ("PSU", "psu"),
    ("days since 2000-01-01", "Days  since 2000-01-01"),
]
CONVERTIBLE = [
    ("K", "degC", 1.0, -273.15),
    ("degC", "K", 1.0, 273.15),
    ("degF", "degC", 5 / 9, -160 / 9),
    ("km", "m", 1000.0, 0.0),
    ("Pa", "hPa", 0.01, 0.0),
    ("g kg-1", "1", 0.001, 0.0),
    ("cm s-1", "m/s", 0.01, 0.0),
    ("mm/day", "m s-1", 0.001 / 86400, 0.0),
    ("knots", "m s-1", 1852 / 3600, 0.0),
    ("degrees", "radians", 3.141592653589793 / 180, 0.0),
    ("%", "1", 0.01, 0.0),
]


@pytest.mark.parametrize(("given", "wanted"), SAME)
def test_spellings_of_one_unit_are_the_same(given: str, wanted: str) -> None:
    """Products, quotients, powers, plurals, prefixes and names are read."""
    assert relation(given, wanted).kind == "same"
    assert relation(wanted, given).kind == "same"


@pytest.mark.parametrize(("given", "wanted", "factor", "summand"), CONVERTIBLE)
def test_units_of_one_kind_are_converted(given: str, wanted: str, factor: float, summand: float) -> None:
    """The relation holds the factor and the summand."""
    conversion = relation(given, wanted)
    assert conversion.kind == "convertible"
    assert conversion.factor == pytest.approx(factor, rel=1e-12)
    assert conversion.summand == pytest.approx(summand, rel=1e-12)


@pytest.mark.parametrize(
    ("given", "wanted", "kind"),
    [
        ("m", "s", "different"),
        ("K", "K m-1", "different"),
        ("days since 2000-01-01", "days since 2001-01-01", "different"),
        ("psu", "1", "unknown"),
        ("counts", "DN", "unknown"),
        ("m/(s", "m", "unknown"),
        ("m /", "m", "unknown"),
    ],
)
def test_other_kinds_and_unknown_units_are_distinguished(given: str, wanted: str, kind: str) -> None:
    """Unknown units are related to no other unit."""
    assert relation(given, wanted).kind == kind
    assert relation(wanted, given).kind == kind
