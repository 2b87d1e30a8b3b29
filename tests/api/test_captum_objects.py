"""Every class of Captum, handed over as an object, gives the maps of that object or is refused in words."""

import inspect

import captum.attr
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLasso
from captum.attr import GuidedGradCam, LayerIntegratedGradients, Lime
from torch import nn

import efface
from efface.api.captum_objects import captum_settings

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def network():
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(256, 3)).eval()


NETWORK = network()
IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
CLASSES = NETWORK(IMAGES).argmax(1).detach()
NEEDED = {"model": NETWORK, "forward_func": NETWORK, "layer": NETWORK[0]}
KINDS = {name: kind for name in dir(captum.attr) if hasattr(kind := getattr(captum.attr, name), "attribute")}


def needed(kind):
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return [one.name for one in parameters if one.default is inspect.Parameter.empty]


MADE = sorted(name for name, kind in KINDS.items() if {*needed(kind)} <= {*NEEDED})


@pytest.mark.parametrize("name", MADE)
def test_an_object_that_was_made_by_default_has_its_layer_and_no_other_setting(name):
    given = needed(KINDS[name])
    settings = captum_settings("it", KINDS[name](*(NEEDED[word] for word in given)), NETWORK)
    assert settings == {"algorithm": name} | ({"layer": "0"} if "layer" in given else {})


def test_the_layer_of_an_object_that_keeps_it_inside_is_used():
    maps = efface.maps(NETWORK, IMAGES, methods={"it": GuidedGradCam(NETWORK, NETWORK[0])}, verbose=False)["it"]
    own = network()
    wanted = GuidedGradCam(own, own[0])
    torch.testing.assert_close(maps, wanted.attribute(IMAGES, target=CLASSES).detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("flag", [True, False])
def test_a_setting_that_an_inner_object_keeps_is_read(flag):
    settings = captum_settings("it", LayerIntegratedGradients(NETWORK, NETWORK[0], multiply_by_inputs=flag), NETWORK)
    assert settings.get("init", {}) == ({} if flag else {"multiply_by_inputs": False})


def test_a_setting_that_a_study_cannot_name_is_refused():
    with pytest.raises(ValueError, match="interpretable_model is a SkLearnLasso"):
        captum_settings("it", Lime(NETWORK, interpretable_model=SkLearnLasso(alpha=0.5)), NETWORK)
