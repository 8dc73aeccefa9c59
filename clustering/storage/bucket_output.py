"""An output in a bucket: versions side by side, one switch, checkpoints, a lock. See `clustering.storage.layout`.

The switch is the object `current`, which one conditional write replaces. A bucket has no links, so the version is then
copied to the plain names, for readers that do not know versions. `run.json` and the `zarr.json` of each group are
removed first and copied last. The next run that takes the lock finishes copying that was cut short.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from clustering.data.addresses import check_url
from clustering.data.ownership import OUTPUT_MARK
from clustering.data.store_errors import translate_errors
from clustering.errors import ClusteringError, ConfigError, OutputError
from clustering.storage import layout
from clustering.storage.bucket_groups import check_outside
from clustering.storage.layout import CHECKPOINTS, CURRENT, LOCK, PARTS, RECORD, REPORT, VERSIONS
from clustering.storage.lease import Lease, leased, version_of
from clustering.storage.output import Output
from clustering.storage.owning import check_owned, mark
from clustering.storage.paths import BucketPath, children, in_bucket, translating_write_errors

_HEADS = ("labels.zarr/zarr.json", "model.zarr/zarr.json")
"""No group can be opened without these objects."""
_COPIES = 16
"""Number of objects that are copied at once."""


def open_output(store: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Output | BucketOutput:
    """Open the output at a path or a URL; no request is made to a bucket yet.

    Parameters
    ----------
    store
        Folder, or URL of a prefix in a bucket.
    options
        Storage options of a bucket, without secrets; not allowed for a folder.

    Raises
    ------
    ConfigError, OutputError
        If options are given for a folder, or the URL is neither local nor of a bucket.
    """
    text = os.fspath(store)
    if in_bucket(text):
        return BucketOutput(text, options or {})
    if options:
        raise ConfigError(f"output.storage_options are given for {text!r}, which is no bucket; leave them out")
    return Output(text)


class BucketOutput:
    """The prefix in a bucket that runs write to."""

    def __init__(self, store: str, options: Mapping[str, Any]) -> None:
        check_url(store, "output.store")
        self.path = BucketPath(store.rstrip("/"), dict(options))
        self._lease: Lease | None = None

    @property
    def checkpoints(self) -> BucketPath:
        """Prefix of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def finished(self) -> str | None:
        """Name of the current version, if there is one."""
        return layout.current(self.path) or self._unversioned()

    @property
    def published(self) -> BucketPath:
        """Prefix of the current version; raises `OutputError` where there is none."""
        run = layout.current(self.path)
        if run is not None:
            return self.staging(run)
        if self._unversioned() is None:
            raise layout.no_version_error(self.path)
        return self.path

    def staging(self, run: str) -> BucketPath:
        """Return the prefix of a run's version, which readers do not see before the switch.

        Parameters
        ----------
        run
            Name of the run.
        """
        return self.path / VERSIONS / run

    def check(self) -> None:
        """Refuse a prefix that no run can write to; nothing is written.

        Raises
        ------
        ClusteringError
            If the bucket does not exist or may not be listed, or the prefix holds something else.
        """
        check_outside(self.path)
        check_owned(self.path)

    @contextmanager
    def locked(self, unfinished: Callable[[], str | None] = lambda: None) -> Iterator[None]:
        """Keep other runs off this output, and finish a switch that was cut short; see `clustering.storage.lease`.

        Versions that were staged and not finished are removed at the end.

        Parameters
        ----------
        unfinished
            Called at the end; names the run that may go on later, whose staged files are kept.

        Raises
        ------
        OutputError
            If another run is writing, or the prefix holds something else.
        StoreError
            If the bucket refuses.
        """
        check_owned(self.path)
        with leased(self.path / LOCK, str(self.path)) as lease:
            self._lease = lease
            try:
                mark(self.path)
                self._settle()
                yield
            finally:
                self._lease = None
                # The next run removes the rest if this fails. The lease is renewed first, so that files of a run that
                # took over are never removed.
                with suppress(ClusteringError):
                    lease.renew()
                    layout.remove_unfinished(self.path, {self.finished, unfinished()})
                    # A run that wrote nothing leaves no mark, so that the prefix is free again.
                    if {path.name for path in children(self.path)} <= {LOCK, OUTPUT_MARK}:
                        (self.path / OUTPUT_MARK).unlink(missing_ok=True)

    def stage(self, run: str, keep: Collection[str] = ()) -> BucketPath:
        """Clear the prefix of a run's version.

        Parameters
        ----------
        run
            Name of the run.
        keep
            Names in the version that stay, from an earlier attempt of the same run.

        Returns
        -------
        BucketPath
            Prefix of the version.
        """
        folder = self.staging(run)
        layout.stage(folder, keep)
        return folder

    def switch(self, run: str) -> None:
        """Make a version the current one in one step, and copy it to the plain names.

        Parameters
        ----------
        run
            Name of the run of the version.

        Raises
        ------
        OutputError
            If another run has taken over meanwhile; nothing is changed then.
        """
        self._point(run)
        self._refresh(run)

    def link(self) -> None:
        """Copy the report of the current version to its plain name, because the report may have been made anew."""
        if (self.published / REPORT).is_file():
            self._copy(self.published / REPORT, self.path / REPORT)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the current version.

        Parameters
        ----------
        name
            File name in the version, such as ``run.json``.

        Raises
        ------
        OutputError
            If the output has no finished run.
        """
        content = layout.read_json_object(self.published / name)
        if content is None:
            raise layout.no_version_error(self.path)
        return content

    def _point(self, run: str) -> None:
        """Write the switch, on condition that nobody else has written it since it was read."""
        # obstore is optional, so it is imported only where there is a bucket.
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        path = self.path / CURRENT
        mode: Any = "create"
        with suppress(FileNotFoundError), translate_errors(path.root, (FileNotFoundError,)):
            mode = version_of(obstore.head(path.store, path.key))
        # The version of `current` is read before the lease is renewed. A run that takes the lock after the renewal
        # changes `current`, so that the conditional write below fails.
        if self._lease is not None:
            self._lease.renew()
        try:
            with translate_errors(path.root, (AlreadyExistsError, PreconditionError), "write to"):
                obstore.put(path.store, path.key, json.dumps({"run": run}).encode(), mode=mode)
        except (AlreadyExistsError, PreconditionError) as error:
            # obstore tries again when an answer is lost. Then the second try finds the object that the first one wrote.
            if layout.current(self.path) != run:
                raise OutputError(
                    f"another run has published to {str(self.path)!r} in the meantime, because this one did not renew "
                    f"its lock; 'clustering models list {self.path}' lists the versions"
                ) from error

    def _settle(self) -> None:
        """Finish a switch that was cut short; make a version of an output from before there were versions."""
        run = layout.current(self.path)
        if run is None:
            run = self._adopted()
            if run is None:
                return
            self._point(run)
        record = layout.read_record(self.staging(run))
        # `run.json` is copied last, so a plain one that differs shows that copying was cut short.
        if record is not None and record != layout.read_record(self.path):
            self._refresh(run)

    def _refresh(self, run: str) -> None:
        """Copy a version to the plain names."""
        version = self.staging(run)
        wanted, there = self._parts(version), self._parts(self.path)
        late = {RECORD, *_HEADS}
        # Readers must not open a mix of two versions, so heads are removed before the first change and copied last.
        for head in (RECORD, *_HEADS):
            if head in there:
                (self.path / head).unlink(missing_ok=True)
        self._each(lambda name: self._copy(version / name, self.path / name), wanted - late)
        self._each(lambda name: (self.path / name).unlink(missing_ok=True), there - wanted - late)
        # `run.json` comes last, because the next run takes it for a sign that all is copied.
        for head in (*_HEADS, RECORD):
            if head in wanted:
                self._copy(version / head, self.path / head)

    def _unversioned(self) -> str | None:
        """Name the run at the plain names of an output from before there were versions."""
        return layout.run_name(layout.read_record(self.path))

    def _adopted(self) -> str | None:
        """Copy an unversioned output into a version, and name it.

        Without a plain `run.json`, an earlier copy was cut short: name the finished version that it was to switch to.
        """
        run = self._unversioned()
        if run is None:
            versions = layout.versions_of(self.path)
            return next((version.name for version in versions if (version / RECORD).is_file()), None)
        version = self.staging(run)
        self._each(lambda name: self._copy(self.path / name, version / name), self._parts(self.path) - {RECORD})
        # A version counts as finished from here on, so `run.json` comes last.
        self._copy(self.path / RECORD, version / RECORD)
        return run

    def _parts(self, folder: BucketPath) -> set[str]:
        """List the objects of a version that have plain names, by key from the folder."""
        start = f"{folder.key}/".lstrip("/")
        groups = {part for part in PARTS if part.endswith(".zarr")}
        single = {path.name for path in children(folder)} & set(PARTS) - groups
        below = {key.removeprefix(start) for part in groups for key, _ in (folder / part).objects()}
        # Foreign objects inside a group are neither copied nor removed.
        return single | set(filter(layout.is_written_by_runs, below))

    def _copy(self, source: BucketPath, target: BucketPath) -> None:
        import obstore

        with translating_write_errors(self.path):
            obstore.copy(self.path.store, source.key, target.key)

    def _each(self, act: Callable[[str], None], names: Collection[str]) -> None:
        """Call a function for each name, in threads, because each call waits for the bucket."""
        with ThreadPoolExecutor(_COPIES, thread_name_prefix="clustering-publish") as pool:
            for _ in pool.map(act, sorted(names)):
                pass
