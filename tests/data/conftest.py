"""Fixtures that the tests of the data layer share."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from zarr.storage import LocalStore

from clustering.data import codecs


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the requests to stores on disk by key. Decoding in Rust is off, as it would read the disk by itself."""
    monkeypatch.setattr(codecs, "rust", lambda: None)
    keys: Counter[str] = Counter()
    original = LocalStore.get

    async def get(self: LocalStore, key: str, *args: Any, **kwargs: Any) -> Any:
        keys[key] += 1
        return await original(self, key, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "get", get)
    return keys
