"""What the golden outputs are computed from: small images, maps, networks and a case, all drawn from fixed seeds."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Split
from efface.erase.masking import to_float
from efface.methods.calling import MethodCall, attribute
from efface.metrics.probes import Case, Samples, image_mean
from efface.plug.call import Call
from efface.store.maps import MapStore, MapWriter
from efface.training.generate import samples
from efface.training.loop import TrainingSettings

CPU = torch.device("cpu")
CLASSES = 4


def generator(seed: int) -> torch.Generator:
    """A generator of torch, whose numbers efface has no part in."""
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers that efface has no part in."""
    return torch.randn(shape, generator=generator(seed))


class Net(nn.Module):
    """Two stages with BatchNorm, ReLU modules, pooling, dropout and a sum; images of any size."""

    def __init__(self, channels: int = 3, classes: int = CLASSES) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.layer2 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(6, classes)

    def forward(self, images: Tensor) -> Tensor:
        first = self.pool(self.layer1(images - 0.45))
        return self.fc(self.dropout(first + self.layer2(first)).mean((2, 3)))


class Plain(nn.Module):
    """A chain without BatchNorm that ends in a large linear layer."""

    def __init__(self, channels: int = 3, size: int = 8, classes: int = CLASSES) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(channels, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(5 * (size // 2) ** 2, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.layer1(images))


class Attention(nn.Module):
    """A block of two heads, with sums."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(tokens)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        return tokens + self.mlp(tokens)


class Transformer(nn.Module):
    """A vision transformer of patches of 2 x 2 pixels in images of 8 x 8; it reads a class token, or the mean."""

    def __init__(self, *, has_class_token: bool = True, classes: int = CLASSES) -> None:
        super().__init__()
        self.embed, self.has_class_token = nn.Conv2d(3, 8, 2, 2), has_class_token
        self.positions = nn.Parameter(torch.zeros(1, 16 + has_class_token, 8))
        self.blocks = nn.Sequential(*(Attention(8) for _ in range(3)))
        self.fc = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, classes))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images - 0.45).flatten(2).mT
        if self.has_class_token:
            tokens = nn.functional.pad(tokens, (0, 0, 1, 0))
        tokens = self.blocks(tokens + self.positions)
        return self.fc(tokens[:, 0] if self.has_class_token else tokens.mean(1))


class Smooth(nn.Sequential):
    """A network without kinks and without draws, as terms of second derivatives ask for."""

    def __init__(self, channels: int = 3, size: int = 8, classes: int = CLASSES) -> None:
        layers = nn.Conv2d(channels, 4, 3, padding=1), nn.Softplus(beta=5), nn.AvgPool2d(2), nn.Flatten()
        super().__init__(*layers, nn.Linear(4 * (size // 2) ** 2, classes))


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """The network with all weights and statistics drawn, in eval mode; logits are spread over a few units."""
    draw = generator(seed)
    with torch.no_grad():
        for name, value in sorted(network.state_dict().items()):
            if not value.is_floating_point():
                continue
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
            elif value.ndim > 1:
                fan = max(1, value[0].numel())
                value.copy_(torch.randn(value.shape, generator=draw) * (2.0 / fan) ** 0.5)
            elif name.endswith("weight"):
                value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
            else:
                value.copy_(torch.randn(value.shape, generator=draw) * 0.2)
    return network.eval()


def network(seed: int = 1, channels: int = 3) -> nn.Module:
    """The network of most outputs, its last layer strong enough for probabilities that differ."""
    made = randomised(Net(channels), seed)
    with torch.no_grad():
        made.fc.weight.mul_(3.0)
    return made


def second_network() -> nn.Module:
    """Another one, by a dotted path."""
    return randomised(Net(), 2)


def stored(count: int, seed: int, size: int = 8, channels: int = 3) -> Tensor:
    """Images of 8 bits: a smooth ground, noise on it, and black and white pixels in every other one."""
    coarse = torch.rand(count, channels, 3, 3, generator=generator(seed))
    ground = nn.functional.interpolate(coarse, size=(size, size + 1), mode="bilinear", align_corners=True)
    images = (ground + 0.15 * normal(seed + 100, *ground.shape)).clamp(0, 1)
    images = 0.1 + 0.8 * images
    images[::2, :, 1, 1], images[::2, :, -1, 2] = 0.0, 1.0  # the others do not span all of [0, 1]
    return images.mul(255).round().byte()[..., :size]


def images(count: int = 4, seed: int = 3, size: int = 8, channels: int = 3) -> Tensor:
    """Images in [0, 1]."""
    return to_float(stored(count, seed, size, channels))


def targets(count: int) -> Tensor:
    """Classes in no order that a mistake would keep."""
    return torch.tensor([2, 0, 3, 1, 1, 0, 2, 3])[torch.arange(count) % 8]


def seeds(count: int, text: str = "golden") -> Tensor:
    """Seeds of images."""
    return draws.seeds_of(text, torch.arange(count))


def masks(count: int, size: int = 8) -> Tensor:
    """True objects: rectangles; the second touches the border."""
    found = torch.zeros(count, size, size, dtype=torch.bool)
    for row in range(count):
        top, left = (row * 3) % (size - 3), (row * 5 + 2) % (size - 3)
        found[row, top : top + 3, left : left + 3 + row % 2] = True
    return found


def maps(count: int, seed: int = 5, size: int = 8, channels: int | None = None) -> Tensor:
    """Maps of both signs: the second with many equal values, the third constant, the last with its largest twice."""
    shape = (count, size, size) if channels is None else (count, channels, size, size)
    found = normal(seed, *shape)
    found[1 % count] = found[1 % count].round()
    found[2 % count] = 0.25
    last = found[count - 1].flatten()
    last[[1, 7]] = 9.0
    return found


def data(size: int = 8) -> dict[str, Split]:
    """Both splits, with masks and validation rows."""
    train = Split(stored(21, 7, size), targets(21), masks=masks(21, size), validation=torch.tensor([4, 11, 17, 20]))
    test = Split(stored(6, 8, size), targets(6), masks=masks(6, size))
    return {"train": train, "test": test}


def store(rows: Tensor, name: str = "maps") -> MapStore:
    """A finished file of these rows."""
    path = folder() / f"{name}.h5"
    writer = MapWriter(path, {"name": name}, torch.zeros(len(rows), dtype=torch.int64), rows[0])
    writer.write(0, rows)
    writer.close()
    return MapStore(path, {"name": name}, len(rows))


_FOLDERS: list[tempfile.TemporaryDirectory] = []


def folder() -> Path:
    """A new folder, which goes when the process ends."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="golden-"))
    return Path(_FOLDERS[-1].name)


def gradient_maps(case: Case, split: str) -> Tensor:
    """Maps that have to do with the network, n c h w."""
    method = MethodCall("gradient", Call(call="efface.methods.gradient.gradient"))
    held = case.data[split]
    found = attribute(method, case.network, to_float(held.images), held.targets, seeds=seeds(len(held)), max_batch=8)
    return found["gradient"]


def case(found: dict[str, Tensor] | None = None, **changes) -> Case:
    """All that a probe may need; `found` are maps by split."""
    splits = data()
    net = network()
    settings = {
        "build": Net,
        "given_network": net,
        "data": splits,
        "target_classes": torch.tensor([2, 0, 1, 1, 3, 0]),
        "maps": {split: store(rows) for split, rows in (found or {}).items()},
        "mean": image_mean(splits["train"]),
        "given_training": TrainingSettings(
            epochs=2, batch_size=5, optimizer=Call(call="torch.optim.SGD", kwargs={"lr": 0.1, "momentum": 0.9}), crop=1
        ),
        "seed": 3,
        "max_batch": 4,
        "device": CPU,
        "explain": explain,
        "samples": sampled,
        "second_network": second_network,
    }
    return Case(**(settings | changes))


def explain(net: nn.Module, shown: Tensor, classes: Tensor, rows: Tensor, masks: Tensor | None = None) -> Tensor:
    """A method that draws, asked again for these rows."""
    method = MethodCall("m", Call(call="efface.methods.smooth.smooth_grad", kwargs={"samples": 2, "noise": 0.1}))
    return attribute(method, net, shown, classes, seeds=draws.seeds_of("asked", rows), max_batch=16)["m"].sum(1)


def sampled(settings) -> Samples:
    """Samples of the network, as the stage makes them."""
    aims = targets(settings.count)
    return Samples(samples(network(), aims, seeds(settings.count), (3, 8, 8), settings), aims)
