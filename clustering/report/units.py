"""Times and sizes in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Write a time with a unit, such as 12 s or 3 min.

    Parameters
    ----------
    seconds
        The time.
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(n: float) -> str:
    """Write a size in bytes with a unit, such as 1.5 MiB.

    Parameters
    ----------
    n
        Number of bytes.
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    return f"{n:,.1f} TiB"
