"""Copying of maps that were made elsewhere into the map files of a run."""

import torch

from efface.execute import advance
from efface.stages.run.foreign import foreign_maps, foreign_provenance
from efface.stages.run.run import Run
from efface.store.maps import MapWriter
from efface.study.schema import MethodEntry


def copy_maps(run: Run, entry: MethodEntry, split: str) -> None:
    """Copy the maps of a file, in the order of the split's rows, after everything that the file tells was checked.

    ValueError: a row is not finite, explains another class, or the file changed meanwhile.
    """
    classes, placed = run.target_classes(split).cpu(), foreign_maps(run, entry, split)
    made_from = foreign_provenance(run, entry, split)
    every = torch.arange(len(classes))
    placed.check(every, classes, run.logits(split) if placed.maps.prediction is not None else None)
    writer = MapWriter(run.map_path(entry.name, split), made_from, classes, placed.take(every[:1])[0])
    try:
        for indices in every.split(run.study.max_batch):
            if not writer.done[int(indices[0]) : int(indices[-1]) + 1].all():
                writer.write(int(indices[0]), placed.take(indices))
                advance(float(len(indices)))
        if foreign_provenance(run, entry, split) != made_from:
            raise ValueError(
                f"attribution_methods.{entry.name}: {placed.maps.path}: changed while it was read; try again"
            )
        writer.close()
    finally:
        writer.abandon()
