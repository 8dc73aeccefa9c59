"""Finding secrets among the options of a config. Secrets come at run time, see `clustering_flows.credentials`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Short words count only as whole words, because others end in them, such as monkey and compass.
_SECRET = re.compile(
    r"(?:^|_)(?:key|sas|auth|pass|pwd|authorization|cookies?|credentials?|connection_string|connection|signature)$"
    r"|(?:apikey|accesskey|secretkey|password|passwd|passphrase|secret|token)$"
)
# For gcsfs, these texts are values of `token` that choose a way to log in, and are no secrets.
_HARMLESS = (None, "", False, True, "anon", "cloud", "google_default")
_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@")
_ENVIRONMENT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "s3a": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
}
BLOCK = re.compile(r"secret/[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
"""Pattern of the name of a Prefect block with credentials."""


def secret_option(options: Any, path: tuple[str, ...] = ()) -> str | None:
    """Find the first storage option that holds a secret.

    Parameters
    ----------
    options
        Options, or a part of them.
    path
        Names that lead to the part.

    Returns
    -------
    str or None
        Its dotted name, such as ``client_kwargs.aws_secret_access_key``.
    """
    if isinstance(options, Mapping):
        for name, value in options.items():
            secret = secret_option(value, (*path, str(name)))
            if secret is not None:
                return secret
    elif isinstance(options, Sequence) and not isinstance(options, (str, bytes)):
        for value in options:
            secret = secret_option(value, path)
            if secret is not None:
                return secret
    elif options not in _HARMLESS:
        # camelCase and Header-Names become snake_case. An access key id counts as a secret like its key.
        plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", path[-1] if path else "").lower().replace("-", "_")
        if _SECRET.search(plain.removesuffix("_id")) or _PASSWORD.search(str(options)):
            return ".".join(" ".join(name.split()) for name in path)
    return None


def refusal(store: str, options: Mapping[str, Any], section: str = "source") -> str | None:
    """Say why the storage options of a config are refused, without showing any value; None where they are allowed.

    Parameters
    ----------
    store
        Path or URL of the store.
    options
        Its storage options.
    section
        Section of the config, for the message.
    """
    name = secret_option(options)
    if name is None:
        return None
    variables = _ENVIRONMENT.get(store.partition("://")[0])
    remedy = f"set {variables} in the environment" if variables else "give it by the environment"
    block = ", or name a Prefect Secret block in source.credentials" if section == "source" else ""
    return f"{section}.storage_options.{name} holds a secret, which a config must not; {remedy}{block}"
