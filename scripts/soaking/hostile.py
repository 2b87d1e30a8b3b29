"""Run folders of somebody else: links, odd HDF5 files, pickles and studies that name foreign modules.

Nothing of them is executed, nothing outside the folder is written, and each ends with one error or the right numbers.
"""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from soaking.damage import MORE
from soaking.runs import METHODS, PATTERN, Ended, efface, fresh
from soaking.runs import write_study as write
from soaking.table import Setting, Table

LINKED = (
    *("report", "report/report.html", "report/summary.csv", "report/.made-from", "maps", "maps/gradient-test.h5"),
    *("scores", "scores/*.npz", "models", "models/network-*.pt", "learnt", "partial", "partial/new.pt"),
    *("results.jsonl", "study.yml", "failures.log", ".lock", ".owner", "verified.json"),
)
STARTS = {
    "a file outside": lambda _, target: target.write_text("not of efface\n"),
    "a copy outside": lambda path, target: shutil.copy(path, target) if path.is_file() else target.write_text(""),
    "nothing outside": lambda *_: None,
}
COMMANDS = (
    ("all", "study.yml", MORE),
    ("report", "study.yml", MORE),
    ("status", "study.yml"),
    ("compare", "run", "--out", "compared"),
    ("status", "run"),
    ("report", "run"),
)


def hostile(setting: Setting) -> Table:
    """Each case once, or so many of them."""
    table = Table("hostile")
    template = fresh(setting.out / "undisturbed")
    write(template, attribution_methods=[*METHODS, PATTERN])
    plain = efface(template, "all", "study.yml", seconds=600)
    if plain.code != 0:
        table.add("undisturbed", "LOST", plain.last)
        return table
    cases = [*_links(), *_files(), *_modules()]
    setting.draw.shuffle(cases)
    limit = plain.seconds + setting.ceiling
    for kind, path, plant in cases[: setting.count]:
        folder, outside = setting.out / "case", fresh(setting.out / "outside")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)
        outcome, note, seconds = done_to(folder, outside, path, plant, limit)
        table.add(kind, outcome, f"{path}: {note}", seconds)
    return table


Plant = Callable[[Path, Path, Path], None]
"""What is done to a path, given the folder outside and the path that code would write."""


def done_to(folder: Path, outside: Path, name: str, plant: Plant, limit: float) -> tuple[str, str, float]:
    """What came of every command on a folder with this plant."""
    found = sorted((folder / "run").glob(name))
    path, marker = found[0] if found else folder / "run" / name, outside.parent / "executed"
    marker.unlink(missing_ok=True)
    plant(path, outside, marker)
    before, longest, outcome, last = seen(outside), 0.0, "taken", ""
    for words in COMMANDS:
        ended = efface(folder, *words, seconds=limit)
        longest, note = max(longest, ended.seconds), f"{' '.join(words)}: exit {ended.code}: {ended.last}"
        if marker.exists():
            return "executed", note, longest
        if seen(outside) != before:
            changed = sorted(
                name for name in before.keys() | seen(outside) if before.get(name) != seen(outside).get(name)
            )
            return "wrote outside", f"{note}; {changed[:4]}", longest
        if bad := badly(ended):
            return bad, note, longest
        if ended.code != 0:
            is_named = path.name in ended.errors or path.stem in ended.errors or words[1] == "run"
            if not is_named:
                return "unclear", note, longest
            outcome, last = "refused", note
        elif path.name in ended.errors and outcome == "taken":
            outcome = "named, went on"
    return outcome, last, longest


def badly(ended: Ended) -> str | None:
    if ended.code is None:
        return "hang"
    return "traceback" if ended.traceback or ended.code not in (0, 1, 2) else None


def seen(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, with its content; a folder has none."""
    return {str(each.relative_to(folder)): each.read_bytes() if each.is_file() else b"" for each in folder.rglob("*")}


def _links() -> list[tuple[str, str, Plant]]:
    """Links in place of files and folders of a run."""
    return [(f"a link to {start}", name, _link(start)) for name in LINKED for start in STARTS]


def _link(start: str) -> Plant:
    def plant(path: Path, outside: Path, _: Path) -> None:
        is_folder = path.is_dir() or path.name == "partial"
        target = outside / path.name
        if is_folder:
            if start == "a copy outside" and path.is_dir():
                shutil.copytree(path, target)
            elif start != "nothing outside":
                target.mkdir()
            shutil.rmtree(path, ignore_errors=True)
        else:
            STARTS[start](path, target)
            path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target)

    return plant


class _Code:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def _pickled(path: Path, _: Path, marker: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(_Code(marker)))


def _saved(path: Path, _: Path, marker: Path) -> None:
    """As `torch.save` writes it."""
    path.parent.mkdir(exist_ok=True)
    torch.save({"weight": torch.zeros(2), "more": _Code(marker)}, path)


def _objects(path: Path, _: Path, marker: Path) -> None:
    """NumPy's archive with an array of objects."""
    array = np.empty(1, dtype=object)
    array[0] = _Code(marker)
    np.savez(path, accuracy=array, logits=array)


def _bomb(path: Path, _: Path, __: Path) -> None:
    """An archive of a few kilobytes that unpacks to two gigabytes of zeros."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("accuracy.npy", "w", force_zip64=True) as entry,
    ):
        for _megabytes in range(64):
            entry.write(bytes(32 << 20))


def _hdf5(write_into: Callable[[h5py.File, Path], object]) -> Plant:
    """Replace the largest array of a file of maps."""

    def plant(path: Path, outside: Path, _: Path) -> None:
        with h5py.File(path, "a") as file:
            del file["maps" if "maps" in file else next(iter(file))]
            write_into(file, outside)

    return plant


HDF5: dict[str, Callable[[h5py.File, Path], object]] = {
    "texts": lambda file, _: file.create_dataset("maps", data=["a"] * 30, dtype=h5py.string_dtype()),
    "texts as attribute": lambda file, _: file.attrs.update(made_from=["a", "b"]),
    "objects": lambda file, _: file.create_dataset("maps", (30,), dtype=h5py.ref_dtype),
    "ragged": lambda file, _: file.create_dataset("maps", (30,), dtype=h5py.vlen_dtype(np.float32)),
    "compound": lambda file, _: file.create_dataset("maps", (30,), dtype=[("a", "f4"), ("b", "i8")]),
    "an enum": lambda file, _: file.create_dataset("maps", (30, 1, 8, 8), dtype=h5py.enum_dtype({"A": 0})),
    "opaque": lambda file, _: file.create_dataset("maps", data=np.zeros(30, "V16")),
    "complex": lambda file, _: file.create_dataset("maps", data=np.zeros((30, 1, 8, 8), "c8")),
    "a huge shape": lambda file, _: file.create_dataset("maps", (1 << 40, 1, 8, 8), dtype="f4", chunks=(1, 1, 8, 8)),
    "no axes": lambda file, _: file.create_dataset("maps", data=1.0),
    "nothing": lambda file, _: file.create_dataset("maps", dtype="f4"),
    "a group": lambda file, _: file.create_group("maps"),
    "a link in it": lambda file, _: file.__setitem__("maps", h5py.SoftLink("/maps")),
    "a link to a file": lambda file, out: file.__setitem__("maps", h5py.ExternalLink(str(out / "x.h5"), "/maps")),
    "bytes of a file": lambda file, out: file.create_dataset(
        "maps", (30, 1, 8, 8), dtype="f4", external=[(str(out / "bytes"), 0, h5py.h5f.UNLIMITED)]
    ),
}


def _files() -> list[tuple[str, str, Plant]]:
    pickles: list[tuple[str, str, Plant]] = [
        ("a pickle", name, plant)
        for name in ("models/network-*.pt", "partial/new.pt", "scores/*.npz", "learnt/*.h5", "models/logits-*.npz")
        for plant in (_pickled, _saved, _objects)
        if not (plant is _objects and not name.endswith(".npz"))
    ]
    return [
        *pickles,
        ("an archive that explodes", "scores/*.npz", _bomb),
        *((f"HDF5: {kind}", "maps/gradient-test.h5", _hdf5(HDF5[kind])) for kind in HDF5),
        *(
            (f"HDF5: {kind}", "learnt/*.h5", _hdf5(HDF5[kind]))
            for kind in ("texts", "a huge shape", "a link to a file")
        ),
    ]


EVIL = "from pathlib import Path\nPath({marker!r}).touch()\n\n\ndef bad(*_, **__):\n    raise ValueError('foreign')\n"


def _modules() -> list[tuple[str, str, Plant]]:
    """Files of a run that name a module of the folder, which Python would import."""
    return [
        ("a study of the run names a module", "study.yml", _named("resnet8", "evil.bad")),
        ("a study of the run names a module", "study.yml", _named("digits.digits", "digits.digits\n  more: evil.bad")),
        ("a study of the run names a module", "study.yml", _named("efface.methods.gradient.gradient", "evil.bad")),
        ("a study of the run has a tag", "study.yml", _named("seed: 0", "seed: !!python/object/apply:evil.bad []")),
        ("a plan of the run names a module", "*.json", _named("efface.", "evil.")),
        ("a module beside the files of the run", "numpy.py", lambda path, _, marker: _evil(path, marker)),
    ]


def _named(old: str, new: str) -> Plant:
    def plant(path: Path, _: Path, marker: Path) -> None:
        for folder in (path.parent, path.parents[1]):
            _evil(folder / "evil.py", marker)
        if path.is_file():  # a run without a plan has none
            path.write_text(path.read_text().replace(old, new))

    return plant


def _evil(path: Path, marker: Path) -> None:
    path.write_text(EVIL.format(marker=str(marker)))
