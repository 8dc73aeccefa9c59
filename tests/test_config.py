from __future__ import annotations

import datetime
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clustering.config import JobConfig, check_config
from clustering.errors import ConfigError
from clustering.option_values import in_bytes
from clustering_flows.loading import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
LEAST: dict[str, Any] = {"source": {"store": "in.zarr"}, "output": {"store": "out"}}


def changed(key: str, value: Any) -> dict[str, Any]:
    """The smallest config with one key set."""
    content: Any = deepcopy(LEAST)
    *sections, last = key.split("/")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return content


def refusal(content: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check_config(content)
    text = str(caught.value)
    assert "\n" not in text
    assert not {"pydantic", "http", "Config", "validation"} & set(text.split())
    return text


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "job.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_two_keys_are_enough() -> None:
    config = check_config(LEAST)
    assert (config.model.k, config.fit.seed, config.cluster, config.block_bytes) == (8, 0, "threads", None)
    assert config.memory_bytes == 2 * 2**30


UNKNOWN = {
    "section": (
        "modle",
        {},
        "'modle'",
        "did you mean 'model'? allowed: source, preprocess, model, fit, compute, select, output",
    ),
    "key": ("model/kk", 3, "'model.kk'", "did you mean 'k'? allowed: kind, k"),
    "key like no other": ("output/zzz", 3, "'output.zzz'", "allowed: store, storage_options, labels"),
    "hyphen for underscore": ("source/feature-dims", [], "'source.feature-dims'", "did you mean 'feature_dims'?"),
    "section with a hyphen": ("out-put", {}, "'out-put'", "did you mean 'output'?"),
    "words": ("fit/max iterations", 5, "'fit.max iterations'", "did you mean 'max_iterations'?"),
    "removed": ("compute/block_bytes", 5, "'compute.block_bytes'", "did you mean 'block'?"),
}


@pytest.mark.parametrize(("key", "value", "named", "remedy"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_key_is_named_with_the_nearest_known_one(key: str, value: Any, named: str, remedy: str) -> None:
    text = refusal(changed(key, value))
    assert f"unknown key {named}" in text
    assert remedy in text


@pytest.mark.parametrize("key", ["source", "output", "source/store", "output/store"])
def test_a_missing_key_is_named(key: str) -> None:
    content = deepcopy(LEAST)
    section, _, last = key.partition("/")
    if last:
        del content[section][last]
    else:
        del content[section]
    assert f"key '{key.replace('/', '.')}' is missing" in refusal(content)


WRONG = {
    "word for a number": ("model/k", "eight", "model.k is 'eight'; "),
    "fraction": ("model/k", 2.5, "model.k is 2.5; "),
    "yes for a number": ("model/k", True, "model.k is true; "),
    "yes for workers": ("compute/workers", True, "compute.workers is true; "),
    "yes for a seed": ("fit/seed", False, "fit.seed is false; "),
    "null": ("model/k", None, "model.k is null; "),
    "number for a word": ("source/store", 5, "source.store is 5; "),
    "number for a list": ("source/variables", 5, "source.variables is 5; "),
    "word for a box": ("source/bbox", "t", "source.bbox is 't'; allowed: four numbers, [west, south, east, north]"),
    "three numbers for a box": ("source/bbox", [1, 2, 3], "source.bbox is [1, 2, 3]; allowed: four numbers"),
    "yes in a box": ("source/bbox", [1, 2, 3, True], "source.bbox.3 is true; a number"),
    "number in a list": ("source/variables", [1], "source.variables.0 is 1; "),
    "word for a mapping": ("source/select", "t", "source.select is 't'; "),
    "word for yes": ("output/labels", "maybe", "output.labels is 'maybe'; "),
    "null for a section": ("source", None, "key 'source.store' is missing"),
    "list for a section": ("model", [], "model is []; "),
}


@pytest.mark.parametrize(("key", "value", "start"), WRONG.values(), ids=WRONG)
def test_a_value_of_the_wrong_type_is_named(key: str, value: Any, start: str) -> None:
    assert refusal(changed(key, value)).startswith(start)


@pytest.mark.parametrize("key", ["variables", "sample_dims", "feature_dims"])
def test_a_name_by_itself_is_a_list_of_one(key: str) -> None:
    assert getattr(check_config(changed(f"source/{key}", "temperature")).source, key) == ["temperature"]


def test_a_group_may_be_called_by_a_number() -> None:
    assert check_config(changed("source/group", 0)).source.group == "0"


@pytest.mark.parametrize("section", ["preprocess", "model", "fit", "compute"])
def test_a_section_whose_keys_are_commented_out_has_the_defaults(section: str) -> None:
    assert getattr(check_config({**changed("model/k", 8), section: None}), section) == getattr(
        check_config(changed("model/k", 8)), section
    )


def written(value: Any) -> str:
    """As a config has it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


BOUNDS = {
    "k": ("model/k", 0, "1"),
    "seed": ("fit/seed", -1, "0"),
    "seed of more than 63 bits": ("fit/seed", 2**63, str(2**63 - 1)),
    "restarts": ("fit/restarts", 0, "1"),
    "finalists": ("fit/finalists", 0, "1"),
    "sample_rows": ("fit/sample_rows", 0, "1"),
    "max_iterations": ("fit/max_iterations", -1, "0"),
    "tolerance": ("fit/tolerance", -1e-9, "0"),
    "tolerance not a number": ("fit/tolerance", float("nan"), "0"),
    "max_seconds": ("fit/max_seconds", 0, "0"),
    "workers": ("compute/workers", 0, "1"),
}


@pytest.mark.parametrize(("key", "value", "bound"), BOUNDS.values(), ids=BOUNDS)
def test_a_value_beyond_its_bound_is_named_with_the_bound(key: str, value: Any, bound: str) -> None:
    text = refusal(changed(key, value))
    assert text.startswith(f"{key.replace('/', '.')} is {written(value)}; ")
    assert bound in text.partition("; ")[2]


TYPOS = {
    "section": ({"sources": {"store": "a"}, "output": {"store": "b"}}, "unknown key 'sources'; did you mean 'source'?"),
    "other section": ({"source": {"store": "a"}, "outputs": {}}, "unknown key 'outputs'; did you mean 'output'?"),
    "key": ({"source": {"stor": "a"}, "output": {"store": "b"}}, "unknown key 'source.stor'; did you mean 'store'?"),
    "beside a wrong value": ({**LEAST, "model": {"k": 0}, "modell": {}}, "unknown key 'modell'; did you mean 'model'?"),
}


@pytest.mark.parametrize(("content", "said"), TYPOS.values(), ids=TYPOS)
def test_a_typo_is_named_before_what_it_leaves_missing(content: dict[str, Any], said: str) -> None:
    assert refusal(content).startswith(said)


def test_a_wrong_value_is_cut_to_a_length_that_fits_a_line() -> None:
    text = refusal(changed("model/kind", "x" * 100_000))
    assert text.startswith("model.kind is 'xxx")
    assert len(text) < 300


@pytest.mark.parametrize("number", [-9999, 2**53 + 1, 2**64 - 1, 2**64, -(2**63) - 1, 1.5], ids=str)
def test_nodata_keeps_every_digit_of_what_an_array_can_hold(number: float) -> None:
    source = check_config(changed("source/nodata", number)).source
    assert source.nodata in (number, float(number))
    assert isinstance(source.nodata, float) == (not -(2**63) <= number < 2**64 or number == 1.5)


def test_more_finalists_than_restarts_are_refused() -> None:
    text = refusal({**LEAST, "fit": {"restarts": 3, "finalists": 4}})
    assert "finalists" in text
    assert "restarts" in text


CHOICES = {
    "kind": ("model/kind", "kmean", ["kmeans"]),
    "init": ("fit/init", "kmeans+", ["kmeans++", "random"]),
    "missing": ("source/missing", "mask", ["drop", "error"]),
    "cluster": ("compute/cluster", "thread", ["threads", "local", "{address: tcp://host:port}"]),
    "cluster none": ("compute/cluster", None, ["threads", "local", "{address: tcp://host:port}"]),
    "block": ("compute/block", "large", ["auto", "64MiB"]),
}


@pytest.mark.parametrize(("key", "value", "allowed"), CHOICES.values(), ids=CHOICES)
def test_a_choice_that_is_none_is_named_with_what_is_allowed(key: str, value: Any, allowed: list[str]) -> None:
    text = refusal(changed(key, value))
    assert text.startswith(f"{key.replace('/', '.')} is {written(value)}; ")
    assert all(one in text.partition("; ")[2] for one in allowed)


@pytest.mark.parametrize("key", ["compute/memory", "compute/block"])
@pytest.mark.parametrize("value", ["lots", "-5MiB", -5, 0, "0B", True, 1.5, [1], "2 bananas"], ids=repr)
def test_a_size_that_is_none_is_named_with_what_is_needed(key: str, value: Any) -> None:
    text = refusal(changed(key, value))
    assert text.startswith(f"{key.replace('/', '.')} is {written(value)}; ")
    assert "a size such as" in text or (value in (0, "0B") and "a size above zero" in text)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("2GiB", 2 * 2**30),
        ("500MB", 500 * 10**6),
        ("1.5KiB", 1536),
        (4096, 4096),
        ("4096", 4096),
        ("64 mib", 64 * 2**20),
    ],
    ids=str,
)
def test_sizes_are_read_in_bytes(value: Any, size: int) -> None:
    config = check_config({**LEAST, "compute": {"memory": value, "block": value}})
    assert config.memory_bytes == config.block_bytes == in_bytes(config.compute.memory) == size


@pytest.mark.parametrize("text", ["1e-6", "1.0e-6", "0.000001"])
def test_a_small_tolerance_may_be_written_in_any_way(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"source: {{store: a}}\noutput: {{store: b}}\nfit: {{tolerance: {text}}}\n")
    assert load_config(path).fit.tolerance == 1e-6


NOT_YAML = {
    "open bracket": ("source: {store: a}\nmodel: [\n", "line 3"),
    "two colons": ("source: a: b", "line 1"),
    "tab": ("source:\n\tstore: a", "line 2"),
    "not text": (b"\xff\xfe\x00\x01", "not YAML"),
    "control character": (b"source: \x00", "not YAML"),
}


@pytest.mark.parametrize(("text", "where"), NOT_YAML.values(), ids=NOT_YAML)
def test_a_file_that_is_not_yaml_is_named_with_the_line(text: str | bytes, where: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match="is not YAML") as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "hello", "3"], ids=repr)
def test_a_file_without_keys_is_named(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match="allowed: source, preprocess, model, fit, compute, select, output") as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file") as caught:
        load_config(tmp_path / "job.yaml")
    assert str(tmp_path / "job.yaml") in str(caught.value)
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


@pytest.fixture
def least(tmp_path: Path) -> Path:
    return write(tmp_path, yaml.safe_dump(LEAST))


def test_overrides_replace_and_add_keys_in_turn(least: Path) -> None:
    sets = [
        "model.k=5",
        "source.select.time={start: 2001-01-01}",
        "fit.init=random",
        "model.k=6",
        "source.store=s3://a=b",
        "compute.workers=null",
    ]
    config = load_config(least, sets)
    assert (config.model.k, config.fit.init, config.source.store) == (6, "random", "s3://a=b")
    assert config.source.select == {"time": {"start": "2001-01-01"}}
    assert config.compute.workers is None


BAD_OVERRIDES = {
    "no value": ("model.k", "--set takes key.path=value"),
    "no key": ("=5", "--set takes key.path=value"),
    "gap in the key": ("model..k=5", "--set takes key.path=value"),
    "not YAML": ("model.k=[", "is not YAML"),
    "below a value": ("source.store.x=1", "'store' is a value, not a section"),
    "unknown key": ("model.kk=5", "unknown key 'model.kk'; did you mean 'k'?"),
    "unknown section": ("modle.k=5", "unknown key 'modle'; did you mean 'model'?"),
    "hyphen": ("fit.max-iterations=5", "unknown key 'fit.max-iterations'; did you mean 'max_iterations'?"),
    "bad value": ("model.k=0", "model.k is 0"),
    "empty value": ("model.k=", "model.k is null"),
    "value for a section": ("model=5", "model is 5"),
    "two lines": ("x\ny=5", "unknown key"),
}


@pytest.mark.parametrize(("override", "said"), BAD_OVERRIDES.values(), ids=BAD_OVERRIDES)
def test_an_override_that_is_wrong_is_named(override: str, said: str, least: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(least, [override])
    assert said in str(caught.value)


def test_there_are_configs_to_check() -> None:
    assert list(CONFIGS.glob("*.yaml"))


JOBS = [path for path in sorted(CONFIGS.rglob("*.y*ml")) if path.parent.name != "parameters"]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_every_config_that_is_shipped_parses(path: Path) -> None:
    assert isinstance(load_config(path), JobConfig)


SAME = {
    "workers": ("compute/workers", 7),
    "cluster": ("compute/cluster", "local"),
    "address": ("compute/cluster", {"address": "tcp://x:1"}),
    "scratch": ("compute/scratch", "/fast"),
    "output": ("output", {"store": "elsewhere", "labels": False, "report": False, "overwrite": True}),
    "storage options": ("source/storage_options", {"anon": True}),
    "credentials": ("source/credentials", "secret/reader"),
    "memory in other words": ("compute/memory", "2048MiB"),
    "defaults in words": ("model", {"kind": "kmeans", "k": 8}),
}
OTHER = {
    "store": ("source/store", "other.zarr"),
    "mask": ("source/mask", "sea"),
    "select": ("source/select", {"time": 3}),
    "k": ("model/k", 9),
    "seed": ("fit/seed", 1),
    "max_iterations": ("fit/max_iterations", 5),
    "memory": ("compute/memory", "1GiB"),
    "block": ("compute/block", "1MiB"),
    "accelerate": ("fit/accelerate", "none"),
}


@pytest.mark.parametrize(("key", "value"), SAME.values(), ids=SAME)
def test_what_leaves_the_result_alone_leaves_the_identity_alone(key: str, value: Any) -> None:
    assert check_config(changed(key, value)).result_keys == check_config(LEAST).result_keys


@pytest.mark.parametrize(("key", "value"), OTHER.values(), ids=OTHER)
def test_what_changes_the_result_changes_the_identity(key: str, value: Any) -> None:
    assert check_config(changed(key, value)).result_keys != check_config(LEAST).result_keys


def test_options_of_later_versions_stay_out_of_the_identity_until_they_are_set() -> None:
    # A run that an earlier version began has no such key, and goes on.
    assert "accelerate" not in check_config(LEAST).result_keys["fit"]
    assert check_config(changed("fit/accelerate", "auto")).result_keys == check_config(LEAST).result_keys
    assert check_config(changed("fit/accelerate", "none")).result_keys["fit"]["accelerate"] == "none"
    assert check_config(LEAST).result_keys["fit"]["finalists"] == 1


def test_the_identity_is_json_whatever_is_selected_and_holds_no_credentials() -> None:
    source = {"store": "a", "select": {"time": datetime.date(2001, 2, 3)}, "storage_options": {"profile": "hidden"}}
    text = json.dumps(check_config({**LEAST, "source": source}).result_keys, allow_nan=False)
    assert "2001-02-03" in text
    assert "hidden" not in text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["source", "model", "fit/seed", "compute/cluster", "compute/memory", "output/store", "fit"]),
)
def test_whatever_is_written_is_taken_or_refused_in_one_line(value: Any, key: str) -> None:
    said = "taken"
    try:
        check_config(changed(key, value))
    except ConfigError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


# Secrets


HIDDEN = "hunter2-do-not-tell"
SECRETS: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"key": HIDDEN}, "key"),
    "secret": ({"secret": HIDDEN}, "secret"),
    "token": ({"token": HIDDEN}, "token"),
    "token as a dict": ({"token": {"private_key": HIDDEN}}, "token.private_key"),
    "password": ({"anon": False, "password": HIDDEN}, "password"),
    "account key": ({"account_key": HIDDEN}, "account_key"),
    "shared access": ({"sas_token": HIDDEN}, "sas_token"),
    "boto": ({"client_kwargs": {"aws_secret_access_key": HIDDEN}}, "client_kwargs.aws_secret_access_key"),
    "key id": ({"client_kwargs": {"aws_access_key_id": HIDDEN}}, "client_kwargs.aws_access_key_id"),
    "session": ({"client_kwargs": {"aws_session_token": HIDDEN}}, "client_kwargs.aws_session_token"),
    "camel case": ({"secretAccessKey": HIDDEN}, "secretAccessKey"),
    "header": ({"headers": {"Authorization": f"Bearer {HIDDEN}"}}, "headers.Authorization"),
    "header of a key": ({"client_kwargs": {"headers": {"X-Api-Key": HIDDEN}}}, "client_kwargs.headers.X-Api-Key"),
    "in a list": ({"chain": [{"secret": HIDDEN}]}, "chain.secret"),
    "in a URL": ({"endpoint_url": f"https://me:{HIDDEN}@host"}, "endpoint_url"),
}


@pytest.mark.parametrize(("options", "name"), SECRETS.values(), ids=SECRETS)
def test_a_secret_among_the_storage_options_is_refused_without_showing_it(options: dict[str, Any], name: str) -> None:
    text = refusal({**LEAST, "source": {"store": "s3://b/a", "storage_options": options}})
    assert text.startswith(f"source.storage_options.{name} holds a secret")
    assert "AWS_SECRET_ACCESS_KEY" in text
    assert "source.credentials" in text
    assert HIDDEN not in text


HARMLESS: dict[str, dict[str, Any]] = {
    "anon": {"anon": True, "key": None, "secret": None},
    "token of a public bucket": {"token": "anon"},
    "token of the machine": {"token": "cloud"},
    "endpoint": {"endpoint_url": "http://127.0.0.1:9000", "client_kwargs": {"region_name": "eu"}},
    "others": {"profile": "me", "requester_pays": True, "config_kwargs": {"s3": {"addressing_style": "path"}}},
    "a file": {"client_kwargs": {"web_identity_token_file": "/run/token"}, "default_block_size": 5},
}


@pytest.mark.parametrize("options", HARMLESS.values(), ids=HARMLESS)
def test_storage_options_that_are_no_secrets_are_taken(options: dict[str, Any]) -> None:
    source = {"store": "s3://b/a", "storage_options": options}
    assert check_config({**LEAST, "source": source}).source.storage_options == options


@pytest.mark.parametrize(
    "source",
    [
        {"store": f"https://me:{HIDDEN}@host/a.zarr"},
        {"store": f"https://host/a.zarr?signature={HIDDEN}"},
        {"store": "a", "storage_options": HIDDEN},
        {"store": {"url": "s3://b", "secret": HIDDEN}},
        {"store": "a", "credentials": HIDDEN},
        {"store": "a", "credentials": {"secret": HIDDEN}},
    ],
    ids=["password", "query", "options", "store", "credentials", "credentials as a dict"],
)
def test_a_secret_in_another_place_is_refused_without_showing_it(source: dict[str, Any]) -> None:
    text = refusal({**LEAST, "source": source})
    assert text.startswith("source.")
    assert HIDDEN not in text
    with pytest.raises(ValueError, match="JobConfig") as caught:
        JobConfig.model_validate({**LEAST, "source": source})
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("override", ["source.storage_options.secret={}[", "source.store.secret={}"])
def test_an_override_with_a_secret_is_refused_without_showing_it(override: str, least: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(least, [override.format(HIDDEN)])
    assert HIDDEN not in str(caught.value)
