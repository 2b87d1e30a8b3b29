"""First step of extraction: fit the methods that need training images, each once."""

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Split
from efface.execute import Failure, advance, task_status
from efface.methods.calling import MethodCall
from efface.methods.code_state import code_kept
from efface.methods.model_state import restored
from efface.methods.process_state import process_kept
from efface.models.memory import with_smaller_batches
from efface.plug.accepts import named
from efface.plug.learning import check_learnt
from efface.plug.source import refuse_changed_code
from efface.stages.run.display import display
from efface.stages.run.map_files import (
    extraction_key,
    learnt_path,
    learnt_seed,
    needed_splits,
    read_learnt_tensors,
)
from efface.stages.run.progress import duration, say, say_out_of_memory
from efface.stages.run.run import Run
from efface.stages.run.weights_kept import weights_kept
from efface.stages.run.worker import current_run, keep_failure
from efface.stages.work.at_work import Subject
from efface.stages.work.through import work_through
from efface.store.arrays import read_rows
from efface.store.tensors import write_learnt
from efface.study.schema import MethodEntry
from efface.study.study import Study

_TRIED_ON = 64  # training images that a method is tried on before it learns from all


@dataclass(frozen=True)
class Learn:
    """The work of one task: fit a method and save what it learnt."""

    study: Study

    def __call__(self, method: str) -> float:
        """Return the seconds that it took."""
        started, run = time.monotonic(), current_run(self.study)
        entry = run.entry(method)
        path, train = learnt_path(run, entry), run.data["train"]
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        network = run.network_of(entry).module
        counted = task_status.working_on(run.folder, f"{method}, learning", float(len(train)), "images")
        with counted, _counting(network, len(train)):
            learnt = learn_from(run, entry, network, train)
        refuse_changed_code()
        write_learnt(path, learnt)
        return time.monotonic() - started


def learn_missing(run: Run, methods: Sequence[str]) -> list[str]:
    """Fit the methods that are not fitted yet. Return a sentence for each failure."""
    entries = [method for method in run.entries if method.name in methods]
    missing: dict[Path, list[str]] = {}
    for entry in entries:
        if (path := learnt_path(run, entry)) and not path.exists():
            missing.setdefault(path, []).append(entry.name)  # methods that learn the same are taught once
    if not missing:
        return []
    started, failures = time.monotonic(), list[str]()
    others = {first: rest for first, *rest in missing.values()}
    images = float(len(run.data["train"]))
    with display(len(others) * images, "learn", "images", tasks=len(others), folders=[run.folder]) as live:
        work, tasks = Learn(run.study), list(others)
        outcomes = work_through(run.study, work, tasks, live.update, cost=lambda _: images, subject=_subject)
        for name, outcome in outcomes:
            live.finished(images, failed=isinstance(outcome, Failure))
            if isinstance(outcome, Failure):
                same = f" (so {', '.join(others[name])} cannot learn, either)" if others[name] else ""
                failures.append(f"{name}, learning: {outcome.reason}{same}")
                unlearnt = [run.entry(method) for method in (name, *others[name])]
                keys = [extraction_key(run, entry, split) for entry in unlearnt for split in needed_splits(run)]
                keep_failure(run, f"learn {name}", outcome, keys)
    took = duration(time.monotonic() - started)
    say(f"{len(others) - len(failures)} of {len(others)} methods learnt in {took}: {run.folder / 'learnt'}")
    return failures


def _subject(method: str) -> Subject:
    return Subject(f"attribution_methods.{method}", "learning")


def learnt_on_trial(run: Run, entry: MethodEntry, network: nn.Module) -> dict[str, Tensor] | None:
    """Return what a method learnt; before extraction, what it learns from a few training images."""
    path = learnt_path(run, entry)
    if path is None or path.exists():
        return read_learnt_tensors(run, entry)
    train = run.data["train"]
    indices = train.training[:_TRIED_ON]
    masks = None if train.masks is None else train.masks[indices]
    few = replace(
        train, images=read_rows(train.images, indices), targets=train.targets[indices], masks=masks, validation=None
    )
    return learn_from(run, entry, network, few)


def learn_from(run: Run, entry: MethodEntry, network: nn.Module, data: Split) -> dict[str, Tensor]:
    """Return what a new method learns from these images. The network, its hooks and modes stay unchanged.

    ValueError: the method changed the weights.
    """
    seed, where = learnt_seed(run, entry), f"attribution_methods.{entry.name}"
    kept = weights_kept(network, where, run.network_of(entry).give_up)
    with kept, process_kept(where), code_kept(network), restored(network):

        def taught(max_batch: int) -> Any:
            with draws.seeded(seed):
                method = MethodCall(entry.name, entry.call).method
                method.fit(network, data, **named(method.fit, {"seed": seed, "max_batch": max_batch}))
            return method

        lower = functools.partial(say_out_of_memory, entry.name)
        return check_learnt(where, with_smaller_batches(taught, run.study.max_batch, halved=lower))


@contextmanager
def _counting(network: nn.Module, most: int) -> Iterator[None]:
    """Report images that pass through the network as progress, `most` in all."""
    seen = 0

    def count(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal seen
        new = min(len(arguments[0]), most - seen)
        seen += new
        advance(float(new))

    handle = network.register_forward_pre_hook(count)
    try:
        yield
        with task_status.already_there():
            advance(float(most - seen))
    finally:
        handle.remove()
