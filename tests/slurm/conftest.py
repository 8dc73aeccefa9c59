"""A SLURM of one node, on loopback: its own munge, controller and node daemon, in a folder that is thrown away."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
START_SECONDS = 120
CONFIG = """
ClusterName=clustering
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES State=UP
PartitionName=closed Nodes={host} State=DOWN
"""


@pytest.fixture(scope="session", autouse=True)
def slurm() -> Iterator[None]:
    """Start SLURM, make its commands find it, and end it."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; on Debian: apt-get install slurm-wlm munge")
    with tempfile.TemporaryDirectory(prefix="clustering-slurm-") as name, ExitStack() as stack:
        folder = Path(name)
        # Munge is for all users of a machine, so others must be able to reach its socket.
        folder.chmod(0o755)
        for place in ("state", "spool"):
            (folder / place).mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge.key").chmod(0o600)
        host, user = socket.gethostname().partition(".")[0], folder.owner()
        (folder / "slurm.conf").write_text(CONFIG.format(host=host, user=user, folder=folder, ports=_free_ports(2)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", path)
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
            files |= {"log-file": "munge.log", "seed-file": "munge.seed"}
            munge = [f"--{option}={folder / file}" for option, file in files.items()]
            stack.callback(_end, [_start(folder, "munged", "--foreground", "--force", *munge)])
            _wait(folder, lambda: (folder / "munge.socket").exists())
            stack.callback(_end, [_start(folder, "slurmctld", "-D"), _start(folder, "slurmd", "-D", "-N", host)])
            _wait(folder, lambda: _said("sinfo", "--noheader", "--format=%T", "--partition=main") == "idle")
            yield
            _said("scancel", f"--user={user}")


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(folder: Path, program: str, *options: str) -> subprocess.Popen[bytes]:
    with (folder / f"{program}.out").open("wb") as out:
        return subprocess.Popen([program, *options], stdout=out, stderr=out, cwd=folder)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.terminate()
        process.wait(60)


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _wait(folder: Path, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > until:
            said = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(folder.glob("*.out")))
            pytest.fail(f"SLURM does not start within {START_SECONDS} s\n{said}")
        time.sleep(0.2)


@pytest.fixture
def queue() -> Callable[[], list[str]]:
    """List the jobs in the queue, after up to a minute for jobs that are ending."""

    def jobs() -> list[str]:
        until = time.monotonic() + 60
        while (listed := _said("squeue", "--noheader", "--format=%i %T")) and time.monotonic() < until:
            time.sleep(0.2)
        return listed.splitlines()

    return jobs


@pytest.fixture(scope="session")
def rows_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slurm") / "rows.zarr"
    values = np.random.default_rng(7).standard_normal((6000, 4))
    dataset = xr.Dataset({"x": (("row", "feature"), values)})
    dataset.to_zarr(path, consolidated=False, zarr_format=3, encoding={"x": {"chunks": (500, 4)}})
    return path
