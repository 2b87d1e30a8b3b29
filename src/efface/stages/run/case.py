"""The case of a probe: all that it may need, from the run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from efface import execute
from efface.metrics.probes import Case
from efface.stages.run.provenance import TRAINED
from efface.stages.run.run import Run
from efface.store.keys import key, versions
from efface.store.maps import MapStore
from efface.store.tensors import cached_tensors
from efface.training.loop import Log


def case_of(
    run: Run,
    maps: Mapping[str, MapStore],
    *,
    network: bool,
    checkpoint: Path | None = None,
    cache: dict[Any, Any] | None = None,
    log: Log | None = None,
) -> Case:
    """Return the case that a probe is called with. network: True to score the given network and train no new one."""
    study = run.study
    return Case(
        build=run.first.build,
        given_network=run.network if network else None,
        data=run.data,
        target_classes=run.target_classes("test") if network else run.data["test"].targets,
        maps=maps,
        mean=run.mean,
        given_training=run.refit,
        seed=study.seed,
        max_batch=study.max_batch,
        device=run.device,
        checkpoint=checkpoint,
        advance=execute.advance,
        cache={} if cache is None else cache,
        log=log,
        once=_once(run),
        second_network=lambda: run.second.module,
    )


def _once(run: Run) -> Callable[[str, Any, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]:
    """Makes tensors that several probes share once, and keeps them in the run."""

    def once(name: str, what: Any, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        depends = {
            "what": what,
            "data": run.data_digest,
            "network": run.network_digest,
            "model": run.study.model.identity(),
            "fit": run.refit.identity() if run.refit is not None else None,
            "seed": run.study.seed,
            "versions": versions(*TRAINED, "measure"),
        }
        return cached_tensors(run.folder / "kept" / f"{name}-{key(depends)}.pt", make)

    return once
