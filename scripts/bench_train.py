"""What retraining costs: our loop beside a loader of PNG files and beside the bare network.

    python scripts/bench_train.py [--images 1024] [--rounds 3] [--networks resnet8 resnet20]

`files` decodes an image and its map from PNG, sorts the map in NumPy, masks, goes back to PIL, crops and mirrors, one
image at a time in the training process (worker processes cost more CPU seconds, not fewer). `limit` trains on batches
that are ready. All do the same steps of the same networks. CPU seconds on one thread, medians of alternated rounds:
only the ratios carry over to other machines. About 90 seconds on one core.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from efface.base.types import Split
from efface.erase.batches import Batches
from efface.erase.masking import to_float
from efface.metrics.probes import Case, Erasure, erased_batches, image_mean
from efface.models.resnet import resnet8, resnet20
from efface.plug.call import Call
from efface.store.maps import MapStore, MapWriter
from efface.training.batch import crop
from efface.training.loop import TrainingRows, TrainingSettings, train

FRACTION, BATCH, CROP, CLASSES = 0.5, 256, 4, 10
FAST = {"precision": "bf16", "channels_last": True}
NETWORKS = {"resnet8": resnet8, "resnet20": resnet20}
# ours over files: least in fp32, least in bf16 with channels_last; limit over ours: least.
FLOOR = {"resnet8": (1.4, 2.4), "resnet20": (1.2, 2.5)}
LIMIT_FLOOR, INPUT_FLOOR = 0.92, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024, help="images an epoch; at least one batch of 256")
    parser.add_argument("--rounds", type=int, default=3, help="alternated rounds, after one that is not counted")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="which are trained")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data, maps = synthetic(max(arguments.images, BATCH))
        loader = files(Path(folder), data, maps)
        feed = ours(Path(folder), data, maps)
        report_input(data, loader, feed, arguments.rounds)
        for name in arguments.networks:
            report_epoch(name, data, loader, feed, arguments.rounds)


def report_input(data: Split, loader: DataLoader, feed: Batches, rounds: int) -> None:
    """Batches alone, with no network behind them."""
    found = alternate({"files": lambda: drain(loader), "ours": lambda: drain(augmented(data, feed))}, rounds)
    print(f"{'input alone':<34}{'images/CPU s':>14}{'over files':>12}{'target':>10}")
    for name, seconds in found.items():
        ratio, target = found["files"] / seconds, f">= {INPUT_FLOOR}" if name == "ours" else ""
        print(f"{name:<34}{len(data) / seconds:>14,.0f}{ratio:>11.1f}x{target:>10}")


def report_epoch(name: str, data: Split, loader: DataLoader, feed: Batches, rounds: int) -> None:
    """An epoch of the network: the loader's, ours, and the limit, in two precisions."""
    ways = {"files, fp32": lambda: train_files(name, loader)}
    for precision, switches in {"fp32": {}, "bf16 channels_last": FAST}.items():
        settings = TrainingSettings(epochs=1, batch_size=BATCH, crop=CROP, flip=True, **switches)
        ways[f"ours, {precision}"] = lambda settings=settings: train_ours(name, data, feed, settings)
        ways[f"limit, {precision}"] = lambda settings=settings: train_staged(name, data, feed, settings)
    found = alternate(ways, rounds)
    print(f"\n{name + ', an epoch':<34}{'CPU s':>14}{'over files':>12}{'target':>10}{'of limit':>10}{'target':>10}")
    for way, seconds in found.items():
        line = f"{way:<34}{seconds:>14.2f}{found['files, fp32'] / seconds:>11.2f}x"
        if way.startswith("ours"):
            floor, limit = FLOOR[name]["bf16" in way], found[way.replace("ours", "limit")] / seconds
            line += f"{f'>= {floor}':>10}{limit:>10.2f}{f'>= {LIMIT_FLOOR}':>10}"
        print(line)


def alternate(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way; every round runs them all, the first is thrown away."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            found[name].append(time.process_time() - started)
    return {name: statistics.median(seconds[1:]) for name, seconds in found.items()}


def synthetic(count: int) -> tuple[Split, Tensor]:
    """Smooth images with some noise (PNG decodes them as it does photographs) and noise-like maps, 32x32."""
    torch.manual_seed(0)
    smooth = nn.functional.interpolate(torch.rand(count, 3, 4, 4), size=32, mode="bicubic").clamp_(0, 1)
    images = (smooth * 230 + torch.rand(count, 3, 32, 32) * 25).byte()
    return Split(images, torch.arange(count) % CLASSES), torch.rand(count, 32, 32)


class Masked(Dataset):
    """Image and map of one index from two folders of PNG files; the most relevant half of the pixels filled."""

    def __init__(self, images: Path, maps: Path, fill: np.ndarray) -> None:
        self.images, self.maps, self.fill = ImageFolder(str(images)), ImageFolder(str(maps)), fill
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, CROP), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = self.images[index]
        relevance = np.asarray(self.maps[index][0].convert("L")).reshape(-1)
        pixels = np.array(image).reshape(-1, 3)
        pixels[relevance.argsort()[-int(FRACTION * len(pixels)) :]] = self.fill
        return self.transform(Image.fromarray(pixels.reshape(32, 32, 3))), target


def files(folder: Path, data: Split, maps: Tensor) -> DataLoader:
    """The data as two trees of PNG files and a shuffled loader over them."""
    for kind, pixels in {"image": data.images.permute(0, 2, 3, 1), "map": (maps * 255).byte()}.items():
        for row, array in enumerate(pixels.numpy()):
            path = folder / kind / str(row % CLASSES) / f"{row:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    fill = (image_mean(data).numpy() * 255).round().astype(np.uint8)
    return DataLoader(Masked(folder / "image", folder / "map", fill), BATCH, shuffle=True)


def ours(folder: Path, data: Split, maps: Tensor) -> Batches:
    """The same data as our retraining reads them: map file, ranks, one table of erased images, filled here."""
    path, provenance = folder / "maps.h5", {"from": "benchmark"}
    writer = MapWriter(path, provenance, data.targets, maps[0])
    writer.write(0, maps)
    writer.close()
    case = Case(
        build=resnet8,
        given_network=None,
        data={"train": data, "test": data},
        target_classes=data.targets,
        maps={"train": MapStore(path, provenance, len(data))},
        mean=image_mean(data),
        given_training=None,
        seed=0,
        max_batch=BATCH,
        device=torch.device("cpu"),
    )
    erasure = Erasure("most_first", FRACTION, Call(call="efface.impute.channel_mean"))
    started = time.process_time()
    feed = erased_batches(case, "train", erasure, width=CROP, whole=True)
    next(feed(torch.arange(1), 1, 0))
    print(f"ranking and erasing, once a training: {1e6 * (time.process_time() - started) / len(data):.0f} us an image")
    return feed


def augmented(data: Split, feed: Batches) -> Iterable[tuple[Tensor, Tensor]]:
    """An epoch's batches, as the training loop makes them."""
    order = torch.randperm(len(data))
    shifts, flips = torch.randint(0, 2 * CROP + 1, (len(data), 2)), torch.rand(len(data)) < 0.5
    parts = zip(order.split(BATCH), shifts.split(BATCH), flips.split(BATCH), strict=True)
    for padded, (rows, shift, flip) in zip(feed(order, BATCH, 0), parts, strict=True):
        yield to_float(crop(padded, shift, flip, CROP)), data.targets.index_select(0, rows)


def drain(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def train_files(name: str, loader: DataLoader) -> None:
    network = NETWORKS[name]().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for images, targets in loader:
        step(network, optimizer, images, targets, bf16=False)


def train_ours(name: str, data: Split, feed: Batches, settings: TrainingSettings) -> None:
    rows = TrainingRows(torch.arange(len(data)))
    train(NETWORKS[name], feed, rows, data.targets, settings, seed=0, device=torch.device("cpu"))


_STAGED: dict[bool, list[tuple[Tensor, Tensor]]] = {}


def train_staged(name: str, data: Split, feed: Batches, settings: TrainingSettings) -> None:
    """The same steps on batches in memory, in the layout that they are wanted in."""
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    if settings.channels_last not in _STAGED:  # in the round that is not counted
        batches = augmented(data, feed)
        _STAGED[settings.channels_last] = [(images.contiguous(memory_format=layout), to) for images, to in batches]
    network = NETWORKS[name]().train().to(memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for images, targets in _STAGED[settings.channels_last]:
        step(network, optimizer, images, targets, bf16=settings.precision == "bf16")


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor, *, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = nn.functional.cross_entropy(network(images), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


if __name__ == "__main__":
    main()
