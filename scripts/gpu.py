"""What efface gives and how fast it is on a GPU: to be run first on a machine that has one.

    python scripts/gpu.py [--device cuda] [--out runs/gpu] [--minutes 8] [--parts tests study ...] [--quick]

Nothing but Python, efface's own requirements and this repository is needed; efface need not be installed. Captum,
Quantus and pytest are used if they are there. Each part runs in a process of its own and has a time limit. A part that
fails or takes too long has its error in the table, and the others go on. In all it takes 8 minutes at most.

`gpu.json` and `gpu.md` in the folder of --out hold the numbers. --quick takes the smallest size, on any device: its
times mean nothing. docs/how-to/gpu.md says what each part tells.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"tests": 70, "study": 110, "training": 90, "extraction": 50, "morf": 50, "sweep": 60, "memory": 40}
"""Parts in their order, and the seconds of each."""
METHODS, FRACTIONS, REPEATS, EPOCHS, TRAINED = 15, 5, 5, 50, 43_750
"""The sweep that is extrapolated; its epochs and training images are those of configs/cifar10_resnet8.yml."""
MARK = "row: "

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a part is asked for. quick: the smallest size."""

    device: str
    quick: bool

    def of(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="what is measured, such as cuda or cuda:1; cpu to try it")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=8.0, help="at most, in all")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS), help="which parts run")
    parser.add_argument("--quick", action="store_true", help="the smallest size of each part")
    parser.add_argument("--one", choices=LIMITS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    asked = Asked(arguments.device, arguments.quick)
    if arguments.one:
        as_in_a_run()
        for found in PARTS[arguments.one](asked):
            print(MARK + json.dumps(found), flush=True)
        return
    end, rows = time.monotonic() + 60 * arguments.minutes, list[Row]()
    for part in arguments.parts:
        started = time.monotonic()
        rows += in_own_process(part, sys.argv[1:], min(LIMITS[part], end - started))
        write(arguments.out, asked, rows)
        print(f"{part}: {time.monotonic() - started:.0f} s", flush=True)
    print((arguments.out / "gpu.md").read_text())


def row(what: str, value: float | str | None, unit: str = "", note: str = "") -> Row:
    """A line of the table; value None: left out, and the note says why."""
    return {"what": what, "value": value, "unit": unit, "note": note}


def in_own_process(part: str, words: list[str], seconds: float) -> list[Row]:
    """The rows of a part, or its error."""
    if seconds < 1:
        return [row("left out", None, note="no time is left") | {"part": part}]
    command = [sys.executable, str(ROOT / "scripts" / "gpu.py"), *words, "--one", part]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=surroundings(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=seconds)
            reason = ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            reason = f"not done after {seconds:.0f} s"
        errors.seek(0)
        told = errors.read().strip().splitlines()
    found = [json.loads(line.removeprefix(MARK)) for line in said.splitlines() if line.startswith(MARK)]
    if process.returncode and not reason:
        reason = told[-1][:300] if told else f"ended with status {process.returncode}"
    rows = [*found, row("error", None, note=reason)] if reason else found
    return [{"part": part} | each for each in rows]


def surroundings() -> dict[str, str]:
    """The environment, with the package on the path."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path}


def write(out: Path, asked: Asked, rows: list[Row]) -> None:
    """Write both files."""
    out.mkdir(parents=True, exist_ok=True)
    facts = machine(asked)
    (out / "gpu.json").write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()), "", "| part | what | value | note |"]
    lines += [
        "|---|---|---|---|",
        *(f"| {each['part']} | {each['what']} | {shown(each)} | {each['note']} |" for each in rows),
    ]
    (out / "gpu.md").write_text("\n".join(lines) + "\n")


def shown(found: Row) -> str:
    value = found["value"]
    if value is None:
        return "-"
    return (
        f"{value:.4g} {found['unit']}".strip() if isinstance(value, int | float) else f"{value} {found['unit']}".strip()
    )


@functools.cache
def machine(asked: Asked) -> dict[str, str]:
    """What the numbers were measured on."""
    import torch

    is_cuda = torch.device(asked.device).type == "cuda"
    there = is_cuda and torch.cuda.is_available()
    name = torch.cuda.get_device_name(asked.device) if there else "none" if is_cuda else platform.machine()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{asked.device} ({name})",
        "size": "quick" if asked.quick else "whole",
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "Python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
    }


# Help of the parts


def is_there(package: str) -> str:
    """The version of a package; "" if it is not installed."""
    return importlib.metadata.version(package) if importlib.util.find_spec(package) else ""


def seconds_of(work: Callable[[], object], device: str, *, rounds: int = 3) -> float:
    """The fastest of several calls, after one that is not counted; the device is waited for."""
    import torch

    found = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return min(found[1:])


def noise(count: int, size: int = 32) -> Any:
    """Images of noise with classes in turn."""
    import torch

    from efface.base.types import Split

    images = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0))
    return Split(images.byte(), torch.arange(count) % 10)


def network(device: str, build: str = "resnet20") -> Any:
    """A network with weights of a fixed seed, in evaluation mode."""
    import torch

    from efface.models import resnet

    torch.manual_seed(0)
    return getattr(resnet, build)(num_classes=10).to(device).eval()


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Collect what is printed."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        yield said


def as_in_a_run() -> None:
    """Set torch as every process of a run does: full fp32 and reproducible bits."""
    import torch

    from efface.execute.attempt import set_torch_defaults

    set_torch_defaults(torch.get_num_threads())


# The parts


def tests(_: Asked) -> Iterator[Row]:
    """The tests that need a GPU."""
    if not is_there("pytest"):
        yield row("left out", None, note="pytest is not installed")
        return
    files = sorted(str(each) for each in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in each.read_text())
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "--tb=line", *files]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1].strip("= ")
    outcome = "fail" if done.returncode else "pass" if " passed" in last else "none ran"
    yield row("tests marked gpu", outcome, note=last[:200])


def study(asked: Asked) -> Iterator[Row]:
    """One study on the device and on the CPU."""
    import pandas as pd
    import yaml

    from efface.__main__ import main as efface

    names = ["random", "gradient"] if asked.quick else ["random", "gradient", "smooth_grad", "true_mask"]
    tree = {
        "data": {"call": "patches", "kwargs": {"n_train": asked.of(600, 32), "n_test": asked.of(200, 16), "size": 16}},
        "model": {"call": "resnet8", "kwargs": {"num_classes": 4}},
        "fit": {"epochs": asked.of(3, 1), "batch_size": 32},
        "attribution_methods": [{"name": each, "method": each} for each in names],
        "post": ["absolute", "channel_sum"],
        "metrics": ["morf", "insertion", "roar"],
        "fractions": [0.5],
        "repeats": 3,
        "executor": "serial",
    }
    tables, taken = {}, {}
    for where in ("cpu", asked.device):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "study.yml"
            path.write_text(yaml.safe_dump(tree | {"out": str(Path(folder) / "run"), "device": where}))
            started = time.perf_counter()
            with quiet(), contextlib.redirect_stderr(io.StringIO()) as said:
                status = efface(["all", str(path)])
            if status:
                raise RuntimeError(f"the study on {where} fails: {said.getvalue().strip().splitlines()[-1]}")
            taken[where] = time.perf_counter() - started
            tables[where] = pd.read_csv(Path(folder) / "run" / "report" / "verdicts.csv").set_index(
                ["metric", "method"]
            )
    for where, seconds in taken.items():
        yield row(f"study on {where}", seconds, "s")
    ours, other = tables[asked.device], tables["cpu"]
    for metric in other.index.unique("metric"):
        apart = (ours.loc[metric].value - other.loc[metric].value).abs().max()
        yield row(f"{metric}: largest difference", float(apart), "", "of a method's number, GPU and CPU")
    differing = [" of ".join(each[::-1]) for each in other.index if ours.loc[each].verdict != other.loc[each].verdict]
    agreeing = f"{len(other) - len(differing)} of {len(other)}"
    yield row("verdicts that agree", agreeing, "", "; ".join(differing) if differing else "all")


TRAININGS: dict[str, dict[str, Any]] = {
    "fp32, TF32 off": {},
    "fp32, TF32": {"tf32": True},
    "bf16": {"precision": "bf16", "channels_last": True},
}
OPTION = "cuda_graphs"


def trained_rate(asked: Asked, options: dict[str, Any], gate: Any = None) -> float:
    """Images a second of one training; `gate` lets several start their second epoch together."""
    import torch

    from efface.erase.batches import resident
    from efface.training.loop import TrainingRows, TrainingSettings, train

    as_in_a_run()
    options = dict(options)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = options.pop("tf32", False)
    data = noise(asked.of(20_000, 64))
    images, times = data.images.to(asked.device), list[float]()

    def epoch_done(_: float) -> None:
        if torch.device(asked.device).type == "cuda":
            torch.cuda.synchronize(asked.device)
        if gate is not None and not times:
            gate.wait()
        times.append(time.perf_counter())

    train(
        functools.partial(network, "cpu", "resnet8"),
        resident(len(data), lambda rows: (images[rows.to(images.device)], None), lambda shown, *_: shown),
        TrainingRows(torch.arange(len(data))),
        data.targets,
        TrainingSettings(epochs=3, batch_size=asked.of(256, 32), **options),
        seed=0,
        device=torch.device(asked.device),
        advance=epoch_done,
    )
    return 2 * len(data) / (times[-1] - times[0])


GATES: list[Any] = []
"""In a process of `several_rate`: where the trainings wait for each other."""


def keep_gate(gate: Any) -> None:
    GATES.append(gate)


def rate_beside(asked: Asked, options: dict[str, Any]) -> float:
    return trained_rate(asked, options, GATES[0])


def several_rate(asked: Asked, options: dict[str, Any], count: int) -> float:
    """Images a second of several trainings side by side, all together."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(count, timeout=LIMITS["training"] / 2)
    with ProcessPoolExecutor(count, context, initializer=keep_gate, initargs=(gate,)) as pool:
        return sum(each.result() for each in [pool.submit(rate_beside, asked, options) for _ in range(count)])


def training(asked: Asked) -> Iterator[Row]:
    """Images a second of trainings, alone and side by side."""
    from efface.training.loop import TrainingSettings

    ways = dict(TRAININGS)
    if OPTION in TrainingSettings.model_fields:
        ways["fp32, CUDA graphs"] = {OPTION: True}
    for name, options in ways.items():
        yield row(f"{name}: one training", trained_rate(asked, options), "images/s", "ResNet8, 32 x 32")
    for count in (2,) if asked.quick else (2, 4):
        rate = several_rate(asked, {}, count)
        yield row(f"fp32, TF32 off: {count} side by side", rate, "images/s", "all together")
    if OPTION not in TrainingSettings.model_fields:
        yield row("CUDA graphs", None, note="left out: the training has no such option")


def extraction(asked: Asked) -> Iterator[Row]:
    """Integrated gradients beside Captum's and beside bare passes."""
    import torch

    from efface.methods.path import integrated_gradients

    count, steps, size = asked.of(256, 2), asked.of(50, 4), 256
    data, net = noise(count), network(asked.device)
    images, targets = data.images.to(asked.device).float() / 255, data.targets.to(asked.device)

    def passes() -> None:
        left = count * steps
        while left:
            some = images[torch.arange(min(size, left), device=images.device) % count].requires_grad_()
            torch.autograd.grad(net(some)[:, 0].sum(), some)
            left -= len(some)

    def captum() -> None:
        from captum.attr import IntegratedGradients

        given = {"n_steps": steps, "internal_batch_size": max(size, count)}
        IntegratedGradients(net).attribute(images, target=targets, **given)

    for parameter in net.parameters():
        parameter.requires_grad_(False)
    bare = seconds_of(passes, asked.device)
    ours = seconds_of(lambda: integrated_gradients(net, images, targets, steps=steps, max_batch=size), asked.device)
    yield row("integrated gradients", count / ours, "maps/s", f"{steps} passes each, ResNet20, 32 x 32")
    yield row("share of bare passes", bare / ours, "", "1: nothing but forward and backward passes")
    if is_there("captum"):
        theirs = seconds_of(captum, asked.device)
        yield row("Captum over efface", theirs / ours, "times", f"Captum {is_there('captum')}")
    else:
        yield row("Captum", None, note="left out: not installed")


def case_of(asked: Asked, folder: Path, count: int) -> Any:
    """A case as the measure stage makes it, with maps of noise."""
    import torch

    from efface.metrics.probes import Case, image_mean
    from efface.store.maps import MapStore, MapWriter

    data = noise(count)
    maps, writer = {}, None
    for split in ("train", "test"):
        path = folder / f"{split}.h5"
        drawn = torch.randn(count, 32, 32, generator=torch.Generator().manual_seed(1))
        writer = MapWriter(path, {"from": "noise"}, data.targets, drawn[0])
        writer.write(0, drawn)
        writer.close()
        maps[split] = MapStore(path, {"from": "noise"}, count)
    placed = replace(data, images=data.images.to(asked.device))
    return Case(
        build=functools.partial(network, "cpu", "resnet8"),
        given_network=network(asked.device),
        data={"train": placed, "test": placed},
        target_classes=data.targets,
        maps=maps,
        mean=image_mean(data),
        given_training=None,
        seed=0,
        max_batch=256,
        device=torch.device(asked.device),
    )


def morf(asked: Asked) -> Iterator[Row]:
    """MoRF at 24 steps beside Quantus and beside bare passes."""
    import torch

    from efface.metrics import Point
    from efface.metrics.morf import morf as metric
    from efface.plug.call import Call

    count, steps = asked.of(512, 4), 24
    fill = Call(call="efface.impute.constant", kwargs={"value": 128 / 255})
    with tempfile.TemporaryDirectory() as folder:
        case = case_of(asked, Path(folder), count)
        images, net = case.data["test"].images.float() / 255, case.network

        def passes() -> None:
            with torch.inference_mode():
                for _ in range(steps):
                    for part in images.split(256):
                        net(part).cpu()

        def ours() -> None:
            case.cache.clear()
            for step in range(1, steps + 1):
                metric.probes(Point(step / steps, 0, fill, (), "pixel"))["erased"](case)

        bare, taken = seconds_of(passes, asked.device), seconds_of(ours, asked.device)
        yield row("MoRF", count * steps / taken, "erased images/s", f"{steps} steps, ResNet20, 32 x 32")
        yield row("share of bare passes", bare / taken, "", "1: nothing but forward passes")
        if is_there("quantus"):
            theirs = seconds_of(lambda: by_quantus(asked, case, steps), asked.device, rounds=1)
            yield row("Quantus over efface", theirs / taken, "times", f"Quantus {is_there('quantus')}")
        else:
            yield row("Quantus", None, note="left out: not installed")


def by_quantus(asked: Asked, case: Any, steps: int) -> None:
    import warnings

    import quantus
    import torch

    split = case.data["test"]
    maps = case.maps["test"].take(torch.arange(len(split)))[:, None].expand(-1, 3, -1, -1)
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        flipping = quantus.PixelFlipping(
            features_in_step=3 * 32 * 32 // steps, perturb_baseline=128 / 255, normalise=False, disable_warnings=True
        )
        flipping(
            model=case.network,
            x_batch=(split.images.float() / 255).numpy(force=True),
            y_batch=split.targets.numpy(force=True),
            a_batch=maps.numpy(force=True),
            softmax=True,
            device=asked.device,
            batch_size=256,
        )


def sweep(asked: Asked) -> Iterator[Row]:
    """The trainings of a sweep, extrapolated from a few epochs of one."""
    from efface.metrics.probes import Erasure
    from efface.metrics.probes.score import train_on_erased
    from efface.plug.call import Call
    from efface.training.loop import TrainingSettings

    count, epochs = asked.of(10_000, 64), 2
    settings = TrainingSettings(epochs=epochs, batch_size=asked.of(256, 32), crop=4, flip=True)
    erasure = Erasure("most_first", 0.5, Call(call="efface.impute.channel_mean"))
    with tempfile.TemporaryDirectory() as folder:
        case = case_of(asked, Path(folder), count)

        def once() -> None:
            case.cache.clear()
            train_on_erased(case, erasure, settings, seed=0, fingerprint="", epoch_cost=1.0)

        seconds = seconds_of(once, asked.device, rounds=1)
    trainings = METHODS * FRACTIONS * REPEATS
    hours = seconds / (count * epochs) * TRAINED * EPOCHS * trainings / 3600
    told = (
        f"ROAR of {METHODS} methods x {FRACTIONS} fractions x {REPEATS} repeats, {EPOCHS} epochs of {TRAINED:,} images"
    )
    yield row("measured", seconds, "s", f"{epochs} epochs of {count:,} erased images, ResNet8, one at a time")
    yield row("whole sweep, extrapolated", hours, "h", f"{told}, one training at a time")


def memory(asked: Asked) -> Iterator[Row]:
    """Work goes on in smaller batches when memory runs out, and gives the same numbers."""
    import torch

    import efface

    data = noise(asked.of(256, 8))
    net: Any = network("cpu", "resnet8" if asked.quick else "resnet20")
    is_cuda = torch.device(asked.device).type == "cuda"

    def table() -> tuple[Any, str]:
        with quiet() as said:
            result = efface.evaluate(
                net,
                data.images,
                data.targets,
                {"smooth_grad": {"method": "smooth_grad", "kwargs": {"samples": 4}}},
                ["morf", "max_sensitivity"],
                device=asked.device,
                max_batch=256,
                executor="serial",
                fractions=[0.5],
            )
        return result.table.set_index(["metric", "method"])["value"], said.getvalue()

    expected, _ = table()
    if is_cuda:
        peak = torch.cuda.max_memory_allocated(asked.device)
        whole = torch.cuda.get_device_properties(asked.device).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.5 * peak / whole, asked.device)
    else:
        net = narrow(net)
    found, said = table()
    halvings = said.count("out of memory")
    by = "half of the memory of the first run" if is_cuda else "a network that refuses more than four images"
    yield row("times that a batch was halved", halvings, "", by if halvings else f"{by}: nothing was forced")
    yield row("largest difference of a number", float((found - expected).abs().max()), "")


def narrow(net: Any) -> Any:
    """The network, out of memory above four images: a CPU has no other way to force it."""
    import torch

    class Narrow(torch.nn.Sequential):
        def forward(self, images: Any) -> Any:
            if len(images) > 4:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(images)

    return Narrow(net)


PARTS: dict[str, Callable[[Asked], Iterator[Row]]] = {
    "tests": tests,
    "study": study,
    "training": training,
    "extraction": extraction,
    "morf": morf,
    "sweep": sweep,
    "memory": memory,
}


if __name__ == "__main__":
    main()
