"""Keywords of a user's plug-ins that are nearly one that efface hands over, and that nothing fills."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any

from efface.methods.calling import OFFERS, is_class
from efface.plug.accepts import accepts
from efface.plug.annotations import signature
from efface.plug.call import Call
from efface.stages.trial.presets import trainings
from efface.study.schema import FILL_OFFERS, UNIT_OFFERS
from efface.study.study import Study


def near_keywords(study: Study) -> Iterator[str]:
    """Yield a warning for each optional keyword of a plug-in that is nearly one that efface hands over to its kind.

    An example is `seed=None` of a method: efface hands over `seeds`. It may be a setting of the plug-in's own, so it is
    not refused. There is no warning if the study gives it a value, or if the plug-in takes the other keyword as well.
    """
    for where, call, offered in _plugged(study):
        if call.call.startswith("efface."):
            continue
        called = call.resolve().__call__ if is_class(call) else call.resolve()
        given = () if is_class(call) else call.kwargs
        for name, meant in _near(called, given, offered):
            yield (
                f"{where}: {call.call} has the keyword '{name}', for which efface hands nothing over; did you mean "
                f"{meant}? If it is a setting of your own, give it a value in kwargs, and this warning ends"
            )


def _near(called: Callable[..., Any], given: Collection[str], offered: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield each open, optional keyword that is nearly an offered one, and that one."""
    try:
        parameters = signature(called).parameters
    except (ValueError, TypeError):  # some builtins have none
        return
    lacking = [keyword for keyword in offered if not accepts(called, keyword)]
    for name, parameter in parameters.items():
        if name in given or name in offered or parameter.default is inspect.Parameter.empty:
            continue
        for close in difflib.get_close_matches(name, lacking, n=1, cutoff=0.85):
            yield name, close


def _plugged(study: Study) -> Iterator[tuple[str, Call, tuple[str, ...]]]:
    """Yield the plug-ins of a study that are handed keywords: the place in the study, the call and the keywords."""
    for entry in study.attribution_methods:
        if entry.method is not None and entry.batched:
            where = f"attribution_methods.{entry.name}"
            yield where, entry.call, OFFERS
            yield from ((f"{where}.kwargs.{name}", method, OFFERS) for name, method in entry.call.methods().items())
    yield "imputer", study.imputer, FILL_OFFERS
    for metric in study.metrics:
        if metric.kwargs.imputer is not None:
            yield f"metrics.{metric.name}.kwargs.imputer", metric.kwargs.imputer, FILL_OFFERS
        if isinstance(metric.kwargs.unit, Call):
            yield f"metrics.{metric.name}.kwargs.unit", metric.kwargs.unit, UNIT_OFFERS
    if isinstance(study.unit, Call):
        yield "unit", study.unit, UNIT_OFFERS
    for where, fit in trainings(study).items():
        yield from ((f"{where}.regularizers", regularizer.term, ("seeds",)) for regularizer in fit.regularizers)
        yield from ((f"{where}.attack", attack, ("seeds",)) for attack in (fit.attack,) if attack is not None)
    yield "executor", study.executor, ("progress",)
