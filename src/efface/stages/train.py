"""Stage train: the first network, the one that is explained."""

import time
from typing import Any

import torch

from efface.fit import Rows, fit
from efface.probes import Erasure, erased_feed
from efface.stages.progress import bar, duration, say
from efface.stages.run import Run, surroundings


def train(run: Run) -> None:
    """Train the first network unless its weights are there (or given), going on from a checkpoint if there is one."""
    if not run.trained():
        _train(run)
    accuracy = float((run.logits("test").argmax(1) == run.data["test"].targets.cpu()).float().mean())
    origin = (
        run.network_path if run.study.fit and not run.study.weights else run.study.weights or "as its function makes it"
    )
    say(f"network: {run.study.model.call}, {accuracy:.2%} of {len(run.data['test'])} test images right ({origin})")


def _train(run: Run) -> None:
    settings = run.study.fit
    assert settings is not None
    if "train" not in run.data:
        raise ValueError(f"fit: {run.study.data.call} gives no 'train' split to fit on; give 'weights', or other data")
    started, split = time.monotonic(), run.data["train"]
    checkpoint = run.folder / "partial" / run.network_path.name
    case = run.case({}, network=False, checkpoint=None, cache={})
    feed = erased_feed(case, "train", Erasure("most_first", 0.0, run.study.imputer), width=settings.crop, whole=True)
    writer = _scalars(run)
    with bar(settings.epochs, "train", "epoch") as progress:
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
            log=writer.add_scalar if writer else None,
            advance=lambda epochs: progress.update(epochs) and None,
        )
    if writer:
        writer.close()
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
    run.results.append(row | surroundings(run))
    checkpoint.unlink(missing_ok=True)
    say(f"trained {settings.epochs} epochs in {duration(seconds)}")


def _scalars(run: Run) -> Any:
    assert run.study.fit is not None
    if not run.study.fit.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "fit.tensorboard: the package tensorboard is not installed; pip install 'efface[tensorboard]'"
        ) from error
    return SummaryWriter(str(run.folder / "tensorboard" / run.network_path.stem))
