"""Images without a registry: a Debian from the machine's mirror, ours on top of it, and stand-ins for the others."""

from __future__ import annotations

import ast
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from engine import LONG, ROOT, docker

LABEL = "zarr-clustering.test"
"""Label of every image made here, with the name of the trial: an image inherits the labels of its base."""
_NAME = re.compile(r"clustering-\d+-[0-9a-f]{8}\b")
_BUNDLE = "/etc/pip.crt"
_PIP = ("index-url", "extra-index-url", "trusted-host", "timeout", "default-timeout")


def build_all(name: str, scratch: Path) -> dict[str, str]:
    """Build the images of a trial.

    Returns
    -------
    dict
        Image by its name in the settings of the stack.
    """
    base, own = f"{name}/debian:base", f"{name}/own:built"
    _make_base(base, name, scratch / "root")
    _build(own, "Dockerfile", ROOT, BASE_IMAGE=base)
    images = {"BASE_IMAGE": base, "CLUSTERING_IMAGE": own}
    folder = Path(__file__).parent / "standins"
    for target in ("postgres", "redis", "store"):
        image = images[f"{target.upper()}_IMAGE"] = f"{name}/{target}:stand-in"
        _build(image, str(folder / "Dockerfile"), folder, target, BASE_IMAGE=base, OWN_IMAGE=own, MOTO=version("moto"))
    return images


def remove_all(name: str) -> None:
    """Remove containers, networks, volumes and images of a trial, and the layers that were built on the way."""
    own, of_stack = f"label={LABEL}={name}", f"label=com.docker.compose.project={name}"
    for containers in (own, of_stack):
        _remove("container", "rm", "--force", "--volumes", among=("ls", "--all", "--quiet", "--filter", containers))
    for kind in ("network", "volume"):
        _remove(kind, "rm", among=("ls", "--quiet", "--filter", of_stack))
    docker("image", "prune", "--all", "--force", "--filter", own)


def remove_left() -> None:
    """Remove what killed trials left: an engine would start the services of their stacks whenever it starts."""
    for name in {*_names("container", "ls", "--all"), *_names("network", "ls"), *_names("image", "ls", "--all")}:
        if not _is_running(int(name.split("-")[1])):
            remove_all(name)


def name_of_trial() -> str:
    """Make up a name that holds the id of the process of the trial."""
    return f"clustering-{os.getpid()}-{secrets.token_hex(4)}"


def _names(kind: str, *command: str) -> Iterator[str]:
    column = {"container": f'{{{{.Label "{LABEL}"}}}}', "network": "{{.Name}}", "image": "{{.Repository}}"}[kind]
    for line in docker(kind, *command, "--format", column).splitlines():
        if match := _NAME.match(line):
            yield match[0]


def _is_running(process: int) -> bool:
    try:
        return b"pytest" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def _remove(kind: str, *command: str, among: tuple[str, ...]) -> None:
    if names := docker(kind, *among).split():
        docker(kind, *command, *names)


def _build(image: str, file: str, context: Path, target: str | None = None, **arguments: str) -> None:
    stage = [] if target is None else ["--target", target]
    given = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    docker("build", "--force-rm", "--network", "host", "--tag", image, "--file", file, *stage, *given, str(context))


def _make_base(image: str, name: str, root: Path) -> None:
    """Make a base image of Debian that takes packages from the same places as this machine."""
    mirror, release = _mirror()
    subprocess.run(
        ["debootstrap", "--variant=minbase", release, str(root), mirror],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=LONG,
    )
    settings = dict(_pip_settings())
    if "cert" in settings:
        shutil.copyfile(settings["cert"], root / _BUNDLE.lstrip("/"))
        settings["cert"] = _BUNDLE
    lines = [f"{key} = {value}" for key, value in settings.items()]
    (root / "etc/pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    changes = ["--change", f"LABEL {LABEL}={name}"]
    if "cert" in settings:
        changes += ["--change", f"ENV SSL_CERT_FILE={_BUNDLE}"]
    with subprocess.Popen(["tar", "--create", "--directory", str(root), "."], stdout=subprocess.PIPE) as packed:
        docker("import", *changes, "-", image, stdin=packed.stdout)
    assert packed.returncode == 0
    shutil.rmtree(root)


def _mirror() -> tuple[str, str]:
    """Return the mirror of this machine's Debian packages and their release."""
    form = "$(REPO_URI) $(CODENAME)"
    said = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Component: main", "Origin: Debian"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    mirror, release = next(line.split() for line in said.stdout.splitlines() if "-" not in line.split()[1])
    return mirror, release


def _pip_settings() -> Iterator[tuple[str, str]]:
    """List the settings of this machine's pip that a container needs, without ``file:`` URLs."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    for line in listed.splitlines():
        name, _, literal = line.partition("=")
        key, values = name.rpartition(".")[2], ast.literal_eval(literal).split()
        if key == "cert":
            yield key, values[0]
        elif key in _PIP and (kept := [value for value in values if not value.startswith("file:")]):
            yield key, " ".join(kept)
