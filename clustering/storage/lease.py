"""A lock in a bucket: an object that names its holder, is renewed while it is held, and expires.

A killed process cannot remove its lock. So another run may take over a lock that was not renewed for `LEASE` seconds,
or at once where the process is known to be gone. A holder that could not renew for so long finds out before it
publishes.
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
"""Age at which a lock expires, in seconds, from the store's time of its renewal to the time of this machine."""
RENEWED = 20.0
"""Seconds between renewals, so that a lock outlives several that fail."""
_TRIES = 5
"""Tries to take the lock: between a look and a write, other runs may take or release it."""


@dataclass(frozen=True)
class _Held:
    """A lock in the bucket, of this or another process."""

    about: dict[str, Any]
    version: dict[str, str]
    """ETag or version of the object, for conditional writes."""
    age: float
    """In seconds."""


class Lease:
    """A lock that this process holds."""

    def __init__(self, path: BucketPath, owner: str) -> None:
        self.path, self.owner = path, owner
        self._token = uuid.uuid4().hex
        self._version: dict[str, str] = {}
        self._lost = False
        # The thread and the run renew the same object. Two writes at once would look like a takeover by another run.
        self._one_at_a_time = threading.Lock()
        self._ended = threading.Event()

    def take(self) -> None:
        """Take the lock; raise `OutputError` where another process holds it."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for _ in range(_TRIES):
            with suppress(AlreadyExistsError, PreconditionError):
                self._put("create")
                self._try_conditions()
                return
            held = self._held()
            if held is None:
                # The holder released the lock since the first try.
                continue
            if held.about.get("token") == self._token:
                # obstore tries again when an answer is lost. Then the second try found the object of the first.
                self._version = held.version
                return
            # An expired lock, or one of a dead process, is replaced on condition that nobody else has replaced it.
            if held.age < LEASE and not _is_gone(held.about):
                who = f"process {held.about.get('pid', '?')} on {held.about.get('host', 'another machine')}"
                raise OutputError(
                    f"another run is writing to {self.owner!r}: {who}, which renewed its lock {max(0.0, held.age):.0f} "
                    f"s ago; wait for it, or name another output.store; a lock expires after {LEASE / 60:.0f} minutes "
                    "without renewal"
                )
            with suppress(AlreadyExistsError, PreconditionError):
                self._put(held.version)
                self._try_conditions()
                return
        raise OutputError(
            f"other runs want to write to {self.owner!r} as well; run again, or name another output.store"
        )

    def renew(self) -> None:
        """Renew the lock; raise `OutputError` where another process has taken over."""
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
                f"another run has taken over {self.owner!r}, as this one did not renew its lock for "
                f"{LEASE / 60:.0f} minutes; nothing of it was published: run again, or name another output.store"
            )

    def keep(self) -> None:
        """Renew the lock in intervals until it is released."""
        while not self._ended.wait(RENEWED):
            try:
                self.renew()
            except ClusteringError as error:
                # A lost lock ends the run at its next own `renew`. A failure of the moment is tried again before the
                # lock expires.
                logger.warning("the lock was not renewed: %s", error)

    def release(self) -> None:
        """Release the lock, unless another process has taken over."""
        self._ended.set()
        with self._one_at_a_time, suppress(ClusteringError):
            held = self._held()
            if held is not None and held.about.get("token") == self._token:
                self.path.unlink(missing_ok=True)

    def _try_conditions(self) -> None:
        """Refuse a store that ignores conditions of writes, because it cannot keep two runs apart."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        others = {"e_tag": '"0"', "version": "1"}
        # Both writes must fail: the object exists, and its version is another.
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
            # A lock that cannot be read is held as well, and expires by its age.
            about = {}
        age = (datetime.now(UTC) - result.meta["last_modified"]).total_seconds()
        return _Held(about if isinstance(about, dict) else {}, version_of(result.meta), age)


def version_of(meta: Any) -> dict[str, str]:
    """Return the ETag and the version of an object, as obstore takes them for conditional writes.

    Parameters
    ----------
    meta
        Metadata of the object, from obstore.
    """
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


def _machine() -> str:
    """Name the machine, its boot and the container, inside which a process id is unique."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _is_gone(about: dict[str, Any]) -> bool:
    """Return whether the process of a lock ran on this machine and has ended."""
    if about.get("machine") != _machine() or not isinstance(about.get("pid"), int):
        return False
    try:
        # Signal 0 only checks that the process exists.
        os.kill(about["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def leased(path: BucketPath, owner: str) -> Iterator[Lease]:
    """Hold a lock while the context lasts.

    Parameters
    ----------
    path
        Object of the lock.
    owner
        The output that is locked, as messages name it.

    Raises
    ------
    OutputError
        If another run holds the lock.
    StoreError
        If the bucket refuses.
    """
    lease = Lease(path, owner)
    try:
        lease.take()
        # A daemon thread does not keep a process alive that has come to its end.
        threading.Thread(target=lease.keep, name="clustering-lease", daemon=True).start()
        yield lease
    finally:
        lease.release()
