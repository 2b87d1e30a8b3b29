"""`efface list KIND` and `efface show NAME`: which plug-ins there are, and what is known of one."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from efface.commands.catalogue import KINDS, SHOWN_AS, described, in_a_study, listed, paths_of
from efface.commands.running import Progress, add_current_folder, answered
from efface.commands.stages import as_json
from efface.commands.values import Override, PlugInName

WIDEST = 120
_DIRECTIONS = {
    "maps": {"higher": "a truthful map raises it", "lower": "a truthful map lowers it", "none": "it only describes"},
    "network": {"higher": "higher is better", "lower": "lower is better", "none": "it only describes"},
}


@click.command("list", params=[as_json()])
@click.argument("kind", type=click.Choice([*KINDS]), metavar="KIND", help=f"What to list: {', '.join(KINDS)}.")
def list_plug_ins(kind: str, as_json: bool) -> int:  # noqa: FBT001  click passes it by its name
    """List the plug-ins of a kind, each with one sentence."""
    found = listed(kind)
    if as_json:
        from efface.commands.document import answer

        return answer("list", {"kind": kind, "names": found})
    click.echo(_table([(each["name"], each["says"]) for each in found]))
    return 0


@click.command("show", params=[as_json()])
@click.argument("name", type=PlugInName(), help="A short word, or the dotted path of your own function.")
@click.argument("overrides", nargs=-1, type=Override(), metavar="[key=value]...", help="Settings to try it with.")
def show_plug_in(name: str, overrides: Sequence[str], as_json: bool) -> int:  # noqa: FBT001
    """Show what is known of a plug-in: source, settings, cost, and the networks that it works on.

    A method is tried on four small networks with fresh weights, and its passes are counted. This takes some seconds.
    """
    add_current_folder()

    def work(progress: Progress) -> Sequence[str]:
        kwargs = _settings(overrides)
        found = [described(kind, path, kwargs) for kind, path in paths_of(name)]
        if progress.facts is not None:
            progress.facts["plug_ins"] = found
        else:
            click.echo("\n\n".join(_shown(each, kwargs) for each in found))
        return ()

    return answered(work, "show", as_json=as_json)


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Return settings from the words `key=value`. ValueError: a word has another form."""
    from pathlib import Path

    from efface.study.yaml_file import override

    found: dict[str, Any] = {}
    for text in overrides:
        override(found, text, Path("show"))
    return found


def _shown(found: Mapping[str, Any], kwargs: Mapping[str, Any]) -> str:
    """Return what is known of a plug-in as text."""
    title = f"{found['name']} ({SHOWN_AS.get(found['kind'], 'function').removesuffix('s')})"
    lines = [("what", found["says"]), *((word, found[word]) for word in ("formula", "source", "differs"))]
    lines += [*_of_method(found), *_of_metric(found)]
    lines += [(name.replace("_", " "), _fact(name, value)) for name, value in found["facts"].items()]
    if found["kind"]:
        lines += [("in a study", in_a_study(found, kwargs))]
    lines += [("path", found["path"])]
    parts = [title, _table([(head, text) for head, text in lines if text], 2)]
    if found["settings"]:
        settings = [(_setting(each), each["means"]) for each in found["settings"]]
        parts += ["  settings", _table(settings, 4)]
    return "\n".join(parts)


def _fact(name: str, value: Any) -> str:
    if name == "cost":
        return f"{value:g} forward passes for an image, which it adds to a training step"
    return "yes" if value else "no"


def _of_method(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    if found["kind"] != "method":
        return []
    cost = found["cost"]
    told = cost.get("unknown") or (
        f"forward passes for an image: {cost['forward']}; backward passes: {cost['backward']}"
        + (f"; counted on {cost['on']}" if "on" in cost else "")
    )
    lines = [("cost", told)]
    lines += [("maps", ", ".join(found["outputs"]))] if found["outputs"] else []
    if found["control"]:
        return [*lines, ("networks", "all: it is a control, whose maps do not depend on the network")]
    return [*lines, *((f"on {name}", f"no: {why}" if why else "yes") for name, why in found["networks"].items())]


def _of_metric(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    if found["kind"] != "metric":
        return []
    cost, points = found["cost"], found["points"]
    one = f"one number for each {found['sample'].removesuffix('s')}"
    spelt = ", ".join(f"{x:g}" for x in points[:6]) + (", ..." if len(points) > 6 else "")
    trainings = f"{cost['trainings']} trainings for each repeat" if cost["trainings"] else ""
    plural = "" if cost["passes"] == 1 else "es"
    passes = f"{cost['passes']:,g} forward pass{plural} for an image of 3 x 32 x 32" if cost["passes"] else ""
    return [
        ("values", "; ".join(f"{name}: {_DIRECTIONS[found['subject']][way]}" for name, way in found["values"].items())),
        ("points", f"{found['axis']}: {spelt}; {found['summary']} of the curve" if found["axis"] else one),
        ("measures", "the network, without maps" if found["subject"] == "network" else "the maps of each method"),
        ("cost", " and ".join(each for each in (trainings, passes) if each) or "no passes"),
        ("needs", ", ".join(found["needs"])),
        ("reads", ", ".join(found["reads"])),
        ("its paper fixes", json.dumps(found["fixed"]) if found["fixed"] else ""),
        ("read with", ", ".join(found["read_with"])),
    ]


def _setting(each: Mapping[str, Any]) -> str:
    if each["needed"]:
        return f"{each['name']} (needed)"
    value = each["default"]
    written = value if isinstance(value, str) else json.dumps(value)
    return each["name"] if each["name"].startswith("**") else f"{each['name']}: {written}"


def _table(rows: Sequence[tuple[str, str]], indent: int = 0) -> str:
    """Return two columns of text, as wide as the terminal, at most `WIDEST`."""
    width = min(WIDEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WIDEST
    formatter = click.HelpFormatter(width=width)
    formatter.current_indent = indent
    formatter.write_dl(list(rows), col_max=34)
    return formatter.getvalue().rstrip("\n")
