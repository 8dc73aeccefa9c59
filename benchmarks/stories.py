"""Stores of made-up data with planted clusters, in the layouts that people have, for the configs of the same names.

python -m benchmarks.stories ocean demo/ocean.zarr
python -m benchmarks.stories ocean demo/ocean-by-depth.zarr --by-depth
python -m benchmarks.stories satellite demo/satellite.zarr --size nightly
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks.embeddings import codebook, satellite, tissue
from benchmarks.fields import ocean, weather

STORIES: dict[str, Callable[..., Any]] = {
    "ocean": ocean, "weather": weather, "satellite": satellite, "tissue": tissue, "codebook": codebook,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("story", choices=STORIES)
    parser.add_argument("destination", help="folder of the Zarr group, replaced if it is there")
    parser.add_argument("--size", choices=("ci", "nightly"), default="ci")
    parser.add_argument("--by-depth", action="store_true", help="of ocean: cut the profiles into several chunks")
    options = parser.parse_args()
    if options.by_depth and options.story != "ocean":
        parser.error("--by-depth belongs to ocean")
    STORIES[options.story](options.destination, options.size, **({"by_depth": True} if options.by_depth else {}))


if __name__ == "__main__":
    main()
