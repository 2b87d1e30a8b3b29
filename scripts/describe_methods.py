"""Writes the generated parts of docs/methods.md: from docstrings, or by running every method of a study.

    python scripts/describe_methods.py table
    python scripts/describe_methods.py networks STUDY [key=value ...]
    python scripts/describe_methods.py speed STUDY [key=value ...] [--images 16]
    python scripts/describe_methods.py picture STUDY [key=value ...]

STUDY is configs/methods_cifar10.yml; its entries of captum and zennit need these packages. Each command replaces the
text between its markers on the page, and `picture` also writes docs/methods.png.

table: runs no network.
networks: tries networks with fresh weights on noise.
speed: uses the study's network, with fresh weights if it is not trained yet, and its first test images. A method that
    has not learnt yet learns from 64 training images.
picture: shows finished maps; run the extract stage before.
"""

import argparse
import importlib
import inspect
import json
import pkgutil
import re
import statistics
import textwrap
import time
from collections import Counter
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
from efface import draws
from efface.methods.calling import MethodCall, attribute
from efface.models import resnet
from efface.models.layers import find_layer
from efface.models.torchvision import load
from efface.plug.call import Call
from efface.report.gallery import paint
from efface.stages.run.map_files import map_store
from efface.stages.run.method_calls import method_call, seed_text
from efface.stages.run.provenance import surroundings
from efface.stages.run.run import Run
from efface.stages.run.views import View
from efface.stages.trial.network import try_network
from efface.stages.work.learning import learnt_on_trial
from efface.store.arrays import read_rows
from efface.study import study as config
from efface.study.schema import MethodEntry
from efface.types import Split

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
PICTURE = PAGE.with_suffix(".png")
SHELF = "efface.methods."
HANDED = {"self", "model", "images", "targets", "seeds", "max_batch", "masks", "classes_of"}  # passed by efface

COUNTED = 4  # images on which passes are counted
SECONDS = 1.0  # least total time of the timed calls
CLOCK = time.perf_counter if torch.cuda.is_available() else time.process_time  # process time excludes other work

SIDE, CLASSES, TAUGHT = 96, 10, 8  # image side and classes of the tried networks; training images for methods there
FEW = {"samples": 2, "steps": 2, "channels": 2, "pool": TAUGHT, "places": 4, "patch": SIDE // 4, "stride": SIDE // 4}
THIN = ("resnet8", "resnet8_wide", "resnet20", "resnet32", "resnet44", "resnet56")
LARGE = (
    *("resnet18", "resnet50", "vgg11", "vgg16_bn", "squeezenet1_1", "densenet121", "mobilenet_v2"),
    *("mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "vit_b_16"),
)

SHOWN, EDGE, GAP, NAMES = 16, 48, 2, 226  # images; pixels of a tile, between tiles, and for the methods' names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    parts.add_parser("table", help="table of all methods: computation, settings, source, differences")
    for name, does in {"networks": "methods by network", "speed": "passes and time", "picture": "maps"}.items():
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
    more = {"speed": lambda: speed(run, options.images), "picture": lambda: picture(run)}
    found = more.get(options.part, lambda: networks(run))()
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
    return re.split(r"(?<=\.) ", (inspect.getdoc(found) or "").partition("\n")[0])[0]


def said(method: Any, word: str) -> str:
    """Return the docstring's text after a word such as `Source:`."""
    found = re.search(rf"^{word}: (.+(?:\n +.+)*)", inspect.getdoc(method) or "", re.MULTILINE)
    return " ".join(found[1].split()).removesuffix(".") if found else ""


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


def counted(network: nn.Module, call: Callable[[], object]) -> Counter[str]:
    """Count the rows of all forward passes and of all backward passes in a call."""
    found: Counter[str] = Counter()

    def forward(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        found["forward"] += len(output)
        if output.requires_grad:
            output.register_hook(lambda gradient: found.update(backward=len(gradient)))

    handle = network.register_forward_hook(forward)
    try:
        call()
    finally:
        handle.remove()
    return found


def passed(one: int, twice: int, few: int, images: int) -> str:
    """Return the passes per image, and the additional passes per call.

    one: passes of one image.
    twice: passes of the same image twice.
    few: passes of `images` different images.
    """
    call = 2 * one - twice
    each = (few - call) / images
    return f"{round(each, 1):,g}" + (f" (and {call} a call)" if call else "")


def timed(call: Callable[[], object]) -> float:
    """Return the median seconds of a call, after a first call that is not counted."""
    call()
    found: list[float] = []
    while sum(found) < SECONDS:
        started = CLOCK()
        call()
        found.append(CLOCK() - started)
    return statistics.median(found)


# Methods by network.


def networks(run: Run) -> str:
    """Return the table of every method on every network: yes, or the first words of the error message."""
    found: dict[str, dict[str, str]] = {entry.name: {} for entry in run.entries}
    for name, build in {"CIFAR ResNets": THIN, **{name: (name,) for name in LARGE}}.items():
        for network, side in map(fresh, build):
            learnt: dict[str, dict[str, Tensor]] = {}
            for entry in run.entries:
                why = tried(entry, network, side, learnt)
                found[entry.name][name] = found[entry.name].get(name) or why
        print(name, *(f"\n  {entry}: {line[name]}" for entry, line in found.items() if line[name]), flush=True)
    everywhere = ", ".join(f"`{name}`" for name, line in found.items() if not any(line.values()))
    others = {name: line for name, line in found.items() if any(line.values())}
    reasons = list(dict.fromkeys(why for line in others.values() for why in line.values() if why))
    rows = [(f"`{name}`", *(verdict(why, reasons) for why in line.values())) for name, line in others.items()]
    notes = "\n".join(f"{number}. {why}" for number, why in enumerate(reasons, 1))
    head = ("the others", *next(iter(found.values())))
    return (
        f"Fresh weights, {CLASSES} classes, noise of 32 x 32 pixels for the CIFAR ResNets ({', '.join(THIN)}) and of "
        f"{SIDE} x {SIDE} for the others, which are torchvision's; a layer that a network does not have is left to the "
        f"default. Finite maps on all of them: {everywhere}.\n\n{markdown(head, rows)}\n\n{notes}"
    )


def verdict(why: str, reasons: list[str]) -> str:
    if not why:
        return "yes"
    return f"{'FAILS' if why.startswith('FAILS') else 'no'} ({reasons.index(why) + 1})"


def fresh(name: str) -> tuple[nn.Module, int]:
    """Return a network with fresh weights, and the side of its test images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name in THIN:
            network, side = getattr(resnet, name)(num_classes=CLASSES), 32
        else:
            more = {"image_size": SIDE} if name.startswith("vit") else {}
            network, side = load(name, num_classes=CLASSES, **more), SIDE
        for each in network.parameters():
            if each.ndim > 1 and not each.any():  # ViT's head starts at zero, so every gradient would be zero
                nn.init.xavier_uniform_(each)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics of these images only; else deep features grow until softmax is 1
        with torch.no_grad():
            network.train()(torch.rand(TAUGHT, 3, side, side))
    return network.eval(), side


def tried(entry: MethodEntry, network: nn.Module, side: int, learnt: dict[str, dict[str, Tensor]]) -> str:
    """Return "" if there are maps, else the reason; an error that the method does not explain starts with FAILS.

    learnt: tensors that methods learnt from this network, by the settings that they depend on.
    """
    made = MethodCall(entry.name, few(entry.call, network), entry.batched, entry.outputs)
    images = torch.rand(TAUGHT, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        targets = network(images).argmax(1)
    try:
        if hasattr(entry.call.resolve(), "fit"):
            key = json.dumps(made.method.learnt_from())
            if key not in learnt:
                made.method.fit(network, Split(images.mul(255).byte(), targets), seed=0, max_batch=TAUGHT)
                learnt[key] = made.method.learnt
            made.method.learnt = learnt[key]
        maps = attribute(made, network, images[:2], targets[:2], seeds=torch.arange(2), max_batch=TAUGHT)
    except Exception as error:  # noqa: BLE001  the table shows errors of every kind
        text = re.sub(r"^[\w.]+: | \('[^']*'\)", "", textwrap.shorten(str(error).split(";")[0], 150))
        is_refusal = isinstance(error, ValueError) and not str(error).startswith("attribution_methods.")
        return text if is_refusal else f"FAILS: {type(error).__name__}: {text}"
    constant = any(each.ndim > 1 and all(one.max() == one.min() for one in each) for each in maps.values())
    return "FAILS: the maps are constant" if constant else ""


def few(call: Call, network: nn.Module) -> Call:
    """Return the call with fewer samples and steps, also in inner methods, and without a layer that does not exist."""
    known = inspect.signature(call.resolve()).parameters
    kwargs = {name: each for name, each in call.kwargs.items() if name != "layer" or has(network, each)}
    kwargs |= {name: count for name, count in FEW.items() if name in known}
    kwargs |= {name: few(each, network).model_dump() for name, each in call.nested().items()}
    return call.model_copy(update={"kwargs": kwargs})


def has(network: nn.Module, layer: str) -> bool:
    try:
        find_layer(network, layer)
    except ValueError:
        return False
    return True


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
    right = (run.logits("test").argmax(1) == test.targets.cpu()).float().mean()
    return (
        f"![{len(rows)} images and the maps of every method]({PICTURE.name})\n\n`{run.study.model.call}`, {right:.1%} "
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
