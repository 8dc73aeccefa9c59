"""The command ``clustering``, also as ``python -m clustering_flows``. It says in one line if packages are missing."""

from __future__ import annotations

import os
import sys

from clustering_flows.compat import end_process

_SPIN = "20"
"""Binary logarithm of the clock ticks for which threads of OpenBLAS look for work before they sleep."""


def main() -> None:
    """Run the command, or say in one line how to install it."""
    # By default they look for 2 ** 26 ticks, also when they have just begun: a tenth of a second of a processor.
    # OpenBLAS reads the variable when numpy loads it.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", _SPIN)
    try:
        from clustering_flows.cli import main as run
    except ModuleNotFoundError as error:
        # An installation without the extra `cli` has the command all the same, as extras cannot add one.
        package = (error.name or "").partition(".")[0]
        if package not in ("cyclopts", "rich", "yaml"):
            raise
        print(
            f"clustering: the command needs the package {package!r}; pip install 'zarr-clustering[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        run()
    except SystemExit as ending:
        end_process(int(ending.code or 0))


if __name__ == "__main__":
    main()
