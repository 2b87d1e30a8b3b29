"""Probes: frozen, hashable, picklable values, each one unit of work. A probe is called with a case and returns a score.

`Probe` lists the required and the optional parts of a probe. `Needs` lists what it can request from a study.
"""

from efface.metrics.probes.block import Block
from efface.metrics.probes.case import Case, Explain, Samples, block_of, image_mean
from efface.metrics.probes.degeneracy import Degeneracy
from efface.metrics.probes.erasure import Erasure, erased, erased_batches, fill_of, fill_seeds, ranks_of
from efface.metrics.probes.probe import Description, Needs, Probe, check_probe
from efface.metrics.probes.score import Perturb, Retrain
from efface.store.results import Score

__all__ = [
    "Block",
    "Case",
    "Degeneracy",
    "Description",
    "Erasure",
    "Explain",
    "Needs",
    "Perturb",
    "Probe",
    "Retrain",
    "Samples",
    "Score",
    "block_of",
    "check_probe",
    "erased",
    "erased_batches",
    "fill_of",
    "fill_seeds",
    "image_mean",
    "ranks_of",
]
