"""How the cost of a study grows with its images, methods, fractions, image size and workers.

    python scripts/bench_scaling.py [--axes images methods ...] [--picture FILE] [--quick]

A study of MoRF and LeRF on a ResNet8 without training: 1,000 images of 32 x 32 pixels, four methods, ten fractions.
One of these numbers is changed at a time. Each study is one command, `efface all`, with one thread for each worker. CPU
seconds are of all its processes, and memory is that of the largest one. The fixed cost, that of the same study with
four images, is subtracted before two sizes are compared. Workers are compared by the time on the wall.

Goals: ten times the images take ten times as long within 10 %, in memory that does not grow beyond the data; a study of
images of 128 x 128 pixels stays below 1.5 GB.

--picture writes the figure of docs/performance.md. `--quick` takes few images, and two sizes of each axis. About
a quarter of an hour without it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

BASE = {"images": 1000, "methods": 4, "fractions": 10, "side": 32, "workers": 1}
AXES = {
    "images": (300, 1000, 3000),
    "methods": (2, 4, 8),
    "fractions": (5, 10, 20),
    "side": (16, 32, 64, 128),
    "workers": (1, 2),
}
FEW = 4
TIMES, WITHIN, MEMORY = 10, 0.1, 1.5
MODULE = """
import torch
from efface.models.resnet import resnet8
from efface.base.types import Split


def data(images, side):
    torch.manual_seed(0)
    return {"test": Split(torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8), torch.arange(images) % 10)}


def network():
    torch.manual_seed(1)
    return resnet8(num_classes=10)
"""


class Cost(NamedTuple):
    """Of a command: CPU seconds and seconds on the wall, and the memory of its largest process in GB."""

    cpu: float
    wall: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--picture", type=Path, help="a PNG file")
    parser.add_argument("--quick", action="store_true", help="few images, and two sizes of each axis")
    options = parser.parse_args()
    base = BASE | ({"images": FEW, "fractions": 2, "methods": 2, "side": 16} if options.quick else {})
    found: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "made_up.py").write_text(MODULE)
        cost_of(place, base | {"images": FEW})  # compiles Python's modules
        print("| axis | size | CPU s | s on the wall | GB | beyond the fixed cost, times the first |")
        print("|---|---|---|---|---|---|")
        for axis in options.axes:
            sizes = (AXES[axis][0], 2 * AXES[axis][0]) if options.quick else AXES[axis]
            found[axis] = measured(place, base, axis, sizes)
    if options.picture is not None:
        draw(options.picture, found)


def measured(place: Path, base: dict[str, int], axis: str, sizes: tuple[int, ...]) -> dict[int, float]:
    """Print a line for each size of an axis, and return its cost as a multiple of the first one's."""
    fixed, costs = {}, {}
    for size in sizes:
        study = base | {axis: size}
        costs[size], fixed[size] = cost_of(place, study), cost_of(place, study | {"images": FEW})
    by = {
        size: costs[size].wall if axis == "workers" else max(costs[size].cpu - fixed[size].cpu, 1e-3) for size in sizes
    }
    ratios = {size: by[size] / by[sizes[0]] for size in sizes}
    for size in sizes:
        cpu, wall, memory = costs[size]
        print(f"| {axis} | {size} | {cpu:.1f} | {wall:.1f} | {memory:.2f} | {ratios[size]:.2f} |", flush=True)
    if axis == "images" and TIMES * sizes[0] in ratios:
        ratio = ratios[TIMES * sizes[0]]
        kept = "kept" if abs(ratio / TIMES - 1) <= WITHIN else "MISSED"
        print(f"  {TIMES} times the images: {ratio:.2f} times the time (goal {TIMES} within {WITHIN:.0%}, {kept})")
    if axis == "side" and 128 in costs:
        kept = "kept" if costs[128].memory <= MEMORY else "MISSED"
        print(f"  128 x 128 pixels: {costs[128].memory:.2f} GB (goal {MEMORY} GB, {kept})")
    return ratios


def cost_of(place: Path, sizes: dict[str, int]) -> Cost:
    """Return the cost of a study from nothing to its page."""
    with tempfile.TemporaryDirectory(dir=place) as out:
        (place / "study.yml").write_text(yaml.safe_dump(study_of(sizes) | {"out": f"{out}/run"}))
        program = (
            "import resource, subprocess, sys; "
            "subprocess.run([sys.executable, '-m', 'efface', 'all', 'study.yml'], check=True, capture_output=True); "
            "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
            "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)"
        )
        began = time.monotonic()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", program], check=False, cwd=place, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        cpu, memory = map(float, done.stdout.split())
        return Cost(cpu, time.monotonic() - began, memory)


def study_of(sizes: dict[str, int]) -> dict[str, Any]:
    """Return a study of these sizes. Each method costs nine passes an image."""
    methods = [
        {"name": f"m{i}", "method": "integrated_gradients", "kwargs": {"steps": 8, "baseline": i / 100}}
        for i in range(sizes["methods"])
    ]
    executor = "serial" if sizes["workers"] == 1 else {"call": "processes", "kwargs": {"workers": sizes["workers"]}}
    return {
        "data": {"call": "made_up.data", "kwargs": {"images": sizes["images"], "side": sizes["side"]}},
        "model": "made_up.network",
        "fit": None,
        "attribution_methods": methods,
        "post": ["channel_sum"],
        "metrics": ["morf", "lerf"],
        "fractions": [i / (sizes["fractions"] + 1) for i in range(1, sizes["fractions"] + 1)],
        "executor": executor,
        "threads": 1,
        "device": "cpu",
    }


def draw(path: Path, found: dict[str, dict[int, float]]) -> None:
    """Draw the cost of each axis beside a cost that grows in proportion."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(2.4 * len(found), 2.4), layout="constrained", squeeze=False)
    for panel, (axis, ratios) in zip(panels[0], found.items(), strict=True):
        sizes, first = list(ratios), next(iter(ratios))
        power = {"side": 2, "workers": -1}.get(axis, 1)
        panel.plot(sizes, [(size / first) ** power for size in sizes], "--", color="grey", label="in proportion")
        panel.plot(sizes, list(ratios.values()), "o-", label="measured")
        panel.set(xscale="log", yscale="log", xlabel={"side": "pixels of a side"}.get(axis, axis), xticks=sizes)
        panel.set_xticklabels([str(size) for size in sizes])
        panel.minorticks_off()
    panels[0][0].set_ylabel("cost, times the first")
    panels[0][0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
