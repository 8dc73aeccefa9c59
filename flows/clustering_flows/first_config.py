"""The text of a first config: a few lines that decide most, then what else may matter, with the reasons in comments."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from clustering.data.first_look import FirstLook, Kind, VariableFacts
from clustering.data.reading import has_cosine

KINDS: dict[Kind, str] = {
    "time": "time", "latitude": "latitude", "longitude": "longitude", "vertical": "a vertical axis",
    "channel": "channels", "member": "members of an ensemble", "space": "space", "rows": "rows", "unknown": "unknown",
}  # fmt: skip
"""Kinds of dimensions in words."""
K = 8
"""Number of clusters that the config starts with, if there are as many rows."""
MOST_LISTED = 30
"""Variables that the config lists at most."""
LONGEST_NAME = 50
"""Characters of a long name that the config shows at most."""
WIDE = 32
"""Number of channels from which a row may be an embedding, which is compared by its direction."""
MANY_ROWS = 20_000_000
"""Number of rows from which it pays to fit a fraction of them."""
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def first_config(look: FirstLook, output: str, path: str, schema: str | None = None) -> str:
    """Write a commented config.

    Parameters
    ----------
    look
        The store, and the guess of how to cluster it.
    output
        Where the results go.
    path
        Name of the config, for the commands in its comments.
    schema
        Path of the JSON schema from the config, by which editors complete keys; None for none.
    """
    parts = [_head(path, schema), _model(look, output), _source(look), _preprocess(look), _rest(look)]
    return "\n".join(_one_line(line).rstrip() for part in parts for line in part) + "\n"


def _one_line(line: str) -> str:
    """Replace line breaks and control characters, which names may hold and a comment must not."""
    return "".join(char if char.isprintable() else " " for char in line)


def _head(path: str, schema: str | None) -> Iterator[str]:
    if schema is not None:
        yield f"# yaml-language-server: $schema={schema}"
    yield "# A first config, by `clustering init`. Check output, model and the first lines of source: they decide most."
    word = shlex.quote(path)
    yield f"#   clustering inspect {word}    what it reads, and how long it takes"
    yield f"#   clustering select-k {word}   how many clusters there are"
    yield f"#   clustering fit {word}"


def _model(look: FirstLook, output: str) -> Iterator[str]:
    yield "output:"
    yield f"  store: {_yaml(output)}"
    yield "model:"
    yield "  kind: kmeans  # or soft_kmeans, gaussian_mixture"
    yield f"  k: {min(K, look.cells)}  # a start; `clustering select-k` compares others"
    if _embeds(look):
        yield f"  # Rows of {look.n_features} channels may be embeddings, which are compared by their direction:"
        yield "  # divergence: cosine"


def _embeds(look: FirstLook) -> bool:
    return len(look.chosen) == 1 and look.n_features >= WIDE and any(g.kind == "channel" for g in look.feature_dims)


def _source(look: FirstLook) -> Iterator[str]:
    sample, feature = [guess.name for guess in look.sample_dims], [guess.name for guess in look.feature_dims]
    yield "source:"
    yield f"  store: {_yaml(look.store)}"
    if look.group is not None:
        yield f"  group: {_yaml(look.group)}"
    if look.variables is not None:
        yield f"  variables: {_yaml([*look.variables])}"
    yield f"  sample_dims: {_yaml(sample)}"
    yield f"  feature_dims: {_yaml(feature)}"
    yield from _reasons(look)
    yield from _held(look)
    yield from _weights(look)
    yield from _missing(look)
    # A part of an axis of length 1 would be all of it.
    first = max(look.sample_dims, key=lambda guess: guess.size > 1)
    yield "  # A part of the data, by position; select chooses by label:"
    yield f"  # isel: {{{first.name}: {{start: 0, stop: {max(1, first.size // 2)}}}}}"


def _reasons(look: FirstLook) -> Iterator[str]:
    names = [facts.name for facts in look.chosen]
    along = " × ".join(guess.name for guess in look.feature_dims)
    what = "the array" if look.variables is None else ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    yield (
        f"  # A row is a cell of {' × '.join(guess.name for guess in look.sample_dims)}: {look.cells:,} rows. "
        f"Its features are {what}{f' along {along}' if along else ''}: {look.n_features:,}."
    )
    for guess in (*look.sample_dims, *look.feature_dims):
        yield f"  #   {guess.name}, {guess.size:,}: {KINDS[guess.kind]}, {guess.why}"
    if look.turned:
        yield "  # The other way round, clusters are of what are features now:"
        yield f"  #   sample_dims: {_yaml([guess.name for guess in look.feature_dims])}"
        yield f"  #   feature_dims: {_yaml([guess.name for guess in look.sample_dims])}"
    elif any(guess.kind == "unknown" for guess in look.sample_dims + look.feature_dims):
        yield "  # Nothing in the store tells which dimensions are samples. By default, the first one is."


def _held(look: FirstLook) -> Iterator[str]:
    """List what the store holds."""
    yield "  # The store holds:"
    chosen = {facts.name for facts in look.chosen}
    for facts in look.facts[:MOST_LISTED]:
        yield f"  #   {'*' if facts.name in chosen else ' '} {_fact(facts)}"
    if len(look.facts) > MOST_LISTED:
        yield f"  #     and {len(look.facts) - MOST_LISTED} more variables"
    for name, why in list(look.unusable.items())[:MOST_LISTED]:
        yield f"  #     {name} cannot be clustered: it {why}"


def _fact(facts: VariableFacts) -> str:
    along = ", ".join(f"{d} {n:,}" for d, n in zip(facts.dims, facts.shape, strict=True))
    units = f", units {facts.units}" if facts.units else ""
    name = facts.long_name if len(facts.long_name) <= LONGEST_NAME else f"{facts.long_name[:LONGEST_NAME]}…"
    about = f": {name}" if name else ""
    return f"{facts.name} ({along}) {facts.dtype}{units}{about}"


def _weights(look: FirstLook) -> Iterator[str]:
    if look.latitude is not None:
        yield "  # Cells of a grid of degrees get smaller towards the poles. Leave this out to count every cell alike."
        yield f"  weights: cos({look.latitude})"
    for name in look.weights:
        yield f"  # weights: {_yaml(name)}  # if it is the weight of a row"
    for name in look.masks:
        yield f"  # mask: {_yaml(name)}  # if it is true, or not 0, where cells are to be used"
    for path in look.labels:
        yield f"  # mask: {_yaml(f'{path} > 0')}  # pixels of this label image alone"


def _missing(look: FirstLook) -> Iterator[str]:
    yield "  # Rows with a missing feature are left out; error refuses them."
    yield "  # missing: drop"
    absent = [facts for facts in look.chosen if facts.absent]
    for facts in absent:
        name = "The array" if look.variables is None else facts.name
        yield f"  # {name}: {facts.absent:,} of {facts.chunks:,} chunks were never written."
    if absent and all(facts.declared for facts in absent):
        yield "  # Their cells are missing values. If they should be there, the store is incomplete: set this to error."
        yield "  missing_chunks: mask"
    elif absent and all(facts.fill is not None for facts in absent):
        yield "  # A guess: they have no data, as their fill value is a mark. If they hold that value, set this to"
        yield "  # fill; if they should be there, to error."
        yield "  missing_chunks: mask"
    elif absent:
        yield "  # A guess: their cells are 0, as Zarr leaves out chunks of the fill value. If they have no data,"
        yield "  # set this to mask; if they should be there, to error."
        yield "  missing_chunks: fill"
    fills_of = {facts.name: facts.fill for facts in look.chosen if facts.fill is not None}
    for name, fill in fills_of.items():
        of = "the array" if look.variables is None else name
        yield f"  # nodata: {fill:g}  # the fill value of {of}; if cells of this value have no data"


def _preprocess(look: FirstLook) -> Iterator[str]:
    units = {facts.units for facts in look.chosen}
    latitude = next((one.name for one in look.feature_dims if one.kind == "latitude" and has_cosine(one.name)), None)
    several = len(look.chosen) > 1
    standard = "per_variable" if look.feature_dims else "per_feature"
    if several and (len(units) > 1 or units == {""}):
        yield "preprocess:"
        yield "  # The variables have different units, or none: the one with the largest numbers would decide."
        yield f"  standardize: {standard}"
    elif latitude is not None:
        yield "preprocess:"
        yield "  # A squared distance counts a cell with the square of its weight: with its area."
        yield f"  feature_weights: sqrt(cos({latitude}))"
    else:
        yield "# preprocess:"
        if _embeds(look):
            yield "#   unit_norm: true  # rows of length 1"
        else:
            yield "#   standardize: per_feature  # if features have different units or spreads"


def _rest(look: FirstLook) -> Iterator[str]:
    size = look.cells * look.row_bytes
    yield "# select:"
    yield f"#   k: 2..{min(20, max(2, look.cells))}  # what `clustering select-k` compares"
    yield "# fit:"
    yield "#   seed: 0"
    if look.cells >= MANY_ROWS:
        yield "#   # Centers are learned from a part of the rows, and then label all:"
        yield "#   fraction: 0.05"
    yield "# compute:"
    yield f"#   # All rows take {_size(size)}. Half of the memory keeps rows; the rest is read again in every pass."
    yield "#   memory: 2GiB  # of each worker"
    yield "#   cluster: threads  # or local, or the address of a Dask scheduler"


def _size(n: float) -> str:
    """Write a size in bytes with a unit."""
    for unit in _SIZES:
        if n < 1000 or unit == _SIZES[-1]:
            break
        n /= 1000
    return f"{n:.3g} {unit}"


def _yaml(value: str | Sequence[Any]) -> str:
    """Write a value as YAML, on one line."""
    if not all(map(str.isprintable, [value] if isinstance(value, str) else map(str, value))):
        # JSON is YAML too, and writes such characters as escapes.
        return json.dumps(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
