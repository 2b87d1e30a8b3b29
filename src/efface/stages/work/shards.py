"""Extraction in shards: on a cluster, several workers extract the maps of one method, and this process writes the file.

A shard is some whole blocks of `max_batch` images, so each map is computed in the same batch as without shards, and the
file has the same bytes.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from efface.execute import Advance, Failure, advance, ray, slurm, task_status
from efface.plug.source import refuse_changed_code
from efface.stages.run.map_files import Extraction, provenance, read_learnt_tensors
from efface.stages.run.method_calls import layers_said, method_call
from efface.stages.run.progress import Clock
from efface.stages.run.run import Run
from efface.stages.run.weights_kept import weights_kept
from efface.stages.run.worker import current_run
from efface.stages.work.at_work import Subject
from efface.stages.work.map_blocks import Budget, compute_maps
from efface.stages.work.through import work_through
from efface.store.maps import MapWriter
from efface.store.partial_rows import rows_done
from efface.study.study import Study

_BLOCKS = 4  # a shard comes back as one message: 256 maps of 224 x 224 have 50 MB for each channel


@dataclass(frozen=True)
class Shard:
    """The maps of one method on the images of a split from `first` up to `last`, which is excluded."""

    extraction: Extraction
    first: int
    last: int


@dataclass(frozen=True)
class ExtractShard:
    """The work of one task: compute the maps of a shard."""

    study: Study

    def __call__(self, task: Shard) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the maps by name, and the seconds that they took, with the layers that the method looks at."""
        clock, run = Clock(), current_run(self.study)
        name = f"{task.extraction.method}, {_subject(task).part}"
        with task_status.working_on(run.folder, name, _cost(task), "maps"):
            maps, layers = self._extracted(run, task)
        return maps, clock.seconds() | layers

    def _extracted(self, run: Run, task: Shard) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        entry, split = run.entry(task.extraction.method), task.extraction.split
        method, network = method_call(entry, read_learnt_tensors(run, entry)), run.network_of(entry)
        budget, classes = Budget(entry.name, run.study.max_batch), run.target_classes(split)
        blocks = torch.arange(task.first, task.last).split(run.study.max_batch)
        found = []
        with weights_kept(network.module, f"attribution_methods.{entry.name}", network.give_up, network.give_up):
            for indices in blocks:
                found.append(compute_maps(run, entry, method, split, budget, classes, indices).maps)
                advance(float(len(indices)))
        refuse_changed_code()
        maps = {name: torch.cat([each[name] for each in found]).numpy(force=True) for name in entry.gives}
        return maps, layers_said(run, entry, split)


def in_shards(run: Run, task: Extraction) -> bool:
    """Return whether an extraction is divided: on a cluster, if it has more images than a shard."""
    is_cluster = run.study.executor.resolve() in (ray, slurm)
    return is_cluster and run.entry(task.method).file is None and len(run.data[task.split]) > _size(run)


def _size(run: Run) -> int:
    return _BLOCKS * run.study.max_batch


def extract_in_shards(run: Run, tasks: Sequence[Extraction], progress: Advance) -> Iterator[tuple[Extraction, Any]]:
    """Yield each extraction with the seconds that its shards took together, or with its first `Failure`."""
    shards = [shard for task in tasks for shard in _missing(run, task)]
    left, said = Counter(shard.extraction for shard in shards), defaultdict[Extraction, dict[str, Any]](dict)
    writers, failed = dict[Extraction, dict[str, MapWriter]](), set[Extraction]()
    with contextlib.ExitStack() as files:
        work, subject = ExtractShard(run.study), _subject
        for shard, outcome in work_through(run.study, work, shards, progress, cost=_cost, subject=subject):
            task = shard.extraction
            if isinstance(outcome, Failure) and task not in failed:
                yield task, outcome
                failed.add(task)
            if task in failed:
                continue
            maps, facts = outcome
            if task not in writers:
                writers[task] = _writers(run, task, maps)
                for writer in writers[task].values():
                    files.callback(writer.abandon)
            for name, writer in writers[task].items():
                writer.write(shard.first, torch.from_numpy(maps[name]))
            said[task] = _together(said[task], facts)
            left[task] -= 1
            if not left[task]:
                for writer in writers[task].values():
                    writer.close()
                yield task, said[task]


def _missing(run: Run, task: Extraction) -> Iterator[Shard]:
    """Yield the shards of an extraction of which maps are missing."""
    entry, size, count = run.entry(task.method), _size(run), len(run.data[task.split])
    classes = run.target_classes(task.split)
    done = np.ones(count, bool)
    for name in entry.gives:
        path = run.map_path(name, task.split)
        done &= rows_done(path, provenance(run, entry, name, task.split), classes)
    starts = range(0, count, size)
    missing = [first for first in starts if not done[first : first + size].all()]
    for first in missing or [starts[-1]]:  # a whole file that was not closed is closed after its last shard
        yield Shard(task, first, min(first + size, count))


def _writers(run: Run, task: Extraction, maps: dict[str, np.ndarray]) -> dict[str, MapWriter]:
    entry, classes = run.entry(task.method), run.target_classes(task.split)
    return {
        name: MapWriter(
            run.map_path(name, task.split),
            provenance(run, entry, name, task.split),
            classes,
            torch.from_numpy(maps[name][0]),
        )
        for name in entry.gives
    }


def _together(before: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a shard, with the seconds of the shards before."""
    return {
        name: round(value + before.get(name, 0.0), 3) if isinstance(value, float) else value
        for name, value in facts.items()
    }


def _cost(shard: Shard) -> float:
    return float(shard.last - shard.first)


def _subject(shard: Shard) -> Subject:
    task = shard.extraction
    return Subject(f"attribution_methods.{task.method}", f"{task.split} maps from {shard.first}")
