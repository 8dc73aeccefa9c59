"""Parts of fsspec that are not public."""

from __future__ import annotations

from typing import Any


async def fetch_file(fs: Any, path: str) -> bytes:
    """Read a file of a file system. The coroutines of fsspec have names with an underscore, in all versions so far.

    Parameters
    ----------
    fs
        An asynchronous file system of fsspec.
    path
        Path of the file.
    """
    content: bytes = await fs._cat_file(path)
    return content


async def list_folder(fs: Any, path: str) -> list[str]:
    """Name what is in a folder of a file system, by the coroutine of fsspec, as `fetch_file` does.

    Parameters
    ----------
    fs
        An asynchronous file system of fsspec.
    path
        Path of the folder.
    """
    names: list[str] = await fs._ls(path, detail=False)
    return names


async def find_files(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Describe all files below a path of a file system, by the coroutine of fsspec, as `fetch_file` does.

    Parameters
    ----------
    fs
        An asynchronous file system of fsspec.
    path
        Path of a folder.
    """
    files: dict[str, dict[str, Any]] = await fs._find(path, detail=True)
    return files
