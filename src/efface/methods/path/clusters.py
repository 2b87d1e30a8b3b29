"""Clusters of the training images' logits, and a representative image of each cluster."""

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor


def k_means(
    logits: Float[Tensor, "n k"], count: int, seed: int
) -> tuple[Float[Tensor, "c k"], Int[Tensor, " n"], Float[Tensor, " c"]]:
    """Return the centres of at most `count` clusters, the cluster of each row, and each cluster's share of the rows.

    No cluster is empty. There are fewer clusters if there are fewer rows, or fewer different rows. The result is the
    best of 3 starts, with at most 600 iterations each.

    Source of the settings: Yang, Akhtar, Wen & Mian, AAAI 2023, released code.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    fitted = KMeans(min(count, len(logits)), n_init=3, max_iter=600, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # raised for fewer different rows than clusters
        fitted.fit(logits.numpy())
    numbers, labels, sizes = torch.from_numpy(fitted.labels_).long().unique(return_inverse=True, return_counts=True)
    centres = torch.from_numpy(fitted.cluster_centers_).to(logits.dtype)[numbers]
    return centres, labels, sizes / len(logits)


def representatives(
    logits: Float[Tensor, "n k"], count: int, seed: int
) -> tuple[Int[Tensor, " r"], Float[Tensor, " r"]]:
    """Return `count` rows, each nearest to the centre of one cluster, and each cluster's share of the rows.

    If there are fewer clusters than `count`, the first row is repeated with share 0.
    """
    centres, _, shares = k_means(logits, count, seed)
    rows, densities = torch.zeros(count, dtype=torch.int64), torch.zeros(count)
    rows[:] = nearest_row(centres, logits)[0]
    rows[: len(centres)], densities[: len(centres)] = nearest_row(centres, logits), shares
    return rows, densities


def nearest_row(points: Float[Tensor, "m k"], rows: Float[Tensor, "n k"]) -> Int[Tensor, " m"]:
    """Return the number of the row nearest to each point; the result does not depend on the number of points."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points, rows, compute_mode=exact).argmin(1)
