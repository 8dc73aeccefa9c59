from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import PARTS, choosing_k, results, summary
from benchmarks.__main__ import run
from benchmarks.results import RESULTS, Result

BENCHMARKS = Path(results.__file__).parent
FASTER = Result("pass", "small", 2.0, "ms", {"one": 8.0, "other": 5.0}, "≥", 2.0)
SLOWER = Result("pass", "large <1>", 4.0, "ms", {"one": 5.0}, "≥", 2.0)
NEVER = Result("to the end", "far", 4.0, "s", {"one": math.inf}, "≥", 20.0)
BOUNDED = Result("memory", "all", 4.4, "MiB", {"plan": 4.0}, "≤", 1.2)
SHOWN = Result("forecast", "all", 1.0, "s", {"forecast": 2.0}, "≤")
ALL = [FASTER, SLOWER, NEVER, BOUNDED, SHOWN]


def test_tables_and_figure_are_those_of_the_stored_results() -> None:
    files, readme = results.load(), summary.README.read_text()

    assert summary.with_results(readme, files) == readme
    if files:
        assert (RESULTS / "README.md").read_text() == summary.page(files)
        groups = summary.bars(results.stored_results(files))
        assert (RESULTS / "bars.svg").read_text() == summary.figure(groups)


def test_ratio_is_to_the_best_of_the_peers() -> None:
    assert (FASTER.ratio, FASTER.met) == (2.5, True)
    assert (SLOWER.ratio, SLOWER.met) == (1.25, False)
    assert (NEVER.ratio, NEVER.met) == (math.inf, True)
    assert (BOUNDED.ratio, BOUNDED.met) == (pytest.approx(1.1), True)
    assert (SHOWN.ratio, SHOWN.met) == (0.5, None)


def test_where_we_never_come_to_the_end_the_target_is_missed() -> None:
    both = Result("to the end", "farther", math.inf, "s", {"one": math.inf}, "≥", 20.0)

    assert both.met is False
    assert summary.worst([SLOWER, both, FASTER]) is both


def test_the_docs_have_every_stored_answer_about_known_numbers_of_clusters() -> None:
    answers = choosing_k.stored_answers()
    page = (RESULTS.parents[1] / "docs" / "choosing-k.md").read_text()
    assert choosing_k.table(answers) in page
    for kind, of_kind in answers.items():
        with_clusters = [one.verdict for one in of_kind if one.k > 1]
        counts = [with_clusters.count(verdict) for verdict in ("right", choosing_k.UNCLEAR, choosing_k.WRONG)]
        assert f"| `{kind}`, {len(with_clusters)} sets with clusters | {' | '.join(map(str, counts))} |" in page
        assert all(one.recommended is None for one in of_kind if one.k == 1)


def test_stored_results_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    results.save("resident", ALL, speeds={"bytes": 1.0})
    files = results.load(tmp_path)

    assert list(results.stored_results(files)) == ALL
    assert files["resident"]["speeds"] == {"bytes": 1.0}
    assert set(files["resident"]["machine"]) == {"processor", "processors", "blas", "python", "versions"}


def test_a_missed_target_is_said_plainly() -> None:
    rows = summary.short_table(ALL).splitlines()[2:]

    assert rows == [
        "| pass | ≥ 2 | **1.25** | large <1> | **1 of 2** |",
        "| to the end | ≥ 20 | ∞ | far | 1 of 1 |",
        "| memory | ≤ 1.2 | 1.1 | all | 1 of 1 |",
    ]


def test_figure_marks_every_case_and_each_missed_one() -> None:
    drawn = ElementTree.fromstring(summary.figure(summary.bars(ALL)))
    kinds = [element.get("class") for element in drawn.iter()]

    assert kinds.count("met") == 3
    assert kinds.count("missed") == 1


def test_without_results_there_is_no_table() -> None:
    assert summary.short_table([SHOWN]) == ""


def test_a_part_that_fails_does_not_stop_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    assert run({"absent": ("absent",), "stories": ("stories", "--help")}) == ["absent"]
    assert "destination" in capfd.readouterr().out


def test_parts_are_modules() -> None:
    for module, *_ in PARTS.values():
        assert (BENCHMARKS / f"{module}.py").is_file()


def test_no_stored_file_names_a_folder_of_the_machine() -> None:
    for path in RESULTS.glob("*.json"):
        assert not [text for text in _texts(json.loads(path.read_text())) if text.startswith("/")], path.name


def _texts(content: object) -> list[str]:
    if isinstance(content, dict):
        return [text for value in content.values() for text in _texts(value)]
    if isinstance(content, list):
        return [text for value in content for text in _texts(value)]
    return [content] if isinstance(content, str) else []
