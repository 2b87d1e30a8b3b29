"""How fast the maps of a vision transformer are made, beside its bare passes.

    python scripts/bench_attention.py [--images 12] [--rounds 5] [--weights FILE]

Attention methods beside a forward pass, or a forward and a backward pass to the image, of the same network as it is:
with fused attention and without hooks. The stage, from reading the images to the file of maps, beside the method alone.
--weights names a state dict of timm's vit_small_patch14_dinov2 at 98 x 98; without it, a small random ViT is measured,
whose passes are so short that the ratios mean little.

CPU seconds on one thread, medians of alternated rounds: only the ratios carry over to other machines. With the ViT-S/14
about three minutes on one core.
"""

import argparse
import contextlib
import io
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from bench_methods import save
from bench_train import alternate
from torch import Tensor, nn

from efface.models import timm as loader
from efface.plug import words
from efface.plug.call import Call
from efface.stages.extract import extract
from efface.study.study import Study

FORWARD, BOTH = "forward pass", "forward and backward pass"
GOALS = {
    "attention_rollout": (FORWARD, 1.15),
    "attention_grad_cam": (BOTH, None),
    "generic_attention": (BOTH, 1.25),
    "legrad": (BOTH, None),
    "cp_lrp": (BOTH, 1.25),
}
"""By method: the pass that it is compared with, and at most how many times as long it may take."""
STAGED, STAGE_GOAL = "generic_attention", 0.85
SMALL: dict[str, Any] = {
    "name": "vit_tiny_patch16_224",
    "kwargs": {"img_size": 48, "embed_dim": 48, "depth": 3, "num_heads": 3},
}
LARGE: dict[str, Any] = {"name": "vit_small_patch14_dinov2", "kwargs": {"img_size": 98}}

Way = Callable[[], object]


class Case(NamedTuple):
    """A network, what a study says of it, and images with their classes."""

    network: nn.Module
    call: dict[str, Any]
    images: Tensor
    targets: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12, help="images of a call; sixteen times as many in the stage")
    parser.add_argument("--rounds", type=int, default=5, help="alternated rounds, after one that is not counted")
    parser.add_argument("--weights", type=Path, help="state dict of timm's vit_small_patch14_dinov2 at 98 x 98")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = made(16 * arguments.images, arguments.weights, folder)
        for count in dict.fromkeys((1, arguments.images)):
            report(case._replace(images=case.images[:count], targets=case.targets[:count]), arguments.rounds)
        report_stage(folder, case, arguments.rounds)


def report(case: Case, rounds: int) -> None:
    """Each method beside its pass."""
    known = [name for name in GOALS if name in words.index("method")]
    ways: dict[str, Way] = {FORWARD: lambda: forward(case), BOTH: lambda: both(case)}
    ways |= {name: partial(explained, case, name) for name in known}
    found = alternate(ways, rounds)
    count = len(case.images)
    print(f"\n{f'images in a call: {count}':<30}{'ms an image':>14}{'times the pass':>18}{'goal':>10}  pass")
    for name, seconds in found.items():
        line = f"{name:<30}{1e3 * seconds / count:>14.1f}"
        if name in GOALS:
            beside, goal = GOALS[name]
            line += f"{seconds / found[beside]:>17.2f}x{f'<= {goal}' if goal else '':>10}  {beside}"
        print(line, flush=True)


def report_stage(folder: Path, case: Case, rounds: int) -> None:
    """The stage with its file beside the method alone, which also takes the class from its own pass."""
    study, numbers = study_of(folder, case, "all"), itertools.count()
    short = study_of(folder, case._replace(images=case.images[:2]), "two")
    ways: dict[str, Way] = {
        "the method alone": lambda: explained(case, STAGED, study.max_batch),
        "the extract stage": lambda: staged(study, folder / f"run-{next(numbers)}"),
        "the stage of two images": lambda: staged(short, folder / f"short-{next(numbers)}"),
    }
    found = alternate(ways, rounds)
    alone, whole, fixed = found.values()
    print(f"\n{f'{STAGED}, {len(case.images)} images':<30}{'images/s':>14}{'of the method':>18}{'goal':>10}")
    print(f"{'the method alone':<30}{len(case.images) / alone:>14.1f}")
    print(f"{'the extract stage':<30}{len(case.images) / whole:>14.1f}{alone / whole:>18.2f}{f'>= {STAGE_GOAL}':>10}")
    print(f"of its {1e3 * whole:.0f} ms a study of two images takes {1e3 * fixed:.0f} as well")


def made(count: int, weights: Path | None, folder: Path) -> Case:
    """A network and what it predicts; without weights, a small one whose weights are drawn."""
    settings = SMALL if weights is None else LARGE
    torch.manual_seed(0)
    if weights is None:
        weights = folder / "weights.pt"
        torch.save(timm.create_model(settings["name"], num_classes=10, **settings["kwargs"]).state_dict(), weights)
    kwargs = {"name": settings["name"], "weights": str(weights), **settings["kwargs"]}
    network = loader.load(**kwargs).eval()
    side = settings["kwargs"]["img_size"]
    smooth = nn.functional.interpolate(torch.rand(count, 3, 5, 5), size=side, mode="bicubic").clamp_(0, 1)
    images = smooth.mul(255).round().div(255)
    with torch.no_grad():
        targets = torch.cat([network(part).argmax(1) for part in images.split(12)])
    return Case(network, {"call": "timm", "kwargs": kwargs}, images, targets)


def forward(case: Case) -> None:
    with torch.no_grad():
        for part in case.images.split(6):
            case.network(part)


def both(case: Case) -> None:
    """A forward pass, and a backward pass to the image; the weights get no gradient."""
    case.network.requires_grad_(False)
    for part, classes in zip(case.images.split(6), case.targets.split(6), strict=True):
        leaf = part.detach().requires_grad_()
        torch.autograd.grad(case.network(leaf).gather(1, classes[:, None]).sum(), leaf)
    case.network.requires_grad_(True)


def explained(case: Case, name: str, max_batch: int = 256) -> Tensor:
    call = Call(call=words.expand("method", name))
    given: dict[str, Any] = {"classes_of": lambda logits: logits.argmax(1)} if call.wants("classes_of") else {}
    maps: Tensor = call.resolve()(case.network, case.images, case.targets, max_batch=max_batch, **given)
    return maps


def study_of(folder: Path, case: Case, name: str) -> Study:
    """A study of the same images, which lie in a folder and are packed in its first run, and of the same network."""
    for row, pixels in enumerate(case.images.permute(0, 2, 3, 1)):
        place = folder / name / "test" / ("first" if row < len(case.images) // 2 else "second")
        place.mkdir(parents=True, exist_ok=True)
        save(pixels, place / f"{row:06}.png")
    kwargs = {"root": str(folder / name), "size": case.images.shape[-1], "resize": None}
    study = {
        "out": folder / "run",
        "data": {"call": "image_folder", "kwargs": kwargs},
        "model": case.call,
        "attribution_methods": [{"name": STAGED, "method": STAGED}],
        "executor": "serial",
    }
    return Study.model_validate(study)


def staged(study: Study, out: Path) -> None:
    """The extract stage, from reading the data to the file."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        failures = extract(study.model_copy(update={"out": out}))
    assert not failures, failures


if __name__ == "__main__":
    main()
