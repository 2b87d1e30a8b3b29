"""The stages by name: each makes sure that the ones before it are done, holds the run folder, says where things are."""

import contextlib
from collections.abc import Iterator, Sequence

from efface.config import Study, dump
from efface.execute import settle
from efface.maps import finished, partial
from efface.results import only_one
from efface.stages.check import check_study, preflight, try_network
from efface.stages.extract import extract as extract_maps
from efface.stages.extract import left
from efface.stages.measure import cells
from efface.stages.measure import measure as measure_cells
from efface.stages.progress import say
from efface.stages.report import write_report
from efface.stages.run import Run
from efface.stages.train import train as train_network


def check(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Everything that can be known before hours are spent. only: these metrics, here and below; all, if empty."""
    return check_study(Run(_narrowed(study, only)))


def train(study: Study, only: Sequence[str] = ()) -> list[str]:
    """The first network."""
    with _working(study, only) as run:
        try_network(run)
        train_network(run)
    return []


def extract(study: Study, only: Sequence[str] = ()) -> list[str]:
    """The maps, after the network."""
    with _working(study, only) as run:
        return _extracted(run)


def measure(study: Study, only: Sequence[str] = ()) -> list[str]:
    """The metrics, after network and maps; then the report, which shows what was measured before as well."""
    with _working(study, only) as run:
        if not run.study.metrics:
            raise ValueError("metrics: the study names none; list some, or give --metrics roar,morf")
        failures = _extracted(run) + measure_cells(run)
        write_report(run.of(_widened(study, only)), anew=False)
        return failures


all = measure  # noqa: A001  the word of the command line; measuring needs every stage before it


def report(study: Study, only: Sequence[str] = ()) -> list[str]:
    """The report of what is measured so far."""
    run = Run(_narrowed(study, only))
    if not run.results.rows:
        raise FileNotFoundError(f"{run.results.path}: nothing is measured yet; run the measure stage first")
    write_report(run)
    return []


def status(study: Study, only: Sequence[str] = ()) -> list[str]:
    """What is done and what is left."""
    run = Run(_narrowed(study, only))
    say(f"{study.out}: network {'there' if run.trained() else 'to be trained'}")
    missing = left(run)
    for each in missing:
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
    names = [each.name for each in study.metrics]
    return study.with_metrics([*names, *(name for name in only if name not in names)])


def _extracted(run: Run) -> list[str]:
    if not run.trained() or left(run):
        preflight(run)
    train_network(run, ask=False)
    return extract_maps(run)


@contextlib.contextmanager
def _working(study: Study, only: Sequence[str]) -> Iterator[Run]:
    run = Run(_narrowed(study, only))
    if study.out.exists() and not study.out.is_dir():
        raise ValueError(
            f"{study.out}: is a file, expected the folder of this run; move it, or give another with out=..."
        )
    with only_one(study.out):
        path, text = study.out / "study.yml", dump(study)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        settle(study.executor.kwargs.get("threads", 1))  # as the workers: the same bits, no waiting
        yield run
