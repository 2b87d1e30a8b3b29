"""Which metrics round an erased image to 8 bits, as docs/metrics.md says."""

import re
from pathlib import Path

import pytest
import torch

from efface.methods.gradient import gradient
from efface.metrics import Point, metric, names
from efface.plug.call import Call
from numerics import inputs
from numerics.plug_metrics import SETTINGS
from small.tiers import first_short

GREY = Call(call="efface.impute.constant", kwargs={"value": 0.5})  # 127.5 of 255
SUM = (Call(call="efface.erase.post.channel_sum"),)
PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
FIRST = ("morf", "sensitivity_n", "completeness", "monotonicity", "infidelity", "f_fidelity")
"""Those in the shorter tier."""
SHOWN: list[bool] = []
"""Whether all values of the images of a pass are multiples of 1/255."""


class Watched(inputs.Net):
    """The network of the golden outputs, which notes what it is shown."""

    def forward(self, images):
        values = images.detach() * 255
        SHOWN.append(bool((values - values.round()).abs().max() < 1e-3))
        return super().forward(images)


def told():
    (line,) = re.findall(r"These metrics do not round: (.+?)\.", PAGE, re.DOTALL)
    return set(re.findall(r"`(\w+)`", line))


def probed():
    """The metrics with a fill, but for one that trains a network of its own on the images of an `Erasure`."""
    return [name for name in names() if "imputer" in made(name).uses and name != "imputation_detectability"]


def made(name):
    return metric(name, SETTINGS.get(name, ({},))[0])


def test_the_page_names_metrics_that_erase():
    assert told() - {"di_full"} < set(probed())


def explained(model, shown, classes, rows):
    """A method that adds no noise to the images."""
    return gradient(model, shown, classes).sum(1)


@pytest.mark.parametrize("name", first_short(6, sorted(probed(), key=FIRST.__contains__, reverse=True)))
def test_an_erased_image_has_8_bits_unless_the_page_names_its_metric(name):
    formula = made(name)
    maps = {"train": inputs.maps(21, channels=3), "test": inputs.maps(6, channels=3)}
    network = inputs.randomised(Watched(), 1)
    here = inputs.case(maps, given_network=network, build=Watched, explain=explained)
    at = formula.points_for((3, 8, 8)) if formula.points_for else (0.3,)
    unit = Call.model_validate(formula.defaults["unit"]) if isinstance(formula.defaults.get("unit"), dict) else "pixel"
    probes = formula.probes(Point(at[len(at) // 2], 1, GREY, SUM, unit))
    SHOWN.clear()
    for probe in probes.values():
        probe(here)
    assert len(SHOWN) > 1
    assert all(SHOWN) == (name not in told())


def test_a_network_that_is_watched_tells_a_grey_that_is_no_multiple():
    SHOWN.clear()
    with torch.no_grad():
        for value in (0.5, 128 / 255):
            inputs.randomised(Watched(), 1)(torch.full((1, 3, 8, 8), value))
    assert SHOWN == [False, True]
