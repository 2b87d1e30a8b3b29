"""The local distribution of the training images: clusters of their logits, and an image that stands for each."""

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor


def k_means(
    logits: Float[Tensor, "n k"], count: int, seed: int
) -> tuple[Float[Tensor, "c k"], Int[Tensor, " n"], Float[Tensor, " c"]]:
    """Centres of at most `count` clusters, the cluster of each row, the share of the rows in each cluster.

    Fewer where the rows are fewer, or fewer of them differ: none is empty. Best of 3 starts, 600 rounds at most.

    Source of the settings: Yang, Akhtar, Wen & Mian, AAAI 2023, released code.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    fitted = KMeans(min(count, len(logits)), n_init=3, max_iter=600, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters
        fitted.fit(logits.numpy())
    numbers, labels, sizes = torch.from_numpy(fitted.labels_).long().unique(return_inverse=True, return_counts=True)
    centres = torch.from_numpy(fitted.cluster_centers_).to(logits.dtype)[numbers]
    return centres, labels, sizes / len(logits)


def representatives(
    logits: Float[Tensor, "n k"], count: int, seed: int
) -> tuple[Int[Tensor, " r"], Float[Tensor, " r"]]:
    """`count` rows, each the nearest to the centre of one cluster, and the share of the rows in that cluster.

    Where there are fewer clusters, the first row again, with share 0.
    """
    centres, _, shares = k_means(logits, count, seed)
    found, densities = torch.zeros(count, dtype=torch.int64), torch.zeros(count)
    found[:] = nearest(centres, logits)[0]
    found[: len(centres)], densities[: len(centres)] = nearest(centres, logits), shares
    return found, densities


def nearest(points: Float[Tensor, "m k"], rows: Float[Tensor, "n k"]) -> Int[Tensor, " m"]:
    """The number of the row nearest to each point; the same for any number of points."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points, rows, compute_mode=exact).argmin(1)
