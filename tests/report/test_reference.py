from __future__ import annotations

from pathlib import Path

from clustering.config import JobConfig
from clustering.models.registry import MODELS, model_options
from clustering.option_texts import option_texts
from clustering.report.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_page_in_the_docs_is_that_of_the_declarations() -> None:
    assert PAGE.read_text() == reference(), "run `make reference`"


def rows(page: str) -> dict[str, str]:
    """Rows by section and option."""
    section, table_rows = "", {}
    for line in page.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| `"):
            table_rows[f"{section}.{line.split('`')[1]}"] = line
    return table_rows


def test_every_option_has_a_row_with_its_text() -> None:
    page = rows(reference())
    for name, field in JobConfig.model_fields.items():
        for option in field.annotation.model_fields:
            assert " ".join(option_texts(field.annotation)[option].split()) in page[f"{name}.{option}"]
    for option, of_models in model_options().items():
        assert all(kind in page[f"model.{option}"] for kind in of_models.kinds)
    assert {kind for option in model_options().values() for kind in option.kinds} == set(MODELS)


def test_limits_are_shown() -> None:
    page = rows(reference())
    assert "whole number ≥ 1" in page["fit.restarts"]
    assert "number > 0, ≤ 1" in page["fit.fraction"]
    assert "`drop` or `error` or `marginalize`" in page["source.missing"]
