"""What the metrics by cells, groups and curves cost, beside their bare passes.

    python scripts/bench_metrics.py [--images 64] [--rounds 3] [--weights FILE]

Each metric runs on a ResNet20 as the measure stage runs it: its probes, through a case with the maps in their file. The
passes are those that its probes state. `over its passes` is its CPU seconds, divided by those of as many bare passes of
the same network with BatchNorms folded and tensors in channels_last, in the fastest batch size. The aim is at most 1.3.
`idsds` is measured with stored maps, and without its fine-tuning, whose passes are three times the training images for
each epoch. `shapley` runs on a sixteenth of the images. Metrics without passes have their time alone.

CPU seconds on one thread, medians of alternated rounds: only the ratios carry over to other machines. About two minutes
on one core.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from bench_methods import SIZES, folded, made
from bench_perturb import case_of, passes
from bench_train import alternate

from efface.methods.gradient import gradient
from efface.metrics import Metric, Point, metric
from efface.metrics.probes import Case, Probe
from efface.plug.call import Call
from efface.training.loop import TrainingSettings

CEILING, ROWS = 1.3, 512
AT = 0.5
"""Point of a metric that has a curve."""


@dataclass(frozen=True)
class Asked:
    """A metric with its settings, and the part of the images that it runs on."""

    name: str
    settings: dict[str, object]
    part: float = 1.0

    @property
    def title(self) -> str:
        return self.name + "".join(f", {name} {value}" for name, value in self.settings.items())


ASKED = (
    Asked("single_deletion", {}),
    Asked("idsds", {}),
    Asked("shapley", {}, part=1 / 16),
    Asked("saco", {}),
    Asked("magnitude_aligned", {}),
    Asked("magnitude_aligned", {"way": "deletion"}),
    Asked("r_oms", {}),
    Asked("precision", {}),
    Asked("emd", {}),
    Asked("emd", {"side": 8}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="alternated rounds, after one that is not counted")
    parser.add_argument("--weights", type=Path, help="state dict of a CIFAR ResNet20; random without")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    explained = made(arguments.images, arguments.weights)
    explained.network.requires_grad_(False)
    maps = gradient(explained.network, explained.images, explained.targets)
    bare = folded(explained.network)
    with tempfile.TemporaryDirectory() as folder:
        case = prepared(case_of(Path(folder), explained, maps))
        limits = {f"bare {size}": passes(bare, explained.images, ROWS, size) for size in SIZES}
        ways: dict[str, Callable[[], object]] = dict(limits)
        for asked in ASKED:
            ways[asked.title] = functools.partial(run, asked, case)
        found = alternate(ways, arguments.rounds)
        report(case, found, min(found[name] for name in limits) / ROWS)


def prepared(case: Case) -> Case:
    """The case with a disc as the true object, and with what a run keeps: the fine-tuned weights, the clean answers."""
    split, kept = case.data["test"], dict[str, dict[str, torch.Tensor]]()
    h, w = split.shape[1:]
    down, across = torch.arange(h)[:, None] - (h - 1) / 2, torch.arange(w) - (w - 1) / 2
    disc = (down**2 + across**2 <= (h / 4) ** 2).expand(len(split), h, w)
    weights = case.network.state_dict()

    def once(name: str, _what: object, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        if name == "idsds":
            return weights
        if name not in kept:
            kept[name] = make()
        return kept[name]

    data = {"test": replace(split, masks=disc), "train": split}
    maps = case.maps["test"]
    explain = lambda _network, _images, _classes, rows: maps.take(rows)  # noqa: E731
    return replace(case, data=data, once=once, given_training=TrainingSettings(epochs=1), explain=explain)


def run(asked: Asked, case: Case) -> None:
    """Call all probes of the metric, with no ranks left from an earlier call."""
    case.cache.clear()
    here = replace(case, rows=rows_of(asked, case)) if asked.part < 1 else case
    for probe in probes_of(asked):
        probe(here)


def probes_of(asked: Asked) -> list[Probe]:
    formula: Metric = metric(asked.name, asked.settings)
    fill = Call.model_validate(formula.defaults.get("imputer", "efface.impute.channel_mean"))
    post = (Call(call="efface.erase.post.channel_sum"),)
    return list(formula.probes(Point(AT if formula.axis else 0.0, 0, fill, post, "pixel")).values())


def rows_of(asked: Asked, case: Case) -> torch.Tensor:
    return torch.arange(max(1, int(asked.part * len(case.data["test"]))))


def stated(asked: Asked) -> float:
    """Forward passes of an image. Reading a stored map counts as none, and neither does a training."""
    images = {"test": 1, "train": 0}
    return sum(probe.cost(images, None) for probe in probes_of(asked) if type(probe).__name__ not in FREE)


FREE = ("CellSums", "TunedSums", "Kept", "Located", "Moved")
"""Probes that only read maps."""


def report(case: Case, found: dict[str, float], each: float) -> None:
    """A row for each metric."""
    print(f"a bare pass: {1e3 * each:.2f} ms")
    print(f"{'metric':<38}{'passes an image':>16}{'ms an image':>14}{'over its passes':>17}{'aim':>9}")
    for asked in ASKED:
        count, images = stated(asked), len(rows_of(asked, case))
        spent = found[asked.title] / images
        line = f"{asked.title:<38}{count:>16.0f}{1e3 * spent:>14.1f}"
        print(line + (f"{spent / (count * each):>17.2f}{f'<= {CEILING}':>9}" if count else ""))


if __name__ == "__main__":
    main()
