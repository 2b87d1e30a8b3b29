"""The facts that the page of several runs states beside the numbers."""

from collections.abc import Mapping, Sequence

from efface.report.facts import Facts
from efface.stages.page.report_data import seconds_of
from efface.stages.run.curves import RunRecord
from efface.stages.run.provenance import package_versions


def facts_of_several(name: str, beside: Mapping[str, Sequence[RunRecord]]) -> Facts:
    """Return the facts that the page of several networks states beside the numbers."""
    every = [one for several in beside.values() for one in several]
    seconds: dict[str, float] = {}
    for by_kind in (seconds_of(one.results) for one in every):
        for what, spent in by_kind.items():
            seconds[what] = seconds.get(what, 0.0) + spent
    models = {label: ", ".join(dict.fromkeys(one.kept.model for one in several)) for label, several in beside.items()}
    networks = [f"{label}: {model}" if label else model for label, model in models.items()]
    devices = dict.fromkeys(one.kept.facts.device for one in every if one.kept.facts is not None)
    return Facts(
        study="\n".join(f"# {one.folder}\n{one.kept.study}" for one in every),
        name=name,
        versions=package_versions(),
        device=", ".join(devices) or "unknown",
        seconds=seconds,
        unfinished=tuple(f"{one.folder}: probes are missing; run the measure stage" for one in every if one.open),
        data="; ".join(dict.fromkeys(one.kept.source for one in every)),
        network="; ".join(networks),
        warnings=(),
    )
