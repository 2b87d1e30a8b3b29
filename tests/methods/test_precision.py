"""bf16: close to fp32 where a map is the mean of many gradients, refused where it is one."""

import copy

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from efface.methods import cam, path, smooth
from efface.methods.gradient import gradient, input_x_gradient
from efface.models.evaluation import check_precision
from efface.models.resnet import resnet8
from small.messages import words
from small.networks import seeded

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
TARGETS, SEEDS = torch.tensor([1, 3]), torch.tensor([5, 6])
AVERAGED = {
    "smooth_grad": (smooth.smooth_grad, {"samples": 8, "seeds": SEEDS}),
    "smooth_grad_squared": (smooth.smooth_grad_squared, {"samples": 8, "seeds": SEEDS}),
    "var_grad": (smooth.var_grad, {"samples": 8, "seeds": SEEDS}),
    "integrated_gradients": (path.integrated_gradients, {"steps": 8}),
    "smooth_integrated_gradients": (path.smooth_integrated_gradients, {"steps": 3, "samples": 3, "seeds": SEEDS}),
    "ig_uniform": (path.ig_uniform, {"samples": 4, "steps": 3, "seeds": SEEDS}),
    "ig_smooth": (path.ig_smooth, {"samples": 4, "steps": 3, "seeds": SEEDS}),
    "ig_squared": (path.ig_squared, {"samples": 4, "steps": 3, "seeds": SEEDS}),
}
SINGLE = {"gradient": (gradient, {}), "input_x_gradient": (input_x_gradient, {})}
SINGLE |= {
    "one sample": (smooth.smooth_grad, {"samples": 1, "seeds": SEEDS}),
    "one step": (path.integrated_gradients, {"steps": 1}),
}


@pytest.fixture(scope="module")
def resnet():
    return seeded(lambda: resnet8(num_classes=4)).eval()


@pytest.mark.parametrize("name", AVERAGED)
def test_means_of_many_gradients_rank_pixels_as_in_fp32(name, resnet):
    method, settings = AVERAGED[name]
    exact = method(resnet, IMAGES, TARGETS, **settings)
    rounded = method(resnet, IMAGES, TARGETS, precision="bf16", **settings)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert spearmanr(rounded.flatten(), exact.flatten()).statistic > 0.95


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_gradient_is_refused_unless_forced(name, resnet):
    method, settings = SINGLE[name]
    with pytest.raises(ValueError, match=words("gradient bf16 fp32 bf16_forced")):
        method(resnet, IMAGES, TARGETS, precision="bf16", **settings)
    exact, forced = (method(resnet, IMAGES, TARGETS, precision=each, **settings) for each in ("fp32", "bf16_forced"))
    assert forced.dtype == torch.float32
    assert spearmanr(forced.flatten(), exact.flatten()).statistic > 0.8


def test_only_the_passes_are_rounded():
    """1/3 and 2/3 of the way times weights that bf16 holds: the way, the mean and the sum are exact in float32."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    nn.init.constant_(network[1].weight, 0.375)
    found = path.integrated_gradients(network, IMAGES, TARGETS, steps=4, precision="bf16")
    assert torch.equal(found, IMAGES * 0.375)


def test_the_network_runs_in_bf16_and_stays_as_it_was(resnet):
    seen = []
    handle = resnet.layer1.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    smooth.smooth_grad(resnet, IMAGES, TARGETS, samples=2, seeds=SEEDS, precision="bf16")
    handle.remove()
    assert {*seen} == {torch.bfloat16}
    assert {each.dtype for each in resnet.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def test_what_cannot_be_is_refused(resnet):
    with pytest.raises(ValueError, match=words("precision fp16 fp32 bf16 bf16_forced")):
        check_precision("fp16", 50)
    with pytest.raises(ValueError, match=words("base passes")):
        smooth.smooth_grad(resnet, IMAGES, TARGETS, seeds=SEEDS, base=gradient, precision="bf16")


class HalfInside(nn.Module):
    """Takes and returns float32; its layers are in half precision."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)
        self.to(kind)

    def forward(self, images):
        features = self.conv(images.to(self.conv.weight.dtype)).relu()
        return self.linear(features.mean((2, 3))).float()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", [cam.grad_cam, cam.score_cam, cam.layer_cam, cam.hires_cam])
def test_activation_maps_of_layers_in_half_precision_are_summed_in_float32(method, kind):
    network = seeded(lambda: HalfInside(kind)).eval()
    maps = method(network, IMAGES, TARGETS % 3, layer="conv")
    exact = method(copy.deepcopy(network).float(), IMAGES, TARGETS % 3, layer="conv")
    assert maps.dtype == torch.float32
    assert spearmanr(maps.flatten(), exact.flatten()).statistic > 0.95
