"""An output in a bucket: staged versions, checkpoints, a lock, and a switch that is told by `run.json`.

::

    bucket/prefix/
      model.zarr  labels.zarr  report.html  run.json     what is published
      versions/<run>/                what a run makes until it is published; of an unfinished run, what it has labelled
      checkpoints/                   of the run under way, or the last one
      .lock                          of the run under way

A bucket can neither rename nor link. To publish is to copy objects inside the bucket: `run.json` goes first and comes
last, and so does the `zarr.json` of each group. Whatever ends it in between leaves the version whole, and whoever takes
the lock next brings the switch to its end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from clustering.data.addresses import check_url
from clustering.errors import ClusteringError, ConfigError, OutputError
from clustering.storage.lease import Lease, leased
from clustering.storage.output import NAMES, PARTS, Output
from clustering.storage.places import BucketPlace, children, in_bucket, remove, writing

RECORD = "run.json"
_HEADS = ("labels.zarr/zarr.json", "model.zarr/zarr.json")
"""Without these, there is no group to open."""
_VERSIONS, _CHECKPOINTS, _LOCK = "versions", "checkpoints", ".lock"
_COPIES = 16
"""Objects that are copied at once."""


def open_output(store: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Output | BucketOutput:
    """Find the output of a path or a URL; nothing is asked of a bucket yet.

    Parameters
    ----------
    options
        Storage options of a bucket, without secrets.

    Raises
    ------
    ConfigError, OutputError
        For options of a folder, or a URL of something else.
    """
    text = os.fspath(store)
    if in_bucket(text):
        return BucketOutput(text, options or {})
    if options:
        raise ConfigError(f"output.storage_options are given for {text!r}, which is no bucket; leave them out")
    return Output(text)


class BucketOutput:
    """The prefix of a bucket that a run writes to."""

    def __init__(self, store: str, options: Mapping[str, Any]) -> None:
        check_url(store, "output.store")
        self.path = BucketPlace(store.rstrip("/"), dict(options))
        self._lease: Lease | None = None

    @property
    def checkpoints(self) -> BucketPlace:
        """Prefix of the checkpoints."""
        return self.path / _CHECKPOINTS

    @property
    def published(self) -> BucketPlace:
        """Prefix of what is published."""
        return self.path

    @property
    def finished(self) -> str | None:
        """Name of the published run, if there is one; there is none in the middle of a switch."""
        try:
            return str(json.loads((self.path / RECORD).read_bytes())["run"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def staging(self, run: str) -> BucketPlace:
        """Prefix of what a run makes, out of sight until it is published."""
        return self.path / _VERSIONS / run

    def check(self) -> None:
        """Refuse a place where no run can write, without writing.

        Raises
        ------
        ClusteringError
            If there is no such bucket, it may not be listed, or the prefix holds something else.
        """
        ours = {_VERSIONS, _CHECKPOINTS, _LOCK, NAMES, *PARTS}
        foreign = [place.name for place in children(self.path) if place.name not in ours]
        if foreign:
            raise OutputError(
                f"output.store {str(self.path)!r} holds {foreign[0]!r}, which is not from a run; name a new prefix"
            )

    @contextmanager
    def locked(self, unfinished: Callable[[], str | None] = lambda: None) -> Iterator[None]:
        """Keep other runs off this output, see `clustering.storage.lease`; and end a switch that was cut short.

        What was staged and not published is removed again.

        Parameters
        ----------
        unfinished
            Names the run, asked in the end, that may go on later: what it staged stays.

        Raises
        ------
        OutputError
            If another run is writing.
        StoreError
            If the bucket refuses.
        """
        with leased(self.path / _LOCK, str(self.path)) as lease:
            self._lease = lease
            try:
                begun = self._switching()
                if begun is not None:
                    self.publish(begun)
                yield
            finally:
                self._lease = None
                # What cannot be removed now, the next run removes; and nothing is another run's to remove.
                with suppress(ClusteringError):
                    lease.renew()
                    self._drop_versions({unfinished(), self._switching()})

    def stage(self, run: str, keep: Collection[str] = ()) -> BucketPlace:
        """Clear the prefix of what a run makes, but for the names to keep of an earlier attempt of it."""
        folder = self.staging(run)
        for place in children(folder):
            if place.name not in keep:
                remove(place)
        return folder

    def publish(self, run: str) -> None:
        """Switch the output to a staged run, and drop its version and all others.

        Raises
        ------
        OutputError
            If another run has taken over meanwhile; nothing is changed then.
        """
        if self._lease is not None:
            self._lease.renew()
        staged = self._parts(self.staging(run))
        published = self._parts(self.path)
        # From here on nobody takes the old version for whole, nor the new one before its time.
        for head in (RECORD, *_HEADS):
            if head in published:
                (self.path / head).unlink(missing_ok=True)
        late = {RECORD, *_HEADS}
        self._each(lambda name: self._copy(run, name), staged - late)
        self._each(lambda name: (self.path / name).unlink(missing_ok=True), published - staged - late)
        for head in (*_HEADS, RECORD):
            if head in staged:
                self._copy(run, head)
        self._drop_versions(set())

    def link(self) -> None:
        """Do nothing: in a bucket, what is published lies under its names."""

    def read_json(self, name: str) -> Any:
        """Read a published JSON file.

        Raises
        ------
        OutputError
            If there is no finished run here.
        """
        try:
            return json.loads((self.path / name).read_bytes())
        except (FileNotFoundError, ValueError) as error:
            remedy = "name the output.store of a finished run"
            if self._switching() is not None:
                remedy = "one was killed while it was published, and the next 'fit' or 'predict' there ends that"
            raise OutputError(f"no finished run at {str(self.path)!r}; {remedy}") from error

    def _switching(self) -> str | None:
        """Name the version that a switch was made to and is not yet under its names, as nothing is."""
        if (self.path / RECORD).is_file():
            return None
        return next((v.name for v in children(self.path / _VERSIONS) if (v / RECORD).is_file()), None)

    def _drop_versions(self, kept: set[str | None]) -> None:
        for version in children(self.path / _VERSIONS):
            if version.name not in kept:
                remove(version)

    def _parts(self, folder: BucketPlace) -> set[str]:
        """List the objects of what a run leaves, from the folder."""
        start = f"{folder.key}/".lstrip("/")
        groups = {part for part in PARTS if part.endswith(".zarr")}
        single = {place.name for place in children(folder)} & set(PARTS) - groups
        return single | {key.removeprefix(start) for part in groups for key, _ in (folder / part).objects()}

    def _copy(self, run: str, name: str) -> None:
        import obstore

        with writing(self.path):
            obstore.copy(self.path.store, (self.staging(run) / name).key, (self.path / name).key)

    def _each(self, act: Callable[[str], None], names: Collection[str]) -> None:
        with ThreadPoolExecutor(_COPIES, thread_name_prefix="clustering-publish") as pool:
            for _ in pool.map(act, sorted(names)):
                pass
