"""The runs that a study consists of, as every command needs them: narrowed to some metrics, one by one, held."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from efface.execute import set_torch_defaults
from efface.execute.process_group import refuse_torchrun
from efface.stages.run.progress import say
from efface.stages.run.run import Run
from efface.store.links import refuse_links, unshare
from efface.store.locks import only_one
from efface.study.study import Study, dump


def narrowed(study: Study, only: Sequence[str]) -> Study:
    """The study with these metrics alone; the whole study if there are none."""
    return study.with_metrics(only) if only else study


def with_more_metrics(study: Study, only: Sequence[str]) -> Study:
    """The study with these metrics beside its own."""
    names = study.metric_names()
    return study.with_metrics([*names, *(name for name in only if name not in names)])


def runs_of(study: Study) -> list[Run]:
    """The runs that a study consists of; those of the same data share them. ValueError: a link leads out of a run."""
    runs: list[Run] = []
    for part in (part for parts in study.parts().values() for part in parts):
        runs.append(Run(part, next((run for run in runs if run.study.data == part.data), None)))
    refuse_links(study.out, [run.folder for run in runs])
    return runs


def measuring(runs: Sequence[Run]) -> list[Run]:
    """The runs that have metrics; a line says which have none. ValueError: no run has any."""
    idle = [run for run in runs if not run.study.metrics]
    if len(idle) == len(runs):
        raise ValueError("metrics: the study names none; list some, or give --metrics roar,morf")
    for run in idle:
        say(f"{run.folder}: has none of the metrics that are asked for; nothing is measured there")
    return [run for run in runs if run.study.metrics]


def one_by_one(study: Study, runs: Sequence[Run]) -> Iterator[Run]:
    """The runs in turn, each with a line that names it where there are several."""
    for run in runs:
        if run.folder != study.out:
            say(f"-- {run.folder.relative_to(study.out)}")
        yield run


def refuse_unwritable(out: Path) -> None:
    """Try to write where a run will write. ValueError: it cannot."""
    folder = next(path for path in (out, *out.parents) if path.exists() or path.is_symlink())
    try:
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file" if folder.is_file() else f"{folder} is no folder")
        with tempfile.TemporaryFile(dir=folder):
            pass
        if folder != out:
            Path(tempfile.mkdtemp(dir=folder)).rmdir()
    except OSError as error:
        raise ValueError(
            f"out: {out}: nothing can be written there ({error.strerror or error}); give another folder with out=..."
        ) from error


@contextlib.contextmanager
def working(study: Study, only: Sequence[str]) -> Iterator[list[Run]]:
    """Hold the study's folder, write the resolved study into it, and yield the runs. ValueError: the folder is held."""
    if study.out.exists() and not study.out.is_dir():
        raise ValueError(
            f"{study.out}: is a file, expected the folder of this run; move it, or give another with out=..."
        )
    refuse_torchrun()
    asked = narrowed(study, only)
    runs = runs_of(asked)
    with only_one(study.out):
        texts = {run.folder: run.text for run in runs}
        if asked is not runs[0].study:
            texts[study.out] = dump(asked)
        for folder, text in texts.items():
            folder.mkdir(parents=True, exist_ok=True)
            unshare(folder)
            path = folder / "study.yml"
            if not path.exists() or path.read_bytes() != text.encode():
                path.write_bytes(text.encode())
        for run in runs:
            run.results.set_damaged_aside()
        set_torch_defaults(study.torch_threads)  # as the workers: the same bits, no waiting
        yield runs
