"""The page of the package index, made of README.md: an index has no files for its links to lead to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_FENCE = re.compile(r"^(```.*?^```)", flags=re.M | re.S)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!#|[a-z]+:)([^)\s]+)\)")


def long_description(readme: str, pictures: str, pages: str) -> str:
    """Replace the links to files of the repository.

    Parameters
    ----------
    readme
        README.md.
    pictures, pages
        Addresses of the folder of README.md, for pictures and for other files. Where one is empty, a picture becomes
        its description with the name of its file, and a link its text.

    Returns
    -------
    str
        Markdown without relative links.
    """

    def replaced(link: re.Match[str]) -> str:
        mark, text, target = link.groups()
        if address := pictures if mark else pages:
            return f"{mark}[{text}]({address.rstrip('/')}/{target})"
        return f"*{text}: {target}*" if mark else text

    # Brackets in code are no links.
    parts = _FENCE.split(readme)
    return "".join(part if part.startswith("```") else _LINK.sub(replaced, part) for part in parts)


class IndexPage(MetadataHookInterface):
    """Sets the long description of the package."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description to the metadata, with the addresses that pyproject.toml names.

        Parameters
        ----------
        metadata
            Metadata of the project.
        """
        addresses = (self.config[key].replace("{version}", metadata["version"]) for key in ("pictures", "pages"))
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": long_description(readme, *addresses)}
