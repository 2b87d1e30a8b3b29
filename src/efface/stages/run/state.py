"""What `status` says of a run: which networks, maps and results are there."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from efface.report.noted import grouped
from efface.stages.run.curves import reason_of
from efface.stages.run.kept_plan import KeptCurve
from efface.stages.run.progress import say
from efface.store.results import Results

Extraction = tuple[str, str, int, int]
"""An unfinished extraction: method, split, number of finished maps, number of images."""


def say_files(folder: str, networks: Mapping[str, bool], extractions: Sequence[Extraction]) -> None:
    """Print which networks are there, and which maps are missing.

    networks: by name, whether the network is trained or needs no training.
    """
    for name, is_there in networks.items():
        say(f"{folder}: {name} {'there' if is_there else 'to be trained'}")
    for method, split, finished, rows in extractions:
        say(f"  to extract: {method}, {split}: {finished} of {rows} maps are there")


def say_failures(failures: Sequence[Mapping[str, str]]) -> None:
    """Print which methods failed on which metrics, and why."""
    found = ((each["method"], each["metric"], f"failed: {each['reason']}") for each in failures)
    for line in grouped(found):
        say(f"  {line}")


def failures_of(curves: Iterable[KeptCurve], results: Results) -> list[dict[str, str]]:
    """Return the method, the metric and the reason of each curve that failed when it was tried last."""
    found = [(curve.draw_of or curve.method, curve.metric, reason_of(curve, results)) for curve in curves]
    names = ("method", "metric", "reason")
    return [dict(zip(names, each, strict=True)) for each in dict.fromkeys(found) if each[2]]


def run_facts(
    folder: str,
    networks: Mapping[str, bool],
    extractions: Sequence[Extraction],
    probes: tuple[int, int, int],
    failures: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Return the same as plain values. probes: how many are planned, done, and left. failures: see `failures_of`."""
    names = ("method", "split", "finished", "images")
    return {
        "folder": folder,
        "networks": dict(networks),
        "to_extract": [dict(zip(names, extraction, strict=True)) for extraction in extractions],
        "failed": [dict(each) for each in failures],
        "probes": dict(zip(("planned", "done", "left"), probes, strict=True)),
    }
