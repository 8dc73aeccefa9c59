"""The sections of a config that describe Dask clusters."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from clustering.option_texts import Described
from clustering.option_values import Count, Location, Natural, Positive, Size
from clustering.secret_options import secret_option


class _Cluster(Described):
    # Prefect passes configs on as JSON, so they are written under the keys of the YAML file, such as `class`.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        serialize_by_alias=True,
    )


def _without_secrets(options: Any) -> Any:
    """Refuse options or an address that hold a secret, as configs are copied into logs and outputs."""
    # Secrets are found by the names of options, or as a password in a URL. A bare address gets a name for this.
    name = secret_option(options if isinstance(options, dict) else {"address": options})
    if name is not None:
        what = f"its {name}" if isinstance(options, dict) else "it"
        raise ValueError(f"{what} holds a secret, which a config must not; give it by the environment")
    return options


Options = Annotated[dict[str, Any], AfterValidator(_without_secrets)]
"""Names and values, none of them secret."""
Address = Annotated[str, AfterValidator(_without_secrets)]
"""An address without a password."""
# YAML reads a bare 2 as a number, and Kubernetes takes amounts and variables as text.
Text = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value)]
"""Text; a number is turned into text."""


class AddressCluster(_Cluster):
    """A Dask scheduler that runs already."""

    address: Address | None = None
    """Address of the scheduler, such as tcp://scheduler:8786, or tls://scheduler:8786."""
    scheduler_file: Location | None = None
    """File that the scheduler wrote with --scheduler-file, instead of the address."""
    ca_file: Location | None = None
    """PEM file of the authority that signed the certificates, for tls://."""
    cert_file: Location | None = None
    """PEM file of this job's certificate, for tls://."""
    key_file: Location | None = None
    """PEM file of the certificate's key, for tls://."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.address is None) == (self.scheduler_file is None):
            raise ValueError(
                "compute.cluster.address and compute.cluster.scheduler_file: one of them is needed, and not both"
            )
        return self


class SlurmOptions(_Cluster):
    """Jobs of SLURM with workers; or the allocation that this process runs in."""

    runner: bool = False
    """Use the allocation that srun runs this command in, instead of jobs; no other key goes with it."""
    cores: Count = 1
    """Number of processors of a job, spread over its processes as threads."""
    processes: Count = 1
    """Number of worker processes of a job."""
    memory: Size | None = None
    """Memory of a job, such as 16GiB. Default: room for the memory budgets of its workers."""
    queue: str | None = None
    """Partition of the jobs."""
    account: str | None = None
    """Account that the jobs are charged to."""
    walltime: str = "01:00:00"
    """Time limit of a job in hours:minutes:seconds, or otherwise as sbatch takes it; its workers leave up to 5 minutes
    earlier."""
    interface: str | None = None
    """Network interface of scheduler and workers, such as ib0."""
    directives: list[str] = Field(default_factory=list)
    """More options of sbatch, such as --constraint=haswell."""
    prologue: list[str] = Field(default_factory=list)
    """Shell lines that a job runs before its workers, such as module load python."""
    python: str | None = None
    """Interpreter of the workers. Default: the one of this process."""
    logs: Location | None = None
    """Folder for the output of the jobs. Default: the working directory."""
    death_timeout: Positive = 60.0
    """Seconds after which a worker without a scheduler ends."""
    tls: bool = False
    """Encrypt what scheduler and workers tell each other, with certificates made for the run."""

    @model_validator(mode="after")
    def _a_runner_takes_its_allocation(self) -> Self:
        others = [name for name, value in self.model_dump(exclude_defaults=True).items() if name != "runner"]
        if self.runner and others:
            raise ValueError(
                f"compute.cluster.slurm.runner is true and submits no jobs, so {', '.join(others)} have no "
                "effect; leave them out, and give such options to srun"
            )
        return self


class SlurmCluster(_Cluster):
    """Workers in jobs of SLURM."""

    # In YAML, a key with nothing below it is None.
    slurm: Annotated[SlurmOptions, BeforeValidator(lambda value: {} if value is None else value)]
    """Options of the jobs; an empty mapping takes the defaults."""


class KubernetesOptions(_Cluster):
    """Pods that the Dask operator starts."""

    image: str
    """Container image of scheduler and workers, with this package in this version."""
    namespace: str | None = None
    """Namespace of the pods. Default: the current one."""
    threads: Count = 1
    """Number of threads of a worker."""
    resources: dict[str, dict[str, Text]] | None = None
    """Requests and limits of a worker. Default: its threads, and room for its memory budget."""
    env: Annotated[dict[str, Text], AfterValidator(_without_secrets)] = Field(default_factory=dict)
    """Environment variables of the pods, none of them secret."""
    secrets: list[str] = Field(default_factory=list)
    """Names of Kubernetes secrets whose keys become environment variables of the workers."""
    pod: Options = Field(default_factory=dict)
    """More of the pods' specification, as Kubernetes spells it, such as serviceAccountName or nodeSelector."""
    service: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the scheduler's service; ClusterIP is forwarded to this machine where it is outside."""
    idle_timeout: Natural = 600
    """Seconds after which the operator deletes a cluster that nobody uses any more."""


class KubernetesCluster(_Cluster):
    """Workers in pods of Kubernetes."""

    kubernetes: KubernetesOptions
    """Options of the pods."""


class GatewayOptions(_Cluster):
    """A cluster that a Dask Gateway starts."""

    address: Address | None = None
    """URL of the gateway. Default: from Dask's settings."""
    proxy_address: Address | None = None
    """Address of the proxy of the gateway for schedulers, where it differs from the address of the gateway."""
    auth: str | None = None
    """Login: basic, kerberos, jupyterhub or the full name of a class; passwords come from the environment."""
    options: Options = Field(default_factory=dict)
    """Options of the cluster that the gateway offers."""


class GatewayCluster(_Cluster):
    """Workers of a Dask Gateway."""

    gateway: GatewayOptions
    """The gateway, and the options of the cluster."""


class ClassCluster(_Cluster):
    """Any class that a distributed.Client takes."""

    # `class` is a keyword of Python, so the field has another name than the key.
    class_: str = Field(alias="class")
    """Full name of the class, such as dask_jobqueue.PBSCluster."""
    options: Options = Field(default_factory=dict)
    """Keyword arguments of the class, none of them secret."""


KINDS = {
    "address": "an address",
    "scheduler_file": "an address",
    "slurm": "SLURM",
    "kubernetes": "Kubernetes",
    "gateway": "a gateway",
    "class": "any class",
}
"""Keys that tell the kinds of clusters apart, and the tag of each kind."""


def _kind(cluster: Any) -> str | None:
    """Return the tag of a cluster section, by its keys; None where no key belongs to a kind."""
    if isinstance(cluster, str):
        return "a name"
    # pydantic also asks for the kind of a checked section when it writes it as JSON.
    keys = cluster.model_dump() if isinstance(cluster, BaseModel) else cluster if isinstance(cluster, dict) else {}
    return next((kind for key, kind in KINDS.items() if key in keys), None)


# Without a discriminator, pydantic would list faults of every kind of cluster, not of the kind that was meant.
ClusterOptions = Annotated[
    Annotated[Literal["threads", "synchronous", "local"], Tag("a name")]
    | Annotated[AddressCluster, Tag("an address")]
    | Annotated[SlurmCluster, Tag("SLURM")]
    | Annotated[KubernetesCluster, Tag("Kubernetes")]
    | Annotated[GatewayCluster, Tag("a gateway")]
    | Annotated[ClassCluster, Tag("any class")],
    Discriminator(_kind),
]
"""Where the passes run."""
