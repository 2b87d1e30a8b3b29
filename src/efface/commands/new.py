"""`efface new OUT.yml`: a commented study that `efface check` accepts. It asks nothing."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from efface.commands.running import Progress, add_current_folder, answered
from efface.commands.values import StartOf
from efface.plug import docstrings, words

HELP = """Write a commented study, which `efface check` accepts. It asks nothing, and never overwrites a file.

\b
efface new
efface new mine.yml --data cifar10 --model resnet20
efface new mine.yml --data folder:my_pictures --model timm:vit_tiny_patch16_224 --for vit
efface new mine.yml --data huggingface:uoft-cs/cifar100 --model torchvision:resnet18
"""
_DATA = (
    "digits, patches, cifar10, folder:PATH, huggingface:NAME, any other word of `efface list data`, or your own "
    "dotted path."
)
_MODEL = (
    "timm:NAME, torchvision:NAME, huggingface:NAME, a word of `efface list models` such as resnet8, or your own "
    "dotted path."
)
_FOR = "Kind of the network, for the choice of methods. Default: told by the network."
_TRANSFORMER = re.compile(r"vit|deit|beit|eva|dino|cait|siglip|clip")
_WINDOWS = re.compile(r"swin|maxvit|coatnet|mvit")
_LATER = "  # "
SINGLE = 64  # side in pixels up to which single pixels are ranked; above it, one pixel hardly changes a score


@click.command(help=HELP)
@click.argument("out", type=click.Path(path_type=Path), default=Path("study.yml"), help="The file. Default: study.yml.")
@click.option(
    "--data",
    type=StartOf("data", ["folder:"]),
    metavar="DATA",
    default="digits",
    show_default=True,
    help=f"The images: {_DATA}",
)
@click.option(
    "--model",
    type=StartOf("model"),
    metavar="MODEL",
    default="resnet8",
    show_default=True,
    help=f"The network: {_MODEL}",
)
@click.option("--for", "kind", type=click.Choice(["cnn", "vit", "swin"]), help=_FOR)
def new(out: Path, data: str, model: str, kind: str | None) -> int:
    """Write a study."""
    add_current_folder()

    def work(_progress: Progress) -> Sequence[str]:
        _refuse(out)
        text = study_text(out, data, model, kind)
        with out.open("x") as file:  # never over a file that came meanwhile
            file.write(text)
        click.echo(f"Wrote {out}. Try it: efface check {out}. Run it: efface all {out}.")
        if yours := [line.split(":")[0].strip() for line in text.splitlines() if "# <- " in line]:
            click.echo(f"First set what is marked with <-: {', '.join(yours)}.")
        return ()

    return answered(work, "new")


def _refuse(out: Path) -> None:
    """ValueError: the file is there, or cannot be a study."""
    if out.suffix not in (".yml", ".yaml"):
        raise ValueError(f"{out}: a study ends with .yml; give such a name, as in mine.yml")
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out}: is there already, and nothing was written; give another name")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent}: there is no such folder; make it, or give another")


def study_text(out: Path, data: str, model: str, kind: str | None) -> str:
    """Return the text of a study. ValueError: data and network do not exist, or do not fit each other."""
    import yaml

    from efface.commands.starts import built, data_start, framed, model_start
    from efface.study.study import Study, check

    shown = data_start(data)
    network = model_start(model, shown)
    shown = framed(shown, network)
    network = model_start(model, shown)  # for images of this size
    made = built(network, shown)
    called = f"efface new {out} --data {data} --model {model}" + (f" --for {kind}" if kind else "")
    tree = {"out": f"runs/{out.stem}", "data": shown.tree(), "model": network.tree()}
    tree |= _choices(shown, network, made, kind or kind_of(model))
    meanings = docstrings.meanings(inspect.getdoc(Study) or "")
    text = "\n".join([*_head(out, called), *_lines(tree, shown.notes | network.notes, meanings)]) + "\n"
    check(yaml.safe_load(text), out)
    return text


def kind_of(model: str) -> str:
    """Return the kind of a network by its name: cnn, vit or swin."""
    name = model.lower()
    return "swin" if _WINDOWS.search(name) else "vit" if _TRANSFORMER.search(name) else "cnn"


def _choices(data: Any, network: Any, made: Any, kind: str) -> dict[str, Any]:
    """Return the keys that depend on data and network."""
    from efface.commands.starts import PHOTOGRAPH, SMALL
    from efface.study import recommended

    side = data.shape[1] if data.shape else PHOTOGRAPH
    if kind == "cnn":
        kind = _kind_of_cnn(made, network.word)
    window = (_token(made, side),) * 2 if kind == "vit" else None
    if window is None and side < SMALL:
        window = (max(side // 4, 1), max(side // 8, 1))
    found: dict[str, Any] = {"fit": _fit(side, tuned=network.is_elsewhere)}
    found |= {"explain": "predicted", "attribution_methods": recommended.entries(kind, window)}  # type: ignore[arg-type]
    found |= {"post": ["channel_sum"], "unit": _unit(kind, side), "imputer": "channel_mean"}
    found |= {"metrics": [*recommended.METRICS], "fractions": [0.1, 0.3, 0.5, 0.7, 0.9], "repeats": 3, "seed": 0}
    return found | ({"max_batch": 32} if network.is_elsewhere else {})


def _unit(kind: str, side: int) -> Any:
    """Return what is ranked as a whole, as docs/choosing.md says: tokens, patches of large images, or pixels."""
    if kind == "vit":
        return "token"
    if side <= SINGLE:
        return "pixel"
    return {"call": "patch", "kwargs": {"size": 16 if kind == "swin" else 8}}


def _fit(side: int, *, tuned: bool) -> dict[str, Any]:
    """Return how the network is trained.

    tuned: it brings weights, which are fine-tuned.
    """
    if tuned:
        optimizer = {"call": "torch.optim.AdamW", "kwargs": {"lr": 5e-5, "weight_decay": 0.05}}
        return {"epochs": 3, "batch_size": 32, "optimizer": optimizer, "flip": True}
    schedule = {"call": "torch.optim.lr_scheduler.OneCycleLR", "kwargs": {"max_lr": 0.01}}
    optimizer = {"call": "torch.optim.Adam", "kwargs": {"lr": 0.001}}
    crop = {"crop": side // 8} if side >= 32 else {}
    return {
        "epochs": 10,
        "batch_size": 128,
        "optimizer": optimizer,
        "schedule": schedule,
        "schedule_each": "step",
    } | crop


def _kind_of_cnn(made: Any, word: str) -> str:
    """Return whether a network that is no transformer has convolutions, and ReLUs as modules."""
    from torch import nn

    if made is None:  # not built here: most of these have ReLUs
        return "cnn" if word == "huggingface" else "cnn_without_relu"
    if not any(isinstance(each, nn.Conv2d) for each in made.modules()):
        return "mlp"
    return "cnn" if any(isinstance(each, nn.ReLU) for each in made.modules()) else "cnn_without_relu"


def _token(made: Any, side: int) -> int:
    """Return the side of a patch of a transformer; 16 if the network does not say it."""
    sizes = [each.patch_size for each in made.modules() if hasattr(each, "patch_size")] if made is not None else []
    size = sizes[0] if sizes else 16
    size = size[0] if isinstance(size, tuple | list) else size
    return int(size) if side % int(size) == 0 else 16


def _head(out: Path, called: str) -> Iterator[str]:
    yield "# yaml-language-server: $schema=study.schema.json"
    yield from _comment(f"A study of efface, written by: {called}", "")
    yield "#"
    yield f"#   efface check {out}    tries everything on two images, and estimates the time; keeps nothing"
    yield f"#   efface all {out}      trains, makes the maps, measures, and writes the page"
    yield "#   efface schema > study.schema.json    lets an editor complete and check the keys (first line)"
    yield "#"
    yield from _comment(
        "efface list and efface show say what else there is. Words key=value override a key: repeats=1.", ""
    )


def _lines(tree: Mapping[str, Any], notes: Mapping[str, str], meanings: Mapping[str, str]) -> Iterator[str]:
    """Yield the keys of a study, each after a line that says what it is."""
    for key, value in tree.items():
        yield ""
        yield from _comment(f"{key}: {meanings[key]}", "")
        if key == "attribution_methods":
            yield "attribution_methods:"
            yield from _methods(value)
        elif key == "metrics":
            yield "metrics:"
            yield from _metrics()
        else:
            yield from (_noted(line, notes) for line in _dumped({key: value}))


def _methods(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    from efface.study.recommended import CONTROLS

    for entry in entries:
        text = docstrings.docstring(words.index("method")[entry["method"]])
        says = CONTROLS.get(entry["name"]) or docstrings.first_sentence(text).removesuffix(".")
        yield from _comment(says, "  ")
        yield f"  - {_flow(entry)}"


def _metrics() -> Iterator[str]:
    from efface.study.recommended import COSTLY_METRICS, METRICS

    for metrics, mark in ((METRICS, "  - "), (COSTLY_METRICS, "  # - ")):
        for name, reason in metrics.items():
            yield f"{f'{mark}{name}':<18}{_LATER}{reason.split('. ')[0].removesuffix('.')}"


def _noted(line: str, notes: Mapping[str, str]) -> str:
    """Return a line with the comment of its setting behind it."""
    name = line.strip().split(":")[0]
    note = notes.get(name, "") if line.startswith("    ") else ""
    return f"{line}{_LATER}{note}" if note else line


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_long_words=False
    )


def _dumped(tree: Any) -> list[str]:
    """Return YAML in lines: sections below one another, lists of plain values in one line."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def listed(dumper: Any, values: list[Any]) -> Any:
        return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)

    Dumper.add_representer(list, listed)
    return str(yaml.dump(tree, Dumper=Dumper, sort_keys=False, default_flow_style=False, width=1000)).splitlines()


def _flow(entry: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(entry), sort_keys=False, default_flow_style=True, width=1000)).strip()
