"""Stage extract: the maps of every method on every split that a metric needs, one file each."""

import contextlib
import functools
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from efface import draws
from efface.config import Study
from efface.entries import MethodEntry
from efface.execute import Failure, advance
from efface.maps import MapWriter, differences, finished, key, partial, read_provenance
from efface.methods.contract import Convention, attribute
from efface.rows import open_file, take
from efface.stages.conventions import convention, named, seed_text
from efface.stages.here import here, keep_trace
from efface.stages.learn import learn, learnt
from efface.stages.progress import Clock, bar, duration, say
from efface.stages.provenance import surroundings
from efface.stages.run import Run


@dataclass(frozen=True)
class Extraction:
    """One method on one split."""

    method: str
    split: str


@dataclass(frozen=True)
class Extract:
    """The work: makes what is missing of an extraction's files."""

    study: Study
    run: Run | None = None
    """This process's own, with data and network in it already; another process makes itself one."""

    def __reduce__(self) -> tuple[type["Extract"], tuple[Study]]:
        return Extract, (self.study,)

    def __call__(self, task: Extraction) -> dict[str, float]:
        """Seconds it took."""
        clock, run = Clock(), self.run or here(self.study)
        entry = next(each for each in run.entries() if each.name == task.method)
        extract_one(run, entry, task.split)
        return clock.seconds()


def extract(run: Run) -> list[str]:
    """Extract what is not there yet; sentences on what failed."""
    failures = learn(run, [task.method for task in left(run)])
    for task in left(run):
        _adopt(run, task)
    unlearnt = {each.name for each in run.entries() if (path := run.learnt_path(each)) and not path.exists()}
    tasks = [task for task in left(run) if task.method not in unlearnt]
    if not tasks:
        return failures
    for split in dict.fromkeys(task.split for task in tasks):
        run.logits(split)  # once, here, not in every worker
    started, before = time.monotonic(), len(failures)
    total = sum(len(run.data[task.split]) for task in tasks)
    done = sum(max(finished(partial(run.map_path(task.method, task.split))), 0) for task in tasks)
    with bar(float(total), "extract", "map") as progress:
        progress.update(min(done, total))
        work = Extract(run.study, run)
        for task, outcome in run.study.executor(work, tasks, progress=progress.update):
            if isinstance(outcome, Failure):
                failures.append(f"{task.method}, {task.split}: {outcome.message}")
                keep_trace(run, f"extract {task.method} {task.split}", outcome)
            else:
                run.results.append(_row(run, task, outcome))
    made, took = len(tasks) - len(failures) + before, duration(time.monotonic() - started)
    say(f"extracted {made} of {len(tasks)} sets of maps in {took}: {run.folder / 'maps'}")
    return failures


def left(run: Run) -> list[Extraction]:
    """The extractions that are not there yet. ValueError: a file of that name holds maps of other data."""
    tasks: list[Extraction] = []
    for split in splits(run):
        missing = [each for each in run.entries() if not all(_is_there(run, each, name, split) for name in each.gives)]
        tasks += [Extraction(entry.name, split) for entry in missing]
    return tasks


def splits(run: Run) -> list[str]:
    """The splits whose maps the study's metrics read: the test images, and the training images where one retrains."""
    retrains = run.refit is not None and (
        not run.study.metrics or any(each.formula.over == "repeats" for each in run.study.metrics)
    )
    if retrains and "train" not in run.data:
        raise ValueError(f"metrics: retraining needs a 'train' split, which {run.study.data.call} does not give")
    return ["train", "test"] if retrains else ["test"]


def extract_one(run: Run, entry: MethodEntry, split: str) -> None:
    """All maps of one method on one split, in blocks of the row budget, each kept as soon as it is there."""
    method = convention(entry, learnt(run, entry))
    compute = functools.partial(_compute, run, entry, method, split, _Budget(run.study.rows))
    sample = compute(torch.arange(1))
    with contextlib.ExitStack() as files:
        writers = {}
        for name in entry.gives:
            provenance = run.provenance(entry, name, split)
            writers[name] = MapWriter(run.map_path(name, split), provenance, run.explained(split), sample[name][0])
            files.callback(writers[name].abandon)
        for rows in torch.arange(len(run.data[split])).split(run.study.rows):
            first, block = int(rows[0]), slice(int(rows[0]), int(rows[-1]) + 1)
            if all(writer.done[block].all() for writer in writers.values()):
                continue
            maps = compute(rows)
            for name, writer in writers.items():
                writer.write(first, maps[name])
            advance(float(len(rows)))
        for writer in writers.values():
            writer.close()


def _adopt(run: Run, task: Extraction) -> None:
    """Give the maps of a method that was renamed their new name: the same bytes, under both."""
    entry = next(each for each in run.entries() if each.name == task.method)
    for name in entry.gives:
        path, expected = run.map_path(name, task.split), run.provenance(entry, name, task.split)
        for other in () if path.exists() else sorted(path.parent.glob(f"*-{task.split}.h5")):
            with contextlib.suppress(ValueError, OSError), open_file(other) as file:  # a broken one is no help
                if not differences(read_provenance(file, other), expected):
                    path.hardlink_to(other)
                    break


def _row(run: Run, task: Extraction, seconds: dict[str, float]) -> dict[str, Any]:
    entry = next(each for each in run.entries() if each.name == task.method)
    made_from = run.provenance(entry, entry.gives[0], task.split)
    return {
        "key": f"extract-{key(made_from)}",
        "method": task.method,
        "probe": {"probe": "extract", "split": task.split},
        "made_from": made_from,
        "maps": len(run.data[task.split]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    } | (seconds | surroundings(run.device))


class _Budget:
    """How many forward rows fit; halves itself when memory runs out."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def halve(self) -> bool:
        if self.rows == 1:
            return False
        self.rows //= 2
        torch.cuda.empty_cache()
        say(f"memory ran out: going on with rows={self.rows}")
        return True


def _compute(
    run: Run, entry: MethodEntry, method: Convention, split: str, budget: _Budget, rows: Tensor
) -> dict[str, Tensor]:
    while True:
        try:
            parts = [_attribute(run, entry, method, split, budget.rows, part) for part in rows.split(budget.rows)]
            return named(entry, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        except torch.OutOfMemoryError:
            if not budget.halve():
                raise


def _attribute(
    run: Run, entry: MethodEntry, method: Convention, split: str, budget: int, rows: Tensor
) -> dict[str, Tensor]:
    data = run.data[split]
    images = take(data.images, rows).to(run.device).float().div_(255)
    masks = None if data.masks is None else data.masks[rows].to(run.device)
    seeds = draws.seeds_of(seed_text(run, entry, split), rows).to(run.device)
    return attribute(
        method,
        run.network_of(entry).module,
        images,
        run.explained(split)[rows].to(run.device),
        seeds=seeds,
        rows=budget,
        masks=masks,
    )


def _is_there(run: Run, entry: MethodEntry, name: str, split: str) -> bool:
    path = run.map_path(name, split)
    if not path.exists():
        return False
    with open_file(path) as file:
        found = read_provenance(file, path)
    expected = run.provenance(entry, name, split)
    foreign = {"split": split, "data": run.data_digest[split]}
    if wrong := differences({each: found.get(each) for each in foreign}, foreign):
        raise ValueError(
            f"{path}: holds maps of other data: {wrong}; move it away or delete it, "
            "or give this study another folder with out=..."
        )
    if differences(found, expected):
        return False
    run.store(name, split)  # whole and readable, or an error that says what to do
    return True
