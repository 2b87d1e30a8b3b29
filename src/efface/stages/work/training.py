"""Training: the network that is explained, and the second network where the study has one."""

import functools
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from efface.execute import Failure, task_status
from efface.metrics.probes import Erasure
from efface.metrics.probes.score import train_on_erased
from efface.plug.given import said
from efface.plug.in_python import for_maker
from efface.report.formats import percent
from efface.stages.run.case import case_of
from efface.stages.run.display import display
from efface.stages.run.labels import sure_and_wrong
from efface.stages.run.network import Network
from efface.stages.run.progress import Clock, duration, say
from efface.stages.run.provenance import surroundings
from efface.stages.run.run import Run
from efface.stages.run.worker import current_run, keep_failure
from efface.stages.work.scalars import scalars
from efface.stages.work.through import work_through
from efface.store.plain_name import name_plainly, remove_plain_name
from efface.store.sealed import is_whole, write_tensors
from efface.study.study import Study


@dataclass(frozen=True)
class NetworkToTrain:
    """A network to train, by its name in the study."""

    study: Study
    network: str


@dataclass(frozen=True)
class Train:
    """The work of one task: train a network and save it. Returns its line of the results."""

    runs: Mapping[Path, Run] = field(default_factory=dict)
    """Loaded runs of this process, by folder. Another process loads its own."""

    def __reduce__(self) -> tuple[type["Train"], tuple[()]]:
        return Train, ()

    def __call__(self, task: NetworkToTrain) -> dict[str, Any]:
        run = self.runs.get(task.study.out) or current_run(task.study)
        network = next(network for network in run.networks() if network.name == task.network)
        cost = float(network.fit.epochs) if network.fit is not None else 0.0
        with task_status.working_on(run.folder, _named(run, network.name), cost, "epochs"):
            return _train(run, network)


def train_missing(runs: Sequence[Run], *, ask: bool = True) -> dict[Path, list[str]]:
    """Train every missing network, several at once if the executor can. Each resumes from its checkpoint.

    ask: print the accuracy of each network, even if that needs a forward pass of its own.
    Returns sentences on failures, by the folder of the run.
    """
    missing: dict[Path, tuple[Run, Network]] = {}
    for run in runs:
        for network in (untrained for untrained in run.networks() if not untrained.trained()):
            missing.setdefault(network.path, (run, network))  # a second network that several runs share is trained once
    failures: dict[Path, list[str]] = {}
    own = {run.folder: run for run in runs}
    if missing:
        started = time.monotonic()
        tasks = [NetworkToTrain(run.study, network.name) for run, network in missing.values()]
        epochs = functools.partial(_epochs, own)
        done: list[float] = []  # finished epochs, as they are reported
        folders = [run.folder for run, _ in missing.values()]
        with display(sum(map(epochs, tasks)), "train", "epochs", tasks=len(tasks), folders=folders) as live:

            def count(amount: float) -> None:
                done.append(amount)
                live.update(amount)

            for task, outcome in work_through(runs[0].study, Train(own), tasks, count, cost=epochs):
                run = own[task.study.out]
                live.finished(epochs(task), failed=isinstance(outcome, Failure))
                if isinstance(outcome, Failure):
                    failures.setdefault(run.folder, []).append(f"{_named(run, task.network)}: {outcome.reason}")
                    keep_failure(run, f"train {task.network}", outcome)
                else:
                    run.results.append(outcome)
        if done:
            say(f"trained {sum(done):.0f} epochs in {duration(time.monotonic() - started)}")
    for run in runs:
        _name_plainly(run, new={network.path for _, network in missing.values()})
        if run.folder not in failures and (ask or run.has_logits("test")):
            say_accuracy(run, several=len(runs) > 1)
    return failures


def _name_plainly(run: Run, new: Collection[Path]) -> None:
    """Let `models/network.pt` be the network of this study, and likewise of the second network.

    A second network that runs of several seeds keep in one folder has no such name. new: files that were just trained.
    """
    for network in run.networks():
        if network.folder != run.folder / "models":
            continue
        if network.weights is not None or network.fit is None or not network.path.is_file():
            remove_plain_name(network.folder, network.name)
            continue
        try:
            said = name_plainly(network.path, network.name)
        except OSError as error:  # said once, when the file is made
            said = f"{network.path}: has no plain name, for this disk takes no links ({error.strerror})"
            said *= network.path in new
        if said:
            say(said)


def _epochs(runs: Mapping[Path, Run], task: NetworkToTrain) -> float:
    """Return the epochs of a training. runs: by folder."""
    run = runs[task.study.out]
    return float(next(network.fit.epochs for network in run.networks() if network.name == task.network and network.fit))


def say_accuracy(run: Run, *, several: bool = False) -> None:
    """Print the accuracy of the explained network. several: name the run's folder."""
    where = f"{run.folder}: " if several else ""
    accuracy = float(run.right().float().mean())
    model, count = said(run.study.model.call), len(run.data["test"])
    say(f"{where}network: {model}, {percent(accuracy)} of {count} test images right ({run.first.origin})")
    for warning in sure_and_wrong(run.logits("test"), run.data["test"].targets.cpu()):
        say(f"{where}warning: {for_maker(warning, run.study.model.call)}")


def _named(run: Run, network: str) -> str:
    return f"{run.folder}, {'the network' if network == 'network' else network}"


def _train(run: Run, network: Network) -> dict[str, Any]:
    settings, clock = network.fit, Clock()
    assert settings is not None
    checkpoint = run.folder / "partial" / network.path.name
    is_whole(checkpoint, checkpoint.name, "the training starts at its first epoch")
    whole_images = Erasure("most_first", 0.0, run.study.imputer)
    with scalars(run, network.path.stem) as log:
        case = replace(case_of(run, {}, network=False, checkpoint=checkpoint, log=log), build=network.build)
        trained = train_on_erased(
            case, whole_images, settings, seed=network.seed, fingerprint=network.key, epoch_cost=1.0
        )
    weights = {name: value.cpu() for name, value in trained.network.state_dict().items()}
    write_tensors(network.path, network.key, weights, synced=True)
    checkpoint.unlink(missing_ok=True)
    row = {
        "key": f"train-{network.key}",
        "probe": {"probe": "train"} | ({} if network.name == "network" else {"network": network.name}),
        "losses": list(trained.losses),
        "validation_accuracies": list(trained.validation),
        "terms": {name: list(values) for name, values in trained.terms.items()},
        "epoch_kept": trained.epoch + 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    } | ({} if trained.devices == 1 else {"devices": trained.devices})
    return row | clock.seconds() | surroundings(run.device)
