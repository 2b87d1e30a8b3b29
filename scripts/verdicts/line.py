"""Lines of the tables, and curves from made-up scores."""

from collections.abc import Sequence

import numpy as np

from efface.report.stats import Curve


def head(*columns: str) -> None:
    """Print the head of a table."""
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def line(*cells: object) -> None:
    """Print a line of a table."""
    print(f"| {' | '.join(str(each) for each in cells)} |", flush=True)


def share(hits: Sequence[bool] | np.ndarray) -> str:
    """Return a share in percent with its standard error."""
    found = np.asarray(hits, dtype=np.float64)
    if not found.size:
        return "none"
    mean = float(found.mean())
    return f"{100 * mean:.1f} ± {100 * (mean * (1 - mean) / found.size) ** 0.5:.1f} %"


def frozen(values: np.ndarray, method: str, metric: str = "morf", **more: object) -> Curve:
    """Return the curve of a metric over images that is one number for each image."""
    how = {"at": (0.0,), "sample": "images", "direction": "lower", "axis": "", "family": "erasure"} | more
    return Curve(metric, "probability", method, values=values[:, None], pairs=tuple(range(len(values))), **how)  # type: ignore[arg-type]


def trained(images: np.ndarray, method: str, metric: str = "roar", **more: object) -> Curve:
    """Return the curve of a retrained metric of one point. images: trainings x images, right or wrong."""
    how = {"at": (0.5,), "sample": "repeats", "direction": "lower", "family": "retraining", "bounds": (0.0, 1.0)} | more
    return Curve(
        *(metric, "accuracy", method),
        values=images.mean(axis=1, keepdims=True),
        images=images[:, None].astype(np.float32),
        pairs=tuple(range(len(images))),
        **how,  # type: ignore[arg-type]
    )
