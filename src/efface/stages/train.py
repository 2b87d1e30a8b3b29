"""Stage train: the first network, the one that is explained."""

import time

import torch

from efface.fit import Rows, fit
from efface.probes import Erasure, erased_feed
from efface.stages.progress import bar, duration, say
from efface.stages.provenance import surroundings
from efface.stages.run import Run


def train(run: Run, *, ask: bool = True) -> None:
    """Train the first network unless its weights are there (or given), going on from a checkpoint if there is one.

    ask: say what it gets right even where that takes a pass of its own.
    """
    if not run.trained():
        _train(run)
    if ask or run.logits_path("test").exists():
        say_accuracy(run)


def say_accuracy(run: Run) -> None:
    """A line on the first network."""
    accuracy = float((run.logits("test").argmax(1) == run.data["test"].targets.cpu()).float().mean())
    origin = (
        run.network_path if run.study.fit and not run.study.weights else run.study.weights or "as its function makes it"
    )
    say(f"network: {run.study.model.call}, {accuracy:.2%} of {len(run.data['test'])} test images right ({origin})")


def _train(run: Run) -> None:
    settings = run.study.fit
    assert settings is not None
    started, split = time.monotonic(), run.data["train"]
    checkpoint = run.folder / "partial" / run.network_path.name
    case = run.case({}, network=False)
    feed = erased_feed(case, "train", Erasure("most_first", 0.0, run.study.imputer), width=settings.crop, whole=True)
    with bar(float(settings.epochs), "train", "epoch") as progress, run.scalars(run.network_path.stem) as log:
        fitted = fit(
            run.build,
            feed,
            Rows(split.training, split.validation),
            split.targets,
            settings,
            seed=run.study.seed,
            device=run.device,
            checkpoint=checkpoint,
            fingerprint=run.network_key,
            log=log,
            advance=lambda epochs: progress.update(epochs) and None,
        )
    run.network_path.parent.mkdir(parents=True, exist_ok=True)
    temporary = run.network_path.with_name(run.network_path.name + ".new")
    torch.save({name: value.cpu() for name, value in fitted.network.state_dict().items()}, temporary)
    temporary.replace(run.network_path)
    seconds = time.monotonic() - started
    row = {
        "key": f"train-{run.network_key}",
        "probe": {"probe": "train"},
        "losses": list(fitted.losses),
        "validation_accuracies": list(fitted.validation),
        "epoch_kept": fitted.epoch + 1,
        "seconds": seconds,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    run.results.append(row | surroundings(run.device))
    checkpoint.unlink(missing_ok=True)
    say(f"trained {settings.epochs} epochs in {duration(seconds)}")
