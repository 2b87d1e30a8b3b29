"""Where the modules of efface 0.1 are now. Their old paths work until efface 0.3, with a note of the new one.

An old path may stand in a study (`efface.post.absolute`), or in an import (`from efface.probes import Case`).
"""

import functools
import importlib
import importlib.machinery
import multiprocessing
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

MODULES = {
    "agree": "study.cross_checks",
    "attack": "training.attack",
    "augment": "training.augment",
    "blur": "erase.blur",
    "call": "plug.call",
    "checkpoint": "training.checkpoint",
    "claimed": "study.claims",
    "cli": "__main__",
    "config": "study.study",
    "entries": "study.schema",
    "feed": "erase.batches",
    "fit": "training.loop",
    "generate": "training.generate",
    "hints": "plug.annotations",
    "layers": "models.layers",
    "learnt": "store.tensors",
    "maps": "store.maps",
    "masking": "erase.masking",
    "methods.contract": "methods.calling",
    "methods.foreign": "methods.adapters",
    "methods.passes": "methods.gradients",
    "methods.pattern_fit": "methods.pattern.fit",
    "methods.pattern_network": "methods.pattern.network",
    "methods.stand_in": "methods.as_gradient",
    "methods.within": "methods.nested",
    "metrics._concentration": "metrics.shared.concentration",
    "metrics._effects": "metrics.shared.effects",
    "metrics._layers": "metrics.shared.layers",
    "metrics._located": "metrics.shared.located",
    "metrics._mosaic": "metrics.shared.mosaic",
    "metrics._neighbours": "metrics.shared.neighbours",
    "metrics._orders": "metrics.shared.orders",
    "metrics._similarity": "metrics.shared.similarity",
    "metrics._subsets": "metrics.shared.subsets",
    "models.fold": "models.fast_copy",
    "objective": "training.batch",
    "post": "erase.post",
    "probes": "metrics.probes",
    "probes.case": "metrics.probes.case",
    "probes.conventions": "metrics.probes.description",
    "probes.degenerate": "metrics.probes.degeneracy",
    "probes.erase": "metrics.probes.erasure",
    "probes.score": "metrics.probes.score",
    "recipe": "training.settings",
    "regularize": "training.regularize",
    "results": "store.results",
    "rows": "store.arrays",
    "source": "plug.source",
    "stages.accuracy": "stages.page.accuracy",
    "stages.cells": "stages.run.plan",
    "stages.claims": "report.claims",
    "stages.contents": "stages.page.report_data",
    "stages.conventions": "stages.run.method_calls",
    "stages.curves": "stages.run.curves",
    "stages.explain": "stages.run.method_calls",
    "stages.here": "stages.run.worker",
    "stages.inputs": "stages.run.inputs",
    "stages.learn": "stages.work.learning",
    "stages.network": "stages.run.network",
    "stages.pipeline": "stages",
    "stages.plan": "stages.trial.estimate",
    "stages.progress": "stages.run.progress",
    "stages.provenance": "stages.run.provenance",
    "stages.run": "stages.run.run",
    "stages.scalars": "stages.work.scalars",
    "stages.terms": "stages.trial.training_step",
    "stats": "report.stats",
    "stats.agreement": "report.stats.agreement",
    "stats.curve": "report.stats.curve",
    "stats.degenerate": "metrics.shared.degenerate",
    "stats.means": "report.stats.means",
    "stats.paired": "report.stats.paired",
    "tree": "study.yaml_file",
    "units": "erase.units",
}
"""Old module: new module. Both are written without the leading `efface.`."""

NAMES = {
    "stages.pipeline.all": "stages.all.all",
    "stages.pipeline.check": "stages.check.check",
    "stages.pipeline.compare": "stages.compare.compare",
    "stages.pipeline.extract": "stages.extract.extract",
    "stages.pipeline.measure": "stages.measure.measure",
    "stages.pipeline.report": "stages.report.report",
    "stages.pipeline.samples": "stages.samples.samples",
    "stages.pipeline.status": "stages.status.status",
    "stages.pipeline.train": "stages.train.train",
    "stages.pipeline.visualize": "stages.visualize.visualize",
    "checkpoint.made_once": "store.tensors.made_once",
    "maps.differences": "store.keys.differences",
    "maps.key": "store.keys.key",
    "masking.count": "erase.ranking.count",
    "masking.for_unit": "erase.ranking.for_unit",
    "masking.rank": "erase.ranking.rank",
    "masking.removed": "erase.ranking.removed",
    "methods.passes.Precision": "models.evaluation.Precision",
    "methods.passes.at_least_one": "models.memory.at_least_one",
    "methods.passes.at_once": "models.memory.at_once",
    "methods.passes.blocks": "models.memory.blocks",
    "methods.passes.check_precision": "models.evaluation.check_precision",
    "methods.passes.differentiable": "models.scores.differentiable",
    "methods.passes.evaluating": "models.evaluation.evaluating",
    "methods.passes.evaluating_fast": "models.evaluation.evaluating_fast",
    "methods.passes.logits_of": "models.scores.logits_of",
    "methods.passes.odds_against": "models.scores.odds_against",
    "methods.passes.offer": "plug.accepts.offer",
    "methods.passes.scores_of": "models.scores.scores_of",
    "methods.passes.takes": "plug.accepts.accepts",
    "methods.passes.target_scores": "models.scores.target_scores",
    "objective.Regularizer": "training.settings.Regularizer",
    "stages.claims.pointless": "stages.run.plan.pointless",
}
"""Old name: new name, for a name that left its module or was renamed."""

_PACKAGES = {"probes", "stats"}
_PREFIX = "efface."


def current(path: str) -> str:
    """The path of today for a dotted path of efface 0.1, with a note on stderr; any other path as it is."""
    new = _current(path)
    if new != path:
        _note(path, new)
    return new


@functools.cache
def _current(path: str) -> str:
    if not path.startswith(_PREFIX):
        return path
    parts = path.removeprefix(_PREFIX).split(".")
    for end in range(len(parts), 0, -1):
        head, rest = ".".join(parts[:end]), parts[end:]
        if new := NAMES.get(head) or MODULES.get(head):
            return _PREFIX + ".".join([new, *rest])
    return path


@functools.cache
def _note(old: str, new: str) -> None:
    """Say once in a process where a path is now. The workers of a run say nothing: the main process has said it."""
    from efface.plug.words import word_of  # it imports this module

    if multiprocessing.parent_process() is None:
        now = f"{word} ({new})" if (word := word_of(new)) else new
        sys.stderr.write(f"note: {old} is now {now}; the old path works until efface 0.3\n")


@functools.cache
def first(path: str) -> str:
    """The path that efface 0.1 had for a path of today. Random numbers are drawn by it, so that a move changes none."""
    for old, new in [*NAMES.items(), *MODULES.items()]:
        if path == _PREFIX + new or path.startswith(f"{_PREFIX}{new}."):
            return _PREFIX + old + path.removeprefix(_PREFIX + new)
    return path


class Finder:
    """Imports a module of efface 0.1 by its old path, and warns once."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec, or None for a name that efface 0.1 did not have."""
        del path, target
        old = name.removeprefix(_PREFIX)
        if not name.startswith(_PREFIX) or old not in MODULES:
            return None
        return importlib.machinery.ModuleSpec(name, Finder, is_package=old in _PACKAGES)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """A module that looks every name up in its new place."""
        return _Moved(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Say where the module is now."""
        warnings.warn(
            f"{module.__name__} has moved to {_PREFIX}{MODULES[module.__name__.removeprefix(_PREFIX)]}; "
            "the old path works until efface 0.3",
            FutureWarning,
            stacklevel=2,
        )


class _Moved(ModuleType):
    def __getattr__(self, name: str) -> Any:
        old = self.__name__.removeprefix(_PREFIX)
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        home, _, new = NAMES.get(f"{old}.{name}", f"{MODULES[old]}.{name}").rpartition(".")
        return getattr(importlib.import_module(_PREFIX + home), new)


def install() -> None:
    """Let old import paths work in this process."""
    if Finder not in sys.meta_path:
        sys.meta_path.append(Finder)
