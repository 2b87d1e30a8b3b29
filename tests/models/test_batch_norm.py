"""The gradient of a normalisation of one image is that of finite differences, however it lies in memory."""

import copy
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efface.methods.calling import MethodCall, attribute
from efface.methods.gradient import gradient
from efface.methods.lrp import attn_lrp, cp_lrp, gim
from efface.models.batch_norm import single_images_repaired
from efface.models.evaluation import evaluating
from efface.plug.call import Call
from small import elsewhere


class Hybrid(nn.Module):
    """Features with a BatchNorm that become tokens, as in LeViT."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 4, 4), nn.BatchNorm2d(5)
        self.mix, self.head = nn.Linear(5, 5), nn.Linear(5, 3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, images):
        tokens = self.norm(self.conv(images)).flatten(2).transpose(1, 2)
        return self.head(F.gelu(self.mix(tokens)).mean(1))


IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2])


def hybrid():
    torch.manual_seed(0)
    return Hybrid().eval()


def plain(model, images, targets):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)[0]


def by_difference(model, images, targets):
    """The gradient in float64 by central differences of the convolution's output pixels."""
    model, images = model.double(), images.double()
    step, found = 1e-6, torch.zeros_like(images)
    for place in range(images[0].numel()):
        moved = torch.zeros_like(images[0]).reshape(-1)
        moved[place] = step
        moved = moved.reshape(images[0].shape)
        change = (model(images + moved) - model(images - moved)).gather(1, targets[:, None])[:, 0]
        found.reshape(len(images), -1)[:, place] = change / (2 * step)
    return found


def test_one_image_has_the_gradient_of_finite_differences():
    model = hybrid()
    with evaluating(model):
        one = plain(model, IMAGES[:1], CLASSES[:1])
    with torch.no_grad():
        wanted = by_difference(model, IMAGES[:1], CLASSES[:1])
    torch.testing.assert_close(one.double(), wanted, rtol=1e-4, atol=1e-6)


def test_a_method_of_somebody_else_gets_the_right_gradient(monkeypatch):
    model, seeds = hybrid(), torch.arange(3)
    monkeypatch.setattr("efface.methods.gradient.plain_here", plain, raising=False)
    method = MethodCall("theirs", Call(call="efface.methods.gradient.plain_here"), batched=True)
    called = lambda rows: attribute(  # noqa: E731
        method, model, IMAGES[rows], CLASSES[rows], seeds=seeds[rows], max_batch=8
    )["theirs"]
    singles = torch.cat([called(slice(row, row + 1)) for row in range(3)])
    torch.testing.assert_close(singles, called(slice(0, 3)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "levit_128s"])
@pytest.mark.parametrize("method", [gradient, attn_lrp, cp_lrp, gim])
def test_maps_of_single_images_are_those_of_the_batch(name, method):
    torch.manual_seed(0)
    settings = {"img_size": 32, "depth": 2} if name.startswith("xcit") else {"img_size": 64, "depth": (1, 1, 1)}
    model = elsewhere.timm.create_model(name, num_classes=3, **settings).eval()
    size = settings["img_size"]
    images = torch.rand(3, 3, size, size)
    batch = method(model, images, CLASSES)
    singles = torch.cat([method(model, images[row : row + 1], CLASSES[row : row + 1]) for row in range(3)])
    assert (singles - batch).abs().max() < 1e-3 * batch.abs().max()


LAID_OUT = {
    "rows": Tensor.contiguous,
    "channels_last": lambda each: each.contiguous(memory_format=torch.channels_last),
    "from_tokens": lambda each: each.flatten(2).mT.contiguous().mT.reshape(each.shape),
    "turned": lambda each: each.mT.contiguous().mT,
}


@pytest.mark.parametrize(("of_features", "of_gradient"), list(product(LAID_OUT, LAID_OUT)))
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d, nn.BatchNorm1d, nn.InstanceNorm1d])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_those_of_float64_in_each_memory_order(norm, training, of_features, of_gradient):
    torch.manual_seed(0)
    layer = norm(3, affine=True).train(training)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    shape = (3, 4) if norm in (nn.BatchNorm1d, nn.InstanceNorm1d) else (3, 4, 2)
    for count in (1, 2):
        features, back = torch.randn(count, *shape), torch.randn(count, *shape)
        laid = [LAID_OUT[of_features], LAID_OUT[of_gradient]]
        if len(shape) == 2:
            laid = [lambda each, change=change: change(each[..., None])[..., 0] for change in laid]
        double, exact = copy.deepcopy(layer).double(), features.double().requires_grad_()
        wanted = torch.autograd.grad(double(exact), [exact, *double.parameters()], back.double())
        moved = laid[0](features).requires_grad_()
        with single_images_repaired():
            normed = layer(moved)
        found = torch.autograd.grad(normed, [moved, *layer.parameters()], laid[1](back))
        for each, exactly in zip(found, wanted, strict=True):
            torch.testing.assert_close(each.double(), exactly, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_torch_is_as_before_afterwards(name):
    before = getattr(torch, name)
    with single_images_repaired(), single_images_repaired():
        assert getattr(torch, name) is not before
    assert getattr(torch, name) is before
    with pytest.raises(RuntimeError, match="own"), single_images_repaired():
        raise RuntimeError("own")
    assert getattr(torch, name) is before
