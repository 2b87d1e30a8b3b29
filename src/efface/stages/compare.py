"""Stage compare: several studies, or folders of runs, side by side on one page."""

from collections.abc import Sequence
from pathlib import Path

from efface.stages.page.comparison import labels, study_of, write_comparison
from efface.stages.page.folders import kept_folder
from efface.stages.page.keeping import record
from efface.stages.run.curves import RunRecord, planned_run
from efface.stages.run.run import Run
from efface.store.links import refuse_links
from efface.study.study import Study


def compare(paths: Sequence[Path], folder: Path, *, trust: bool = False) -> None:
    """Write the page of several studies, and of the variants of each. ValueError: nothing is measured in one of them.

    paths: YAML files, or folders of runs, of variants, of seeds.
    trust: True to read the study of a folder, with the code that it names, in place of the plan that was kept there.
    """
    sides = [(path, None if path.is_dir() and not trust else study_of(path)) for path in paths]
    parts: list[tuple[Path, str, list[RunRecord] | list[Study]]] = []
    for path, study in sides:
        if study is None:
            parts += [(path, name, runs) for name, runs in kept_folder(path)[0].items()]
        else:
            parts += [(study.out, name, studies) for name, studies in study.parts().items()]
    named = labels([(out, name) for out, name, _ in parts])
    beside = {label: _records(label, out, members) for label, (out, _, members) in zip(named, parts, strict=True)}
    write_comparison(folder, folder.name, beside)


def _records(label: str, out: Path, members: Sequence[RunRecord | Study]) -> list[RunRecord]:
    runs = [one if isinstance(one, RunRecord) else Run(one) for one in members]
    refuse_links(out, [run.folder for run in runs])
    if not any(run.results.records for run in runs):
        raise ValueError(f"compare: {label}: nothing is measured in {runs[0].folder}; run the measure stage first")
    return [run if isinstance(run, RunRecord) else record(planned_run(run)) for run in runs]
