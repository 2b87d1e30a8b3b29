"""The golden files: outputs in a compact form, how they are written and compared."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from efface.store.keys import AREAS, version
from numerics.table import GROUPS, declared, kind, output

FOLDER = Path(__file__).parent.parent / "golden"
TOLERANCE = 1e-4
"""How far a number may be from the golden one, of the largest magnitude in its array."""
MOST_FLOATS, MOST_EXACT = 24, 24
"""How many numbers of an array are kept; exact ones beyond that are kept as a digest."""


def summary(value: Any) -> dict[str, Any]:
    """An array or a number in the form that is kept.

    Of a large array of floats it is evenly spaced elements, the mean, the largest magnitude, how many are no numbers,
    and a mix: a sum with weights that differ from place to place, which tells two orders of the same numbers apart.
    """
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.dtype.kind in "US":
        return {"text": str(array)}
    told = {"shape": list(array.shape), "type": str(array.dtype)}
    flat = array.reshape(-1)
    if array.dtype.kind in "biu":
        if flat.size > MOST_EXACT:
            return told | {"sha256": hashlib.sha256(np.ascontiguousarray(flat).tobytes()).hexdigest()[:16]}
        return told | {"values": flat.astype(np.int64).tolist()}
    flat = flat.astype(np.float64)
    places = np.linspace(0, flat.size - 1, min(flat.size, MOST_FLOATS)).round().astype(int)
    told["values"] = [_number(each) for each in flat[places]]
    if flat.size > MOST_FLOATS:
        finite = np.where(np.isfinite(flat), flat, 0)
        mix = (finite * np.cos(1.0 + np.arange(flat.size))).sum() / math.sqrt(flat.size)
        told |= {"mean": _number(finite.mean()), "mix": _number(mix)}
        told |= {"largest": _number(np.abs(finite).max()), "not_finite": int((~np.isfinite(flat)).sum())}
    return told


def _number(value: float) -> float | str:
    return float(f"{value:.6g}") if math.isfinite(value) else str(float(value))


def compare(names: Iterable[str]) -> list[str]:
    """What is wrong with these names: a message for each that gives other numbers, or none at all."""
    return [told for name in names if (told := _wrong(name))]


def part_differs(name: str, made: Mapping[str, Any]) -> list[str]:
    """What differs between some arrays of an output and the same ones of its golden file."""
    kept = _read(kind(name))[name]["outputs"]
    return _differences({each: kept[each] for each in made}, {each: summary(value) for each, value in made.items()})


def _wrong(name: str) -> str:
    kept, what = _read(kind(name)).get(name), declared(name)
    again = f"write the golden file again: python -m numerics --write {name} (in tests/)"
    if kept is None:
        return f"{name} has no golden output: write it: python -m numerics --write {name} (in tests/)"
    try:
        made = {each: summary(value) for each, value in output(name).items()}
    except Exception as error:  # noqa: BLE001  a change that breaks the computation is noticed as well
        return f"{name} fails: {type(error).__name__}: {error}"
    if found := _differences(kept["outputs"], made):
        return (
            f"{name} gives other numbers ({'; '.join(found)}): raise NUMERICS['{what}'] in src/efface/store/keys.py, "
            f"or that of an area that it passes through, and {again}"
        )
    if kept["version"] != version(what):
        return f"{name} is kept with version {kept['version']} of {what}, which is {version(what)} now: {again}"
    return ""


def versions() -> dict[str, int]:
    """The version that each golden output is of."""
    return {name: entry["version"] for each in GROUPS for name, entry in _read(each).items()}


def write(names: Iterable[str]) -> list[str]:
    """Compute these outputs and put them into the golden files; other names stay as they are.

    Numbers that moved are refused, in a sentence of the answer, unless their version was raised or that of an area.
    """
    refused = []
    raised = {declared(name) for name, number in versions().items() if version(declared(name)) > number}
    for name in names:
        held = _read(kind(name))
        made = {each: summary(value) for each, value in output(name).items()}
        moved = name in held and _differences(held[name]["outputs"], made)
        if moved and not raised & {declared(name), *AREAS}:
            refused.append(
                f"{name} gives other numbers under its old version, so it is not written: raise "
                f"NUMERICS['{declared(name)}'] in src/efface/store/keys.py first"
            )
            continue
        held[name] = {"version": version(declared(name)), "outputs": made}
        _write(kind(name), held)
    return refused


def _write(which: str, held: Mapping[str, Any]) -> None:
    lines = [f"{json.dumps(name)}: {_entry(entry)}" for name, entry in sorted(held.items())]
    (FOLDER / f"{which}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _entry(entry: Mapping[str, Any]) -> str:
    """One line for each array, so that a change is a line in a comparison of two versions."""
    short = (f" {json.dumps(name)}: {_dense(each)}" for name, each in entry["outputs"].items())
    return f'{{"version": {entry["version"]}, "outputs": {{\n' + ",\n".join(short) + "\n}}"


def _dense(each: Mapping[str, Any]) -> str:
    return json.dumps(each, separators=(",", ":"))


def _read(which: str) -> dict[str, Any]:
    path = FOLDER / f"{which}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _differences(kept: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    found = [f"{name}: {'gone' if name in kept else 'new'}" for name in sorted({*kept} ^ {*made})]
    for name in kept.keys() & made.keys():
        one, other = kept[name], made[name]
        floats = "float" in one.get("type", "") and "float" in other.get("type", "")
        if floats and one["shape"] == other["shape"] and one["type"] == other["type"]:
            found += [f"{name}: {each}" for each in _far(one, other)]
        elif one != other:
            found.append(f"{name}: {_shown(other)}, expected {_shown(one)}")
    return found


def _far(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which kept numbers of two arrays of floats lie too far apart."""
    expected, numbers = ([float(each) for each in found["values"]] for found in (one, other))
    size = max([abs(each) for each in expected if math.isfinite(each)] + [abs(one.get("largest", 0.0))], default=0.0)
    pairs = [(f"[{place}]", *pair) for place, pair in enumerate(zip(expected, numbers, strict=True))]
    pairs += [(each, float(one[each]), float(other[each])) for each in ("mean", "mix", "largest") if each in one]
    found = [f"{place} {here:g}, expected {there:g}" for place, there, here in pairs if not _near(there, here, size)]
    if one.get("not_finite") != other.get("not_finite"):
        found.append(f"{other.get('not_finite')} numbers are not finite, expected {one.get('not_finite')}")
    return found[:3]


def _near(one: float, other: float, size: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):
        return str(one) == str(other)
    return abs(one - other) <= TOLERANCE * size


def _shown(found: Mapping[str, Any]) -> str:
    return _dense(found)[:120]
