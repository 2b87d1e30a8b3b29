"""Stage prune: list or remove the files of runs that no given study needs."""

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from efface.stages.run.map_files import found_path, learnt_path, needed_splits, provenance
from efface.stages.run.plan import make_plan
from efface.stages.run.progress import say
from efface.stages.run.run import Run
from efface.stages.run.runs import runs_of
from efface.stages.work.measuring import checkpoint_of
from efface.stages.work.sampling import samples_path
from efface.store.links import refuse_links
from efface.store.locks import only_one
from efface.store.maps import partial_path
from efface.store.plain_name import NAMES, remove_plain_name
from efface.study.schema import MethodEntry
from efface.study.study import Study

FOLDERS = ("models", "learnt", "maps", "maps/kept", "samples", "scores", "partial")
"""Folders of a run whose files have a key that a study gives."""
_SEED = re.compile(r"seed-[0-9]+")


def prune(studies: Sequence[Study], *, remove: bool) -> None:
    """List the files of the studies' runs that none of them needs, with their sizes. Remove them if `remove` is set.

    Runs of other seeds in the studies' folders count as theirs. A run in another folder below is only named. Files in
    other folders, and files that efface did not write, are never touched. The lines of results.jsonl stay: a line
    without its values does not count.

    ValueError: a network or what a method learns is not there yet, so the keys are not known; another process is at
        work in a folder; a file is behind a link.
    """
    runs = [run for study in studies for run in runs_of(study)]
    outs = dict.fromkeys(study.out for study in studies)
    folders = dict.fromkeys([*outs, *(run.folder for run in runs)])
    folders |= dict.fromkeys(folder for out in outs if out.is_dir() for folder in _other_seeds(out, folders))
    with ExitStack() as held:
        for out in outs:
            if not out.is_dir():
                raise ValueError(f"{out}: there is no such folder, so there is nothing to prune")
            refuse_links(out, [folder for folder in folders if folder.is_relative_to(out)])
            held.enter_context(only_one(out))
        asked = {path.resolve() for run in runs for path in _asked(run)}
        every = sorted({path.resolve(): path for folder in folders for path in _files(folder)}.items())
        unasked = [path for whole, path in every if whole not in asked]
        for kept in sorted(folder for out in outs for folder in _runs_below(out) if folder not in folders):
            say(
                f"  {kept}: a run that no given study has, so its files stay; give its study, too, or remove the folder"
            )
        sizes = {path: path.stat().st_size for path in unasked}
        for path, size in sizes.items():
            say(f"  {size / 1e6:10.3f} MB  {path}")
        total = f"{len(unasked)} files, {sum(sizes.values()) / 1e6:,.3f} MB"
        if remove:
            for path in unasked:
                path.unlink()
            for folder, name in itertools.product(folders, NAMES):
                if not (folder / "models" / f"{name}.pt").exists():  # it points to a file that was removed
                    remove_plain_name(folder / "models", name)
            say(f"removed {total}")
        else:
            say(f"{total} that no given study needs; --remove removes them")


def _runs_below(out: Path) -> Iterator[Path]:
    """Yield the folders of runs in a study's folder: of a variant, of a seed, or of a seed of a variant."""
    folders = (file.parent for depth in ("*", "*/*") for file in out.glob(f"{depth}/results.jsonl"))
    yield from (folder for folder in folders if not folder.is_symlink() and not folder.parent.is_symlink())


def _other_seeds(out: Path, folders: Collection[Path]) -> Iterator[Path]:
    """Yield the folders of seeds that lie beside those of the runs."""
    beside = {folder.parent for folder in folders if _SEED.fullmatch(folder.name)}
    yield from (folder for folder in _runs_below(out) if folder.parent in beside and _SEED.fullmatch(folder.name))


def _files(folder: Path) -> Iterator[Path]:
    """Files of a run that have a key: networks, logits, maps, what is learnt, samples, values, checkpoints."""
    suffixes = (".pt", ".npz", ".h5", ".partial")
    for name in FOLDERS:
        for path in (folder / name).glob("*"):
            if path.suffix in suffixes and path.is_file() and not (name == "models" and path.stem in NAMES):
                yield path


def _asked(run: Run) -> Iterator[Path]:
    """Yield the files that this run's study needs, whether or not they exist."""
    for network in run.networks():
        if not network.trained():
            raise ValueError(
                f"{network.path}: the {network.name} of this study is not trained, so it is not known which maps and "
                "results belong to it; run the train stage first, or leave this study out"
            )
        yield network.path
        yield run.folder / "partial" / network.path.name
    yield from (run.logits_path(split) for split in run.data)
    for entry in run.entries:
        yield from _asked_of(run, entry)
    plan = make_plan(run)
    if plan.problems:
        raise ValueError(
            f"{plan.problems[0]}; correct this first: until then it is not known which results the study needs"
        )
    for task in plan.tasks:
        yield run.folder / "scores" / f"{task.key}.npz"
        yield checkpoint_of(run, task)
    samples = {task.probe.needs.samples for task in plan.tasks} | {run.study.samples}
    yield from (samples_path(run, needed) for needed in samples if needed is not None)


def _asked_of(run: Run, entry: MethodEntry) -> Iterator[Path]:
    """The files of a method: its maps, and what it learnt."""
    if (learnt := learnt_path(run, entry)) is not None:
        if not learnt.exists():
            raise ValueError(
                f"{learnt}: {entry.name} has not learnt yet, so it is not known which maps belong to it; run the "
                "extract stage first, or leave this study out"
            )
        yield learnt
    for split in needed_splits(run):
        for name in entry.gives:
            path = run.map_path(name, split)
            file = found_path(path, provenance(run, entry, name, split))
            yield from (file, partial_path(file), partial_path(path))
