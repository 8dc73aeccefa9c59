"""numpy's npz: every array of the model, and its attributes as JSON text. ``np.load`` needs no pickle."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from clustering.exports.content import Content, plain_arrays
from clustering.storage.model import to_dataset


def write(content: Content, path: Path) -> None:
    """Write the arrays of the model: ``centers``, ``weights``, ``covariances``, ``cluster`` (ids) and more.

    Parameters
    ----------
    content
        Model to write.
    path
        Path of the file.
    """
    dataset = to_dataset(content.fitted)
    arrays = {
        **plain_arrays(dataset),
        "names": np.array(content.clusters.display_names),
        "attributes": np.array(json.dumps(dataset.attrs)),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
