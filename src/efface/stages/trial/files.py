"""Trial of maps that were made elsewhere: what can be known of their file before hours are spent."""

import torch

from efface.stages.run.foreign import foreign_maps
from efface.stages.run.labels import sampled_logits
from efface.stages.run.map_files import needed_splits
from efface.stages.run.run import Run
from efface.stages.trial.trial import Trial
from efface.store.arrays import SAMPLED_ROWS
from efface.study.schema import MethodEntry


def try_file(run: Run, entry: MethodEntry) -> Trial:
    """Check the files of an entry: shapes, count, digests, evenly spaced maps, and classes if the network is there.

    ValueError: everything that is found to be wrong, a line each.
    """
    problems, shapes, warnings = [], {}, []
    for split in needed_splits(run):
        try:
            placed = foreign_maps(run, entry, split)
            count = len(run.data[split])
            indices = torch.linspace(0, count - 1, min(SAMPLED_ROWS, count)).round().long()
            constant = 0
            for part in indices.split(run.study.max_batch):
                maps = placed.take(part).flatten(1)
                constant += int((maps.max(1).values == maps.min(1).values).sum())
            if constant:
                warnings.append(f"{constant} of {len(indices)} {split} maps are constant, so their ranking is random")
            if run.study.explain == "true":
                placed.check(indices, run.data[split].targets.cpu()[indices], None)
            if split == "test" and run.first.trained():
                asked, logits = sampled_logits(run)
                classes = run.data[split].targets.cpu()[asked] if run.study.explain == "true" else logits.argmax(1)
                placed.check(asked, classes, logits)
            shapes[entry.name] = placed.maps.shape[1:]
        except (ValueError, FileNotFoundError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\nefface: ".join(problems))
    return Trial(entry.name, 0.0, warnings, shapes)
