"""Training settings of an old configuration: `fit`, and `refit` for retrainings."""

from typing import Any

from efface.base.shown import shown
from efface.study.convert.old import TRAINING, Old

_KEYS = {
    "scheduler": "schedule",
    "optimizer": "optimizer",
    "loss": "loss",
    "batch_size": "batch_size",
    "nb_epochs": "epochs",
}
"""Old keys of a training: the keys of `fit`."""
_EXAMPLES = {
    "scheduler": "torch.optim.lr_scheduler.StepLR",
    "optimizer": "torch.optim.Adam",
    "loss": "torch.nn.CrossEntropyLoss",
}


def trainings_of(old: Old) -> dict[str, Any]:
    """Return the key `fit`, and the key `refit` if the retrainings have other settings."""
    sections = [name for name in ("train_cls", "retrain_cls") if old.get(name)]
    if not sections:
        return {}
    fit = _fit(old, sections[0])
    if len(sections) == 1:
        return {"fit": fit}
    same = [key for key in TRAINING if key != "batch_size" and _alike(old, key)]
    others = [key for key in TRAINING if key != "batch_size" and key not in same]
    for key in same:
        old.became(
            f"retrain_cls.{key}", "fit", "It is that of train_cls; retrainings have the settings of fit.", again=True
        )
    why = "the reference system ignores it and takes that of train_cls, and so does the study"
    old.nothing("retrain_cls.batch_size", why)
    if not others:
        return {"fit": fit}
    refit = fit | {
        _KEYS[key]: value for key in others if (value := _value(old, "retrain_cls", key, "refit")) is not None
    }
    if not old.get("retrain_cls.scheduler"):
        refit.pop("schedule", None)
    return {"fit": fit, "refit": refit}


def _alike(old: Old, key: str) -> bool:
    return not old.has(f"retrain_cls.{key}") or old.get(f"retrain_cls.{key}") == old.get(f"train_cls.{key}")


def _fit(old: Old, section: str) -> dict[str, Any]:
    order = ("nb_epochs", "batch_size", "optimizer", "scheduler", "loss")
    found = {_KEYS[key]: value for key in order if (value := _value(old, section, key, "fit")) is not None}
    keep = "best" if _validates(old) else "last"
    return found | {"crop": 4, "flip": True, "keep": keep}


def _validates(old: Old) -> bool:
    ratio = old.get("data.split_ratio")
    return isinstance(ratio, int | float) and 0 < ratio < 1


def _value(old: Old, section: str, key: str, to: str) -> Any:
    """Return the value of a key of a training in the form of a study; None if there is none."""
    where, new = f"{section}.{key}", f"{to}.{_KEYS[key]}"
    if key in ("batch_size", "nb_epochs"):
        number = old.number(where)
        old.became(where, f"{new}: {number}")
        return number
    settings = old.mapping(where)
    if not settings:
        if key == "scheduler":
            old.nothing(where)
        else:
            old.wrong(where, f"a name and settings, such as name: {_EXAMPLES[key]}")
        return None
    path = settings.pop("name", None)
    if not isinstance(path, str):
        old.wrong(f"{where}.name", f"a dotted path, such as {_EXAMPLES[key]}")
        return None
    said = ", ".join([path, *(f"{name} {shown(value)}" for name, value in settings.items())])
    old.became(where, f"{new}: {said}")
    return {"call": path, "kwargs": settings} if settings else path
