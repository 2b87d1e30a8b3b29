"""Writes the generated parts of docs/methods.md: from docstrings, or by running every method of a study.

    python scripts/describe_methods.py table
    python scripts/describe_methods.py speed STUDY [key=value ...] [--images 16]
    python scripts/describe_methods.py picture STUDY [key=value ...]

STUDY is configs/methods_cifar10.yml; its entries of captum and zennit need these packages. Each command replaces the
text between its markers on the page, and `picture` also writes docs/methods.png.

table: runs no network.
speed: uses the study's network, with fresh weights if it is not trained yet, and its first test images. A method that
    has not learnt yet learns from 64 training images.
picture: shows finished maps; run the extract stage before.
"""

import argparse
import importlib
import inspect
import json
import pkgutil
import statistics
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from types import ModuleType
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

import efface.methods
from efface.base import draws
from efface.methods.calling import MethodCall, attribute
from efface.plug import docstrings
from efface.report.formats import percent
from efface.report.gallery import paint
from efface.stages.run.map_files import map_store
from efface.stages.run.method_calls import method_call, seed_text
from efface.stages.run.provenance import surroundings
from efface.stages.run.run import Run
from efface.stages.run.views import View
from efface.stages.trial.network import try_network
from efface.stages.trial.networks import COUNTED, counted, passed
from efface.stages.work.learning import learnt_on_trial
from efface.store.arrays import read_rows
from efface.study import study as config
from efface.study.schema import MethodEntry

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
PICTURE = PAGE.with_suffix(".png")
SHELF = "efface.methods."
HANDED = {"self", "model", "images", "targets", "seeds", "max_batch", "masks", "classes_of"}  # passed by efface

SECONDS = 1.0  # least total time of the timed calls
CLOCK = time.perf_counter if torch.cuda.is_available() else time.process_time  # process time excludes other work

SHOWN, EDGE, GAP, NAMES = 16, 48, 2, 226  # images; pixels of a tile, between tiles, and for the methods' names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    parts.add_parser("table", help="table of all methods: computation, settings, source, differences")
    for name, does in {"speed": "passes and time", "picture": "maps"}.items():
        part = parts.add_parser(name, help=does)
        part.add_argument("study", type=Path, metavar="STUDY", help="a YAML file: configs/methods_cifar10.yml")
        part.add_argument("overrides", nargs="*", metavar="key=value", help="set a key of the study")
        if name == "speed":
            part.add_argument("--images", type=int, default=16, help="images in a timed call")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "table":
        fill("table", table())
        return
    run = Run(config.read(options.study, options.overrides))
    found = speed(run, options.images) if options.part == "speed" else picture(run)
    fill(options.part, f"{found}\n\n{origin(run, options)}")


def fill(part: str, text: str, where: Path | None = None) -> None:
    """Put the text between the part's markers on the page.

    where: path of another page than that of the methods.
    """
    where = where or PAGE
    page, (begin, end) = where.read_text(), (f"<!-- {word}: {part} -->" for word in ("begin", "end"))
    before, rest = page.split(begin)
    _, after = rest.split(end)
    where.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def origin(run: Run, options: argparse.Namespace) -> str:
    """Return the command, the device, the version and the date; a setting that is a path appears only by its key."""
    words = [each.split("=")[0] + "=..." if "/" in each else each for each in options.overrides]
    words += [f"--images={options.images}"] if options.part == "speed" else []
    called = " ".join(["python scripts/describe_methods.py", options.part, str(options.study), *map(quote, words)])
    made = surroundings(run.device)
    return f"`{called}`; {made['device']}, torch {made['versions']['torch']}, {time.strftime('%Y-%m-%d')}."


def markdown(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


# Table from the docstrings.


def table() -> str:
    """Return the tables of all methods, one table per module, from docstrings and signatures."""
    parts = []
    for shelf, methods in shelves():
        title = f"### `{shelf.__name__.removeprefix(SHELF)}`"
        rows = [
            (f"`{path}`", first_line(method), settings(method), said(method, "Source"), said(method, "Differs"))
            for path, method in methods.items()
        ]
        parts += [
            title,
            textwrap.fill(first_line(shelf), 120),
            markdown(("", "what it computes", "settings", "source", "differs"), rows),
        ]
    return "\n\n".join(parts)


def shelves() -> Iterator[tuple[ModuleType, dict[str, Any]]]:
    """Yield each module with its methods, by their paths in a study without `efface.methods.`."""
    for each in pkgutil.iter_modules(efface.methods.__path__, SHELF):
        shelf = importlib.import_module(each.name)
        own = [name for name, found in vars(shelf).items() if getattr(found, "__module__", "") == shelf.__name__]
        names = [name for name in getattr(shelf, "__all__", own) if is_method(getattr(shelf, name))]
        if names:
            prefix = shelf.__name__.removeprefix(SHELF)
            yield shelf, {f"{prefix}.{name}": getattr(shelf, name) for name in names}


def is_method(found: Any) -> bool:
    """Return True if a study can use it: it takes model, images and targets, all else by keyword, and returns maps."""
    if not (inspect.isfunction(found) or inspect.isclass(found)) or found.__name__.startswith("_"):
        return False
    called = inspect.signature(found.__call__ if inspect.isclass(found) else found)
    names = [name for name, each in called.parameters.items() if each.kind is not each.KEYWORD_ONLY and name != "self"]
    gives = called.return_annotation
    return names == ["model", "images", "targets"] and not (inspect.isclass(gives) and issubclass(gives, tuple))


def first_line(found: Any) -> str:
    """Return the first sentence of the docstring's first line."""
    return docstrings.first_sentence(inspect.getdoc(found) or "")


def said(method: Any, word: str) -> str:
    """Return the docstring's text after a word such as `Source:`."""
    return docstrings.said(inspect.getdoc(method) or "", word)


def settings(method: Any) -> str:
    """Return the method's settings as a study writes them, with their defaults."""
    parameters = dict(inspect.signature(method).parameters)
    if inspect.isclass(method):
        parameters |= inspect.signature(method.__call__).parameters
    return ", ".join(
        f"`{name}` (needed)" if each.default is each.empty else f"`{name}: {value(each.default)}`"
        for name, each in parameters.items()
        if name not in HANDED
    )


def value(default: Any) -> str:
    if callable(default):
        return f"{default.__module__}.{default.__name__}"
    return default if isinstance(default, str) else json.dumps(default)


# Cost of methods.


def speed(run: Run, count: int) -> str:
    """Return the table of passes per image and images per second of every method."""
    network, *_ = try_network(run)
    every = torch.arange(min(count, len(run.data["test"])))
    images = read_rows(run.data["test"].images, every).to(run.device).float().div(255)
    with torch.no_grad():
        classes = network(images).argmax(1)
    rows = []
    for entry in run.entries:
        made = method_call(entry, learnt_on_trial(run, entry, network))
        call = partial(explained, run, entry, made, network, images, classes)
        one, twice, few = (
            counted(network, partial(call, each)) for each in (every[:1], every[[0, 0]], every[:COUNTED])
        )
        passes = (passed(one[way], twice[way], few[way], len(every[:COUNTED])) for way in ("forward", "backward"))
        rows.append((f"`{entry.name}`", *passes, f"{len(every) / timed(partial(call, every)):,.3g}"))
        print(*rows[-1], flush=True)
    size, state = " x ".join(map(str, images.shape[1:])), "trained" if run.first.trained() else "fresh"
    text = (
        f"`{run.study.model.call}` on {len(every)} images of {size} at once, one thread, {state} weights; "
        f"{'' if torch.cuda.is_available() else 'CPU '}time by the median call of {SECONDS:g} seconds."
    )
    return f"{text}\n\n{markdown(('entry', 'forward passes', 'backward passes', 'images per second'), rows)}"


def explained(
    run: Run, entry: MethodEntry, made: MethodCall, network: nn.Module, images: Tensor, classes: Tensor, rows: Tensor
) -> dict[str, Tensor]:
    """Return the maps of these rows, computed as in a study."""
    seeds = draws.seeds_of(seed_text(run, entry, "test"), rows).to(run.device)
    masks = run.data["test"].masks
    more = {"max_batch": run.study.max_batch, "masks": None if masks is None else masks[rows].to(run.device)}
    return attribute(made, network, images[rows], classes[rows], seeds=seeds, **more)


def timed(call: Callable[[], object]) -> float:
    """Return the median seconds of a call, after a first call that is not counted."""
    call()
    found: list[float] = []
    while sum(found) < SECONDS:
        started = CLOCK()
        call()
        found.append(CLOCK() - started)
    return statistics.median(found)


# Picture of the maps.


def picture(run: Run) -> str:
    """Draw some test images and all their ranked maps into one file, and return the page's link to the file."""
    test = run.data["test"]
    rows = torch.linspace(0, len(test) - 1, min(SHOWN, len(test))).round().long()
    images = read_rows(test.images, rows).cpu().numpy().transpose(0, 2, 3, 1)
    lines = {"image": images.repeat(3, -1) if images.shape[-1] == 1 else images}
    lines |= {view.name: [paint(one) for one in shown(run, view, rows).numpy()] for view in run.views}
    step = EDGE + GAP
    sheet = Image.new("RGB", (NAMES + len(rows) * step, len(lines) * step), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for line, (name, tiles) in enumerate(lines.items()):
        pen.text((NAMES - 6, line * step + EDGE // 2), name.replace("_", " "), fill="black", font=font, anchor="rm")
        for column, pixels in enumerate(tiles):
            way = Image.Resampling.NEAREST if max(pixels.shape) <= EDGE else Image.Resampling.BOX
            sheet.paste(Image.fromarray(pixels).resize((EDGE, EDGE), way), (NAMES + column * step, line * step))
    sheet.save(PICTURE, optimize=True)
    right = percent(float((run.logits("test").argmax(1) == test.targets.cpu()).float().mean()))
    return (
        f"![{len(rows)} images and the maps of every method]({PICTURE.name})\n\n`{run.study.model.call}`, {right} "
        f"of {len(test)} test images right; explained is the {run.study.explain} class. Maps as they are ranked, after "
        "`post`: black is 0, yellow the 99th percentile; with negative values white is 0, red for the class."
    )


def shown(run: Run, view: View, rows: Tensor) -> Tensor:
    """Return the maps as they are ranked, with channels summed for the picture."""
    store, post = map_store(run, view.maps, "test"), run.study.post if view.post is None else view.post
    maps = store.take(rows)
    if store.kind == "seeds":
        return draws.uniform(maps, run.data["test"].shape[1:])
    for each in post:
        maps = each(maps)
    return maps if maps.ndim == 3 else maps.sum(1)


if __name__ == "__main__":
    main()
