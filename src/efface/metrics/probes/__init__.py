"""Probes: frozen, hashable, picklable values, each one unit of work. Called with a case, a probe yields a score.

Any frozen dataclass that is callable with the case and has these is a probe; there is no base class:

needs_map: it reads the maps of a view; without, all views share its score.
needs_network: it scores the given network; without, it trains with the study's `fit`, on the maps of both splits.
needs_method: (may be left out) it asks the method again, through `case.explain`.
sampling: (may be left out) settings of samples that it reads, from `case.samples`.
needs_fit: (may be left out) it trains with the study's `fit`, too; its metric says so with `needs_fit`.
needs_masks: (may be left out) it reads the true objects' masks, which not all data have.
explains: (may be left out) the class asked about where it is not the study's `explain`: "true", or "none".
check(network, images): (may be left out) ValueError where its settings do not suit the network or the images' size.
costs(case_rows, fit): its work in forward rows; `case.advance` reports as many while it runs.
identity(): what its number depends on, as plain values.
conventions: (may be left out) words on its `unit`, `imputer`, `ties`, `count`, for the rows of its results and the
    table, where its fields of these names, or its erasure, do not say them truly; "none" for what it has no use for.
takes: (may be left out) the values of a map that it reads, "pixel" or "feature", where it has no field `unit`: maps of
    which it is asked whether they fit. A field `post` is what it does to them before.
"""

from efface.metrics.probes.case import Case, Explain, Samples, block_of, image_mean
from efface.metrics.probes.degeneracy import Degeneracy
from efface.metrics.probes.erasure import Erasure, erased, erased_feed, fill_of, ranks_of
from efface.metrics.probes.score import Perturb, Retrain

__all__ = [
    "Case",
    "Degeneracy",
    "Erasure",
    "Explain",
    "Perturb",
    "Retrain",
    "Samples",
    "block_of",
    "erased",
    "erased_feed",
    "fill_of",
    "image_mean",
    "ranks_of",
]
