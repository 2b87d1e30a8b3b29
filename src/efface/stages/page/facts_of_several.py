"""The facts that the page of several runs states beside the numbers."""

import shlex
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from efface.report.cautions import weak_network
from efface.report.facts import Facts, Origin
from efface.report.formats import listed
from efface.report.told import from_python
from efface.stages.page.report_data import degenerate_of, origin_of, seconds_of
from efface.stages.run.curves import RunRecord
from efface.stages.run.provenance import package_versions

_MOST_COMMANDS = 3
"""Largest number of runs whose commands the page lists."""


def facts_of_several(name: str, beside: Mapping[str, Sequence[RunRecord]]) -> Facts:
    """Return the facts that the page of several networks states beside the numbers.

    Each network has its own cautions, with its name before them.
    """
    every = [one for several in beside.values() for one in several]
    seconds: dict[str, float] = {}
    for by_kind in (seconds_of(one.results) for one in every):
        for what, spent in by_kind.items():
            seconds[what] = seconds.get(what, 0.0) + spent
    networks = [f"{label}: {_network(several)}" if label else _network(several) for label, several in beside.items()]
    devices = dict.fromkeys(one.kept.facts.device for one in every if one.kept.facts is not None)
    of_one = every[0].kept.facts if len(beside) == 1 else None  # one study over its seeds: all have the same metrics
    return Facts(
        study="\n".join(f"# {one.folder}\n{one.kept.study}" for one in every),
        name=name,
        versions=package_versions(),
        device=", ".join(devices) or "unknown",
        seconds=seconds,
        unfinished=tuple(f"Probes of {one.folder} are missing. Run the measure stage." for one in every if one.open),
        data="; ".join(dict.fromkeys(one.kept.source for one in every)),
        network="; ".join(networks),
        warnings=tuple(_cautions(beside)),
        weak=tuple(label for label, several in beside.items() if any(map(_weak, several))),
        degenerate={row: shares for label, several in beside.items() for row, shares in _degenerate(label, several)},
        controls=frozenset(
            _row(label, curve.method)
            for label, several in beside.items()
            for one in several
            for curve in one.kept.curves
            if curve.control
        ),
        origin=_origin(every),
        setting_of=of_one.setting_of if of_one else {},
        outlines=of_one.outlines if of_one else {},
    )


def _row(label: str, method: str) -> str:
    """Return the name of the maps of a method on a network, as in the headings of the page."""
    return f"{label} · {method}" if label else method


def _accuracy(record: RunRecord) -> float:
    return float("nan") if record.accuracy is None else float(np.nanmean(record.accuracy.values))


def _weak(record: RunRecord) -> str:
    return weak_network(_accuracy(record), record.chance)


def _network(several: Sequence[RunRecord]) -> str:
    """Return what networks these are, and the share of test images that they classify correctly."""
    known = [share for share in map(_accuracy, several) if not np.isnan(share)]
    model = ", ".join(dict.fromkeys(one.kept.model for one in several))
    ends = dict.fromkeys(f"{100 * end:.4g}" for end in (min(known), max(known))) if known else {}
    return f"{model}, {' to '.join(ends)} % of the test images right" if known else model


def _cautions(beside: Mapping[str, Sequence[RunRecord]]) -> Iterator[str]:
    """Yield the cautions of each network, with the name of the network and of its seeds before them."""
    for label, several in beside.items():
        seeds: dict[str, list[int]] = {}
        for one in several:
            remarks = one.kept.facts.remarks if one.kept.facts is not None else ()
            for line in (_weak(one), *one.kept.said, *remarks):
                if line:
                    seeds.setdefault(line, []).append(one.kept.seed)
        for line, numbers in seeds.items():
            which = "" if len(several) == 1 else f"seed{'s' * (len(numbers) > 1)} {listed(list(map(str, numbers)))}"
            whose = ", ".join(part for part in (label, which) if part)
            yield f"{whose}: {line}" if whose else line


def _degenerate(label: str, several: Sequence[RunRecord]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the share of degenerate maps of each method of a network, as the mean over its seeds."""
    found = [degenerate_of(one.kept.conditions, one.results) for one in several]
    for method in dict.fromkeys(name for of_seed in found for name in of_seed):
        of_method = [of_seed[method] for of_seed in found if method in of_seed]
        yield (
            _row(label, method),
            {kind: float(np.mean([shares[kind] for shares in of_method])) for kind in of_method[0]},
        )


def _origin(every: Sequence[RunRecord]) -> Origin:
    """Return where the numbers of several runs come from. Each run has a command of its own."""
    origins = [origin_of(one.folder, one.results, one.kept.model, seed=one.kept.seed, repeats=None) for one in every]
    commits = dict.fromkeys(origin.commit for origin in origins if origin.commit)
    commands = list(dict.fromkeys(origin.command for origin in origins))
    if len(commands) > _MOST_COMMANDS and not any(from_python(one.kept.model) for one in every):
        folders = shlex.quote(str(every[0].folder))
        commands = [f"efface all {folders}/study.yml", f"the same for the other {len(commands) - 1} folders"]
    return Origin(
        date=max(origin.date for origin in origins),
        commit=listed(list(commits), 3) if commits else "",
        command="; ".join(commands),
    )
