"""Changed ways back through a ReLU: against Captum, unrolled by hand, and on every way of writing a ReLU."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from torch import nn

from efface.methods.backprop import deconvnet, guided_backprop, rectified_gradient
from efface.methods.gradient import gradient
from efface.models import resnet
from efface.models.preact import preact_resnet
from efface.models.torchvision import load
from small.batches import images_and_classes
from small.messages import words
from small.networks import drawn_network, state_of

METHODS = {"guided_backprop": guided_backprop, "deconvnet": deconvnet, "rectified_gradient": rectified_gradient}
CAPTUM = {"guided_backprop": attr.GuidedBackprop, "deconvnet": attr.Deconvolution}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Net(nn.Module):
    """Every use of the ReLU as `rectify` writes it: with own modules, one module, in place, as a function."""

    def __init__(self, rectify):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.pool, self.nothing, self.head = nn.MaxPool2d(2), nn.Sequential(), nn.Linear(6, 4)
        self.rectify = rectify

    def forward(self, images):
        first = self.pool(self.rectify(self.conv1(images)))
        second = self.nothing(self.rectify(first + self.conv2(first)))
        return self.head(second.mean((2, 3)))


def net(rectify=None):
    return drawn_network(lambda: Net(rectify or nn.ReLU()))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.relus, self.uses = nn.ModuleList([nn.ReLU(), nn.ReLU()]), 0

    def forward(self, x):
        self.uses += 1
        return self.relus[self.uses % 2](x)


class Statement(nn.Module):
    """In place without an assignment."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        self.relu(x)
        return x


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", CAPTUM)
@pytest.mark.parametrize(
    "make",
    [
        partial(resnet.resnet8, num_classes=4),
        partial(preact_resnet, blocks=[2, 1], widths=[4, 6], num_classes=4),
        partial(load, "resnet18", num_classes=4),
        partial(load, "squeezenet1_1", num_classes=4),
    ],
    ids=["resnet8", "preact", "resnet18", "squeezenet"],
)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_equals_captum(name, make):
    torch.manual_seed(0)
    model, (images, targets) = make().double().eval(), images_and_classes(2, 32)
    expected = CAPTUM[name](model).attribute(images.clone().requires_grad_(), target=targets)
    assert expected.abs().max() > 0
    torch.testing.assert_close(METHODS[name](model, images, targets), expected, rtol=1e-5, atol=1e-12)


def unrolled(model, images, targets, rule):
    """The backward pass of `Net` written out: rule(answer, gradient) at each ReLU."""
    with torch.no_grad():
        before1 = model.conv1(images)
        answer1 = before1.relu()
        first, places = F.max_pool2d(answer1, 2, return_indices=True)
        answer2 = (first + model.conv2(first)).relu()
        back = model.head.weight[targets][:, :, None, None].expand_as(answer2) / answer2[0, 0].numel()
        back = rule(answer2, back)
        back = back + torch.nn.grad.conv2d_input(first.shape, model.conv2.weight, back, padding=1)
        back = rule(answer1, F.max_unpool2d(back, places, 2))
        return torch.nn.grad.conv2d_input(images.shape, model.conv1.weight, back, padding=1)


def strongest(fraction, answer, gradient):
    """One image after the other, by a sort."""
    kept = []
    for a, g in zip(answer, gradient, strict=True):
        product = (a * g).flatten()
        keep = torch.zeros_like(product)
        keep[product.argsort()[int(fraction * len(product) + 1e-6) :]] = 1
        kept.append(keep.view_as(a) * (a > 0))
    return torch.stack(kept) * gradient


def test_rules_unrolled_by_hand():
    model, (images, targets) = net(), images_and_classes()
    found = guided_backprop(model, images, targets)
    torch.testing.assert_close(found, unrolled(model, images, targets, lambda a, g: g.relu() * (a > 0)))
    torch.testing.assert_close(
        deconvnet(model, images, targets), unrolled(model, images, targets, lambda a, g: g.relu())
    )
    for fraction in (0.9, 0.98):
        found = rectified_gradient(model, images, targets, fraction=fraction, times_image=False)
        expected = unrolled(model, images, targets, partial(strongest, fraction))
        torch.testing.assert_close(found, expected)
        assert expected.count_nonzero() > 0
        times = rectified_gradient(model, images, targets, fraction=fraction)
        torch.testing.assert_close(times, images * expected)


def test_rectified_gradient_that_closes_nothing_is_the_gradient():
    model, (images, targets) = net(), images_and_classes()
    found = rectified_gradient(model, images, targets, fraction=0.0, times_image=False)
    torch.testing.assert_close(found, gradient(model, images, targets))


def test_rectified_gradient_between_gradient_and_nothing_is_guided_backprop():
    """Where half of the products are 0 or below, closing up to them leaves the positive ones."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(4))
        model[1].bias.copy_(torch.tensor([0.0, 0.0, -9.0, 0.0]))
        model[3].weight.copy_(torch.tensor([[2.0, -1.0, 5.0, 3.0]]))
    images, targets = torch.rand(3, 1, 2, 2, dtype=torch.float64) + 0.1, torch.zeros(3, dtype=torch.int64)
    found = rectified_gradient(model, images, targets, fraction=0.5, times_image=False)
    torch.testing.assert_close(found, guided_backprop(model, images, targets))
    assert torch.equal(found[0].flatten(), torch.tensor([2.0, 0.0, 0.0, 3.0], dtype=torch.float64))


@every_method
@pytest.mark.parametrize("make", [Own, partial(nn.ReLU, inplace=True), Statement], ids=["own", "in place", "statement"])
def test_however_the_relu_module_is_used_the_map_is_the_same(method, make):
    images, targets = images_and_classes()
    expected = method(net(), images, targets)
    torch.testing.assert_close(method(net(make()), images, targets), expected)


@every_method
@pytest.mark.parametrize("function", [F.relu, torch.relu, torch.Tensor.relu_, partial(F.relu, inplace=True), F.relu6])
def test_relu_as_a_function_is_refused_by_the_name_of_its_module(method, function):
    images, targets = images_and_classes()
    model = nn.Sequential(net(), nn.Identity())
    model[0].rectify = Function(function)
    with pytest.raises(ValueError, match=words("0.rectify Function ReLU")):
        method(model, images, targets)
    bare = net(nn.Identity())
    bare.forward = lambda x: F.relu(Net.forward(bare, x))
    with pytest.raises(ValueError, match=words("Net ReLU")):
        method(bare, images, targets)


@every_method
def test_network_without_relu_is_refused(method):
    with pytest.raises(ValueError, match=words("ReLU Net SiLU rectify")):
        method(net(nn.SiLU()), *images_and_classes())


def test_other_nonlinearities_keep_their_gradient():
    """SiLU above the last ReLU: its slope alone stands between the head and the rule."""
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 3)
    model, (images, targets) = nn.Sequential(*layers).double(), images_and_classes(h=2)
    hidden = model[:3](images).detach().requires_grad_()
    model[3:](hidden).gather(1, (targets % 3)[:, None]).sum().backward()
    expected = (hidden.grad.relu() * (hidden > 0)) @ model[1].weight
    torch.testing.assert_close(guided_backprop(model, images, targets % 3).flatten(1), expected.detach())


def test_relu6_is_a_relu_that_also_stops_at_six():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU6(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(4))
        model[1].bias.copy_(torch.tensor([0.0, 9.0, -9.0, 0.0]))
        model[3].weight.copy_(torch.tensor([[2.0, 1.0, 5.0, -3.0]]))
    images, targets = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    torch.testing.assert_close(model(images), model[3](F.relu6(model[1](images.flatten(1)))))
    assert guided_backprop(model, images, targets).flatten().tolist() == [2.0, 0.0, 0.0, 0.0]
    assert deconvnet(model, images, targets).flatten().tolist() == [2.0, 1.0, 5.0, 0.0]


@every_method
def test_batch_and_row_budget_change_nothing(method):
    model, (images, targets), passed = net(), images_and_classes(), []
    whole = method(model, images, targets)
    model.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    for max_batch in (1, 3):
        torch.testing.assert_close(method(model, images, targets, max_batch=max_batch), whole)
        assert max(passed) <= max_batch
    with pytest.raises(ValueError, match=words("max_batch 0")):
        method(model, images, targets, max_batch=0)


@every_method
def test_what_is_explained(method):
    model, (images, targets) = net(), images_and_classes()
    weights = F.one_hot(targets, 4).double()
    plain = method(model, images, targets)
    torch.testing.assert_close(method(model, images, weights), plain)
    with torch.no_grad():
        probabilities = model(images).softmax(1)
    for score in ("log_probability", "probability", "loss"):
        seed = weights - probabilities
        if score == "probability":
            seed = seed * probabilities.gather(1, targets[:, None])
        expected = method(model, images, -seed if score == "loss" else seed)
        torch.testing.assert_close(method(model, images, targets, score=score), expected)


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_the_caller_records_no_gradients(method, mode):
    model = net()
    expected = method(model, *images_and_classes())
    with mode():
        torch.testing.assert_close(method(model, *images_and_classes()), expected)


@every_method
def test_model_is_as_before_also_after_an_exception(method):
    model, (images, targets) = net(), images_and_classes()
    model.train()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before, kept = state_of(model), images.clone()
    method(model, images, targets)
    assert state_of(model) == before
    assert model.head.weight.grad.eq(1).all()
    assert model.head.weight.requires_grad
    assert torch.equal(images, kept)
    with pytest.raises(RuntimeError):
        method(model, images[:, :2], targets)
    assert state_of(model) == before
    points = images.requires_grad_()
    (ordinary,) = torch.autograd.grad(model.eval()(points).sum(), points)  # no rule is left behind
    with torch.no_grad():
        torch.testing.assert_close(ordinary, gradient(model, images, torch.ones(len(images), 4).double()))


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=words(f"fraction {fraction}")):
        rectified_gradient(net(), *images_and_classes(), fraction=fraction)
