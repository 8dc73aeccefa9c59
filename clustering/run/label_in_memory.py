"""Labels of data that fit into memory, which no run writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from numpy.typing import NDArray

from clustering.data.access import open_data
from clustering.data.preparation import usable_memory
from clustering.data.tables_in_memory import like_table
from clustering.deferred import xr
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner
from clustering.fitting.features import check_features
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.labelling import LabelOutputs, LabelStatistics, check_outputs, label_blocks
from clustering.fitting.preprocessing import zero_row_notes
from clustering.option_values import in_bytes
from clustering.options import LabelCall, wanted_block
from clustering.storage.labels import results_in_memory


def label_in_memory(
    fitted: FittedModel,
    data: Any,
    options: LabelCall,
    outputs: LabelOutputs,
    show: Callable[[Iterable[str]], None],
) -> tuple[dict[str, Any], LabelStatistics]:
    """Label data, and gather the outputs in the form of the data.

    Parameters
    ----------
    fitted
        Fitted model.
    data
        Data as for `clustering.data.access.open_source`.
    options
        Which part of the data is labelled, and the memory of the pass.
    outputs
        Which outputs are made.
    show
        Shows cautions.

    Returns
    -------
    tuple
        Outputs by name, and the statistics of the label pass.

    Raises
    ------
    ConfigError
        If the model does not have an output.
    DataError, SourceError
        If the data have other features, or cannot be opened.
    """
    # This comes before the data are opened, which may take long.
    check_outputs(outputs, fitted.model)
    source = open_data(data, options, fitted.layout)
    show((*source.cautions, *check_features(source, fitted)))
    memory = in_bytes(options.memory)
    within = usable_memory(source, memory, fitted.preparation is not None)
    plan = source.plan(block_bytes=wanted_block(options, options.block_bytes), memory=within)
    clusters = fitted.clusters
    results = results_in_memory(source, clusters, outputs, fitted.model)
    # Results are gathered in this process, so its threads make them.
    with (
        connect("threads", options.workers) as engine,
        pass_runner(source, plan, engine, memory=memory, keep=False, preparation=fitted.preparation) as runner,
    ):
        put = partial(_put, results)
        result = label_blocks(runner, fitted.model, fitted.params, put, outputs, clusters=clusters)
    show(zero_row_notes(result.statistics[0].zero_rows))
    labelled = {name: like_table(data, array) if source.labelled else array.values for name, array in results.items()}
    return labelled, result.statistics[0]


def _put(results: dict[str, xr.DataArray], region: tuple[slice, ...], arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        results[name].values[region] = array
