"""Golden outputs of training: losses, curves and weights after a few epochs of a tiny network."""

import torch

from efface.erase.batches import resident
from efface.erase.masking import pad, to_float, to_stored
from efface.plug.call import Call
from efface.store.tensors import cached_tensors
from efface.training.batch import Means, augmented, crop, names_of
from efface.training.checkpoint import Training
from efface.training.loop import Stop, TrainingRows, TrainingSettings, predict, train
from efface.training.settings import Regularizer
from numerics import inputs
from numerics.table import golden

SGD = Call(call="torch.optim.SGD", kwargs={"lr": 0.1, "momentum": 0.9})
COSINE = Call(call="torch.optim.lr_scheduler.CosineAnnealingLR", kwargs={"T_max": 3})
ONE_CYCLE = Call(call="torch.optim.lr_scheduler.OneCycleLR", kwargs={"max_lr": 0.2})
JITTER = Call(call="efface.training.augment.colour_jitter", kwargs={"brightness": 0.4})
TURN = Call(call="efface.training.augment.rotation", kwargs={"degrees": 30.0})
PGD = Call(call="efface.training.attack.pgd", kwargs={"norm": "l2", "eps": 0.3, "steps": 2, "start": "random"})
PENALTY = Regularizer(call="efface.training.regularize.gradient_norm", weight=0.05)
MATCHING = Regularizer(
    call="efface.training.regularize.score_matching", weight=0.02, kwargs={"samples": 2, "sigma": 0.1}
)

PLANS = {
    "plain": TrainingSettings(epochs=2, batch_size=4),
    "moved": TrainingSettings(epochs=3, batch_size=4, optimizer=SGD, crop=1, flip=True, schedule=COSINE),
    "each_step": TrainingSettings(
        epochs=2, batch_size=5, optimizer=SGD, crop=2, schedule=ONE_CYCLE, schedule_each="step"
    ),
    "kept_best": TrainingSettings(epochs=6, batch_size=8, optimizer=SGD, flip=True, keep="best"),
    "stopped_by_loss": TrainingSettings(epochs=5, batch_size=8, optimizer=SGD, stop=Stop(loss=1.4)),
    "stopped_by_accuracy": TrainingSettings(epochs=5, batch_size=8, optimizer=SGD, stop=Stop(accuracy=0.375)),
    "channels_last": TrainingSettings(epochs=2, batch_size=8, optimizer=SGD, channels_last=True),
    "bf16": TrainingSettings(epochs=1, batch_size=17, optimizer=SGD, precision="bf16"),
    "augmented": TrainingSettings(epochs=2, batch_size=8, optimizer=SGD, augment=(JITTER, TURN)),
    "regularized": TrainingSettings(epochs=2, batch_size=8, optimizer=SGD, regularizers=(PENALTY, MATCHING, PENALTY)),
    "attacked": TrainingSettings(epochs=2, batch_size=8, optimizer=SGD, attack=PGD),
    "other_loss": TrainingSettings(
        epochs=2,
        batch_size=8,
        optimizer=SGD,
        loss=Call(call="torch.nn.functional.cross_entropy", kwargs={"label_smoothing": 0.2}),
    ),
}
"""17 training rows: in batches of 4 and 8 one image is left over, in batches of 5 two are."""


@golden("train")
def _train():
    found = {}
    for name, settings in PLANS.items():
        build = inputs.Smooth if settings.regularizers else inputs.Net
        found |= named(name, trained(settings, build=build))
    return found | resumed() | _left_over() | _parts()


def feed(width: int):
    """The training images of the case, with a border of their mean."""
    images = inputs.data()["train"].images

    def prepare(shown, _beside, _rows, _epoch):
        grey = pad(to_float(shown), width, lambda whole, _: torch.full_like(whole, 0.4))
        return to_stored(grey)

    return resident(len(images), lambda rows: (images[rows], None), prepare, block=8)


def trained(settings: TrainingSettings, seed: int = 2, **how):
    """A training, its log of what it keeps itself, and its progress."""
    split, said, steps = inputs.data()["train"], [], []
    more = {"batch_loss", "validation_loss"}
    if not (settings.stop and settings.stop.accuracy):
        more.add("training_accuracy")
    rows = TrainingRows(split.training, split.validation)
    fitted = train(
        how.pop("build", inputs.Net),
        how.pop("feed", None) or feed(settings.crop),
        how.pop("rows", rows),
        split.targets,
        settings,
        seed=seed,
        device=inputs.CPU,
        log=lambda name, value, epoch: name not in more and said.append((name, value, epoch)),
        advance=steps.append,
        **how,
    )
    return fitted, said, steps


def named(name: str, made):
    fitted, said, steps = made
    state = fitted.network.state_dict()
    weights = torch.cat([value.double().flatten() for _, value in sorted(state.items())])
    found = {
        "losses": torch.tensor(fitted.losses),
        "validation": torch.tensor(fitted.validation),
        "epoch": fitted.epoch,
        "weights": weights,
        "last_layer": list(state.values())[-2],
        "log": str([(each, epoch) for each, _, epoch in said][:8]),
        "logged": torch.tensor([value for _, value, _ in said]),
        "progress": int(sum(steps)),
        "training": fitted.network.training,
    }
    found |= {f"terms_{term}": torch.tensor(values) for term, values in fitted.terms.items()}
    return {f"{name}_{each}": value for each, value in found.items()}


def resumed():
    """Three epochs, killed after the first: the same as one that ran through; another fingerprint begins anew."""
    settings = PLANS["moved"]
    path = inputs.folder() / "c.pt"
    with_best = settings.model_copy(update={"keep": "best"})
    killed = with_best.model_copy(update={"epochs": 1})
    trained(killed, checkpoint=path, fingerprint="f")
    on = named("resumed", trained(with_best, checkpoint=path, fingerprint="f"))
    anew = named("anew", trained(with_best, checkpoint=path, fingerprint="other"))
    kept = ("losses", "weights", "epoch", "progress")
    return {f"{name}_{each}": (on | anew)[f"{name}_{each}"] for name in ("resumed", "anew") for each in kept}


def _left_over():
    """Batches of 8 of 9 rows leave one image over, which is not trained on; a single row is."""
    settings = TrainingSettings(epochs=2, batch_size=8, optimizer=SGD)
    nine = named("nine", trained(settings, rows=TrainingRows(torch.arange(9))))
    return {name: nine[name] for name in ("nine_losses", "nine_weights", "nine_epoch")}


def _parts():
    padded = inputs.stored(3, 6, size=6)
    shifts, flips = torch.tensor([[0, 2], [1, 1], [2, 0]]), torch.tensor([True, False, True])
    images, seeds = inputs.images(3), inputs.seeds(3)
    state = _fresh()
    for epoch, accuracy in enumerate((0.25, 0.5, 0.5, 0.375)):
        state.finish(epoch, {"loss": 1.0 / (epoch + 1), "validation_accuracy": accuracy, "t": 2.0}, best=True)
    means = Means()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(0.5)}, 3)
    means.add({"a": torch.tensor(2.0), "b": torch.tensor(0.25)}, 1)
    kept = cached_tensors(inputs.folder() / "k.pt", lambda: {"x": inputs.normal(1, 4)})
    return {
        "crop": crop(padded, shifts, flips, 1),
        "crop_of_the_middle": crop(padded, None, None, 1),
        "crop_without_a_border": crop(padded, torch.zeros(3, 2, dtype=torch.int64), flips, 0),
        "predict": predict(inputs.network().train(), inputs.stored(5, 2).split(2)),
        "predict_bf16": predict(inputs.network(), [inputs.stored(3, 2)], precision="bf16").round(decimals=1),
        "augmentations": augmented((JITTER, TURN), images, seeds, first=True),
        "best_epoch": state.best_epoch,
        "means": torch.tensor(list(means.found().values())),
        "names": str(names_of((PENALTY, MATCHING, PENALTY))),
        "made_once": kept["x"],
        "stops": [Stop(accuracy=0.5).reached(_state(accuracy)) for accuracy in (0.499, 0.5, 0.501)],
        "stops_by_loss": [Stop(loss=0.5).reached(_state(0.5, loss)) for loss in (0.499, 0.5, 0.501)],
        "preset": [Regularizer(call="efface.training.regularize.score_matching", weight=0.5).factor],
    }


def _fresh() -> Training:
    made = inputs.network()
    return Training(made, torch.optim.SGD(made.parameters(), lr=0.1), None, None, "")


def _state(accuracy: float, loss: float = 1.0) -> Training:
    state = _fresh()
    state.finish(0, {"loss": loss, "training_accuracy": accuracy}, best=False)
    return state
