"""A lock in a bucket: an object that names its holder, renewed while it is held, and void once it is old.

A killed process cannot take its lock away. So a lock without a sign for `LEASE` seconds may be taken over, and at once
where its process is known to be gone; a holder that was out of touch for so long finds out before it publishes.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clustering.data.store_errors import translate_errors
from clustering.errors import ClusteringError, OutputError
from clustering.storage.paths import BucketPath

logger = logging.getLogger(__name__)

LEASE = 120.0
"""Age at which a lock is void, in seconds, by the time that the store gave it."""
RENEWED = 20.0
"""Seconds between renewals."""
_TRIES = 5


@dataclass(frozen=True)
class _Held:
    """A lock that is there."""

    about: dict[str, Any]
    version: dict[str, str]
    """By which the store tells it from what is put in its place."""
    age: float
    """In seconds."""


class Lease:
    """A lock that this process holds."""

    def __init__(self, path: BucketPath, owner: str) -> None:
        self.path, self.owner = path, owner
        self._token = uuid.uuid4().hex
        self._version: dict[str, str] = {}
        self._lost = False
        self._one_at_a_time = threading.Lock()
        self._ended = threading.Event()

    def take(self) -> None:
        """Take the lock; `OutputError` where another process holds it."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for _ in range(_TRIES):
            with suppress(AlreadyExistsError, PreconditionError):
                self._put("create")
                self._try_conditions()
                return
            held = self._held()
            if held is None:
                continue
            if held.about.get("token") == self._token:
                # The answer to the first try was lost, and the second found what the first had made.
                self._version = held.version
                return
            if held.age < LEASE and not _is_gone(held.about):
                who = f"process {held.about.get('pid', '?')} on {held.about.get('host', 'another machine')}"
                raise OutputError(
                    f"another run is writing to {self.owner!r}: {who}, its last sign {max(0.0, held.age):.0f} s ago; "
                    f"wait for it, or name another output.store; a run without a sign for {LEASE / 60:.0f} minutes "
                    "is taken for dead"
                )
            with suppress(AlreadyExistsError, PreconditionError):
                self._put(held.version)
                self._try_conditions()
                return
        raise OutputError(
            f"other runs want to write to {self.owner!r} as well; run again, or name another output.store"
        )

    def renew(self) -> None:
        """Give a sign; `OutputError` where another process has taken over."""
        from obstore.exceptions import PreconditionError

        with self._one_at_a_time:
            if not self._lost:
                try:
                    self._put(self._version)
                    return
                except PreconditionError:
                    held = self._held()
                if held is not None and held.about.get("token") == self._token:
                    self._version = held.version
                    return
            self._lost = True
            raise OutputError(
                f"another run has taken over {self.owner!r}, as this one gave no sign for {LEASE / 60:.0f} minutes; "
                "nothing of it was published: run again, or name another output.store"
            )

    def keep(self) -> None:
        """Renew until it is let go of."""
        while not self._ended.wait(RENEWED):
            try:
                self.renew()
            except ClusteringError as error:
                # What is lost ends the run when it matters, and what fails for the moment is tried again in time.
                logger.warning("the lock was not renewed: %s", error)

    def release(self) -> None:
        """Let go of it."""
        self._ended.set()
        with self._one_at_a_time, suppress(ClusteringError):
            held = self._held()
            if held is not None and held.about.get("token") == self._token:
                self.path.unlink(missing_ok=True)

    def _try_conditions(self) -> None:
        """Refuse a store that writes whatever is there already: it cannot keep two runs apart."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        others = {"e_tag": '"0"', "version": "1"}
        for mode in ("create", {name: others[name] for name in self._version}):
            try:
                self._put(mode)
            except (AlreadyExistsError, PreconditionError):
                continue
            raise OutputError(
                f"the store of {self.owner!r} ignores conditions of writes (If-None-Match, If-Match), so that two runs "
                "could not be kept apart; name a folder, or a bucket of a store that heeds them"
            )

    def _put(self, mode: Any) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        about = {
            "token": self._token, "host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(),
            "time": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        with translate_errors(self.path.root, (AlreadyExistsError, PreconditionError), "write to"):
            made = obstore.put(self.path.store, self.path.key, json.dumps(about).encode(), mode=mode)
        self._version = version_of(made)

    def _held(self) -> _Held | None:
        import obstore

        try:
            with translate_errors(self.path.root, (FileNotFoundError,)):
                result = obstore.get(self.path.store, self.path.key)
                content = bytes(result.bytes())
        except FileNotFoundError:
            return None
        try:
            about = json.loads(content)
        except (ValueError, RecursionError):
            about = {}
        age = (datetime.now(UTC) - result.meta["last_modified"]).total_seconds()
        return _Held(about if isinstance(about, dict) else {}, version_of(result.meta), age)


def version_of(meta: Any) -> dict[str, str]:
    """Tell by what the store tells an object from what is put in its place; from its metadata."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


def _machine() -> str:
    """Name what process numbers are counted in: a start of a machine, and a container on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _is_gone(about: dict[str, Any]) -> bool:
    """Tell a lock whose process ran on this machine and runs no more."""
    if about.get("machine") != _machine() or not isinstance(about.get("pid"), int):
        return False
    try:
        os.kill(about["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def leased(path: BucketPath, owner: str) -> Iterator[Lease]:
    """Hold a lock.

    Parameters
    ----------
    owner
        What is locked, as it is named in messages.

    Raises
    ------
    OutputError
        If another run holds it.
    StoreError
        If the bucket refuses.
    """
    lease = Lease(path, owner)
    try:
        lease.take()
        threading.Thread(target=lease.keep, name="clustering-lease", daemon=True).start()
        yield lease
    finally:
        lease.release()
