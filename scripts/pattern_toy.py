"""The pattern-guided paper's two synthetic experiments: tables and, with --out, their figure.

    python scripts/pattern_toy.py [--out pattern_toy.png]

First, f(x) = min(z, 1) as a network of one hidden unit, x = (z + noise, noise), 400 points: the signal is in dimension
1, dimension 2 is noise alone. Integrated gradients (IG) pass saturation and keep the noise, PatternAttribution (PA)
stops at saturation and drops the noise, pattern-guided IG (PGIG) passes and drops. Expected, with the published
patterns: mean |dimension 2| 0.210561, 0.002064, 0.000694. Below them what our own estimates from these points give.

Second, two networks of the same function, each with patterns estimated from the same 5,000 points: at (3, 3) PA gives
(1.6343, 6.3657) and (2.0919, 5.9081), so it is not implementation invariant, nor is PGIG; IG is.

Source: Schwarzenberg & Castle 2020 (arXiv:2007.10685) and the notebooks beside it. Seconds on one core.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from efface.methods.path import integrated_gradients
from efface.methods.pattern import PatternAttribution, PatternGuidedIG
from efface.methods.pattern.fit import Estimate, Estimator, estimate_patterns

Patterns = dict[str, Tensor]
Maps = dict[str, Tensor]  # by method, points x 2

# As released; the product of input and response is taken between samples there, by mistake.
PUBLISHED = {"1": torch.tensor([[-1.00329617, -0.00329617]]).double(), "3": torch.tensor([[-1.0]]).double()}
ESTIMATORS: tuple[Estimator, ...] = ("two_component", "positive", "linear")
STEPS = 100  # of the right-hand sum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the figure; its ending says which kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    z, images = saturating_data()
    model = network((-1, 1), 1, -1, 1)
    patterns = {"published": PUBLISHED} | {name: estimated(model, images, name) for name in ESTIMATORS}
    found = {name: explained(model, images, each) for name, each in patterns.items()}
    report_saturation(z, patterns, found)
    points = invariance_data()
    networks = {
        "ReLU(ReLU(w.x) - 1)": nn.Sequential(*network((1, 2), 0, 1, -1), nn.ReLU()),
        "ReLU(w.x - 1)": network((1, 2), -1, 1, 0),
    }
    own = {name: estimated(each, points, "two_component") for name, each in networks.items()}
    at = torch.full((1, 2, 1, 1), 3.0).double()
    maps = {name: explained(each, at, own[name], start="logit") for name, each in networks.items()}
    report_invariance(own, maps)
    if arguments.out:
        draw(arguments.out, z, found, maps)
        print(f"\n{arguments.out}")


def saturating_data() -> tuple[np.ndarray, Tensor]:
    z = np.arange(-2, 2, 0.01)
    noise = np.random.RandomState(42).normal(0, 0.3, len(z))
    return z, as_images(np.stack([z + noise, noise], 1))


def invariance_data() -> Tensor:
    generator = np.random.RandomState(42)
    first = generator.normal(0, 0.7, 5000)
    return as_images(np.stack([first, np.where(generator.rand(5000) > 0.5, first, -first)], 1))


def as_images(points: np.ndarray) -> Tensor:
    return torch.from_numpy(points).reshape(-1, 2, 1, 1)


def network(weights: tuple[float, float], bias: float, outer: float, shift: float) -> nn.Sequential:
    """outer * ReLU(weights . x + bias) + shift."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (weights, bias, outer, shift), strict=True):
            parameter.copy_(torch.tensor(value).view_as(parameter))
    return model


def estimated(model: nn.Module, images: Tensor, estimator: Estimator) -> Patterns:
    seeds = torch.arange(len(images))
    return estimate_patterns(model, lambda block: images[block], seeds, Estimate(estimator, len(images), 1))


def explained(model: nn.Module, images: Tensor, patterns: Patterns, start: str = "one") -> Maps:
    """start: of the guided path; the paper's begins with 1, its PatternAttribution with the output."""
    targets, line = torch.zeros(len(images), dtype=torch.int64), {"steps": STEPS, "rule": "right"}
    guided = PatternGuidedIG(**line, start=start)
    maps = {
        "IG": integrated_gradients(model, images, targets, **line),
        "PA": PatternAttribution()(model, images, targets, patterns=patterns),
        "PGIG": guided(model, images, targets, patterns=patterns),
    }
    return {name: each.flatten(1) for name, each in maps.items()}


def report_saturation(z: np.ndarray, patterns: dict[str, Patterns], found: dict[str, Maps]) -> None:
    saturated = torch.from_numpy(z > 1 - 1e-9)
    print(f"{'':<44}{'mean |map|':^24}{'max |map|':>11}{f'  {int(saturated.sum())} saturated points':^27}")
    print(f"{'patterns':<38}{'method':<6}{'dim 1':>12}{'dim 2':>12}{'dim 2':>11}{'mean dim 1':>13}{'mean |dim 2|':>14}")
    for name, maps in found.items():
        first, second = patterns[name]["1"][0].tolist()
        for method, each in maps.items():
            label = f"{name} ({first:.6f}, {second:.6f})" if method == "IG" else ""
            one, two = each.abs().mean(0).tolist()
            most, flat = float(each[:, 1].abs().max()), each[saturated]
            line = f"{label:<38}{method:<6}{one:>12.6f}{two:>12.6f}{most:>11.6f}"
            print(f"{line}{float(flat[:, 0].mean()):>13.6f}{float(flat[:, 1].abs().mean()):>14.6f}")


def report_invariance(patterns: dict[str, Patterns], found: dict[str, Maps]) -> None:
    print(
        f"\n{'network':<21}{'pattern of w = (1, 2)':<23}"
        + "".join(f"{f'{each} at (3, 3)':<23}" for each in ("IG", "PA", "PGIG"))
    )
    for name, maps in found.items():
        rows = [patterns[name]["1"][0], *(each[0] for each in maps.values())]
        print(
            f"{name:<21}" + "".join(f"{f'({one:.6f}, {two:.6f})':<23}" for one, two in (row.tolist() for row in rows))
        )


def draw(path: Path, z: np.ndarray, found: dict[str, Maps], invariance: dict[str, Maps]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(14, 6), layout="constrained", width_ratios=(1, 1, 1, 0.9))
    for column, method in enumerate(("IG", "PA", "PGIG")):
        for row in (0, 1):
            axis = axes[row, column]
            for name, color in (("two_component", "tab:orange"), ("published", "tab:blue")):
                color = "black" if method == "IG" else color  # has no patterns
                axis.plot(
                    z, found[name][method][:, row], ".", ms=3, color=color, label=f"{name.replace('_', '-')} patterns"
                )
            axis.axvline(1, color="grey", lw=0.8, ls=":")
            axis.set_ylim((-2.5, 2.5) if row == 0 else (-1.3, 1.3))
            axis.set_xlabel("signal z" if row else "")
            axis.set_title(
                f"{method}: dimension {row + 1}, {'noise alone' if row else 'signal and noise'}", fontsize=10
            )
    axes[0, 1].legend(fontsize=8)
    for row, method in enumerate(("PA", "PGIG")):
        axis = axes[row, 3]
        for number, (name, maps) in enumerate(invariance.items()):
            axis.bar(np.arange(2) + (number - 0.5) * 0.38, maps[method][0], 0.36, label=name)
        axis.set_xticks([0, 1], ["dimension 1", "dimension 2"])
        axis.set_title(f"{method} at (3, 3), one function", fontsize=10)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
