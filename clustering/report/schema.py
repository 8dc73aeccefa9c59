"""The JSON schema of configs, by which editors complete keys and mark mistakes."""

from __future__ import annotations

import json
from typing import Any

from clustering.config import JobConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TITLE = "zarr-clustering: a job"
"""Title of the schema, by which a file with it is recognized."""


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of a config, made from the declarations of the options."""
    schema = JobConfig.model_json_schema()
    required = schema.get("required", [])
    # A section whose keys are all commented out is null in YAML, and as good as none.
    sections = {
        name: part if name in required else {"anyOf": [part, {"type": "null"}]}
        for name, part in schema["properties"].items()
    }
    return {"$schema": DIALECT, **schema, "title": TITLE, "properties": sections}


def schema_text() -> str:
    """Return the schema as the text of a file."""
    return json.dumps(config_schema(), indent=1, ensure_ascii=False) + "\n"


def is_schema(text: str) -> bool:
    """Return whether a file holds such a schema, perhaps of another version.

    Parameters
    ----------
    text
        Content of the file.
    """
    try:
        content = json.loads(text)
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("title") == TITLE
