"""How fast maps are made, beside Captum and beside the bare passes.

    python scripts/bench_methods.py [--images 8] [--rounds 5] [--weights FILE] [--compile]

Each method on a ResNet20 is called as users call it: gradient, SmoothGrad and integrated gradients of 50 passes, the
SmoothGrad family of three, and Grad-CAM as the extract stage with its file. Captum runs with its defaults, and with
the batch size, of those tried here, that suits it best. `limit` is nothing but the passes, forward and back to the
image, of the same network with BatchNorms folded and tensors in channels_last, in the fastest batch size; --compile
(tens of seconds, needs a C++ compiler) also shows what torch.compile makes of them.

Maps are compared with Captum's of the same draws, each as a part of its maximum: in float64, for in float32 a ReLU
whose input is zero up to rounding opens in one kernel and not in another, which moves some maps visibly, whoever made
them; how many is shown for both sides. CPU seconds on one thread, medians of alternated rounds: only the ratios carry
over to other machines. About four minutes on one core.
"""

import argparse
import contextlib
import copy
import functools
import gc
import io
import itertools
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import torch
from bench_train import alternate, synthetic
from captum.attr import IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency
from PIL import Image
from torch import Tensor, nn

from efface.methods.gradient import gradient
from efface.methods.path import integrated_gradients
from efface.methods.smooth import smooth_grad, smooth_grad_family
from efface.models.resnet import resnet20
from efface.models.torchvision import IMAGENET_MEAN, IMAGENET_STD
from efface.stages.extract import extract
from efface.study.study import Study

SAMPLES, NOISE, SIZES = 50, 0.15, (16, 32, 64, 128)
NORMALISATION = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
FLOOR = {"gradient": 1.2, "SmoothGrad": 1.5, "integrated gradients": 1.5, "SmoothGrad family": 3.5}  # over Captum
LIMIT_FLOOR, STAGE_FLOOR, SAME = 0.85, 6, 1e-5

Way = Callable[..., Any]
Sizes = tuple[int, ...]
Limit = tuple[dict[str, nn.Module], int]
"""Networks made for bare passes, by name, and the batch size in which the first is fastest."""


@dataclass(frozen=True)
class Case:
    """A network and what is explained of it."""

    network: nn.Module
    images: Tensor
    targets: Tensor

    def first(self, count: int) -> "Case":
        return Case(self.network, self.images[:count], self.targets[:count])

    def double(self) -> "Case":
        return Case(copy.deepcopy(self.network).double(), self.images.double(), self.targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="where a map has 50 passes; 16 and 32 times as many else")
    parser.add_argument("--rounds", type=int, default=5, help="alternated rounds, after one that is not counted")
    parser.add_argument("--weights", type=Path, help="state dict of a CIFAR ResNet20; random without")
    parser.add_argument("--compile", action="store_true", help="also time the compiled passes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients")  # Captum's, of its own doing
    case, rounds = made(32 * arguments.images, arguments.weights), arguments.rounds
    few, many = (case.first(count * arguments.images) for count in (1, 16))
    report_maps(few, many)
    limit = fastest(many, rounds, compiled=arguments.compile)
    report("gradient", many, limit, rounds, captum_gradient, ours_gradient)
    best = report("SmoothGrad", few, limit, rounds, captum_smooth, ours_smooth)
    report("integrated gradients", few, limit, rounds, captum_path, ours_path)
    family = functools.partial(ours_smooth, method=smooth_grad_family)
    report("SmoothGrad family", few, limit, rounds, captum_family, family, (best,))
    gc.collect()
    gc.freeze()  # for all ways alike: what was imported for Captum is not looked through again and again
    with tempfile.TemporaryDirectory() as folder:
        report_stage(Path(folder), case, rounds)
    gc.unfreeze()


def report_maps(few: Case, many: Case) -> None:
    """Whether the maps are Captum's, image by image."""
    given = {"noise": NOISE * torch.randn(SAMPLES, *few.images.shape)}
    sides = {
        "gradient": (many, ours_gradient, captum_gradient),
        "SmoothGrad": (few, functools.partial(ours_smooth, **given), functools.partial(by_hand, **given)),
        "integrated gradients": (few, ours_path, captum_path),
    }
    print(f"{f'difference (<= {SAME}: how many)':<34}{'efface from Captum':>37}{'from float64':>30}")
    print(f"{'':<34}{'float64':>12}{'target':>10}{'float32':>15}{'efface':>15}{'Captum':>15}")
    for name, (case, ours, captum) in sides.items():
        single, expected, exact = ours(case), captum(case), captum(case.double())
        worst = differences(ours(case.double()), exact).max()
        singles = within(single, expected), within(single, exact), within(expected, exact)
        print(f"{name:<34}{worst:>12.0e}{f'<= {SAME}':>10}" + "".join(f"{each:>15}" for each in singles), flush=True)


def report(name: str, case: Case, limit: Limit, rounds: int, captum: Way, ours: Way, sizes: Sizes = SIZES) -> int:
    """One method: both sides and the limit. Returns Captum's best batch."""
    passes = len(case.images) * (1 if name == "gradient" else SAMPLES)
    by_batch = {f"captum, batches of {size}": size for size in sizes if size <= passes}
    ways: dict[str, Way] = {"captum, defaults": lambda: captum(case)}
    ways |= {way: functools.partial(captum, case, size) for way, size in by_batch.items()}
    ways["efface"] = lambda: ours(case)
    ways |= {each: staged(network, case, passes, limit[1]) for each, network in limit[0].items()}
    found = alternate(ways, rounds)
    best = min(by_batch, key=found.__getitem__)
    print(f"\n{f'{name}, {len(case.images)} images':<34}{'images/s':>12}{'over defaults':>16}{'target':>10}", end="")
    print(f"{'over its best':>16}" + "".join(f"{f'of {each}':>20}" for each in limit[0]) + f"{'target':>10}")
    for way in ("captum, defaults", best, "efface", *limit[0]):
        line = f"{way:<34}{len(case.images) / found[way]:>12,.1f}{found['captum, defaults'] / found[way]:>15.2f}x"
        if way == "efface":
            line += f"{f'>= {FLOOR[name]}':>10}{found[best] / found[way]:>15.2f}x"
            line += "".join(f"{found[each] / found[way]:>20.2f}" for each in limit[0]) + f"{f'>= {LIMIT_FLOOR}':>10}"
        print(line, flush=True)
    return by_batch[best]


def report_stage(folder: Path, case: Case, rounds: int) -> None:
    """Grad-CAM of a folder's images, to files; every way also asks the network what it predicts."""
    study, numbers = study_of(folder, case, "all"), itertools.count()
    short = study_of(folder, case.first(2), "two")
    ways: dict[str, Way] = {
        "captum, one by one, PNG files": lambda: one_by_one(case, folder),
        "captum, one batch, one file": lambda: torch.save(captum_cam(case), folder / "maps.pt"),
        "efface, extract stage": lambda: stage(study, folder / f"run-{next(numbers)}"),
        "efface, of two images": lambda: stage(short, folder / f"short-{next(numbers)}"),
        "forward passes alone": lambda: [predicted(case.network, part) for part in case.images.split(32)],
    }
    found = alternate(ways, rounds)
    fixed = found.pop("efface, of two images")
    print(f"\n{f'Grad-CAM stage, {len(case.images)} images':<34}{'images/s':>12}{'over PNG files':>16}{'target':>10}")
    for way, seconds in found.items():
        ratio, target = found["captum, one by one, PNG files"] / seconds, f">= {STAGE_FLOOR}" if "efface" in way else ""
        print(f"{way:<34}{len(case.images) / seconds:>12,.1f}{ratio:>15.2f}x{target:>10}")
    print(f"of its {1e3 * found['efface, extract stage']:.0f} ms a study of two images takes {1e3 * fixed:.0f} as well")
    with h5py.File(next(folder.glob("run-*/maps/grad_cam-test.h5"))) as file:
        worst = differences(torch.from_numpy(file["maps"][:]), captum_cam(case)).max()
    print(f"difference of a map in its file from Captum: {worst:.0e} (target <= {SAME})")


def made(count: int, weights: Path | None) -> Case:
    """A ResNet20 and what it predicts; without weights, its BatchNorms stand where training might put them."""
    data, _ = synthetic(count)
    network = resnet20(**NORMALISATION, weights=weights).eval()
    for norm in network.modules():
        if weights is None and isinstance(norm, nn.BatchNorm2d):
            for numbers, middle in zip(norm.state_dict().values(), (1.0, 0.0, 0.0, 1.0), strict=False):
                nn.init.uniform_(numbers, middle - 0.5, middle + 0.5)
    images = data.images.float().div(255)
    return Case(network, images, torch.cat([predicted(network, part) for part in images.split(32)]))


@torch.no_grad()
def predicted(network: nn.Module, images: Tensor) -> Tensor:
    return network(images).argmax(1)


def fastest(case: Case, rounds: int, *, compiled: bool) -> Limit:
    network = folded(case.network)
    sizes = [batch for batch in SIZES if batch <= len(case.images)]
    found = alternate({str(batch): staged(network, case, len(case.images), batch) for batch in sizes}, rounds)
    per_pass = (f"{batch}: {1e3 * found[str(batch)] / len(case.images):.2f}" for batch in sizes)
    print(f"\nlimit, ms a pass by batch size: {', '.join(per_pass)}")
    networks = {"limit": network} | ({"compiled limit": torch.compile(network)} if compiled else {})
    return networks, min(sizes, key=lambda batch: found[str(batch)])


def folded(network: nn.Module) -> nn.Module:
    """A ResNet20's convolutions with their BatchNorms in them, in channels_last; by the names that it has."""
    network = copy.deepcopy(network).requires_grad_(False)
    for module in list(network.modules()):
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            if hasattr(module, norm):
                setattr(module, conv, nn.utils.fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def staged(network: nn.Module, case: Case, passes: int, batch: int) -> Way:
    """So many passes on one batch that is ready, and one on what is left over."""
    rows = torch.arange(max(batch, passes)) % len(case.images)
    points = case.images[rows[:batch]].contiguous(memory_format=torch.channels_last)
    targets = case.targets[rows[:batch], None]
    sizes = [batch] * (passes // batch) + [passes % batch] * (passes % batch > 0)

    def run() -> None:
        for size in sizes:
            leaf = points[:size].detach().requires_grad_()
            torch.autograd.grad(network(leaf).gather(1, targets[:size]).sum(), leaf)

    return run


def differences(ours: Tensor, theirs: Tensor) -> Tensor:
    """Of each map: the largest, as a part of the map's maximum."""
    return (ours - theirs).abs().flatten(1).amax(1) / theirs.abs().flatten(1).amax(1).clamp_min(1e-30)


def within(ours: Tensor, theirs: Tensor) -> str:
    """The median difference, and how many maps are the same."""
    found = differences(ours, theirs)
    return f"{found.median():.0e} {int((found <= SAME).sum()):>4}/{len(found)}"


def ours_gradient(case: Case) -> Tensor:
    return gradient(case.network, case.images, case.targets)


def ours_smooth(case: Case, noise: float | Tensor = NOISE, method: Way = smooth_grad) -> Any:
    settings = {"seeds": torch.arange(len(case.images)), "samples": SAMPLES, "noise": noise}
    return method(case.network, case.images, case.targets, **settings)


def ours_path(case: Case) -> Tensor:
    return integrated_gradients(case.network, case.images, case.targets, steps=SAMPLES, rule="gauss_legendre")


def captum_gradient(case: Case, batch: int | None = None) -> Tensor:
    method, size = Saliency(case.network), batch or len(case.images)
    parts = zip(case.images.split(size), case.targets.split(size), strict=True)
    return torch.cat([method.attribute(images, target=targets, abs=False) for images, targets in parts])


def captum_smooth(case: Case, batch: int | None = None, kind: str = "smoothgrad") -> Tensor:
    together = max(1, batch // len(case.images)) if batch else None
    settings = {"nt_type": kind, "nt_samples": SAMPLES, "nt_samples_batch_size": together, "stdevs": NOISE}
    return NoiseTunnel(Saliency(case.network)).attribute(case.images, target=case.targets, abs=False, **settings)


def by_hand(case: Case, noise: Tensor) -> Tensor:
    """SmoothGrad of given noise, which Captum's own does not take."""
    return sum(captum_gradient(Case(case.network, case.images + each, case.targets)) for each in noise) / len(noise)


def captum_path(case: Case, batch: int | None = None) -> Tensor:
    method = IntegratedGradients(case.network)
    return method.attribute(case.images, target=case.targets, n_steps=SAMPLES, internal_batch_size=batch)


def captum_family(case: Case, batch: int | None = None) -> list[Tensor]:
    return [captum_smooth(case, batch, kind) for kind in ("smoothgrad", "smoothgrad_sq", "vargrad")]


def captum_cam(case: Case) -> Tensor:
    targets = predicted(case.network, case.images)
    small = LayerGradCam(case.network, case.network.layer3).attribute(case.images, targets, relu_attributions=True)
    size = case.images.shape[2:]
    return nn.functional.interpolate(small.detach(), size=size, mode="bilinear", align_corners=False).squeeze(1)


def one_by_one(case: Case, folder: Path) -> None:
    for row in range(len(case.images)):
        found = captum_cam(Case(case.network, case.images[row : row + 1], case.targets[row : row + 1]))[0]
        save(found / found.max().clamp_min(1e-12), folder / f"map-{row:06}.png")


def save(pixels: Tensor, path: Path) -> None:
    Image.fromarray(pixels.mul(255).round().byte().numpy()).save(path)


def study_of(folder: Path, case: Case, name: str) -> Study:
    """A study of the same images, which lie in a folder and are packed in its first run, and of the same network."""
    for row, pixels in enumerate(case.images.permute(0, 2, 3, 1)):
        place = (
            folder / name / "test" / ("first" if row < len(case.images) // 2 else "second")
        )  # the rows stay in order
        place.mkdir(parents=True, exist_ok=True)
        save(pixels, place / f"{row:06}.png")
    torch.save(case.network.state_dict(), folder / "weights.pt")
    kwargs = {"root": str(folder / name), "size": 32, "resize": None}
    return Study(
        out=folder / "run",
        data={"call": "efface.data.folder.image_folder", "kwargs": kwargs},
        model={"call": "efface.models.resnet.resnet20", "kwargs": NORMALISATION},
        weights=folder / "weights.pt",
        attribution_methods=[{"name": "grad_cam", "method": "efface.methods.cam.grad_cam"}],
        executor="efface.execute.serial",
    )


def stage(study: Study, out: Path) -> None:
    """The extract stage, from reading the data to the file."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        failures = extract(study.model_copy(update={"out": out}))
    assert not failures, failures


if __name__ == "__main__":
    main()
