"""Extraction: the maps of every method on every split that a metric needs, one file each."""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from efface.execute import Advance, Failure, advance, task_status
from efface.methods.calling import asks_classes
from efface.plug.source import refuse_changed_code
from efface.stages.run.display import display
from efface.stages.run.map_files import (
    Extraction,
    extraction_key,
    found_path,
    learnt_path,
    missing_extractions,
    needed_splits,
    provenance,
    read_learnt_tensors,
)
from efface.stages.run.method_calls import layers_said, method_call
from efface.stages.run.progress import Clock, duration, say
from efface.stages.run.provenance import surroundings
from efface.stages.run.run import Run
from efface.stages.run.weights_kept import weights_kept
from efface.stages.run.worker import current_run, keep_failure
from efface.stages.work.at_work import Subject
from efface.stages.work.foreign_maps import copy_maps
from efface.stages.work.learning import learn_missing
from efface.stages.work.map_blocks import Budget, compute_maps
from efface.stages.work.shards import extract_in_shards, in_shards
from efface.stages.work.through import work_through
from efface.stages.work.training import say_accuracy
from efface.store.arrays import open_file
from efface.store.keys import differences, key
from efface.store.maps import MapWriter, finished_rows, move_to_kept, partial_path, read_provenance
from efface.study.schema import MethodEntry
from efface.study.study import Study


@dataclass(frozen=True)
class Extract:
    """The work: makes what is missing of an extraction's files."""

    study: Study
    run: Run | None = None
    """This process's own, with data and network in it already; another process makes itself one."""

    def __reduce__(self) -> tuple[type["Extract"], tuple[Study]]:
        return Extract, (self.study,)

    def __call__(self, task: Extraction) -> dict[str, Any]:
        """Seconds it took, and the layers that the method looks at."""
        clock, run = Clock(), self.run or current_run(self.study)
        entry = run.entry(task.method)
        with task_status.working_on(run.folder, f"{task.method}, {task.split} maps", _left_of(run, task), "maps"):
            if entry.file is not None:
                copy_maps(run, entry, task.split)
                return clock.seconds()
            extract_one(run, entry, task.split)
            return clock.seconds() | layers_said(run, entry, task.split)


def extract_missing(run: Run, splits: Sequence[str] | None = None) -> list[str]:
    """Extract what is not there yet; sentences on what failed.

    splits: as for `missing_extractions`.
    """
    has_logits = run.has_logits("test")
    failures = _extract(run, splits)
    if not has_logits:
        say_accuracy(run)
    return failures


def extract_lost(run: Run) -> list[str]:
    """Extract again what was damaged after its extraction in this command, such as by a method that writes files.

    Return a sentence for each set of maps that is lost again.
    """
    if not missing_extractions(run):
        return []
    failures = extract_missing(run)
    said = "its maps were damaged twice while this command ran; find out what writes into this folder"
    lost = [] if failures else missing_extractions(run)
    return failures + [f"{task.method}, {task.split}: {said}: {run.folder / 'maps'}" for task in lost]


def _extract(run: Run, splits: Sequence[str] | None) -> list[str]:
    failures = learn_missing(run, [task.method for task in missing_extractions(run, splits)])
    for task in missing_extractions(run, splits):
        _adopt(run, task)
    _bring_back(run, splits)
    unlearnt = {entry.name for entry in run.entries if (path := learnt_path(run, entry)) and not path.exists()}
    missing = [task for task in missing_extractions(run, splits) if task.method not in unlearnt]
    tasks = [*{_made_from(run, task): task for task in missing[::-1]}.values()]
    tasks.sort(key=missing.index)
    if not tasks:
        return failures
    started, before = time.monotonic(), len(failures)
    total = sum(len(run.data[task.split]) for task in tasks)
    done = sum(max(finished_rows(partial_path(run.map_path(task.method, task.split))), 0) for task in tasks)
    costs = {task: _left_of(run, task) for task in tasks}
    with display(float(total), "extract", "maps", tasks=len(tasks), folders=[run.folder]) as live:
        live.already(float(min(done, total)))
        for task, outcome in _worked_off(run, tasks, live.update):
            live.finished(costs[task], failed=isinstance(outcome, Failure))
            if isinstance(outcome, Failure):
                failures.append(f"{task.method}, {task.split}: {outcome.reason}")
                failed = extraction_key(run, run.entry(task.method), task.split)
                keep_failure(run, f"extract {task.method} {task.split}", outcome, [failed])
            else:
                run.results.append(_row(run, task, outcome))
    for task in (task for task in missing if task not in tasks):
        _adopt(run, task)
    extracted, took = len(tasks) - len(failures) + before, duration(time.monotonic() - started)
    say(f"extracted {extracted} of {len(tasks)} sets of maps in {took}: {run.folder / 'maps'}")
    return failures


def _worked_off(run: Run, tasks: list[Extraction], progress: Advance) -> Iterator[tuple[Extraction, Any]]:
    """The tasks and what came of them: first, here, those that find out the classes, which every worker reads."""
    work, asking = Extract(run.study, run), dict[str, Extraction]()
    for task in tasks:
        if _asks(run, task):
            asking.setdefault(task.split, task)
    cost, first = functools.partial(_left_of, run), [*asking.values()]
    yield from work_through(run.study, work, first, progress, cost=cost, subject=_subject, in_process=True)
    for split in dict.fromkeys(task.split for task in tasks):
        run.target_classes(split)  # once, here, not in every worker
    rest = [task for task in tasks if task not in asking.values()]
    if whole := [task for task in rest if not in_shards(run, task)]:
        yield from work_through(run.study, work, whole, progress, cost=cost, subject=_subject)
    yield from extract_in_shards(run, [task for task in rest if task not in whole], progress)


def _subject(task: Extraction) -> Subject:
    return Subject(f"attribution_methods.{task.method}", f"{task.split} maps")


def _left_of(run: Run, task: Extraction) -> float:
    """Maps of an extraction that are not there yet."""
    done = max(finished_rows(partial_path(run.map_path(task.method, task.split))), 0)
    return float(len(run.data[task.split]) - done)


def _asks(run: Run, task: Extraction) -> bool:
    """Return True if this extraction must also determine the predicted classes. A resumed one already has them."""
    entry = run.entry(task.method)
    if entry.file is not None:
        return False
    begun = any(partial_path(run.map_path(name, task.split)).exists() for name in entry.gives)
    known = run.study.explain != "predicted" or run.has_logits(task.split)
    explained = run.network_of(entry) is run.first
    return explained and not known and not begun and asks_classes(entry.call, batched=entry.batched)


def extract_one(run: Run, entry: MethodEntry, split: str) -> None:
    """Extract all maps of one method on one split, in blocks of `max_batch` images. Each finished block is stored."""
    asking = _asks(run, Extraction(entry.name, split))
    classes = torch.zeros(len(run.data[split]), dtype=torch.int64) if asking else run.target_classes(split)
    method, answers = method_call(entry, read_learnt_tensors(run, entry)), []
    compute = functools.partial(
        compute_maps, run, entry, method, split, Budget(entry.name, run.study.max_batch), None if asking else classes
    )
    every = torch.arange(len(classes)).split(run.study.max_batch)
    fresh = not any(partial_path(run.map_path(name, split)).exists() for name in entry.gives)
    network = run.network_of(entry)

    def give_up() -> None:
        network.give_up()
        for name in entry.gives:  # what is there so far may come from the changed network
            partial_path(run.map_path(name, split)).unlink(missing_ok=True)

    with contextlib.ExitStack() as files:
        with weights_kept(network.module, f"attribution_methods.{entry.name}", give_up, network.give_up):
            sample = compute(every[0] if fresh else torch.arange(1))
            writers = {}
            for name in entry.gives:
                made_from = provenance(run, entry, name, split)
                writers[name] = MapWriter(run.map_path(name, split), made_from, classes, sample.maps[name][0])
                files.callback(writers[name].abandon)
            computed = sample if fresh else None
            for indices in every:
                first, block = int(indices[0]), slice(int(indices[0]), int(indices[-1]) + 1)
                if all(writer.done[block].all() for writer in writers.values()):
                    continue
                computed = computed or compute(indices)
                if asking:
                    answers += computed.logits
                    classes[block] = torch.cat(computed.logits).argmax(1)
                for name, writer in writers.items():
                    writer.write(first, computed.maps[name])
                computed = None
                advance(float(len(indices)))
        refuse_changed_code()
        if asking:
            run.keep_logits(split, torch.cat(answers))
        for writer in writers.values():
            writer.close()


def _made_from(run: Run, task: Extraction) -> str:
    """Return a digest of what all maps of an extraction are made from. Entries with equal settings share it."""
    entry = run.entry(task.method)
    return key({str(at): provenance(run, entry, name, task.split) for at, name in enumerate(entry.gives)})


def _adopt(run: Run, task: Extraction) -> None:
    """Give maps that are there under another name this method's name, too: of one renamed, or with equal settings."""
    entry = run.entry(task.method)
    for name in entry.gives:
        path, expected = run.map_path(name, task.split), provenance(run, entry, name, task.split)
        for other in sorted((*path.parent.glob(f"*-{task.split}.h5"), *path.parent.glob(f"kept/*-{task.split}-*.h5"))):
            with contextlib.suppress(ValueError, OSError), open_file(other) as file:  # a broken one is no help
                if not differences(read_provenance(file, other), expected):
                    move_to_kept(path, expected)
                    path.hardlink_to(other)
                    partial_path(path).unlink(missing_ok=True)
                    break


def _bring_back(run: Run, splits: Sequence[str] | None) -> None:
    """Give maps that were set aside their name again, so that the maps of this study have the plain names."""
    for entry in run.entries:
        for split in needed_splits(run) if splits is None else splits:
            for name in entry.gives:
                path, expected = run.map_path(name, split), provenance(run, entry, name, split)
                if (aside := found_path(path, expected)) != path:
                    move_to_kept(path, expected)
                    aside.replace(path)


def _row(run: Run, task: Extraction, outcome: dict[str, Any]) -> dict[str, Any]:
    entry = run.entry(task.method)
    return {
        "key": extraction_key(run, entry, task.split),
        "method": task.method,
        "probe": {"probe": "extract", "split": task.split},
        "made_from": provenance(run, entry, entry.gives[0], task.split),
        "maps": len(run.data[task.split]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    } | (outcome | surroundings(run.device))
