"""The command line. Each command imports its modules when it runs, so that help and errors appear at once."""

from __future__ import annotations

import ctypes
import gc
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App, CycloptsError

from clustering import __version__
from clustering.deferred import load_module, without_collections
from clustering.errors import ConfigError, DataError, SourceError
from clustering.temporary import ensure_home
from clustering_flows import images, models
from clustering_flows.arguments import AsJson, Collision, Orchestrated, Overrides
from clustering_flows.exit_status import exit_status
from clustering_flows.init_command import init
from clustering_flows.jobs import drawing_beside, its_part_in, orchestrated
from clustering_flows.log_lines import notices
from clustering_flows.select_command import select_k

if TYPE_CHECKING:
    from clustering.config import JobConfig
    from clustering.data.ingest import Ingested

_LARGE_ARRAY, _LARGE_SHARE = 8 * 2**20, 64
"""Size of an array from which glibc gives its memory back at once, in bytes; one part in so many of a job's memory
where that is less."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of settings for ``mallopt``."""

app = App(
    name="clustering",
    help="Exact, reproducible clustering of Zarr data larger than memory. With --debug, any command shows tracebacks.",
    version=__version__,
    help_format="plaintext",
    # By default, cyclopts ends the process itself. Here `run` returns the exit code, and `main` exits.
    result_action="return_value",
    # Otherwise cyclopts would exit with 130 at Ctrl-C, without the line that says how to resume.
    suppress_keyboard_interrupt=False,
)
app.command(models.app)
app.command(images.quantize)
app.command(images.segment)
app.command(select_k)
app.command(init)


@app.command
def ingest(
    src: str,
    dest: str,
    *,
    parameters: str | None = None,
    rows: int | None = None,
    seed: int | None = None,
    chunk_rows: int | None = None,
    overwrite: bool = False,
    json_: AsJson = False,
) -> None:
    """Convert a file to Zarr: an image, npy, npz, csv, parquet, NetCDF or HDF5; or draw rows from a mixture.

    Parts of a file that are left out are named on stderr, a line each, and under "warnings" of --json.

    Example: clustering ingest photo.jpg photo.zarr

    Example: clustering ingest mixture drawn.zarr --parameters configs/parameters/lecture-mixture.yaml --rows 1000000

    Parameters
    ----------
    src
        File to convert, or a folder of parquet files; or the word mixture.
    dest
        Folder of the Zarr group to write.
    parameters
        For a mixture: a YAML file with weights, means and covariances, or a fitted model.
    rows
        Number of rows to draw from a mixture. Default: the number in the parameters.
    seed
        Seed of the draw. Default: the seed in the parameters, or 0.
    chunk_rows
        Number of drawn rows in a chunk; it does not change the data. Default: chunks of about 4 MiB.
    overwrite
        Replace an existing store.
    """
    drawing = {"--parameters": parameters, "--rows": rows, "--seed": seed, "--chunk-rows": chunk_rows}
    if src == "mixture":
        done = _draw(dest, parameters, rows, seed, chunk_rows, overwrite)
    else:
        from clustering.data.ingest import ingest as convert

        for name, value in drawing.items():
            if value is not None:
                raise ConfigError(
                    f"{name} is {value!r}, and the source is {src!r}; it belongs to 'ingest mixture DEST', leave it out"
                )
        try:
            done = convert(src, dest, overwrite=overwrite)
        except DataError as error:
            # A file that cannot be converted is a wrong argument (exit code 2), not a failed job (exit code 1).
            raise SourceError(str(error)) from error
    for line in done.warnings:
        print(f"warning: {line}", file=sys.stderr)
    for name, (dims, shape, chunks, dtype) in done.variables.items():
        along = ", ".join(f"{d} {n:,}" for d, n in zip(dims, shape, strict=True))
        print(f"{name} ({along}) {dtype}, chunks {' × '.join(map(str, chunks))}")
    print(f"written to {done.path}")
    if json_:
        keys = ("dims", "shape", "chunks", "dtype")
        variables = {name: dict(zip(keys, facts, strict=True)) for name, facts in done.variables.items()}
        print(json.dumps({"store": str(done.path), "variables": variables, "warnings": list(done.warnings)}))


def _draw(
    dest: str, parameters: str | None, rows: int | None, seed: int | None, chunk_rows: int | None, overwrite: bool
) -> Ingested:
    if parameters is None:
        raise ConfigError(
            "the parameters of the mixture are missing; give --parameters FILE, "
            "a YAML file with weights, means and covariances, or a fitted model"
        )
    from clustering.storage.synthetic_data import write_synthetic
    from clustering_flows.parameters import load_parameters

    mixture_parameters = load_parameters(parameters)
    wanted = mixture_parameters.rows if rows is None else rows
    if wanted is None:
        raise ConfigError(f"the number of rows is missing: {parameters!r} names none; give --rows")
    chosen = seed if seed is not None else mixture_parameters.seed or 0
    about = {"title": f"rows drawn from the mixture of {Path(parameters).name}"}
    return write_synthetic(
        mixture_parameters.mixture,
        dest,
        rows=wanted,
        seed=chosen,
        chunk_rows=chunk_rows,
        overwrite=overwrite,
        attributes=about,
    )


@app.command
def inspect(config: str, *, set_: Overrides = None, json_: AsJson = False) -> None:
    """Show what a job would read and keep, and how long it would take, before it runs.

    Example: clustering inspect configs/quickstart.yaml

    Parameters
    ----------
    config
        YAML file of the job.
    """
    from clustering.report.inspection import inspection_lines
    from clustering.run.inspect import inspect_job
    from clustering_flows.credentials import access_of
    from clustering_flows.loading import load_config

    job = load_config(config, set_ or ())
    inspection = inspect_job(job, access_of(job.source))
    for line in inspection_lines(inspection):
        print(line)
    if json_:
        from clustering.storage.paths import json_text

        print(json_text(inspection))


@app.command
def fit(config: str, *, set_: Overrides = None, prefect: Orchestrated = None, json_: AsJson = False) -> None:
    """Cluster a source and write the model, labels and a report.

    After an interruption, the same command resumes after the last finished pass.

    Example: clustering fit configs/quickstart.yaml --set model.k=8

    Parameters
    ----------
    config
        YAML file of the job.
    """
    job = _start(config, set_)
    # This comes first, so that only one process of an allocation starts a flow or writes to the output.
    with its_part_in(job):
        if orchestrated(prefect):
            from clustering_flows.fit import fit as flow

            record = flow(job)
        else:
            from clustering.run.job import run_fit
            from clustering_flows.credentials import access_of
            from clustering_flows.terminal import terminal_watch

            with drawing_beside(job) as process, terminal_watch(sys.stderr) as watch:
                record = run_fit(job, watch, watch.step, access_of(job.source), process)
        _finish(record, json_)


@app.command
def predict(
    model: str, config: str, *, set_: Overrides = None, prefect: Orchestrated = None, json_: AsJson = False
) -> None:
    """Label a source with a model that was fitted before.

    Example: clustering predict runs/photo configs/other-photo.yaml

    Parameters
    ----------
    model
        A model.zarr, or the output of a finished run: a folder, or a URL of a bucket.
    config
        YAML file with the source to label and the output.
    """
    job = _start(config, set_)
    with its_part_in(job):
        if orchestrated(prefect):
            from clustering_flows.predict import predict as flow

            record = flow(model, job)
        else:
            from clustering.run.job import run_predict
            from clustering_flows.credentials import access_of
            from clustering_flows.terminal import terminal_watch

            with drawing_beside(job) as process, terminal_watch(sys.stderr) as watch:
                record = run_predict(model, job, watch, watch.step, access_of(job.source), process)
        _finish(record, json_)


@app.command
def report(run: str, *, json_: AsJson = False) -> None:
    """Write the report of a finished run again.

    Example: clustering report runs/photo

    Parameters
    ----------
    run
        Output of a finished run: a folder, or a URL of a bucket.
    """
    from clustering.run.report import redo_report
    from clustering_flows.credentials import access_of

    path = redo_report(run, access_of)
    print(f"report: {path}")
    if json_:
        print(json.dumps({"report": str(path)}))


@app.command
def export(run: str, dest: str | None = None, *, to: str, overwrite: bool = False, json_: AsJson = False) -> None:
    """Write the model or the labels of a run for another program.

    Example: clustering export runs/photo --to sklearn photo.skops

    Parameters
    ----------
    run
        Output of a finished run, or a model.zarr: a folder, or a URL of a bucket.
    dest
        File or folder to write. Default: the name of the run in this folder, with the ending of the target.
    to
        Models: sklearn, faiss, onnx, npz, netcdf or csv. Labels: netcdf, csv, ome-zarr or geotiff.
    overwrite
        Replace what an earlier export wrote there.
    """
    from clustering.exports.content import open_content
    from clustering.exports.targets import check_target_name
    from clustering.exports.targets import export as export_content

    suffix = check_target_name(to).suffix
    content = open_content(run)
    place = f"{run.rstrip('/').rpartition('/')[2].removesuffix('.zarr')}{suffix}" if dest is None else dest
    written = [str(path) for path in export_content(content, place, to, overwrite=overwrite)]
    print(f"written to {', '.join(written)}")
    if json_:
        print(json.dumps({"to": to, "files": written}))


@app.command
def deploy(
    config: str,
    *,
    cron: str | None = None,
    interval: str | None = None,
    timezone: str = "UTC",
    name: str | None = None,
    pool: str | None = None,
    serve: bool = False,
    model: str | None = None,
    collision: Collision = "cancel-new",
    paused: bool = False,
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Run a job on a schedule, or on request from Prefect's page.

    Relative paths are taken from this folder. Deploying again under the same name replaces the deployment.

    Example: clustering deploy job.yaml --pool local --cron "0 3 * * *" --timezone Europe/Berlin

    Example: clustering deploy job.yaml --serve --interval 1h

    Parameters
    ----------
    config
        YAML file of the job.
    cron
        When to run: minute, hour, day of the month, month, day of the week.
    interval
        Or how often: seconds, or a number with s, m, h or d, counted from midnight of 1 January 2020.
    timezone
        IANA time zone of the schedule.
    name
        Name of the deployment. Default: that of the config file, without its ending.
    pool
        Prefect work pool whose workers run the job.
    serve
        Run the job from this process, without a pool or a worker, until it is stopped.
    model
        Label with this model instead of fitting one: a model.zarr, or the output of a run, whose current one is used.
    collision
        Whether a scheduled run is cancelled or waits while another one is running.
    paused
        Do not start the schedule yet.
    """
    from clustering_flows.deploy import deploy_job, deployed_lines
    from clustering_flows.loading import load_config

    def print_facts(facts: dict[str, Any]) -> None:
        for line in deployed_lines(facts):
            print(line)
        if json_:
            print(json.dumps(facts))
        # A served deployment runs for days, so the output is flushed now.
        sys.stdout.flush()

    deploy_job(
        load_config(config, set_ or ()),
        name=Path(config).stem if name is None else name,
        cron=cron,
        interval=interval,
        timezone=timezone,
        pool=pool,
        serve=serve,
        model=model,
        collision=collision,
        paused=paused,
        on_deployed=print_facts,
    )


def _start(config: str, overrides: Overrides) -> JobConfig:
    """Check a config, and load what every job needs.

    All of it stays until the end, so the garbage collector pauses here and never looks at it.
    """
    with without_collections():
        from clustering_flows.loading import load_config

        job = load_config(config, overrides or ())
        _give_back_memory(min(_LARGE_ARRAY, job.memory_bytes // _LARGE_SHARE))
        for name in ("clustering.run.job", "zarr"):
            load_module(name)
        gc.freeze()
    return job


def _finish(record: dict[str, Any], as_json: bool) -> None:
    """Print the outcome of a run."""
    from clustering.storage.paths import json_text
    from clustering_flows.tables import summary_lines

    for line in summary_lines(record):
        print(line)
    if as_json:
        print(json_text(record))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 on success, 1 on a failed job, 2 on a bad config or argument."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    # SIGTERM is handled like Ctrl-C, so that a stopped command cleans up.
    signal.signal(signal.SIGTERM, _interrupt)
    # A job makes much that stays and little garbage. Searching it as often as by default takes time of a small job.
    gc.set_threshold(20_000)
    _give_back_memory(_LARGE_ARRAY)
    if "--debug" not in tokens:
        # Errors in destructors would otherwise print tracebacks.
        sys.unraisablehook = lambda _: None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may not be able to encode all letters of names and tables.
            stream.reconfigure(errors="backslashreplace")
    code = run(tokens)
    # Nothing is left to clean up. An interruption while Python exits would print a traceback.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        code = 1 if isinstance(error, BrokenPipeError) else _fail(f"cannot print: {exit_status(error)[1]}", 1)
        # Python flushes stdout again when it exits, and would print an error. It flushes to /dev/null instead.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _give_back_memory(large: int) -> None:
    """Let glibc give the memory of an array of `large` bytes or more back as soon as the array is dropped.

    By default, each thread keeps arrays of up to 32 MiB for the next ones, which no plan of a job's memory can foresee.
    To ask for the memory of each array anew takes time. Workers of Dask have a setting of their own for this.
    """
    if sys.platform == "linux" and (change := getattr(ctypes.CDLL(None), "mallopt", None)):
        change(_MMAP_THRESHOLD, large)
        # With one setting given, glibc would no longer adapt the other, and give each small array back as well, which
        # the next block asks for again. Twice the size is glibc's own rule.
        change(_TRIM_THRESHOLD, 2 * large)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run(tokens: list[str], commands: App = app) -> int:
    """Run a command and return its exit code."""
    debug = "--debug" in tokens
    try:
        # Log lines come first, because `ensure_home` may log a warning.
        with notices():
            ensure_home()
            # Every command accepts --debug, so no command declares it.
            commands([token for token in tokens if token != "--debug"], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()).rstrip(".") + "; see clustering --help", 2)
    except BrokenPipeError:
        # The program that reads the output has ended, as `head` does, so nobody would see a message.
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if debug and not isinstance(error, KeyboardInterrupt):
            raise
        code, text = exit_status(error)
        return _fail(text, code)
    return 0


def _fail(text: str, code: int) -> int:
    """Print an error, and return the exit code."""
    # stderr may be closed already.
    with suppress(OSError, ValueError):
        print(f"clustering: {text}", file=sys.stderr)
    return code
