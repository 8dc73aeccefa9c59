from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from clustering.errors import ConfigError
from clustering_flows import documents
from clustering_flows.documents import parse_document, read_document
from clustering_flows.loading import load_config

VALUES = {
    # Numbers as they are written anywhere else.
    "1e-6": 1e-6,
    "1E5": 1e5,
    "-2.5e+3": -2500.0,
    ".5": 0.5,
    "3.": 3.0,
    "200_000": 200_000,
    "-17": -17,
    "0": 0,
    "0x1F": 31,
    "0o17": 15,
    "0b101": 5,
    "-.inf": -math.inf,
    # Nobody means base 60 or base 8.
    "12:30": "12:30",
    "190:20:30.15": "190:20:30.15",
    "010": "010",
    "08": "08",
    # Dates of any calendar, and versions.
    "2010-01-01": "2010-01-01",
    "2010-02-30": "2010-02-30",
    "2001-12-14 21:59:43.10": "2001-12-14 21:59:43.10",
    "1.2.3": "1.2.3",
    # Truth values and nothing.
    "yes": True,
    "Off": False,
    "TRUE": True,
    "y": "y",
    "n": "n",
    "~": None,
    "null": None,
    "": None,
    "'no'": "no",
    '"1e-6"': "1e-6",
    "!!str 12": "12",
    "=": "=",
    "[on, 'off', nothing]": [True, "off", "nothing"],
}


@pytest.mark.parametrize(("text", "value"), VALUES.items(), ids=VALUES)
def test_plain_values_are_read_as_people_mean_them(text: str, value: Any) -> None:
    read = parse_document(f"a: {text}", "it")["a"]
    assert (read, type(read)) == (value, type(value))
    assert parse_document("a: .nan", "it")["a"] != parse_document("a: .nan", "it")["a"]


@pytest.mark.parametrize("key", ["no", "on", "2010", "1.5", "010", "null", "2010-01-01", "'12:30'"])
def test_keys_are_names_as_they_are_written(key: str) -> None:
    assert parse_document(f"{{{key}: 1}}", "it") == {key.strip("'"): 1}


def test_aliases_are_written_out_and_may_be_merged() -> None:
    text = "a: &x {k: 1, l: [2]}\nb: {<<: *x, k: 3}\nc: *x\nd: {<<: [*x, {m: 4, k: 9}]}"
    read = parse_document(text, "it")
    assert read["b"] == {"k": 3, "l": [2]}
    assert read["d"] == {"k": 1, "l": [2], "m": 4}
    assert read["a"] == read["c"]
    assert read["a"] is not read["c"]


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))

REFUSED = {
    "key twice": ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice, first in line 1"),
    "key twice in a section": ("s:\n  a: 1\n  b: 2\n  a: 1\n", "line 4: the key 'a' is given twice, first in line 2"),
    "key twice in braces": ("s: {a: 1,\n  a: 2}", "line 2: the key 'a' is given twice, first in line 1"),
    "key twice, once in quotes": ("a: 1\n'a': 2", "line 2: the key 'a' is given twice"),
    "number twice": ("s: {2010: 1, 2010: 2}", "line 1: the key '2010' is given twice"),
    "section twice": ("s: {a: 1}\nt: 1\ns: {b: 1}", "line 3: the key 's' is given twice, first in line 1"),
    "tab": ("a:\n\tb: 1", "is not YAML, line 2: YAML allows only spaces there, and not a tab"),
    "two documents": ("a: 1\n---\nb: 2", "is not YAML, line 2: a second document begins there ('---')"),
    "laughs": (LAUGHS, "more than 500,000 values"),
    "holds itself": ("a: &a [1, *a]", "line 1: there are more than 40 levels, or a value that holds itself"),
    "holds itself by merging": ("a: &a {<<: *a}", "line 1: there are more than 40 levels"),
    "brackets": ("[" * 3000, "too many levels"),
    "levels": ("[" * 60 + "]" * 60, "more than 40 levels"),
    "object": ("a: 1\nb: !!python/object/apply:os.system [ls]", "line 2: the tag '!!python/object/apply:os.system'"),
    "own tag": ("a: !mine 3", "the tag '!mine' is not allowed"),
    "set": ("a: !!set {b, c}", "the tag '!!set' is not allowed"),
    "bytes": ("a: !!binary aGk=", "the tag '!!binary' is not allowed"),
    "list as a key": ("a: 1\n? [b, c]\n: 1", "line 2: a list or a mapping stands as a key"),
    "tag of no number": ("a: !!int many", "line 1: 'many' is not a number"),
    "tag of no truth": ("a: !!bool maybe", "line 1: 'maybe' is not a truth value"),
    "number of many digits": (f"a: {'9' * 5000}", "line 1: '9999"),
    "merged value": ("a: {<<: 3}", "line 1: << takes a mapping"),
    "unknown alias": ("a: *.zarr", "line 1: "),
    "open bracket": ("a: [\n", "is not YAML, line 2"),
    "colons": ("a: b: c", "is not YAML, line 1"),
    "control character": ("a: \x07", "the character"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_what_may_be_meant_in_two_ways_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document(text, "the config 'x'")
    assert said in str(caught.value)
    assert str(caught.value).startswith("the config 'x'")
    assert "\n" not in str(caught.value)


TEXT = "source: {store: größe.zarr}\noutput: {store: out}\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_mark_of_the_encoding_in_front_does_no_harm(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(TEXT.encode(encoding))
    assert load_config(path).source.store == "größe.zarr"


ENCODINGS = {
    "utf-16": (TEXT.encode("utf-16"), "it looks like UTF-16; save it as UTF-8"),
    "utf-16 without a mark": (TEXT.encode("utf-16-le"), "UTF-16, or no text at all"),
    "utf-32": (TEXT.encode("utf-32"), "UTF-16"),
    "latin-1": (b"# job\n" + TEXT.encode("latin-1"), "line 2: byte 0xf6 is of another encoding, such as latin-1"),
    "image": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "no text at all"),
}


@pytest.mark.parametrize(("content", "said"), ENCODINGS.values(), ids=ENCODINGS)
def test_another_encoding_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


KINDS = {
    "": "is empty",
    "# a\n": "is empty",
    "---\n": "is empty",
    "{}": "is empty",
    "- a\n": "is a list",
    "3": "is one",
}


@pytest.mark.parametrize(("text", "said"), KINDS.items(), ids=repr)
def test_a_file_without_keys_says_what_it_is(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{said}.*holds no keys; allowed: source"):
        load_config(path)


def test_a_file_of_data_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 100)
    (tmp_path / "data").write_bytes(b"1" * 101)
    with pytest.raises(ConfigError, match="larger than 100 bytes"):
        read_document(tmp_path / "data", "it")
    with pytest.raises(ConfigError, match="larger than 100 bytes"):
        read_document("/dev/zero", "it")


def test_a_pipe_may_be_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a: 1\n")
    os.close(writing)
    assert read_document(f"/dev/fd/{reading}", "it") == {"a": 1}
    os.close(reading)


NAMES = {
    "sample_dims: [lat, on]": "source.sample_dims.1 is true; text is needed; put names such as on, off, yes and no",
    "feature_dims: no": "source.feature_dims is false",
    "variables: [t, null]": "source.variables.1 is null; text is needed; put null in quotes",
    "variables: [1e5]": "source.variables.0 is 100000.0; text is needed; put numbers that are names in quotes",
    "mask: on": "source.mask is true; text is needed; put names such as on, off, yes and no in quotes",
}


@pytest.mark.parametrize(("line", "said"), NAMES.items(), ids=NAMES)
def test_a_name_that_yaml_takes_for_a_value_is_refused_with_the_remedy(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"source: {{store: a, {line}}}\noutput: {{store: b}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert said in str(caught.value)


def test_names_of_levels_keep_their_zeros(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("source: {store: a, group: 010}\nmodel: {k: 010}\noutput: {store: b, report: no}\n")
    config = load_config(path)
    assert (config.source.group, config.model.k, config.output.report) == ("010", 10, False)
