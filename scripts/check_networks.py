"""Shows the accuracy of the trained networks on real photographs: that architectures, weights and normalisation fit.

    python scripts/check_networks.py DATA_FOLDER [--batch 250]

DATA_FOLDER holds the packs (JPEG files end to end in `jpeg`, their positions in `offset`, `label`) and state dicts.
Expected: CIFAR ResNet-20/32/44/56 81.0, 82.6, 82.7, 83.2 % on 10,000 images (these are JPEG-coded; on the lossless ones
they have 91.8 to 93.6 %), SqueezeNet 1.0 61.7 % on 1,000 ImageNet photographs. About five minutes on one busy core.
"""

import argparse
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from efface.models import resnet
from efface.models.torchvision import IMAGENET_MEAN, IMAGENET_STD, load

CIFAR = {
    "resnet20": resnet.resnet20,
    "resnet32": resnet.resnet32,
    "resnet44": resnet.resnet44,
    "resnet56": resnet.resnet56,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packs and state dicts lie")
    parser.add_argument("--batch", type=int, default=250, help="images a forward pass")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':<16}{'top-1':>8}{'top-5':>8}{'n':>8}{'seconds':>9}")
    for name, build in CIFAR.items():
        weights = arguments.folder / f"cifar10-{name}.pth"
        network = build(mean=IMAGENET_MEAN, std=IMAGENET_STD, weights=weights)
        report(name, network, arguments.folder / "cifar10-test.npz", 32, arguments.batch)
    squeezenet = load("squeezenet1_0", weights=arguments.folder / "imagenet-squeezenet1_0.pth")
    report("squeezenet1_0", squeezenet, arguments.folder / "imagenet-sample.npz", 224, min(arguments.batch, 50))


@torch.no_grad()
def report(name: str, network: nn.Module, pack: Path, size: int, batch: int) -> None:
    """Prints one row: the share of images whose class is the network's first, or among its first five."""
    network.eval()
    start, first, five, n = time.perf_counter(), 0, 0, 0
    for images, labels in batches(pack, size, batch):
        hits = network(images).topk(5).indices == labels[:, None]
        first, five, n = first + int(hits[:, 0].sum()), five + int(hits.sum()), n + len(labels)
    seconds = time.perf_counter() - start
    print(f"{name:<16}{100 * first / n:>7.2f}%{100 * five / n:>7.2f}%{n:>8}{seconds:>9.1f}", flush=True)


def batches(pack: Path, size: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The pack's images, centre-cropped to a square and scaled to [0, 1], with their classes."""
    with np.load(pack) as arrays:
        jpeg, offset, label = arrays["jpeg"], arrays["offset"], arrays["label"]
    for start in range(0, len(label), batch):
        rows = range(start, min(start + batch, len(label)))
        images = np.stack([decode(jpeg[offset[i] : offset[i + 1]].tobytes(), size) for i in rows])
        labels = torch.from_numpy(label[start : start + batch].astype(np.int64))
        yield torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, labels


def decode(content: bytes, size: int) -> np.ndarray:
    """One picture, height x width x 3: its shorter side brought to 8/7 of `size` (256 for 224), then its centre.

    Pictures of `size` by `size` stay as they are. About a tenth of the photographs are smaller than they should be.
    """
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    if picture.size != (size, size):
        scale = size * 8 / 7 / min(picture.size)
        wanted = (int(picture.width * scale + 1e-6), int(picture.height * scale + 1e-6))
        picture = picture.resize(wanted, Image.Resampling.BILINEAR)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


if __name__ == "__main__":
    main()
