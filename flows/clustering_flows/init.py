"""Makes a new stack ready for its first job: buckets, data, a work pool, and the nightly deployment.

The service ``init`` of docker-compose.yml runs this whenever the stack starts. Existing things are left as they are.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import fsspec
from cyclopts import App

from clustering.data.addresses import shown
from clustering.data.ingest import ingest
from clustering.data.store_errors import translate_errors
from clustering.errors import ConfigError, MissingDependencyError, PlaceError
from clustering.storage.paths import BucketPath, storage_path, write_bytes
from clustering_flows.cli import run
from clustering_flows.loading import load_config
from clustering_flows.orchestration import prepare

SAMPLE = "north-america.zarr"
"""Name of a source that a new stack fills with sample data."""
FIELD = "E1_north_america.nc"
"""File of the sample data in the package iris-sample-data: air temperature of a climate model, 1860 to 2099."""

app = App(
    name="init", help="Make a stack ready for its first job.", help_format="plaintext", result_action="return_value"
)


@app.default
def init(config: str, *, cron: str, timezone: str = "UTC", name: str = "nightly", pool: str = "clustering") -> None:
    """Make the buckets of a job, its first data, and its deployment, where they are missing.

    Parameters
    ----------
    config
        YAML file of the job; its source and its output are in buckets of S3.
    cron
        When it runs: minute, hour, day of the month, month, day of the week.
    timezone
        IANA time zone of the schedule.
    name
        Name of the deployment.
    pool
        Name of a work pool whose workers start processes.
    """
    job = load_config(config)
    source, output = (_bucket_path(key, getattr(job, key).store) for key in ("source", "output"))
    # Source and output may share a bucket.
    for bucket in dict.fromkeys((bucket_of(source), bucket_of(output))):
        _say(f"bucket {bucket}: {'made' if make_bucket(bucket) else 'there'}")
    if source.root.endswith(f"/{SAMPLE}"):
        _say(f"data {source}: {'uploaded' if upload_sample(source) else 'there'}")
    prepare()
    # Prefect reads its settings when it is imported.
    from clustering_flows.server import deploy, make_pool

    make_pool(pool)
    _say(f"deployed {deploy(job, name=name, pool=pool, cron=cron, timezone=timezone)}: {cron} {timezone}, on {pool}")


def _bucket_path(key: str, store: str) -> BucketPath:
    """Return the path of a store in S3, and refuse any other place."""
    if not store.startswith("s3://"):
        raise ConfigError(f"{key}.store is {shown(store)!r}; a stack keeps it in its object store: name an s3:// URL")
    path = storage_path(store)
    assert isinstance(path, BucketPath)
    return path


def bucket_of(path: BucketPath) -> str:
    """Return the name of the bucket of a path in S3."""
    return path.root.removeprefix("s3://").partition("/")[0]


def make_bucket(name: str) -> bool:
    """Make a bucket, and return whether it was missing.

    Raises
    ------
    StoreError
        If the store does not answer, or refuses the request.
    """
    try:
        with translate_errors(f"s3://{name}", (FileExistsError, ImportError), "make"):
            fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    except FileExistsError:
        return False
    except ImportError as error:
        raise MissingDependencyError(
            "making a bucket needs the package 's3fs'; pip install 'zarr-clustering[cloud]'"
        ) from error
    return True


def upload_sample(prefix: BucketPath) -> bool:
    """Upload the sample data to a bucket, and return whether they were missing.

    Raises
    ------
    OutputError
        If the prefix holds something else.
    """
    # The root metadata is uploaded last, so its presence shows that the upload is whole.
    if (prefix / "zarr.json").is_file():
        return False
    try:
        field = files("iris_sample_data") / "sample_data" / FIELD
    except ImportError as error:
        raise MissingDependencyError(
            f"there are no data at {prefix}, and the package with the sample data is not installed; "
            "pip install iris-sample-data, or name another source.store"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sample.zarr"
        ingest(str(field), store)
        start, ours = f"{prefix.key}/".lstrip("/"), {path.relative_to(store).as_posix() for path in _root_last(store)}
        # Keys of an earlier, interrupted upload are allowed; any other key belongs to somebody else.
        foreign = [key for key, _ in prefix.objects() if key.removeprefix(start) not in ours]
        if foreign:
            raise PlaceError(f"{prefix} holds {foreign[0]!r}, and no store; name another source.store")
        for path in _root_last(store):
            write_bytes(prefix / path.relative_to(store).as_posix(), path.read_bytes())
    return True


def _root_last(store: Path) -> Iterable[Path]:
    """List the files of a store with the root metadata last, so that an interrupted upload leaves no valid store."""
    files = (path for path in store.rglob("*") if path.is_file())
    return sorted(files, key=lambda path: (path == store / "zarr.json", path))


def _say(line: str) -> None:
    # The output of a container is a pipe. Without a flush, its log would show the lines late.
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], app))
