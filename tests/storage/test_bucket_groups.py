"""`Fit.save` into a bucket: it writes to an empty prefix, replaces what it wrote itself, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import clustering as c
from clustering.errors import OutputError, SourceError
from clustering.storage import bucket_groups
from clustering.storage.paths import BucketPath
from tests.s3 import Bucket


def fitted(seed: int, d: int) -> c.Fit:
    rows = np.random.default_rng(seed).standard_normal((12, d))
    return c.fit(rows, c.KMeans(2), cluster="synchronous", restarts=1, max_iterations=1)


FIT, OTHER, ALIKE = fitted(0, 2), fitted(1, 3), fitted(2, 2)


def put(bucket: Bucket, *keys: str, body: bytes = b"precious") -> None:
    for key in keys:
        bucket.ask("PUT", f"/{key}", body)


def saved_with(key: str) -> Callable[[Bucket], None]:
    def make(bucket: Bucket) -> None:
        FIT.save(f"{bucket.url}/deep/model.zarr")
        put(bucket, f"deep/model.zarr/{key}")

    return make


def group_of_others(bucket: Bucket) -> None:
    put(bucket, "deep/model.zarr/zarr.json", body=b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')


def changed(bucket: Bucket) -> None:
    FIT.save(f"{bucket.url}/deep/model.zarr")
    about = bucket.content("deep/model.zarr")["centers/zarr.json"]
    put(bucket, "deep/model.zarr/centers/zarr.json", body=about.replace(b'"units"', b'"other"') + b" ")


FOREIGN: dict[str, tuple[Callable[[Bucket], None], str]] = {
    "object": (lambda b: put(b, "deep/model.zarr/thesis.tex"), "holds 'thesis.tex'"),
    "object-deep-inside": (lambda b: put(b, "deep/model.zarr/a/b/c.txt"), "holds 'a/b/c.txt'"),
    "object-beside-a-model": (saved_with("notes.txt"), "holds 'notes.txt'"),
    "object-inside-an-array": (saved_with("centers/notes.txt"), "holds 'centers/notes.txt'"),
    "group-of-others": (group_of_others, "is a Zarr store of others"),
    "changed-since": (changed, "was changed after it was written"),
    "output-of-runs": (lambda b: put(b, "deep/model.zarr/.output.json"), "is the output of runs"),
    "older-output": (lambda b: put(b, "deep/model.zarr/current", "deep/model.zarr/x"), "is the output of runs"),
    "inside-a-store": (lambda b: put(b, "deep/zarr.json"), "is inside .*, a Zarr store"),
    "inside-an-older-store": (lambda b: put(b, ".zgroup"), "is inside .*, a Zarr store"),
    "inside-an-output": (lambda b: put(b, "deep/.output.json"), "is inside .*, the output of runs"),
}


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_save_did_not_write_is_refused_and_stays(kind: str, overwrite: bool, bucket: Bucket) -> None:
    make, said = FOREIGN[kind]
    make(bucket)
    before = bucket.content()
    with pytest.raises(OutputError, match=said):
        OTHER.save(f"{bucket.url}/deep/model.zarr", overwrite=overwrite)
    assert bucket.content() == before


def test_a_model_is_replaced_on_demand_and_neighbours_stay(bucket: Bucket) -> None:
    put(bucket, "deep/model.zarr.txt", "deep/model", "other/model.zarr/x")
    neighbours = bucket.content()
    url = f"{bucket.url}/deep/model.zarr"
    OTHER.save(url)
    whole = bucket.content("deep/model.zarr")
    FIT.save(f"{bucket.url}/elsewhere")
    with pytest.raises(OutputError, match=r"exists; .*overwrite=True"):
        FIT.save(url)
    assert bucket.content("deep/model.zarr") == whole
    FIT.save(url, overwrite=True)
    assert bucket.content("deep/model.zarr").keys() == bucket.content("elsewhere").keys()
    assert np.array_equal(c.load_fit(url).centers, FIT.centers)
    assert {key: bucket.content()[key] for key in neighbours} == neighbours


class Crash(BaseException):
    pass


@pytest.mark.slow
def test_a_save_that_is_cut_short_anywhere_is_no_model_until_the_next_one(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save ends after a number of the requests that change the bucket."""
    url, left = f"{bucket.url}/model.zarr", [0]
    write, unlink = bucket_groups.write_bytes, BucketPath.unlink

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*given: Any, **named: Any) -> Any:
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return act(*given, **named)

        return limited

    old, new = (one.centers.tobytes() for one in (ALIKE, FIT))
    seen = []
    for step in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 1000):
        left[0] = -1
        ALIKE.save(url, overwrite=True)
        left[0] = step
        with monkeypatch.context() as patched:
            patched.setattr(bucket_groups, "write_bytes", counted(write))
            patched.setattr(BucketPath, "unlink", counted(unlink))
            try:
                FIT.save(url, overwrite=True)
            except Crash:
                pass
            else:
                break
        try:
            seen.append(c.load_fit(url).centers.tobytes())
        except SourceError:
            seen.append(b"")
    assert seen[:2] == [old, old]
    assert set(seen[2:]) == {b""}
    assert c.load_fit(url).centers.tobytes() == new
