"""Draws the figures of docs/gallery.md: all, or those whose files are named."""

from __future__ import annotations

import sys
from pathlib import Path

from clustering.errors import nearest
from docs.gallery.figures import FIGURES, picture
from docs.gallery.jobs import workplace

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Draw figures into the folder of this package, and return the exit code.

    Parameters
    ----------
    names
        Names of their files; all where empty.
    """
    for name in names:
        if name not in FIGURES:
            print(f"there is no figure {name!r}; {nearest(name, FIGURES)}", file=sys.stderr)
            return 2
    with workplace():
        for name in names or FIGURES:
            content = picture(name, FIGURES[name].compute())
            (HERE / name).write_bytes(content)
            print(f"docs/gallery/{name}, {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
