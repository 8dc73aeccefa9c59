"""What the tests of the data layer share."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from zarr.storage import LocalStore

from clustering.data import codecs


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Keys asked of any store on disk, with how often; what decodes in Rust asks the disk itself."""
    monkeypatch.setattr(codecs, "rust", lambda: None)
    keys: Counter[str] = Counter()
    original = LocalStore.get

    async def get(self: LocalStore, key: str, *args: Any, **kwargs: Any) -> Any:
        keys[key] += 1
        return await original(self, key, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "get", get)
    return keys
