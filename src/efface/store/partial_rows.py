"""Which rows of an unfinished map file are there already."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efface.base.types import Targets
from efface.store.arrays import open_file
from efface.store.keys import differences
from efface.store.maps import partial_path, read_provenance


def rows_done(path: Path, provenance: Mapping[str, Any], targets: Targets) -> np.ndarray:
    """Return a bool for each row: True if a `MapWriter` of the file would keep it.

    path: path of the finished file. targets: the class that each row explains.
    """
    none, partial = np.zeros(len(targets), bool), partial_path(path)
    if not partial.exists():
        return none
    try:
        with open_file(partial) as file:
            if differences(read_provenance(file, partial), provenance):
                return none
            done, stored = file["done"][:], file["targets"][:]
    except (ValueError, OSError, KeyError, TypeError):  # the process was killed while it created the file
        return none
    return (
        done.astype(bool) & (stored == targets.numpy(force=True)) if done.shape == stored.shape == none.shape else none
    )
