from __future__ import annotations

from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from clustering.data.codecs import checksum_remark, checksummed

V3: dict[str, tuple[dict[str, Any], bool]] = {
    "none": ({"compressors": None}, False),
    "zstd": ({"compressors": ZstdCodec()}, False),
    "zstd with a checksum": ({"compressors": ZstdCodec(checksum=True)}, True),
    "blosc": ({"compressors": BloscCodec()}, False),
    "gzip": ({"compressors": GzipCodec()}, True),
    "crc32c": ({"compressors": [ZstdCodec(), Crc32cCodec()]}, True),
    "shards whose index alone is checked": ({"compressors": ZstdCodec(), "shards": (8,)}, False),
    "shards": ({"compressors": [ZstdCodec(), Crc32cCodec()], "shards": (8,)}, True),
}
V2: dict[str, tuple[dict[str, Any], bool]] = {
    "none": ({"compressors": None}, False),
    "blosc": ({"compressors": numcodecs.Blosc()}, False),
    "zstd": ({"compressors": numcodecs.Zstd()}, False),
    "zstd with a checksum": ({"compressors": numcodecs.Zstd(checksum=True)}, True),
    "zlib": ({"compressors": numcodecs.Zlib()}, True),
    "fletcher32": ({"compressors": numcodecs.Blosc(), "filters": [numcodecs.Fletcher32()]}, True),
    "crc32": ({"compressors": None, "filters": [numcodecs.CRC32()]}, True),
}
CASES = [(2, *case) for case in V2.values()] + [(3, *case) for case in V3.values()]


def make(path: Path, version: Any, options: dict[str, Any], *, name: str) -> None:
    group = zarr.open_group(path, mode="a", zarr_format=version)
    group.create_array(name, shape=(16,), chunks=(4,), dtype="f4", **options)[...] = np.arange(16)


def metadata_of(path: Path) -> dict[str, Any]:
    return zarr.open_array(path, mode="r").metadata.to_dict()


@pytest.mark.parametrize(("version", "options", "expected"), CASES, ids=[f"2 {n}" for n in V2] + [f"3 {n}" for n in V3])
def test_codecs_are_recognized_from_the_metadata(version: Any, options: Any, expected: bool, tmp_path: Path) -> None:
    make(tmp_path / "store.zarr", version, options, name="x")
    assert checksummed(metadata_of(tmp_path / "store.zarr" / "x")) == expected


def test_codecs_of_other_writers_are_known_by_name() -> None:
    assert checksummed({"zarr_format": 3, "codecs": ["bytes", "crc32c"]})
    assert checksummed({"zarr_format": 3, "codecs": [{"name": "bytes"}, {"name": "numcodecs.fletcher32"}]})
    assert not checksummed({"zarr_format": 3, "codecs": [{"name": "bytes"}, {"name": "somebody.elses"}]})
    assert not checksummed({"zarr_format": 2, "filters": None, "compressor": None})


def test_it_is_remarked_only_where_no_array_has_any(tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    make(path, 3, V3["zstd"][0], name="plain")
    make(path, 3, V3["crc32c"][0], name="checked")
    plain, checked = metadata_of(path / "plain"), metadata_of(path / "checked")
    remark = checksum_remark([plain])
    assert remark == "the source has no checksums: a flipped bit in a chunk would go unnoticed"
    assert checksum_remark([plain, checked]) is None
    assert checksum_remark([]) is None
