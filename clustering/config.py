"""The config of a job: its sections, which are groups of options, checked as a whole before anything is opened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from clustering.data.addresses import absolute, check_url
from clustering.errors import ConfigError, cut, nearest
from clustering.option_errors import fault_of
from clustering.option_values import IN_PYTHON, Count, Location, expanded, in_bytes, in_python
from clustering.options import (
    DEFAULT_RESTARTS,
    MANY_CLUSTERS,
    ComputeOptions,
    FollowOptions,
    OptionGroup,
    PreprocessOptions,
    PublishOptions,
    RowOutputs,
    RunCall,
    RunOptions,
    SelectOptions,
    SourceOptions,
    cluster_of,
    wanted_block,
)
from clustering.secret_options import BLOCK, refusal

if TYPE_CHECKING:
    from clustering.models.model import AnyModel


class _SourceAddress(OptionGroup):
    store: Location
    """Path or URL of a Zarr store, version 2 or 3."""
    credentials: str | None = None
    """Prefect Secret block that holds more storage options as a JSON object: secret/<name of the block>."""


class SourceSection(SourceOptions, _SourceAddress):
    """The data to cluster."""

    @model_validator(mode="after")
    def _no_secrets_in_a_config(self, info: ValidationInfo) -> Self:
        # A call in Python may give secrets, as storage options are written nowhere.
        if not in_python(info):
            _check_address(self.store, self.storage_options, "source")
        if self.credentials is not None and not BLOCK.fullmatch(self.credentials):
            raise ValueError("source.credentials names no Prefect block; allowed: secret/<name of the block>")
        return self


class _OutputAddress(OptionGroup):
    store: Location
    """Path of the output folder, or URL of a bucket (s3://, gs://)."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the file system of a bucket, as fsspec takes them, without secrets: credentials come from the
    environment, on the workers too."""


class OutputSection(RunOptions, _OutputAddress):
    """Where the results go."""

    @model_validator(mode="after")
    def _no_secrets_in_a_config(self) -> Self:
        _check_address(self.store, self.storage_options, "output")
        return self


def _check_address(store: str, storage_options: Mapping[str, Any], section: str) -> None:
    """Refuse a URL that is none, and secrets, as configs are copied into logs and outputs."""
    try:
        check_url(store, f"{section}.store")
    except ConfigError as error:
        raise ValueError(str(error)) from None
    refused = refusal(store, storage_options, section)
    if refused is not None:
        raise ValueError(refused)


class ModelSection(OptionGroup):
    """The model to fit. Its further options are those that the class of the model declares."""

    model_config = ConfigDict(extra="allow")

    kind: str = "kmeans"
    """Kind of model."""
    k: Count = 8
    """Number of clusters, or of components of a mixture."""

    @property
    def own_options(self) -> dict[str, Any]:
        """Options of the model that the config sets, besides `k`."""
        return {name: value for name, value in (self.model_extra or {}).items() if value is not None}

    def build(self) -> AnyModel:
        """Make the model; options that are not set have the model's own defaults.

        Raises
        ------
        ConfigError
            If there is no such model, it has no such option, or a value is not allowed.
        """
        # Importing the models loads compiled kernels, which takes time. Faults of other sections are reported before.
        from clustering.models.registry import MODELS, model_options

        if self.kind not in MODELS:
            raise ConfigError(f"model.kind is {cut(repr(self.kind))}; {nearest(self.kind, MODELS)}")
        options, model_class = model_options(), cast("Callable[..., AnyModel]", MODELS[self.kind])
        for name in self.own_options:
            if name not in options:
                allowed = [option for option, about in options.items() if self.kind in about.kinds]
                raise ConfigError(f"unknown key {f'model.{name}'!r}; {nearest(name, ('kind', 'k', *allowed))}")
            if self.kind not in options[name].kinds:
                owners = " and ".join(options[name].kinds)
                raise ConfigError(f"model.{name} is no key of {self.kind}; it belongs to {owners}")
        try:
            return model_class(k=self.k, **self.own_options)
        except ConfigError as error:
            raise ConfigError(f"model.{error}") from None

    @property
    def finalists(self) -> int:
        """Number of finalists of the model by default."""
        from clustering.models.registry import MODELS

        return MODELS[self.kind].finalists

    def to_json(self) -> dict[str, Any]:
        """Describe the section as the fingerprints of runs do: with the options that are set, as the model has them.

        The first options are listed even where they are not set, as they were always part of the fingerprint.
        """
        model = self.build()
        values = {name: getattr(model, name) for name in self.own_options}
        return {"kind": self.kind, "k": self.k, **dict.fromkeys(_FIRST_OPTIONS), **values}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        from clustering.models.registry import MODELS, model_options

        # Which options there are depends on the models, so the form learns them from the registry.
        section = handler.resolve_ref_schema(super().__get_pydantic_json_schema__(schema, handler))
        section["properties"]["kind"]["enum"] = list(MODELS)
        for name, option in model_options().items():
            section["properties"][name] = {
                "anyOf": [TypeAdapter(option.annotation).json_schema(), {"type": "null"}],
                "default": None,
                "description": option.text,
                "title": name.capitalize(),
            }
        # The section itself accepts any key, and `build` refuses unknown ones. A form cannot call `build`.
        section["additionalProperties"] = False
        return section


# The options that models had when fingerprints were made first. Later options enter fingerprints where they are set.
_FIRST_OPTIONS = ("divergence", "beta", "covariance", "regularization", "assignment")


class SelectSection(SelectOptions):
    """The choices of k that `select-k` compares. Other commands take k from the section `model`."""

    publish: Literal["recommended", "none"] | Count | dict[str, Any] = "recommended"
    """Which model is published like that of a fit: the recommended one, none, or a choice on request, by its k, or as
    {k: 5, covariance: full} where more than k varies."""

    @property
    def requested(self) -> dict[str, Any] | None:
        """What the choice to publish has, by name; None where none is named."""
        if isinstance(self.publish, dict):
            return self.publish
        return {"k": self.publish} if isinstance(self.publish, int) else None

    @model_validator(mode="after")
    def _requested_is_one_choice(self) -> Self:
        if self.requested is None:
            return self
        lists = {name: getattr(self, name) for name in ("covariance", "beta", "divergence")}
        varied = {
            "k": expanded(self.k),
            **{name: list(dict.fromkeys(values)) for name, values in lists.items() if values},
        }
        shown = f"select.publish is {_as_text(self.publish)}"
        for name, value in self.requested.items():
            if name not in varied:
                raise ValueError(f"{shown}, and {cut(repr(name))} is nothing that varies; {nearest(name, varied)}")
            if value not in varied[name]:
                it = "it" if value == self.publish else f"{name} {cut(repr(value))}"
                raise ValueError(f"{shown} and select.{name} does not hold {it}; add it to select.{name}")
        open_ones = [name for name, values in varied.items() if name not in self.requested and len(values) > 1]
        if open_ones:
            example = _as_text({**self.requested, **{name: varied[name][0] for name in open_ones}})
            raise ValueError(
                f"{shown}, and several choices have that, which differ in {' and '.join(open_ones)}; name one, such as "
                f"{example}"
            )
        return self


def _as_text(publish: int | str | Mapping[str, Any]) -> str:
    if not isinstance(publish, Mapping):
        return str(publish)
    return cut(f"{{{', '.join(f'{name}: {value}' for name, value in publish.items())}}}")


class JobConfig(OptionGroup):
    """A clustering job."""

    source: SourceSection
    preprocess: PreprocessOptions = Field(default_factory=lambda: PreprocessOptions())
    model: ModelSection = Field(default_factory=lambda: ModelSection())
    fit: FollowOptions = Field(default_factory=lambda: FollowOptions())
    compute: ComputeOptions = Field(default_factory=lambda: ComputeOptions())
    select: SelectSection = Field(default_factory=lambda: SelectSection())
    output: OutputSection

    @model_validator(mode="before")
    @classmethod
    def _sections_may_be_empty(cls, content: Any) -> Any:
        """Read a section whose keys are all commented out as one without keys."""
        if not isinstance(content, dict):
            return content
        return {key: {} if value is None and key in cls.model_fields else value for key, value in content.items()}

    @property
    def result_keys(self) -> dict[str, Any]:
        """The keys that decide the result to the last bit."""
        # A key that was added later counts only where it is set. Otherwise runs of earlier versions could not resume.
        unset = {"valid_range"} if self.source.valid_range == "cf" else set()
        plain = {"accelerate"} if self.fit.accelerate == "auto" else set()
        source = self.source.model_dump(mode="json", exclude={"storage_options", "credentials", *unset}, fallback=str)
        fit = self.fit.model_dump(mode="json", exclude=plain)
        # Earlier versions had these numbers where none were given, as this one has for most models.
        if fit["restarts"] is None and self.model.k < MANY_CLUSTERS:
            fit["restarts"] = DEFAULT_RESTARTS
        if fit["finalists"] is None and self.model.finalists == 1:
            fit["finalists"] = 1
        return {
            # The path is absolute, so that a run started by hand can be resumed by a schedule in another folder.
            "source": {**source, "nodata": _as_floats(source["nodata"]), "store": absolute(self.source.store)},
            "preprocess": self.preprocess.model_dump(mode="json"),
            "model": self.model.to_json(),
            "fit": {**fit, "held_out": self.held_out},
            # Both decide the blocks, and so the order in which sums are added.
            "compute": {"memory": in_bytes(self.compute.memory), "block": self.block_bytes},
        }

    @property
    def held_out(self) -> float:
        """Share of the blocks that the fit never sees."""
        if self.fit.held_out is not None:
            return self.fit.held_out
        # The gate compares versions on held-out rows, so it needs some.
        return 0.1 if self.output.publish == "gate" else 0.0

    @property
    def memory_bytes(self) -> int:
        """Memory budget of a worker, in bytes."""
        return in_bytes(self.compute.memory)

    @property
    def block_bytes(self) -> int | None:
        """Wanted size of a decoded block, in bytes; None to choose."""
        return wanted_block(self.compute)

    @property
    def cluster(self) -> Any:
        """The cluster as `clustering.execution.engine.connect` takes it."""
        return cluster_of(self.compute)

    def to_json(self, *, exclude_defaults: bool = False) -> dict[str, Any]:
        """Return the config as JSON without storage options, as ``run.json`` keeps it.

        Parameters
        ----------
        exclude_defaults
            Whether options with their default values are left out.
        """
        hidden: Any = {"source": {"storage_options"}, "output": {"storage_options"}}
        config = self._with_texts() if exclude_defaults else self
        text = config.model_dump_json(exclude=hidden, exclude_defaults=exclude_defaults, fallback=str)
        content: dict[str, Any] = json.loads(text)
        if "select" not in self.model_fields_set:
            # Most jobs compare no choices of k.
            content.pop("select", None)
        if not exclude_defaults:
            content["model"] = self.model.to_json()
        elif "model" in content:
            content["model"] = {name: value for name, value in content["model"].items() if value is not None}
        return content

    def _with_texts(self) -> JobConfig:
        """Replace objects in memory by their JSON, as arrays cannot be compared with the default of an option."""
        plain, sections = (str, int, float, list, dict, BaseModel, NoneType), {}
        for name in ("source", "preprocess", "fit", "compute"):
            section = getattr(self, name)
            objects = {key for key, value in section if not isinstance(value, plain)}
            sections[name] = section.model_copy(update=section.model_dump(mode="json", include=objects))
        return self.model_copy(update=sections)


def _as_floats(nodata: Any) -> Any:
    """Write whole numbers as floats where that loses nothing, as fingerprints have always done."""
    if isinstance(nodata, dict):
        return {name: _as_floats(value) for name, value in nodata.items()}
    return float(nodata) if isinstance(nodata, int) and int(float(nodata)) == nodata else nodata


def check_config(content: Mapping[str, Any]) -> JobConfig:
    """Check a config as a whole, its model included.

    Parameters
    ----------
    content
        Sections of the config, as nested dicts.

    Raises
    ------
    ConfigError
        Naming the first fault in one line.
    """
    try:
        config = JobConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(fault_of(error, JobConfig, content, in_python=False)) from None
    # The class of a model checks the options of the model, so the model is made here.
    config.model.build()
    return config


IN_MEMORY = "memory://data"
"""Address of data in memory in the config of a run."""


def job_config(data: Any, model: AnyModel, options: RunCall) -> JobConfig:
    """Make the config of a run from a call in Python.

    Parameters
    ----------
    data
        Data as `clustering.run` takes them.
    model
        The model to fit.
    options
        Options of the call.
    """
    # Options with their default values are left out, so that the fingerprint is that of a config without them.
    defaults = type(model)(k=model.k)  # type: ignore[call-arg]
    changed = {name: value for name, value in asdict(model).items() if value != getattr(defaults, name)}
    block = {} if options.block_bytes is None else {"block": options.block_bytes}
    sections = {
        "source": {**_source(data), **_set_options(options, SourceOptions)},
        "preprocess": _set_options(options, PreprocessOptions),
        "model": {"kind": model.kind, "k": model.k, **changed},
        "fit": _set_options(options, FollowOptions),
        "compute": {**_set_options(options, ComputeOptions), **block},
        "output": {
            "store": options.output,
            "storage_options": options.output_options,
            "labels": options.write_labels,
            **_set_options(options, RowOutputs),
            **_set_options(options, PublishOptions),
        },
    }
    try:
        return JobConfig.model_validate(sections, context=IN_PYTHON)
    except ValidationError as error:
        raise ConfigError(fault_of(error, JobConfig, sections, in_python=True)) from None


def _source(data: Any) -> dict[str, Any]:
    """Return the store of data and the options that it was opened with."""
    if isinstance(data, (str, os.PathLike)):
        return {"store": os.fspath(data)}
    # A check of the class would load the packages that read data.
    recipe = getattr(data, "recipe", None)
    if recipe is None:
        named = ("variables", "sample_dims", "feature_dims") if hasattr(data, "recipe") else ()
        return {"store": IN_MEMORY, **{name: list(getattr(data, name)) for name in named}}
    return {"store": recipe["data"], **{name: recipe[name] for name in SourceOptions.model_fields}}


def _set_options(options: OptionGroup, group: type[OptionGroup]) -> dict[str, Any]:
    """Return the options of a group that the call sets."""
    return {name: getattr(options, name) for name in group.model_fields if name in options.model_fields_set}
