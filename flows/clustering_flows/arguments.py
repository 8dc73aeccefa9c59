"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

# Each --set takes one value, so that the config file may stand after it.
Overrides = Annotated[
    list[str] | None,
    Parameter(
        name="--set", consume_multiple=False, help="Change a key of the config, such as model.k=8. May be repeated."
    ),
]
AsJson = Annotated[
    # Without an empty `negative`, help would offer --no-json, which is the default.
    bool, Parameter(name="--json", negative=(), help="Print the summary as JSON, on the last line of the output.")
]
Orchestrated = Annotated[
    bool | None,
    Parameter(
        name="--prefect",
        negative="--no-prefect",
        help="Run as a Prefect flow. Default: where a Prefect API is configured.",
    ),
]

Collision = Literal["cancel-new", "enqueue"]
"""What happens to a scheduled run while another run of its deployment is still running."""
