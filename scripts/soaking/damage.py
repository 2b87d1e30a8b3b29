"""One file of a run is damaged. The next run finds the same numbers, or names the file in one refusal."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from soaking.runs import METHODS, PATTERN, Command, Ended, different, efface, fresh, living, numbers, orphans, strike
from soaking.runs import write_study as write
from soaking.table import Setting, Table

FILES = {
    "network": "models/network-*.pt",
    "checkpoint": "partial/*.pt",
    "logits": "models/logits-*.npz",
    "scores": "scores/*.npz",
    "maps": "maps/*.h5",
    "learnt": "learnt/*.h5",
    "results": "results.jsonl",
    "run's study": "study.yml",
    "report": "report/*.*",
    "report's key": "report/.made-from",
}
MORE = "fractions=[0.3,0.5,0.7]"
"""One more fraction: it reads the maps, the logits and the network again."""

Way = Callable[[Path, random.Random], str | None]


def damage(setting: Setting) -> Table:
    """So many pairs of a file and a way to damage it, in a shuffled order; by default each once."""
    table = Table("damage")
    pairs = [(kind, way) for kind in FILES for way in WAYS] + [("results", way) for way in LINES]
    setting.draw.shuffle(pairs)
    usual, reference = made(setting.out)
    ways = WAYS | LINES
    for number in range(len(pairs) if setting.count is None else setting.count):
        kind, way = pairs[number % len(pairs)]
        folder = setting.out / "run-damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(setting.out / ("stopped" if kind == "checkpoint" else "undisturbed"), folder)
        found = [each for each in sorted((folder / "run").glob(FILES[kind])) if each.is_file()]
        if not found:
            table.add(kind, "LOST", f"a run has no {FILES[kind]}")
            continue
        path = setting.draw.choice(found)
        note = ways[way](path, setting.draw)
        if note == "no such way":
            continue
        paths = [path, path.with_name(note)] if way == "an exchange" and note else [path]
        outcome, said, seconds = went_on(folder, paths, reference, usual + setting.ceiling)
        table.add(kind, outcome, f"{way} of {path.name}{f' with {note}' if note else ''}: {said}", seconds)
    return table


def made(out: Path) -> tuple[float, dict[str, dict[str, str]]]:
    """Make the runs that are damaged, and another with the seed 1; return seconds and the numbers of both commands."""
    methods = [*METHODS, PATTERN]
    reference, usual = {}, 0.0
    for name, seed in (("undisturbed", 0), ("other", 1)):
        folder = fresh(out / name)
        write(folder, attribution_methods=methods, seed=seed)
        ended = efface(folder, "all", "study.yml", seconds=600)
        usual = max(usual, ended.seconds)
        if ended.code != 0:
            raise RuntimeError(f"an undisturbed run fails: {ended.last}")
    reference["all"] = numbers(out / "undisturbed" / "run")
    more = out / "more"
    shutil.rmtree(more, ignore_errors=True)
    shutil.copytree(out / "undisturbed", more)
    efface(more, "all", "study.yml", MORE, seconds=600)
    reference["more"] = numbers(more / "run")
    stop_in_training(fresh(out / "stopped"), methods)
    return usual, reference


def stop_in_training(folder: Path, methods: list[dict[str, object]]) -> None:
    """Leave a run that was killed after the first epoch of a training, with a checkpoint."""
    write(folder, attribution_methods=methods)
    for _ in range(20):
        command = Command(folder, "all", "study.yml")
        while command.process.exitcode is None and not [*folder.glob("run/partial/*.pt")]:
            time.sleep(0.001)
        strike(living(command.pid), signal.SIGKILL)
        command.wait(60)
        orphans(command.pid)
        if [*folder.glob("run/partial/*.pt")]:
            return
        shutil.rmtree(folder / "run", ignore_errors=True)
    raise RuntimeError("no run could be stopped after an epoch")


def went_on(  # noqa: PLR0911  one line for each outcome
    folder: Path, paths: list[Path], reference: dict[str, dict[str, str]], limit: float
) -> tuple[str, str, float]:
    """What came of `all`, of `all` with one more fraction, and of `status` and `compare`. paths: damaged files."""
    longest = 0.0
    healed = "equal"
    for name, words in (("all", ["all", "study.yml"]), ("more", ["all", "study.yml", MORE])):
        ended = efface(folder, *words, seconds=limit)
        longest = max(longest, ended.seconds)
        if bad := spoken_badly(ended):
            return bad, f"{name}: {ended.last}", longest
        if ended.code != 0:
            if not told(paths, ended.errors):
                return "unclear", f"{name}: {ended.last}", longest
            return after_removal(folder, paths, reference["more"], limit)
        wrong = different_numbers(folder, reference[name])
        if wrong:
            return "SILENT", f"{name}: {len(wrong)} differ: {wrong[:4]}", longest
        if told(paths, ended.errors):
            healed = "named, equal"
    for words in (["status", "study.yml"], ["compare", "run", "--out", "compared"]):
        ended = efface(folder, *words, seconds=limit)
        if bad := spoken_badly(ended):
            return bad, f"{words[0]}: {ended.last}", longest
        if ended.code != 0 and not told(paths, ended.errors):
            return "unclear", f"{words[0]}: {ended.last}", longest
    return healed, "", longest


def told(paths: list[Path], errors: str) -> list[Path]:
    """The files that the errors name."""
    return [each for each in paths if each.name in errors or each.stem in errors]


def after_removal(folder: Path, paths: list[Path], expected: dict[str, str], limit: float) -> tuple[str, str, float]:
    """Whether the run goes on once each file is removed, as the errors ask for, one after the other."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        ended = efface(folder, "all", "study.yml", MORE, seconds=limit)
        if ended.code == 0 or not told(paths, ended.errors):
            break
    wrong = different_numbers(folder, expected) if ended.code == 0 else ["an exit"]
    if wrong:
        return "stuck", f"after removal, exit {ended.code}: {ended.last}, {len(wrong)} differ", ended.seconds
    return "refused, equal without it", "", ended.seconds


def spoken_badly(ended: Ended) -> str | None:
    return "hang" if ended.code is None else "traceback" if ended.traceback else None


def different_numbers(folder: Path, expected: dict[str, str]) -> list[str]:
    try:
        return different(numbers(folder / "run"), expected)
    except (OSError, ValueError) as error:
        return [f"unreadable: {error}"]


def _flip(path: Path, draw: random.Random, count: int = 8) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(count if data else 0):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def _zeros(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = draw.randrange(max(1, len(data) - 256))
    data[start : start + 256] = bytes(len(data[start : start + 256]))
    path.write_bytes(data)


def _of_another_run(path: Path, draw: random.Random) -> str:
    """Replace the file by one of its kind of the run with seed 1."""
    run = path.parents[1] if path.parent.name != "run" else path.parent
    others = run.parents[1] / "other" / "run" / path.relative_to(run).parent
    found = sorted(each for each in others.iterdir() if each.suffix == path.suffix and each.is_file())
    found = [each for each in found if each.name.split("-")[0] == path.name.split("-")[0]] or found
    if not found:
        return "no such way"
    other = next((each for each in found if each.name == path.name), None) or draw.choice(found)
    shutil.copyfile(other, path)
    return f"{other.name} of another run"


def _swap(path: Path, draw: random.Random) -> str:
    """Exchange the file with another of its folder."""
    others = [each for each in sorted(path.parent.glob("*" + path.suffix)) if each != path and each.is_file()]
    if not others:
        return "no such way"
    other, spare = draw.choice(others), path.with_name("spare")
    path.rename(spare)
    other.rename(path)
    spare.rename(other)
    return other.name


def _longer(path: Path, _: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b"\0garbage\n")


def _garbage(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(500))


def _text(path: Path, _: random.Random) -> None:
    path.write_bytes(b"Not found\n" * 20)


def _folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


WAYS: dict[str, Way] = {
    "a flipped bit": lambda path, draw: _flip(path, draw, 1),
    "8 flipped bits": _flip,
    "256 zeros": _zeros,
    "a cut to the half": lambda path, _: os.truncate(path, path.stat().st_size // 2),
    "a cut of one byte": lambda path, _: os.truncate(path, max(0, path.stat().st_size - 1)),
    "an emptying": lambda path, _: os.truncate(path, 0),
    "more bytes at the end": _longer,
    "garbage": _garbage,
    "text": _text,
    "a removal": lambda path, _: path.unlink(),
    "a folder in place": _folder,
    "an exchange": _swap,
    "a replacement": _of_another_run,
}


def _edited(change: Callable[[list[bytes], int], list[bytes]]) -> Way:
    """A way that changes lines of results at the place of a probe."""

    def do(path: Path, draw: random.Random) -> None:
        rows = path.read_bytes().split(b"\n")[:-1]
        places = [at for at, row in enumerate(rows) if b'"n"' in row]
        path.write_bytes(b"\n".join(change(rows, draw.choice(places))) + b"\n")

    return do


def _field(**fields: object) -> Way:
    def change(rows: list[bytes], at: int) -> list[bytes]:
        rows[at] = json.dumps(json.loads(rows[at]) | fields).encode()
        return rows

    return _edited(change)


def _exchanged_keys(rows: list[bytes], at: int) -> list[bytes]:
    one, two = json.loads(rows[at]), json.loads(rows[-1])
    one["key"], two["key"] = two["key"], one["key"]
    rows[at], rows[-1] = json.dumps(one).encode(), json.dumps(two).encode()
    return rows


LINES: dict[str, Way] = {
    "n is 7": _field(n=7),
    "n is a word": _field(n="seven"),
    "seconds are a word": _field(seconds="long"),
    "a list as key": _field(key=[1]),
    "no key": _field(key=None),
    "no probe": _field(probe=None),
    "another digest": _field(digest="0" * 16),
    "exchanged keys": _edited(_exchanged_keys),
    "a torn line": _edited(lambda rows, at: [*rows[:at], rows[at][:30], *rows[at + 1 :]]),
    "a line twice": _edited(lambda rows, at: [*rows, rows[at]]),
    "a lost line": _edited(lambda rows, at: rows[:at] + rows[at + 1 :]),
    "a line of text": _edited(lambda rows, at: [*rows[:at], b"hello", *rows[at:]]),
    "a line of a number": _edited(lambda rows, at: [*rows[:at], b"17", *rows[at:]]),
    "an empty line": _edited(lambda rows, at: [*rows[:at], b"", *rows[at:]]),
    "a deep line": _edited(lambda rows, _: [*rows, b'{"key": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"]),
    "lines of another system": _edited(lambda rows, _: [row + b"\r" for row in rows]),
}
