"""What a whole study costs beside the script that a good user of Captum and Quantus would write for the same question.

    python scripts/bench_whole.py [--images 64] [--rounds 3] [--weights FILE] [--parts frozen roar] [--quick]

`frozen`: four methods (gradient, input x gradient, integrated gradients of 50 steps, SmoothGrad of 50 samples) on a
ResNet20, judged by region perturbation in both orders (64 squares of 4 x 4 pixels turn black one by one), and by the
sparseness and the complexity of the maps. The script computes maps with Captum and numbers
with Quantus, in batches of 64, and writes them to a file. efface runs `efface all` on a study: maps, numbers,
intervals, verdicts, figures and the page.

`roar`: two of these methods and random maps, three fractions, two repeats: trainings of a ResNet8 for three epochs on
512 images. The script is a plain loop of PyTorch in fp32, with images masked in one tensor operation. The study has
the settings that docs/studies.md recommends for retraining: bf16 and channels_last.

Both run in a process of their own with one thread and compiled modules, and read the same images and weights. Maps
and all numbers are compared; SmoothGrad draws its noise anew, so its numbers only agree about. CPU seconds, peers
alternated; the ratio is the median over rounds of the two beside each other. Quantus is no dependency:
pip install quantus==0.6.0. About ten minutes; `--quick` takes four images, few steps and one round.
"""

import argparse
import csv
import json
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml
from bench_evaluate import seconds_of
from torch import nn

from efface.models.resnet import resnet20
from efface.models.torchvision import IMAGENET_MEAN, IMAGENET_STD

RECOMMENDED = {"precision": "bf16", "channels_last": True}
GOALS, SAME, ABOUT = {"frozen": 1.5, "roar": 2.3}, 1e-4, 0.05
Sizes = dict[str, Any]
METHODS = ("gradient", "input_x_gradient", "integrated_gradients", "smooth_grad")
MADE_UP = """
import numpy as np
import torch
from efface.models.resnet import resnet8, resnet20

MEANS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def images():
    held = np.load("images.npz")
    return torch.from_numpy(held["images"]), torch.from_numpy(held["targets"])


def data():
    from efface.base.types import Split
    return {name: Split(*images()) for name in ("train", "test")}


def network():
    return resnet20(**MEANS, weights="weights.pt")


def small():
    return resnet8(**MEANS)
"""
FROZEN = """
import json, time
clock = time.process_time
begun = clock()
import numpy as np
import quantus
import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from made_up import images, network

torch.set_num_threads(1)
parts = {{"imports": clock()}}
pictures, _ = images()
pictures = pictures.float().div(255)
model = network().eval()
with torch.no_grad():
    targets = torch.cat([model(part).argmax(1) for part in pictures.split({batch})])


def explained(attribute):
    begun = clock()
    pairs = zip(pictures.split({batch}), targets.split({batch}), strict=True)
    maps = torch.cat([attribute(part, target).detach() for part, target in pairs])
    parts["maps"] = parts.get("maps", 0) + clock() - begun
    return maps


paths, smooth = IntegratedGradients(model), NoiseTunnel(Saliency(model))
maps = {{
    "gradient": explained(lambda x, y: Saliency(model).attribute(x, target=y, abs=False)),
    "input_x_gradient": explained(lambda x, y: InputXGradient(model).attribute(x, target=y)),
    "integrated_gradients": explained(
        lambda x, y: paths.attribute(x, target=y, n_steps={passes}, internal_batch_size={batch})
    ),
    "smooth_grad": explained(
        lambda x, y: smooth.attribute(
            x, target=y, abs=False, nt_samples={passes}, nt_samples_batch_size=1, stdevs=0.15
        )
    ),
}}
known = {{"abs": False, "normalise": False, "disable_warnings": True}}
regions = {{
    order: quantus.RegionPerturbation(
        patch_size=4, order=order, regions_evaluation={regions}, perturb_baseline=0.0, **known
    )
    for order in ("morf", "lerf")
}}
sums = {{
    "sparseness": quantus.Sparseness(**known | {{"abs": True}}),
    "complexity": quantus.Complexity(**known | {{"abs": True}}),
}}
asked = {{"x_batch": pictures.numpy(), "y_batch": targets.numpy(), "device": "cpu", "batch_size": {batch}}}
numbers = {{}}


def score(name, method, metric, values, softmax):
    begun = clock()
    scores = np.array(metric(model=model, a_batch=values.numpy(), softmax=softmax, **asked), dtype=np.float64)
    numbers[f"{{method}} {{name}}"] = np.atleast_1d(scores.mean(0)).tolist()
    parts[name] = parts.get(name, 0) + clock() - begun


for method, values in maps.items():
    summed = values.sum(1, keepdim=True)
    for order, metric in regions.items():
        score(order, method, metric, summed, True)
    for name, metric in sums.items():
        score(name, method, metric, summed, False)
np.savez("theirs.npz", **{{name: values.numpy() for name, values in maps.items()}})
json.dump({{"numbers": numbers, "parts": parts}}, open("theirs.json", "w"))
"""
ROAR = """
import json
import torch
from captum.attr import Saliency
from made_up import images, small

torch.set_num_threads(1)
pictures, labels = images()
pictures = pictures.float().div(255)


def trained(seed, data):
    torch.manual_seed(seed)
    learner = small().train()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9)
    for _ in range({epochs}):
        for rows in torch.randperm(len(data)).split(64):
            loss = torch.nn.functional.cross_entropy(learner(data[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return learner.eval()


def predicted(learner, data):
    with torch.no_grad():
        return torch.cat([learner(part).argmax(1) for part in data.split(256)])


model = trained(0, pictures)
pairs = list(zip(pictures.split({batch}), predicted(model, pictures).split({batch}), strict=True))
gradient = torch.cat([Saliency(model).attribute(x, target=y, abs=False) for x, y in pairs])
maps = {{"gradient": gradient.sum(1), "input_x_gradient": (gradient * pictures).sum(1)}}
mean, numbers = pictures.mean((0, 2, 3)), {{}}
for method in ("random", *maps):
    for fraction in {fractions}:
        accuracies = []
        for repeat in range({repeats}):
            ranked = maps[method] if method in maps else torch.rand(len(pictures), 32, 32)
            gone = torch.zeros(len(pictures), 1024, dtype=torch.bool)
            gone.scatter_(1, ranked.flatten(1).argsort(1, descending=True)[:, : int(fraction * 1024)], True)
            erased = torch.where(gone.view(-1, 1, 32, 32), mean[:, None, None], pictures)
            accuracies.append((predicted(trained(repeat, erased), erased) == labels).float().mean().item())
        numbers[f"{{method}} roar {{fraction}}"] = sum(accuracies) / len(accuracies)
json.dump({{"numbers": numbers, "parts": {{}}}}, open("theirs.json", "w"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="images of the part `frozen`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", type=Path, help="state dict of a CIFAR ResNet20; random without")
    parser.add_argument("--parts", nargs="+", choices=GOALS, default=list(GOALS))
    parser.add_argument("--quick", action="store_true", help="few images and steps, one round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes: Sizes = {"batch": 64, "passes": 50, "regions": 64}
    sizes |= {"fractions": [0.3, 0.6, 0.9], "repeats": 2, "epochs": 3}
    if options.quick:
        sizes |= {"passes": 2, "regions": 4, "fractions": [0.5], "repeats": 1, "epochs": 1}
    for part in options.parts:
        count = (4 if part == "frozen" else 64) if options.quick else (options.images if part == "frozen" else 512)
        with tempfile.TemporaryDirectory() as folder:
            report(part, Path(folder), count, 1 if options.quick else options.rounds, options.weights, sizes)


def report(part: str, folder: Path, count: int, rounds: int, weights: Path | None, sizes: Sizes) -> None:
    """Run both sides, compare their numbers, and print what they cost."""
    prepare(folder, count, weights)
    (folder / "theirs.py").write_text((FROZEN if part == "frozen" else ROAR).format(**sizes))
    ratios, spent = [], {}
    for one in range(-1, rounds):  # the first round compiles Python's modules, and is not counted
        study = (frozen if part == "frozen" else roar)(sizes) | {"out": f"run-{one}", "executor": "serial"}
        (folder / "study.yml").write_text(yaml.safe_dump(study | {"threads": 1, "device": "cpu"}))
        ways = {
            "script": [sys.executable, "theirs.py"],
            "efface": [sys.executable, "-m", "efface", "all", "study.yml"],
        }
        order = list(ways.items())[:: 1 if one % 2 else -1]
        spent = {way: seconds_of(command, folder) for way, command in order}
        if one < 0:
            continue
        ratios.append(spent["script"] / spent["efface"])
        print(f"{part}, round {one}: script {spent['script']:.1f} s, efface {spent['efface']:.1f} s, {ratios[-1]:.2f}x")
    run, theirs = folder / f"run-{rounds - 1}", json.loads((folder / "theirs.json").read_text())
    compare(part, run, theirs["numbers"], folder)
    print_parts(run, spent, theirs["parts"])
    print(f"{part}, {count} images: efface is {statistics.median(ratios):.2f}x as cheap (goal {GOALS[part]}x)\n")


def prepare(folder: Path, count: int, weights: Path | None) -> None:
    """Write the images, the weights and the module of both sides."""
    torch.manual_seed(0)
    targets = torch.arange(count) % 10
    shades = torch.rand(10, 3, 1, 1) + 0.3 * torch.rand(10, 3, 32, 32)  # of each class, so that it can be learnt
    pictures = (0.6 * shades[targets] + 0.4 * torch.rand(count, 3, 32, 32)).clamp(0, 1).mul(255).byte()
    np.savez(folder / "images.npz", images=pictures.numpy(), targets=targets.numpy())
    network = resnet20(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD), weights=weights).eval()
    for norm in network.modules():
        if weights is None and isinstance(norm, nn.BatchNorm2d):  # where a training might put them
            for numbers, middle in zip(norm.state_dict().values(), (1.0, 0.0, 0.0, 1.0), strict=False):
                nn.init.uniform_(numbers, middle - 0.5, middle + 0.5)
    torch.save(network.state_dict(), folder / "weights.pt")
    (folder / "made_up.py").write_text(MADE_UP)


def frozen(sizes: Sizes) -> Sizes:
    """The study of the part `frozen`."""
    kwargs = {
        "integrated_gradients": {"steps": sizes["passes"], "rule": "gauss_legendre"},
        "smooth_grad": {"samples": sizes["passes"], "noise": 0.15},
    }
    return {
        "data": "made_up.data",
        "model": "made_up.network",
        "fit": None,
        "repeats": 1,
        "attribution_methods": [
            {"name": "random", "method": "random"},
            *({"name": name, "method": name, "kwargs": kwargs.get(name, {})} for name in METHODS),
        ],
        "post": ["channel_sum"],
        "imputer": {"call": "constant", "kwargs": {"value": 0.0}},
        "unit": {"call": "patch", "kwargs": {"size": 4}},
        "metrics": ["morf", "lerf", "sparseness", "complexity"],
        "fractions": [step / 64 for step in range(sizes["regions"] + 1)],
    }


def roar(sizes: Sizes) -> Sizes:
    """The study of the part `roar`."""
    training = {
        "epochs": sizes["epochs"],
        "batch_size": 64,
        "optimizer": {"call": "torch.optim.SGD", "kwargs": {"lr": 0.1, "momentum": 0.9}},
        **RECOMMENDED,
    }
    names = ("random", "gradient", "input_x_gradient")
    return {
        "data": "made_up.data",
        "model": "made_up.small",
        "fit": training,
        "attribution_methods": [{"name": name, "method": name} for name in names],
        "post": ["channel_sum"],
        "imputer": "channel_mean",
        "metrics": ["roar"],
        "fractions": sizes["fractions"],
        "repeats": sizes["repeats"],
    }


def compare(part: str, run: Path, theirs: Sizes, folder: Path) -> None:
    """Print how far maps and numbers of both sides are apart."""
    ours = own_numbers(run)
    if part == "roar":
        apart = [ours[name] - value for name, value in theirs.items()]
        print(
            f"accuracies of {len(apart)} points differ by {statistics.fmean(apart):+.3f} on average, by "
            f"{max(map(abs, apart)):.3f} at most (trainings of other seeds)"
        )
        return
    held = np.load(folder / "theirs.npz")
    for name in METHODS[:-1]:
        (path,) = (run / "maps").glob(f"{name}*.h5")
        with h5py.File(path) as file:
            expected, found = torch.from_numpy(held[name]), torch.from_numpy(file["maps"][:])
        off = (found - expected).abs().flatten(1).amax(1) / expected.abs().flatten(1).amax(1)
        print(f"maps of {name}: {off.median():.0e} of the maximum apart in the median image")
    same, drawn = 0.0, 0.0
    for name, values in theirs.items():
        curve = np.array([ours[f"{name} {place}"] for place in range(len(values) + 1) if f"{name} {place}" in ours])
        if len(curve) > len(values):  # Quantus gives by how much the probability of the whole image has fallen
            curve = (curve[0] - curve)[1:]
        worst = float(np.abs(curve - values).max())
        if name.startswith(METHODS[-1]):
            drawn = max(drawn, worst)
        else:
            same = max(same, worst)
    print(
        f"largest difference of {len(theirs)} curves and scores from Quantus: {same:.0e} with the same maps (goal "
        f"{SAME:g}), {drawn:.3f} with other draws of the noise (goal {ABOUT:g})"
    )


def own_numbers(run: Path) -> dict[str, float]:
    """Return efface's means by method, metric and number of the point."""
    found: dict[str, float] = {}
    with (run / "report" / "summary.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] != "network"]
    wanted = {
        ("morf", "probability"): "morf",
        ("lerf", "probability"): "lerf",
        ("sparseness", "gini"): "sparseness",
        ("complexity", "entropy"): "complexity",
    }
    places: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: float(row["fraction"])):
        if row["metric"] == "roar":
            found[f"{row['method']} roar {float(row['fraction']):g}"] = float(row["mean"])
        elif name := wanted.get((row["metric"], row["score"])):
            key = f"{row['method']} {name}"
            found[f"{key} {places[key]}"] = float(row["mean"])
            places[key] += 1
    return found


def print_parts(run: Path, spent: dict[str, float], theirs: dict[str, float]) -> None:
    """Print the CPU seconds of each side by part."""
    ours: Counter[str] = Counter()
    for line in (run / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        ours["maps" if row["probe"]["probe"] == "extract" else row["probe"]["probe"]] += row["cpu_seconds"]
    for side, parts in (("script", theirs), ("efface", dict(ours))):
        rest = spent[side] - sum(parts.values())
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items() if seconds >= 0.05)
        print(f"  {side}: {told}{', ' if told else ''}all else {rest:.1f} s")


if __name__ == "__main__":
    main()
