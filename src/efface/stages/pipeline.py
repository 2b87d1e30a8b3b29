"""The stages by name: each makes sure that the ones before it are done, holds the run folder, says where things are.

A study with variants or seeds is as many runs; each stage does its work for all of them.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from efface.execute import settle
from efface.stages.check import check_study, preflight, try_network
from efface.stages.compare import labels, study_of, write_comparison
from efface.stages.extract import extract as extract_maps
from efface.stages.extract import left
from efface.stages.measure import measure as measure_cells
from efface.stages.report import write_report
from efface.stages.run.accuracy import unaccompanied
from efface.stages.run.plan import cells, pointless
from efface.stages.run.progress import duration, say
from efface.stages.run.run import Run
from efface.stages.samples import make_samples
from efface.stages.train import train as train_networks
from efface.stages.visualize import shown_rows
from efface.stages.visualize import visualize as draw_pictures
from efface.store.maps import finished, partial
from efface.store.results import only_one
from efface.study.study import Study, dump

_READS_TEST_MAPS = "morf"
"""A metric that needs no maps of training images: those are not shown."""


def check(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Everything that can be known before hours are spent. only: these metrics, here and below; all, if empty."""
    narrowed = _narrowed(study, only)
    runs = _measuring(_runs(narrowed)) if only else _runs(narrowed)
    _refuse_pointless(narrowed, runs)
    seconds = [check_study(run) for run in _each(study, runs)]
    for line in dict.fromkeys(line for run in runs for line in unaccompanied(run.study.metrics)):
        say(f"warning: {line}")
    if len(runs) > 1:
        say(f"all {len(runs)} runs: estimate: {duration(sum(seconds))}")
    return []


def train(study: Study, only: Sequence[str] = ()) -> list[str]:
    """The networks."""
    with _working(study, only) as runs:
        for run in runs:
            try_network(run)
        return [line for lines in train_networks(runs).values() for line in lines]


def extract(study: Study, only: Sequence[str] = ()) -> list[str]:
    """The maps, after the networks."""
    with _working(study, only) as runs:
        return _extracted(study, _measuring(runs) if only else runs)[1]


def measure(study: Study, only: Sequence[str] = ()) -> list[str]:
    """The metrics, after networks and maps; then the report, which shows what was measured before as well."""
    with _working(study, only) as runs:
        whole, failures = _extracted(study, _measuring(runs))
        for run in _each(study, whole):
            failures += measure_cells(run)
        _write(study, runs, _widened(study, only), anew=False)
        return failures


all = measure  # noqa: A001  the word of the command line; measuring needs every stage before it


def samples(study: Study, only: Sequence[str] = ()) -> list[str]:
    """What the networks make of the classes of the test images, after the networks."""
    with _working(study, only) as runs:
        for run in runs:
            try_network(run)
        failed = train_networks(runs)
        failures = [line for lines in failed.values() for line in lines]
        for run in _each(study, [run for run in runs if run.folder not in failed]):
            failures += make_samples(run)
        return failures


def visualize(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Images, samples and maps of the test images as pictures, after networks and maps; then the report."""
    with _working(study, only) as runs:
        for run in runs:
            shown_rows(run)  # refused before hours are spent
        reading = [run.of(run.study.with_metrics([_READS_TEST_MAPS])) for run in runs]
        whole, failures = _extracted(study, reading)
        for run in _each(study, [run for run in whole if not left(run)]):
            draw_pictures(run)
        _write(study, runs, study, anew=False)
        return failures


def report(study: Study, only: Sequence[str] = ()) -> list[str]:
    """The report of what is measured so far; written again if more was measured while it was written."""
    study = _narrowed(study, only)
    while True:
        runs = _runs(study)
        before = [_size(run.results.path) for run in runs]
        if not any(run.results.rows for run in runs):
            raise FileNotFoundError(f"{runs[0].results.path}: nothing is measured yet; run the measure stage first")
        _tell_what_is_left(study, runs)
        _write(study, runs, study, anew=True)
        if [_size(run.results.path) for run in runs] == before:
            return []


def _tell_what_is_left(study: Study, runs: Sequence[Run]) -> None:
    """ValueError: of all that the study asks for nothing is there, though something is: that is older code's."""
    planned = [(run, cell) for run in runs for cell in cells(run)]
    there = sum(cell.key in run.results for run, cell in planned)
    held = any("n" in row for run in runs for row in run.results.rows.values())  # trainings and maps have lines, too
    if planned and held and not there:
        raise ValueError(
            f"{study.out}: holds results, but none of the {len(planned)} that this study asks for: they were made with "
            "other settings, other weights or other code of efface; run the measure stage to make them anew (the "
            "report is left as it is), or write it with the version that made them"
        )
    if there < len(planned):
        say(f"report: {there} of the {len(planned)} probes of this study are there; the others are left to be measured")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def compare(paths: Sequence[Path], folder: Path) -> None:
    """Several studies, and the variants of each, side by side. ValueError: nothing is measured in one of them.

    paths: YAML files, or folders of runs, of variants, of seeds.
    """
    studies = [study_of(each) for each in paths]
    found = [(study.out, name, parts) for study in studies for name, parts in study.parts().items()]
    named = zip(labels([(out, name) for out, name, _ in found]), found, strict=True)
    beside = {label: [Run(part) for part in parts] for label, (_, _, parts) in named}
    for label, runs in beside.items():
        if not any(run.results.rows for run in runs):
            raise ValueError(f"compare: {label}: nothing is measured in {runs[0].folder}; run the measure stage first")
    write_comparison(folder, folder.name, beside)


def status(study: Study, only: Sequence[str] = ()) -> list[str]:
    """What is done and what is left."""
    runs = _runs(_narrowed(study, only))
    for run in _each(study, _measuring(runs) if only else runs):
        for network in run.networks():
            say(f"{run.folder}: {network.name} {'there' if network.trained() else 'to be trained'}")
        for each in left(run):
            held = finished(partial(run.map_path(each.method, each.split)))
            say(f"  to extract: {each.method}, {each.split}: {held} of {len(run.data[each.split])} maps are there")
        planned = cells(run)
        todo = [cell for cell in planned if cell.key not in run.results]
        say(f"probes: {len(planned) - len(todo)} of {len(planned)} done, {len(todo)} left")
    return []


def _narrowed(study: Study, only: Sequence[str]) -> Study:
    """The study with the metrics asked for alone."""
    return study.with_metrics(only) if only else study


def _widened(study: Study, only: Sequence[str]) -> Study:
    """The study with the metrics asked for beside its own."""
    names = study.metric_names()
    return study.with_metrics([*names, *(name for name in only if name not in names)])


def _runs(study: Study) -> list[Run]:
    """The runs that a study consists of; those of the same data share them."""
    runs: list[Run] = []
    for part in (part for parts in study.parts().values() for part in parts):
        runs.append(Run(part, next((run for run in runs if run.study.data == part.data), None)))
    return runs


def _measuring(runs: Sequence[Run]) -> list[Run]:
    """The runs that have metrics; the others are said. ValueError: there is none."""
    idle = [run for run in runs if not run.study.metrics]
    if len(idle) == len(runs):
        raise ValueError("metrics: the study names none; list some, or give --metrics roar,morf")
    for run in idle:
        say(f"{run.folder}: has none of the metrics that are asked for; nothing is measured there")
    return [run for run in runs if run.study.metrics]


def _refuse_pointless(study: Study, runs: Sequence[Run]) -> None:
    """ValueError: a claim is about a point that its metric does not have."""
    by_folder = {run.folder: run for run in runs}
    first = {name: by_folder[part.out] for name, (part, *_) in study.parts().items() if part.out in by_folder}
    if problems := list(pointless(study.claims, first)):
        raise ValueError("\nefface: ".join(problems))


def _each(study: Study, runs: Sequence[Run]) -> Iterator[Run]:
    """The runs one by one, each said where there are several."""
    for run in runs:
        if run.folder != study.out:
            say(f"-- {run.folder.relative_to(study.out)}")
        yield run


def _extracted(study: Study, runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs whose networks are there, and sentences on what failed."""
    _refuse_pointless(study, runs)
    for run in runs:
        if not _trained(run) or left(run):
            preflight(run)
    failed = train_networks(runs, ask=False)
    failures = [line for lines in failed.values() for line in lines]
    whole = [run for run in runs if run.folder not in failed]
    for run in _each(study, whole):
        failures += extract_maps(run)
    return whole, failures


def _trained(run: Run) -> bool:
    """Whether all of a run's networks are there."""
    return not [network for network in run.networks() if not network.trained()]


def _write(study: Study, runs: Sequence[Run], shown: Study, *, anew: bool) -> None:
    """The report of each run, and of several beside one another."""
    parts = [part for parts in shown.parts().values() for part in parts]
    showing = [run.of(part) for run, part in zip(runs, parts, strict=True)]
    for run in showing:
        if run.results.rows:
            write_report(run, anew=anew)
    if len(showing) > 1:
        by_folder = {run.folder: run for run in showing}
        beside = {name: [by_folder[part.out] for part in of] for name, of in shown.parts().items()}
        write_comparison(study.out / "report", study.out.name, beside, study.claims)


@contextlib.contextmanager
def _working(study: Study, only: Sequence[str]) -> Iterator[list[Run]]:
    if study.out.exists() and not study.out.is_dir():
        raise ValueError(
            f"{study.out}: is a file, expected the folder of this run; move it, or give another with out=..."
        )
    narrowed = _narrowed(study, only)
    runs = _runs(narrowed)
    with only_one(study.out):
        for folder, each in ({run.folder: run.study for run in runs} | {study.out: narrowed}).items():
            folder.mkdir(parents=True, exist_ok=True)
            path, text = folder / "study.yml", dump(each)
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        settle(study.torch_threads)  # as the workers: the same bits, no waiting
        yield runs
