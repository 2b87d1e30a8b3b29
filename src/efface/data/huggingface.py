"""Image classification sets of the datasets library: by their name on the hub, or from a folder.

The package datasets belongs to the extra `huggingface`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from efface.base.types import Split
from efface.data.columns import label_column, picture_column, read_labels
from efface.data.decode import Reader, White
from efface.data.numbering import Classes, names_by_number, numbers
from efface.data.packing import Framing, Picture, Resize, check_framing, packed_images
from efface.data.parts import Part, Train, digest, part_of, refuse_overlap, wanted_parts
from efface.data.subset import Choice, Interpolation
from efface.plug.shared_settings import with_settings_of
from efface.store.arrays import StoredArray

_SAVED = ("dataset_dict.json", "state.json")
"""Files that tell a folder of `save_to_disk` from a folder of pictures or tables."""


@with_settings_of(Choice, after="cache")
def load(
    name: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    train: Train = None,
    test: str | None = None,
    image: str | None = None,
    label: str | None = None,
    size: int = 224,
    resize: Resize = 256,
    interpolation: Interpolation = "bilinear",
    pack: str | None = None,
    cache: str | None = None,
    classes: Classes = None,
    white: White = None,
    **limits: Any,
) -> dict[str, Split]:
    """RGB images of a set of the datasets library, resized, cropped, and packed once into contiguous HDF5.

    Pictures are read as in `image_folder`: orientation of EXIF, transparency, more than 8 bits. A packed file is used
    again while the set's own files and the choice are the same. Only the chosen images are decoded.

    name: name on the hub, such as `uoft-cs/cifar10`, which is downloaded once into the library's own cache; or a folder
        that `save_to_disk` wrote, or that `load_dataset` reads, such as a tree of class folders.
    config: name of the set's configuration, if it has several.
    revision: branch, tag or commit on the hub; None: the newest. Give a commit to get the same images later.
    train: the training split; None: `train` if there is one; false: none. A part is `train[:80%]` or `train[:500]`.
    test: the test split; None: the only one that is called `test`, `validation` or the like.
    image: column of the pictures; None: the only one of the type Image.
    label: column of the classes; None: the only one of the type ClassLabel. A column of whole numbers or texts is taken
        if it is named here.
    size: height and width of the centre crop, in pixels.
    resize: length of the shorter side before the crop, in pixels; None: no resizing; squeeze: both sides are resized to
        `size` without a crop.
    interpolation: how images are resized, `bilinear` or `bicubic`, both antialiased.
    pack: folder of the packed files; None: beside a folder `<name>.packed`, for a name on the hub
        `data/<user>--<name>.packed`.
    cache: folder of the library's cache; None: its own (`HF_HOME`).
    limit: number of training images, a balanced choice; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds both choices and the validation images.
    classes: the network's number of each class, as in `image_folder`; None: that of the set.
    white: value that is white in pictures of more than 8 bits, as in `image_folder`.

    Source: Lhoest et al. 2021, Datasets: a community library for natural language processing (arXiv:2109.02846).
    """
    choice = Choice(**limits)
    check_framing(size, resize, white=white, **choice.counts())
    library = _package()
    found = _read(library, name, config, revision, cache)
    parts = {role: part_of(library, name, found, spec) for role, spec in wanted_parts(name, found, train, test).items()}
    refuse_overlap(name, parts)
    features = next(iter(parts.values())).data.features
    column, labels = picture_column(name, features, image), label_column(name, features, label)
    targets, names = _labels(name, parts, column, labels)
    own = numbers(classes, names, called="classes")
    framing, made, reader = Framing(size, resize, interpolation, white), {}, Reader(white)
    mark = digest(name, config, revision, column, labels)[:8]
    for role, part in parts.items():
        rows, held_out, said = choice.of(role, targets[role], len(names))
        path = _store(name, pack) / f"{part.file_name()}-{mark}-{framing.file_name(said)}"
        images, numbered = _packed(library, path, part, column, rows, framing, reader), torch.tensor(own)
        made[role] = Split(images, numbered[targets[role][rows]], names_by_number(names, own), validation=held_out)
    return made


check_load = check_framing


def _package() -> Any:
    try:
        import datasets
    except ImportError as problem:
        raise ValueError(
            "efface.data.huggingface needs datasets, which is not installed; run: pip install 'efface[huggingface]'"
        ) from problem
    return datasets


def _read(library: Any, name: str, config: str | None, revision: str | None, cache: str | None) -> dict[str, Any]:
    """Return the splits of the set by their names. They are read from memory maps."""
    folder = Path(name).expanduser()
    is_local = folder.is_dir()
    if not is_local and (name.count("/") > 1 or name.startswith((".", "~", "/"))):
        raise FileNotFoundError(
            f"{name}: no such folder, expected one of a data set, or a name on the hub; change name"
        )
    is_saved = is_local and any((folder / file).is_file() for file in _SAVED)
    for setting, value in (("revision", revision if is_local else None), ("config", config if is_saved else None)):
        if value is not None:
            raise ValueError(f"{name}: is a folder, which has no {setting}, but {setting} is {value}; leave it out")
    try:
        if is_saved:
            made = library.load_from_disk(str(folder))
        else:
            where = str(folder) if is_local else name
            made = library.load_dataset(where, config, revision=revision, cache_dir=cache)
    except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as problem:
        raise ValueError(
            f"{name}: datasets cannot read it ({' '.join(str(problem).split())[:300]}); give a name on the hub, or a "
            "folder that save_to_disk wrote or load_dataset reads"
        ) from problem
    by_name = made if isinstance(made, Mapping) else {made.split or "train": made}
    return {str(split): data for split, data in by_name.items()}


def _labels(
    name: str, parts: Mapping[str, Part], column: str, labels: str
) -> tuple[dict[str, Int[Tensor, " n"]], tuple[str, ...]]:
    """Return the classes of the rows of each part, and their names."""
    columns = {}
    for part in parts.values():
        picture_column(part.name, part.data.features, column)
        label_column(part.name, part.data.features, labels)
        table = part.data.select_columns([labels]).with_format("arrow")[:]
        columns[part.name] = (part.data.features[labels], table.column(labels))
    by_name, names = read_labels(columns)
    found = {role: by_name[part.name] for role, part in parts.items()}
    if "train" in found:
        seen = set(found["train"].unique().tolist())
        lacking = [names[each] for each in found["test"].unique().tolist() if each not in seen]
        if lacking:
            raise ValueError(
                f"{name}: {parts['train'].spec} has no image of {len(lacking)} classes of {parts['test'].spec} "
                f"({', '.join(lacking[:5])}), expected images of every class, and a part of rows that are sorted by "
                "class has not; change train, or set train: false to train nothing"
            )
    return found, names


def _store(name: str, pack: str | None) -> Path:
    if pack:
        return Path(pack).expanduser()
    folder = Path(name).expanduser().absolute()
    if folder.is_dir():
        return folder.with_name(folder.name + ".packed")
    return Path("data") / f"{name.replace('/', '--')}.packed"


def _packed(
    library: Any,
    path: Path,
    part: Part,
    column: str,
    chosen: Int[Tensor, " m"],
    framing: Framing,
    reader: Reader,
) -> StoredArray:
    plain = part.data.select_columns([column]).cast_column(column, library.Image(decode=False))
    rows = chosen.tolist()

    def pictures(first: int, last: int) -> list[Picture]:
        return [
            _picture(f"{part.name}, row {row}", stored)
            for row, stored in zip(rows[first:last], plain[rows[first:last]][column], strict=True)
        ]

    state = digest(part.origin, column, rows, _outside(plain, column, rows, part.name))
    return packed_images(path, pictures, len(rows), digest=state, framing=framing, reader=reader, title=part.name)


def _picture(name: str, stored: Mapping[str, Any] | None) -> Picture:
    if not stored or (stored["bytes"] is None and not stored["path"]):
        raise ValueError(f"{name}: has no picture, expected one; remove the row")
    return Picture(name, stored["path"] if stored["bytes"] is None else bytes(stored["bytes"]))


def _outside(plain: Any, column: str, rows: list[int], name: str) -> str:
    """Return sizes and times of the chosen pictures that lie in files of their own, outside the table."""
    wanted, first, said = np.zeros(len(plain), dtype=bool), 0, []
    wanted[rows] = True
    for chunk in plain.with_format("arrow")[:].column(column).chunks:
        without = chunk.field("bytes").is_null().to_numpy(zero_copy_only=False)
        for at in (without & wanted[first : first + len(chunk)]).nonzero()[0].tolist():
            file = chunk.field("path")[at].as_py()
            if file is None:
                continue  # the row has no picture, which is said where it is read
            try:
                state = Path(file).stat()
            except OSError as error:
                raise FileNotFoundError(
                    f"{name}, row {first + at}: its picture is the file {file}, which is not readable "
                    f"({error.strerror}); restore it, or store the pictures in the set by save_to_disk"
                ) from error
            said.append(f"{first + at} {file} {state.st_size} {state.st_mtime_ns}")
        first += len(chunk)
    return digest(*said)
