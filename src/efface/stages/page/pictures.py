"""Pictures of test images, of samples of their class, of denoised images, and of every method's maps.

One line of pictures for each kind, one column for each image; drawn once, and shown in the report.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from efface.base import draws
from efface.base.types import Images, Maps
from efface.erase.masking import to_float, to_stored
from efface.models.memory import Onwards, with_smaller_batches
from efface.report.gallery import is_vector, paint, rgb, strip
from efface.report.grid import FULL, PictureLine, grid, read_made_from
from efface.stages.run.display import display
from efface.stages.run.map_files import map_store, provenance
from efface.stages.run.progress import say
from efface.stages.run.provenance import GENERATED
from efface.stages.run.run import Run
from efface.stages.work.sampling import some_samples
from efface.store.arrays import read_rows
from efface.store.atomic import atomic_write
from efface.store.file_name import file_name
from efface.store.keys import key, versions
from efface.study.schema import MethodEntry
from efface.training.generate import COST, Denoised, denoise

FOLDER = "figures"


def draw_pictures(run: Run) -> None:
    """Draw the pictures unless they exist, and print the path. ValueError: a named test row does not exist."""
    path = run.folder / FOLDER / "grid.png"
    if picture(run) is None:
        indices = shown_rows(run)
        lines = [*_generated(run, indices), *_maps(run, indices)]
        names = [f"row-{row}" for row in indices.tolist()]
        contents = grid(lines, _headings(run, indices), key(made_from(run)), names=names)
        for name, content in sorted(contents.items(), key=lambda item: item[0] == path.name):  # what tells is last
            (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path.parent / name) as temporary:
                temporary.write_bytes(content)
    say(f"pictures: {path}, each line of it beside, and each picture in its own size in {path.parent / FULL}")


def picture(run: Run) -> bytes | None:
    """Return the PNG bytes of the grid, or None if it does not show the study as it is now."""
    path = run.folder / FOLDER / "grid.png"
    content = path.read_bytes() if path.is_file() and run.first.trained() else b""
    return content if content and read_made_from(content) == key(made_from(run)) else None


def made_from(run: Run) -> dict[str, Any]:
    """Return everything that the pictures depend on."""
    return {
        "rows": shown_rows(run).tolist(),
        "visualize": run.study.visualize.model_dump(exclude={"rows", "count"}),
        "samples": run.study.samples.identity(),
        "data": run.data_digest["test"],
        "network": run.network_digest,
        "seed": run.study.seed,
        "maps": {name: provenance(run, entry, name, "test") for entry in _shown(run) for name in entry.gives},
        "versions": versions(*GENERATED, "erase", "pictures"),
    }


def shown_rows(run: Run) -> Int[Tensor, " n"]:
    """Return the test rows that are shown."""
    settings, count = run.study.visualize, len(run.data["test"])
    if settings.rows is None:
        return torch.linspace(0, count - 1, min(settings.count, count)).round().long()
    if beyond := [row for row in settings.rows if row >= count]:
        raise ValueError(f"visualize.rows: there is no test image {beyond[0]}; expected rows below {count}")
    return torch.tensor(settings.rows)


def _generated(run: Run, indices: Int[Tensor, " n"]) -> Iterator[PictureLine]:
    """Yield lines of the images, the samples, the noisy images and the denoised images."""
    settings, samples, test = run.study.visualize, run.study.samples, run.data["test"]
    stored = read_rows(test.images, indices).to(run.device)
    targets = test.targets[indices.to(test.targets.device)].to(run.device)
    seeds = draws.seeds_of(f"{run.study.seed} visualize", indices).to(run.device)
    with display(float(COST * len(indices) * (samples.steps + settings.steps)), "visualize", "passes") as live:
        generated = some_samples(run, samples, indices, advance=live.update)
        advance = Onwards(live.update)

        def climbed(max_batch: int) -> Denoised:
            advance.restart()
            return denoise(
                run.network,
                to_float(stored),
                targets,
                seeds=seeds,
                noise=settings.noise,
                steps=settings.steps,
                lr=settings.lr,
                max_batch=max_batch,
                advance=advance,
            )

        denoised = with_smaller_batches(climbed, run.study.max_batch)
    yield _line("images", "image", to_float(stored))
    yield _line("samples", "sample of its class", generated)
    yield _line("noisy", f"noise of {settings.noise:g} added", denoised.noisy)
    yield _line("denoised", "denoised by the network", denoised.images)


def _maps(run: Run, indices: Int[Tensor, " n"]) -> Iterator[PictureLine]:
    """Yield two lines for each method: stored maps and their absolute values, channels summed, without `post`."""
    percentile = run.study.visualize.percentile
    for name in (name for entry in _shown(run) for name in entry.gives):
        store = map_store(run, name, "test")
        if store.kind != "seeds":  # a ranking that is drawn anew has no map
            maps = store.take(indices)
            for kind, signed, values in (("signed", True, _summed(maps)), ("absolute", False, _summed(maps.abs()))):
                pictures = [_painted(summed, percentile, signed=signed) for summed in values]
                yield PictureLine(f"{file_name(name)}-{kind}", f"{name}, {kind}", pictures)


def _shown(run: Run) -> Iterator[MethodEntry]:
    """Yield the methods whose maps are shown: all draws, but not the maps of further trainings of a random control."""
    return (entry for entry in run.entries if entry.draw <= entry.draws)


def _summed(maps: Maps) -> np.ndarray:
    """Return maps n h w with channels summed; those of a vector are its coordinates, and are kept."""
    if maps.ndim == 4 and is_vector(maps.shape[1:]):
        return maps.flatten(1)[:, None].numpy(force=True)
    return (maps if maps.ndim == 3 else maps.sum(1)).numpy(force=True)


def _painted(map_: np.ndarray, percentile: float, *, signed: bool) -> np.ndarray:
    if is_vector((1, *map_.shape)):
        return strip(paint(map_.reshape(1, -1), percentile=percentile, signed=signed))
    return paint(map_, percentile=percentile, signed=signed)


def _drawn(image: np.ndarray) -> np.ndarray:
    return strip(rgb(image.reshape(1, 1, -1))) if is_vector(image.shape) else rgb(image)


def _line(name: str, label: str, images: Images) -> PictureLine:
    return PictureLine(name, label, [_drawn(image) for image in to_stored(images.cpu()).numpy()])


def _headings(run: Run, indices: Int[Tensor, " n"]) -> list[str]:
    test = run.data["test"]
    classes = [int(test.targets[row]) for row in indices]
    names = [test.classes[index] if index < len(test.classes) else str(index) for index in classes]
    return [f"row {row}: {name}" for row, name in zip(indices.tolist(), names, strict=True)]
