"""Golden outputs of every metric: the values of its probes for each image, and what its formula makes of them."""

import functools
import math

import numpy as np
import torch

from efface.base.types import Split
from efface.erase.masking import to_float
from efface.metrics import Point, metric, names
from efface.metrics.formula import frozen_values, logit_ratio
from efface.metrics.shared.concentration import entropy, gini
from efface.metrics.shared.effects import pearson, spearman
from efface.plug.call import Call
from efface.report.stats import degeneracy
from efface.store.results import Score
from numerics import inputs
from numerics.table import golden

SETTINGS = {
    "adversarial_distance": ({"steps": 6, "step": 0.1}, {"norm": "linf", "steps": 4, "step": 0.02}),
    "completeness": ({}, {"score": "probability"}),
    "convergence": ({"points": 2, "pairs": 1},),
    "data_randomisation": ({"epochs": 1},),
    "degradation": ({"size": 3, "patches": 5, "step": 2},),
    "density_ratio": ({"levels": [0.1, 0.3], "samples": 2},),
    "di_full": ({"mosaics": 4},),
    "diffid": ({}, {"elementwise": True}),
    "efficient_randomisation": ({"bins": 10}, {"bins": 10, "draw": "normal"}, {"bins": 10, "statistics": "keep"}),
    "emd": ({}, {"side": 4}),
    "f_fidelity": ({"samples": 2},),
    "faithfulness_correlation": (
        {"samples": 6},
        {"samples": 5, "grid": 3, "score": "probability"},
        {"samples": 5, "grid": 3, "sets": "independent", "undefined": "zero"},
    ),
    "gan_test": ({"count": 5, "steps": 3, "lr": 0.5},),
    "grid_pointing_game": ({"mosaics": 4},),
    "idsds": ({"epochs": 1, "batch_size": 8, "lr": 0.1},),
    "infidelity": ({"samples": 4, "size": 3}, {"samples": 4, "perturbation": "noise"}),
    "leakage": ({}, {"top": 0.3}),
    "local_lipschitz": ({"samples": 2},),
    "magnitude_aligned": ({"steps": 4}, {"steps": 3, "way": "deletion"}),
    "max_sensitivity": ({"samples": 2, "radius": 0.1},),
    "monotonicity": ({"steps": 4, "samples": 2},),
    "pointing_game": ({}, {"tolerance": 1.0}),
    "random_logit": ({}, {"other": "runner_up"}),
    "randomisation": (
        {"points": 2},
        {"points": 2, "mode": "independent", "draw": "normal"},
        {"layers": ["fc", "layer2"]},
    ),
    "robust_accuracy": ({"eps": [0.1, 0.4], "steps": 2}, {"eps": [0.05], "norm": "linf", "start": "random"}),
    "saco": ({"groups": 4}, {"groups": 3, "score": "logit"}),
    "sensitivity_n": ({"samples": 4},),
    "shapley": ({"grid": 2}, {"grid": 2, "score": "logit"}),
    "single_deletion": ({}, {"cells": 2, "score": "probability"}),
}
"""Settings of a metric, cut to a few passes; where there are several, each is computed."""

MEAN = Call(call="efface.impute.channel_mean")
SUM = (Call(call="efface.erase.post.absolute"), Call(call="efface.erase.post.channel_sum"))


@functools.cache
def usual_case():
    """A network that is neither sure nor lost, with maps of both signs, ties, and one that is constant."""
    maps = {"train": inputs.maps(21, channels=3), "test": inputs.maps(8, channels=3)}
    net, stored = _sure(inputs.stored(8, 8))
    right = net(to_float(stored)).argmax(1)
    right[5] = (right[5] + 1) % 4
    asked = right.clone()
    asked[[1, 6]] = (asked[[1, 6]] + 2) % 4
    data = {"train": inputs.data()["train"], "test": Split(stored, right, masks=inputs.masks(8))}
    return inputs.case(maps, given_network=net, data=data, target_classes=asked)


def _sure(stored):
    """A network whose last layer is fitted to these images, so that all classes occur."""
    net, seen = inputs.network(), []
    handle = net.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0].double()))
    with torch.no_grad():
        net(to_float(stored))
        handle.remove()
        mean = seen[0].mean(0)
        features = seen[0] - mean
        wanted = 4 * (torch.arange(len(stored))[:, None] % 4 == torch.arange(4)).double() - 1
        square = features.T @ features
        weight = torch.linalg.solve(square + 0.003 * square.trace() * torch.eye(6).double(), features.T @ wanted)
        net.fc.weight.copy_(weight.T)
        net.fc.bias.copy_(-(mean @ weight))
    return net, stored


def _measured(name: str, given=None):
    found = {}
    for number, settings in enumerate(given or SETTINGS.get(name, ({},))):
        formula = metric(name, settings)
        for point in _points(formula):
            scores = {each: probe(usual_case()) for each, probe in formula.probes(point).items()}
            where = f"{number}_{point.x:.3g}_{point.repeat}"
            for each, score in scores.items():
                found |= {f"{where}_{each}_{value}": array for value, array in score.values.items()}
            values = {value: np.asarray(array) for value, array in formula.value(scores).items()}
            if formula.sample == "repeats":  # the number of a training is the mean over its test images
                values = {value: array.mean() for value, array in values.items()}
            found |= {f"{where}_{value}": np.asarray(array) for value, array in values.items()}
    return _once(found)


def _once(found):
    """Without what another name says already: a formula often hands on what its probe found."""
    kept, seen = {}, set()
    for name, array in found.items():
        mark = (array.shape, str(array.dtype), array.tobytes())
        if mark not in seen:
            kept[name] = array
            seen.add(mark)
    return kept


def _points(formula):
    given = {"imputer": MEAN, "unit": "pixel", "post": SUM}
    given |= {name: value for name, value in formula.defaults.items() if name in given}
    given["imputer"] = Call.model_validate(given["imputer"])
    given["post"] = tuple(Call.model_validate(each) for each in given["post"])
    if isinstance(given["unit"], dict):
        given["unit"] = Call.model_validate(given["unit"])
    fractions = formula.points_for((3, 8, 8)) if formula.points_for else (0.3,) if formula.axis else (0.0,)
    repeats = (1,) if formula.sample == "repeats" else (0,)
    some = fractions if len(fractions) < 4 else (fractions[0], fractions[len(fractions) // 2], fractions[-1])
    found = [Point(fraction, repeat, **given) for fraction in some for repeat in repeats]
    if formula.family == "localisation":  # maps of both signs, too: repeat 1 is only for its name
        found += [Point(fraction, 1, **(given | {"post": SUM[1:]})) for fraction in some]
    return found


for _name in names():
    golden(f"metric.{_name}")(functools.partial(_measured, _name))
golden("metric.randomisation.reset")(
    functools.partial(_measured, "randomisation", ({"points": 2, "statistics": "reset"},))
)


@golden("measure.formula")
def _formula():
    """What several metrics share, where images lie at the edges: a logit of 0, below it, and a little above."""
    erased = Score(
        {
            "accuracy": np.array([True, False, True, False]),
            "probability": np.array([0.2, 0.9, 0.5, 0.0], np.float32),
            "logit": np.array([0.4, -2.0, 3.0, 0.5], np.float32),
        }
    )
    clean = Score(
        {
            "accuracy": np.array([True, True, True, False]),
            "probability": np.array([0.8, 0.3, 0.5, 0.0], np.float32),
            "logit": np.array([0.25, -1.0, 0.0, 6.0], np.float32),
        }
    )
    found = frozen_values({"erased": erased, "clean": clean})
    return found | {"logit_ratio_alone": logit_ratio(erased, clean)} | _correlations() | _shapes()


def _correlations():
    one, other = (inputs.normal(seed, 5, 6).double().numpy() for seed in (1, 2))
    one[1], other[2] = 0.5, one[2] * 2 - 1
    one[3, :3] = one[3, 0]
    return {"pearson": pearson(one, other), "spearman": spearman(one, other)}


def _shapes():
    maps = inputs.maps(5)
    maps[4] = 0.0
    broken = torch.stack([maps[0], maps[0] * 2, maps[1], maps[2], maps[3]])
    broken[4, 0, 0] = math.nan
    told = degeneracy(broken, broken.flip(0), tolerance=1e-5)
    found = {
        name: np.asarray(getattr(told, name)) for name in ("nonfinite", "constant", "levels", "tied", "alike", "blind")
    }
    return found | {"gini": gini(maps.abs()), "entropy": entropy(maps.abs())}
