"""What the presets of a study's trainings resolved to, for `check`."""

from collections.abc import Iterator
from typing import Any

from efface.base.shown import shown
from efface.plug import words
from efface.plug.call import Call
from efface.plug.field import WORDS
from efface.study.study import Study
from efface.training.settings import TrainingSettings


def trainings(study: Study) -> dict[str, TrainingSettings]:
    """Return the settings of each training that the study states, by their key."""
    second = study.second_network.fit if study.second_network is not None else None
    stated = {"fit": study.fit, "refit": study.refit, "second_network.fit": second}
    return {where: fit for where, fit in stated.items() if fit is not None}


def presets_said(study: Study) -> Iterator[str]:
    """Yield a sentence for each training with a preset: the precision, and all settings that are not the default."""
    for where, fit in trainings(study).items():
        if fit.preset is None:
            continue
        usual = TrainingSettings(epochs=1).resolved()
        said = {
            name: value
            for name, value in fit.resolved().items()
            if value != usual[name] or name in ("epochs", "precision")
        }
        yield f"{where}: preset {_said(fit.preset)}: {', '.join(f'{name} {_said(said[name])}' for name in said)}"


def resolved(study: Study) -> dict[str, Any]:
    """Return the written-out settings of each training with a preset, by their key."""
    return {
        where: fit.model_dump(mode="json", context=WORDS)
        for where, fit in trainings(study).items()
        if fit.preset is not None
    }


def _said(value: object) -> str:
    if not isinstance(value, Call):
        return value if isinstance(value, str) else shown(value)
    name = words.word_of(value.call) or value.call
    kwargs = ", ".join(f"{key}={shown(each)}" for key, each in value.kwargs.items())
    return f"{name}({kwargs})" if kwargs else name
