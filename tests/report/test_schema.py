from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clustering.config import JobConfig
from clustering.models.registry import MODELS, model_options
from clustering.report.schema import config_schema, is_schema, schema_text
from clustering_flows.documents import read_document

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for folder in ("", "lecture") for path in (ROOT / "configs" / folder).glob("*.yaml"))


def test_the_schema_in_the_docs_is_that_of_the_declarations() -> None:
    text = (ROOT / "docs" / "config.schema.json").read_text()
    assert text == schema_text(), "run `make reference`"
    assert is_schema(text)
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    jsonschema.validate(read_document(path, path.name), config_schema())


def config(**sections: Any) -> dict[str, Any]:
    return {"source": {"store": "a.zarr"}, "output": {"store": "out"}, **sections}


@pytest.mark.parametrize(
    "wrong",
    [
        config(modle={"k": 3}),
        config(model={"kk": 3}),
        config(model={"kind": "kmean"}),
        config(model={"k": 0}),
        config(source={"store": "a.zarr", "sample_dim": ["time"]}),
        config(fit={"restart": 3}),
        config(fit={"fraction": 2.0}),
        config(compute={"cluster": "thread"}),
        config(select={"publish": "five"}),
        {"source": {"store": "a.zarr"}},
    ],
    ids=str,
)
def test_a_mistake_is_marked(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, config_schema())


def test_a_section_whose_keys_are_commented_out_is_valid() -> None:
    jsonschema.validate(config(fit=None, preprocess=None), config_schema())
    assert JobConfig.model_validate(config(fit=None, preprocess=None))


def test_every_key_has_a_text_and_models_have_their_own() -> None:
    schema = config_schema()
    for name in JobConfig.model_fields:
        part = schema["properties"][name]
        part = next((one for one in part.get("anyOf", [part]) if "$ref" in one), part)
        section = schema["$defs"][part["$ref"].rpartition("/")[2]]
        assert section["additionalProperties"] is False
        for key, option in section["properties"].items():
            assert option.get("description"), f"{name}.{key}"
    model = schema["$defs"]["ModelSection"]["properties"]
    assert model["kind"]["enum"] == list(MODELS)
    assert {*model_options()} <= {*model}


def test_another_file_is_no_schema() -> None:
    assert not is_schema("{}")
    assert not is_schema("source:")
    assert not is_schema("[1]")
