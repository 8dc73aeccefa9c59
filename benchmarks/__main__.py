"""Run benchmarks one after another, each in a process of its own, and write the summary.

A part that fails does not stop the others; the exit code is 1 then.

    python -m benchmarks [PART …] [--arguments='--rounds 1']
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks import PARTS, blas, summary


def run(parts: Mapping[str, Sequence[str]], more: Sequence[str] = ()) -> list[str]:
    """Run parts; return the names of those that failed."""
    failed = []
    for name, (module, *arguments) in parts.items():
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, *more]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"all by default: {', '.join(PARTS)}")
    parser.add_argument("--arguments", default="", help="options for every part")
    options = parser.parse_args()
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; allowed are {', '.join(PARTS)}")
    blas.use_own_kernels("benchmarks")
    failed = run({name: PARTS[name] for name in options.parts or PARTS}, shlex.split(options.arguments))
    summary.main()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
