"""Kernels run where no folder can be written, and where their cache is broken."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from numba.core.registry import cpu_target

from clustering import compiling, temporary

KERNELS = """
from clustering.compiling import njit
@njit(cache=True)
def twice(x):
    return 2 * x
@njit(cache=True)
def thrice(x):
    return 3 * x
"""
NOBODY = 65531


@pytest.fixture
def writable_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder, which is the only one where kernels can be kept."""
    monkeypatch.setattr(compiling._CacheLocations, "_locator_classes", [compiling._Temporary])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (tmp_path / "tmp").mkdir()
    yield tmp_path / "tmp"
    for kept in (temporary.temporary_folder, compiling._last_resort, compiling._log_cache_loss):
        kept.cache_clear()


@pytest.fixture(autouse=True)
def fresh() -> None:
    for kept in (temporary.temporary_folder, compiling._last_resort, compiling._log_cache_loss):
        kept.cache_clear()


@pytest.fixture
def load(tmp_path: Path) -> Callable[[], Any]:
    path = tmp_path / "kernels.py"
    path.write_text(KERNELS)

    def load() -> Any:
        spec = importlib.util.spec_from_file_location("kernels", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


LINKED = """
from clustering.compiling import INLINED, INNER, njit
@njit(cache=True, **INNER)
def root(x):
    if x < 0.0:
        raise ValueError("no root")
    return x ** 0.5
@njit(cache=True, **INLINED)
def half(x):
    return x / 2.0
@njit(cache=True)
def outer(x, more):
    return half(root(x)) + more
"""


def test_functions_that_only_kernels_call_become_parts_of_kernels(
    writable_dir: Path, load: Callable[[], Any], tmp_path: Path
) -> None:
    (tmp_path / "kernels.py").write_text(LINKED)
    module = load()
    assert module.outer(16.0, 1) == 3.0
    for part in (module.root, module.half):
        (compiled,) = part.overloads.values()
        # It has no machine code of its own: it went into that of the kernel.
        assert not cpu_target.target_context.codegen()._engine.is_symbol_defined(compiled.fndesc.mangled_name)
    with pytest.raises(ValueError, match="no root"):
        module.outer(-1.0, 1)


def test_parts_of_kernels_are_kept_for_kernels_of_other_types(
    writable_dir: Path, load: Callable[[], Any], tmp_path: Path
) -> None:
    (tmp_path / "kernels.py").write_text(LINKED)
    assert load().outer(16.0, 1) == 3.0
    module = load()
    assert module.outer(16.0, 1.5) == 3.5
    assert sum(module.root.stats.cache_hits.values()) == 1
    assert not module.root.stats.cache_misses
    with pytest.raises(ValueError, match="no root"):
        module.outer(-1.0, 1.5)
    # A kernel that is kept has its parts inside.
    module = load()
    assert module.outer(16.0, 1.5) == 3.5
    assert not module.root.overloads
    with pytest.raises(ValueError, match="no root"):
        module.outer(-1.0, 1.5)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_kernels_are_kept_in_a_temporary_folder_where_no_other_can_be_written(
    writable_dir: Path, load: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    module = load()
    assert (module.twice(4), module.thrice(4)) == (8, 12)
    folder = writable_dir / f"clustering-kernels-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.rglob("*.nbi"))) == 2
    (line,) = warned(caplog)
    assert line.startswith(f"compiled kernels are kept in {folder}: neither the installation nor")
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder), "processes that are started from here inherit it"
    again = load()
    assert again.twice(5) == 10
    assert sum(again.twice.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("where", ["nowhere", "current"])
def test_kernels_run_where_no_folder_can_be_written_at_all(
    where: str,
    writable_dir: Path,
    load: Callable[[], Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(writable_dir)
    # Python's last resort for temporary files is the current folder, which belongs to the user.
    monkeypatch.setattr(tempfile, "tempdir", str(writable_dir / "none" if where == "nowhere" else writable_dir))
    module = load()
    assert (module.twice(4), module.thrice(4)) == (8, 12)
    (line,) = warned(caplog)
    assert "each process compiles them" in line
    assert "set NUMBA_CACHE_DIR or TMPDIR" in line
    assert list(writable_dir.iterdir()) == []


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_folder_that_others_may_write_is_not_trusted(kind: str, writable_dir: Path, load: Callable[[], Any]) -> None:
    theirs = writable_dir / f"clustering-kernels-{os.getuid()}"
    match kind:
        case "open":
            theirs.mkdir()
            theirs.chmod(0o777)
        case "link":
            (writable_dir / "elsewhere").mkdir(0o700)
            theirs.symlink_to(writable_dir / "elsewhere")
        case "file":
            theirs.write_text("theirs")
    assert load().twice(4) == 8
    own = Path(os.environ["NUMBA_CACHE_DIR"])
    assert own.name.startswith(f"{theirs.name}-")
    assert own.stat().st_mode & 0o777 == 0o700
    assert not list(theirs.rglob("*.nbi"))


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [b"", b"\x80\x05garbage", None], ids=["empty", "garbage", "half"])
def test_files_that_are_broken_are_made_anew(
    ending: str, left: bytes | None, writable_dir: Path, load: Callable[[], Any]
) -> None:
    assert load().twice(4) == 8
    (path,) = writable_dir.rglob(f"kernels.twice*.{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if left is None else left)
    assert load().twice(4) == 8
    again = load()
    assert again.twice(4) == 8
    assert sum(again.twice.stats.cache_hits.values()) == 1


def test_a_disk_that_is_full_costs_time_and_no_run(
    writable_dir: Path, load: Callable[[], Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load()

    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compiling._Temporary, "ensure_cache_path", full)
    assert (module.twice(4), module.twice(0.5), module.thrice(4)) == (8, 1.0, 12)
    assert warned(caplog)[1:] == [
        f"compiled kernels are not kept in {module.twice._cache.cache_path}: No space left on device"
    ]


def test_a_user_without_a_home_gets_one(
    writable_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", "~")
    assert temporary.home_folder() is None
    temporary.ensure_home()
    assert temporary.home_folder() == writable_dir / f"clustering-home-{os.getuid()}"
    temporary.ensure_home()
    assert len(warned(caplog)) == 1


def test_a_home_that_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    temporary.ensure_home()
    assert os.environ["HOME"] == str(tmp_path)


AS_NOBODY = [
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    # This user may read everything installed, as a user of a container may.
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
]  # fmt: skip
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs to be another user")


@needs_root
def test_an_arbitrary_user_of_a_read_only_installation_runs_kernels(tmp_path: Path) -> None:
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o711)
    tmp_path.chmod(0o777)
    work = (
        "import sys, clustering; assert not {'numba', 'distributed'} & set(sys.modules); "
        "from clustering.data.gathering import finite; import numpy as np; "
        "is_finite = np.empty(2, bool); assert not finite(np.array([[1.0], [np.nan]]), is_finite); print(is_finite)"
    )
    done = subprocess.run(
        [*AS_NOBODY, "env", "-u", "HOME", f"TMPDIR={tmp_path}", sys.executable, "-c", work],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        # This user could not write the files of coverage either.
        env={
            k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "COVERAGE"))
        },
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[ True False]\n", "")
    assert list((tmp_path / f"clustering-kernels-{NOBODY}").rglob("*.nbi"))


@pytest.mark.parametrize("patience", [0.01, 60.0])
def test_compiling_that_takes_long_is_said_once(
    load: Callable[[], Any], patience: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiling, "_notice", compiling._Notice(patience))
    with caplog.at_level(logging.INFO, "clustering.compiling"):
        kernels = load()
        assert (kernels.twice(2), kernels.thrice(2.0)) == (4, 6.0)
    lines = [record for record in caplog.records if "compiling kernels, once per machine" in record.getMessage()]
    assert len(lines) == (1 if patience < 1 else 0)


def test_a_person_at_a_terminal_is_told_where_nobody_listens_to_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiling, "_heard", lambda: False)
    compiling._Notice().say()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    compiling._Notice().say()
    assert capsys.readouterr().err.startswith("clustering: compiling kernels, once per machine")
