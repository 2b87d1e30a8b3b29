"""How fast a given network is scored on erased images, beside Quantus and beside the bare passes.

    python scripts/bench_perturb.py [--images 64] [--rounds 5] [--weights FILE]

MoRF at 24 steps on a ResNet20, on Quantus's own unit: single channel values, all at once replaced by one. Quantus's
PixelFlipping runs in batches of 64; efface as its measure stage does: a probe for each point, through a case with the
maps in their file, ranking included, the ranks of no earlier run kept. Both give the probability of the explained
class, which is compared. `limit` is nothing but as many passes of the same network with BatchNorms folded and tensors
in channels_last, in the fastest batch size. Host work is what is left with a network that answers nothing: ranks,
masks, fills, copies, scores, for each erased image.

Quantus is no dependency; without it its lines are missing: pip install quantus==0.6.0. CPU seconds on one thread,
medians of alternated rounds: only the ratios carry over to other machines. About two minutes on one core.
"""

import argparse
import functools
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench_methods import NORMALISATION, SIZES, folded, made
from bench_methods import Case as Explained
from bench_train import alternate
from torch import Tensor, nn

from efface.base.types import Split
from efface.methods.gradient import gradient
from efface.metrics import Point
from efface.metrics.lerf import lerf
from efface.metrics.morf import morf
from efface.metrics.probes import Case, Perturb
from efface.models.resnet import resnet20
from efface.plug.call import Call
from efface.store.maps import MapStore, MapWriter

try:
    import quantus
except ImportError:
    quantus = None

STEPS, BATCH, FILL = 24, 64, 128 / 255  # a value that 8 bits hold: what is compared is not the rounding
QUANTUS_FLOOR, LIMIT_FLOOR, HOST_CEILING, SAME = 1.35, 0.9, 12, 1e-5
QUANTUS = f"quantus, batches of {BATCH}"
MORE = 8  # times the images, to tell what an image takes from what a probe does
METHODS = 6  # of a study whose shared points are counted

Ways = dict[str, Callable[[], object]]


class Idle(nn.Module):
    """All modules of a network, and an answer that costs nothing."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="alternated rounds, after one that is not counted")
    parser.add_argument("--weights", type=Path, help="state dict of a CIFAR ResNet20; random without")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    explained = made(arguments.images, arguments.weights)
    explained.network.requires_grad_(False)
    maps = gradient(explained.network, explained.images, explained.targets)
    with tempfile.TemporaryDirectory() as folder:
        case = case_of(Path(folder), explained, maps)
        report_same(explained, case, maps)
        report_speed(explained, case, maps, arguments.rounds)
        more = made(MORE * arguments.images, arguments.weights)
        there = gradient(more.network, more.images, more.targets)
        (Path(folder) / "more").mkdir()
        sides = [(explained, case, maps), (more, case_of(Path(folder) / "more", more, there), there)]
        report_host(sides, arguments.rounds)
    report_shared(arguments.images)


def report_same(explained: Explained, case: Case, maps: Tensor) -> None:
    """Whether both give the same curves."""
    tied = maps.flatten(1).sort(1).values.diff(dim=1).eq(0).any(1)
    print(f"{len(maps)} images, {int(tied.sum())} of them with equal values in their map, which are left out here")
    if quantus is None:
        print("Quantus is not installed, so nothing is compared with it: pip install quantus==0.6.0")
        return
    off = np.abs(ours(case) - theirs(explained, maps))[~tied.numpy()]
    print(f"largest difference of a probability from Quantus: {off.max():.0e} (target <= {SAME})")


def report_speed(explained: Explained, case: Case, maps: Tensor, rounds: int) -> None:
    """Both sides and the limit."""
    network = folded(explained.network)
    rows = STEPS * len(maps)
    limits = {f"limit, batches of {size}": passes(network, explained.images, rows, size) for size in SIZES}
    ways: Ways = {"efface": lambda: ours(case)} | limits
    if quantus is not None:
        ways[QUANTUS] = lambda: theirs(explained, maps)
    found = alternate(ways, rounds)
    best = min(limits, key=found.__getitem__)
    print(f"\n{f'MoRF, {STEPS} steps':<34}{'us a row':>12}{'over quantus':>14}{'target':>10}", end="")
    print(f"{'of limit':>10}{'target':>10}")
    for way in sorted(found, key=found.__getitem__, reverse=True):
        line = f"{way:<34}{1e6 * found[way] / rows:>12.0f}"
        over = found.get(QUANTUS, float("nan")) / found[way]
        line += f"{over:>13.2f}x{f'>= {QUANTUS_FLOOR}' if way == 'efface' else '':>10}{found[best] / found[way]:>10.2f}"
        print(line + (f"{f'>= {LIMIT_FLOOR}':>10}" if way == "efface" else ""))


def report_host(sides: list[tuple[Explained, Case, Tensor]], rounds: int) -> None:
    """Everything but the network, for few images and for more: what each image takes, and what each probe does."""
    ways: Ways = {}
    for explained, case, maps in sides:
        count, idle = len(maps), Idle(explained.network).eval()
        idly = replace(case, given_network=idle)
        ways[f"efface {count}"] = functools.partial(ours, idly)
        ways[f"efface, maps already ranked {count}"] = functools.partial(ours, idly, kept=True)
        if quantus is not None:
            ways[f"{QUANTUS} {count}"] = functools.partial(theirs, replace(explained, network=idle), maps)
    found = alternate(ways, rounds)
    few, more = (len(maps) for _, _, maps in sides)
    print(f"\n{'host work, us a row':<34}{f'{few} images':>12}{f'{more} images':>14}{'one more':>12}", end="")
    print(f"{'target':>10}{'us a probe':>12}")
    for way in [each.removesuffix(f" {few}") for each in ways if each.endswith(f" {few}")]:
        at_few, at_more = (1e6 * found[f"{way} {count}"] / STEPS for count in (few, more))
        each = (at_more - at_few) / (more - few)
        line = f"{way:<34}{at_few / few:>12.1f}{at_more / more:>14.1f}{each:>12.1f}"
        print(line + f"{f'<= {HOST_CEILING}' if way == 'efface' else '':>10}{at_few - each * few:>12.0f}")


def report_shared(images: int) -> None:
    """Forward rows of a study: the whole image and the empty one are asked about once, whatever ranks their pixels."""
    asked = METHODS * 2 * (STEPS + 1) * images
    probes = {
        (method if probe.needs.maps else None, str(probe.identity())): probe.cost({"test": images}, None)
        for method in range(METHODS)
        for metric in (morf, lerf)
        for point in points(0)
        for probe in metric.probes(point).values()
    }
    least = (METHODS * 2 * (STEPS - 1) + 2) * images
    print(f"\nMoRF and LeRF of {METHODS} methods at 0, 1, ... {STEPS} steps: {sum(probes.values()):,.0f} forward rows")
    print(f"point by point {asked:,}; with the end points shared at least {least:,}")


def case_of(folder: Path, explained: Explained, maps: Tensor) -> Case:
    """A case as the measure stage makes it: images in 8 bits, the maps in their file."""
    path, provenance = folder / "maps.h5", {"from": "benchmark"}
    writer = MapWriter(path, provenance, explained.targets, maps[0])
    writer.write(0, maps)
    writer.close()
    return Case(
        build=functools.partial(resnet20, **NORMALISATION),
        given_network=explained.network,
        data={"test": Split(explained.images.mul(255).round().byte(), explained.targets)},
        target_classes=explained.targets,
        maps={"test": MapStore(path, provenance, len(maps))},
        mean=torch.full((3,), 0.5),
        given_training=None,
        seed=0,
        max_batch=256,
        device=torch.device("cpu"),
    )


def points(first: int) -> list[Point]:
    """Of each step from `first` on."""
    fill = Call(call="efface.impute.constant", kwargs={"value": FILL})
    return [Point(step / STEPS, 0, fill, (), "feature") for step in range(first, STEPS + 1)]


def ours(case: Case, *, kept: bool = False) -> np.ndarray:
    """Probability of the explained class, images x steps. kept: use the ranks that an earlier call left."""
    if not kept:
        case.cache.clear()
    probes: list[Perturb] = [morf.probes(point)["erased"] for point in points(1)]
    return np.stack([probe(case).values["probability"] for probe in probes], 1)


def theirs(explained: Explained, maps: Tensor) -> np.ndarray:
    """The same by Quantus."""
    images = explained.images.numpy()
    metric = quantus.PixelFlipping(
        features_in_step=images[0].size // STEPS,
        perturb_baseline=FILL,
        normalise=False,
        disable_warnings=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = metric(
            model=explained.network,
            x_batch=images,
            y_batch=explained.targets.numpy(),
            a_batch=maps.numpy(),
            softmax=True,
            device="cpu",
            batch_size=BATCH,
        )
    return np.array(scores)


def passes(network: nn.Module, images: Tensor, rows: int, batch: int) -> Callable[[], None]:
    """So many forward passes on a batch that is ready."""
    ready = images[torch.arange(min(batch, rows)) % len(images)].contiguous(memory_format=torch.channels_last)
    sizes = [len(ready)] * (rows // len(ready)) + [rows % len(ready)] * (rows % len(ready) > 0)

    def run() -> None:
        with torch.inference_mode():
            for size in sizes:
                network(ready[:size])

    return run


if __name__ == "__main__":
    main()
