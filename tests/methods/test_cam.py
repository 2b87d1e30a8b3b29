"""Class activation maps: closed forms, Captum, higher derivatives and plain loops as oracles."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from torch import nn

from efface.methods import backprop, cam
from efface.models import evaluation, memory
from small.batches import images_and_classes
from small.messages import words
from small.networks import drawn_network, state_of
from small.tiers import first_short

METHODS = {
    "grad_cam": cam.grad_cam,
    "grad_cam_plus_plus": cam.grad_cam_plus_plus,
    "hires_cam": cam.hires_cam,
    "layer_cam": cam.layer_cam,
    "score_cam": cam.score_cam,
    "score_cam_of_few": partial(cam.score_cam, channels=3, weights="score", score="probability"),
    "guided_grad_cam": cam.guided_grad_cam,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
signed = pytest.mark.parametrize(
    "method", [cam.grad_cam, cam.grad_cam_plus_plus, cam.hires_cam, cam.layer_cam, cam.score_cam]
)


class Net(nn.Module):
    """Two convolutions, BatchNorm and ReLUs, one in place; then a head that is linear in `last`."""

    def __init__(self, *, pooled=True, stride=2):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Conv2d(6, 5, 3, stride=stride, padding=1)
        self.last = nn.ReLU(inplace=True)
        self.pooled = pooled
        self.head = nn.Linear(5 if pooled else 5 * 10 * 8 // stride**2, 4)
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        features = self.last(self.second(self.first(images)))
        return self.head(features.mean((2, 3)) if self.pooled else features.flatten(1))


class Behind(nn.Module):
    """A second convolution stage behind `stage`, so that gradients differ from place to place and are not linear."""

    def __init__(self):
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.rest = nn.Sequential(nn.Conv2d(6, 7, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(7 * 10 * 8, 4))

    def forward(self, images):
        return self.rest(self.stage(images))


class Weighing(nn.Module):
    """One logit: the output of `layer`, weighed."""

    def __init__(self, layer, weights):
        super().__init__()
        self.layer, self.weights = layer, weights

    def forward(self, images):
        return (self.layer(images) * self.weights).sum((1, 2, 3))[:, None]


def features_of(model, layer, images):
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: kept.append(output.clone())
    )
    with torch.no_grad():
        model(images)
    handle.remove()
    return kept[-1]


def large(small):
    return F.interpolate(small[:, None], size=(10, 8), mode="bilinear", align_corners=False)[:, 0]


# Every method


@every_method
@pytest.mark.parametrize("max_batch", first_short(2, [1, 7, 3, 1000]))
def test_batch_and_row_budget_change_nothing(method, max_batch):
    model, (images, targets) = drawn_network(Net), images_and_classes(5, 10, 8)
    singles = [method(model, images[i : i + 1], targets[i : i + 1]) for i in range(len(images))]
    passed = []
    model.register_forward_hook(lambda module, inputs, output: passed.append(len(output)))
    found = method(model, images, targets, max_batch=max_batch)
    torch.testing.assert_close(found, torch.cat(singles), rtol=1e-9, atol=1e-12)
    assert max(passed) <= max_batch
    assert found.abs().sum() > 0
    assert not found.requires_grad


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_model_and_images_are_as_before(method, mode):
    model, (images, targets) = drawn_network(Net), images_and_classes(5, 10, 8)
    expected = method(model, images, targets)
    model.train()
    model.head.bias.requires_grad_(False)
    images.requires_grad_()
    before, values = state_of(model), images.detach().clone()
    with mode():
        found = method(model, images, targets)
    torch.testing.assert_close(found, expected)
    assert state_of(model) == before
    assert torch.equal(images.detach(), values)
    assert images.grad is None


@every_method
def test_model_is_as_before_an_exception(method):
    model, (images, targets) = drawn_network(Net).train(), images_and_classes(5, 10, 8)
    calls = []

    def fail(module, inputs):
        calls.append(module)
        if len(calls) > 1:
            raise RuntimeError("out of memory")

    model.head.register_forward_pre_hook(fail)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        method(model, images, targets, max_batch=2)
    assert state_of(model) == before


@every_method
@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("secnd", "secnd second"),
        ("head", "head (5, 4)"),
        ("unused", "unused logits"),
    ],
)
def test_layer_that_cannot_be_explained_is_refused(method, layer, said):
    model, (images, targets) = drawn_network(Net), images_and_classes(5, 10, 8)
    before = state_of(model)
    with pytest.raises(ValueError, match=words(said)):
        method(model, images, targets, layer=layer)
    assert state_of(model) == before


@pytest.mark.parametrize("method", [METHODS[name] for name in METHODS if name != "score_cam_of_few"])
def test_one_hot_weights_are_the_class(method):
    model, (images, targets) = drawn_network(Behind), images_and_classes(5, 10, 8)
    weights = F.one_hot(targets, 4).double()
    found = method(model, images, weights, layer="stage")
    torch.testing.assert_close(found, method(model, images, targets, layer="stage"))


@signed
def test_relu_can_be_left_out(method):
    model, (images, targets) = drawn_network(Net), images_and_classes(5, 10, 8)
    weights = F.one_hot(targets, 4) - 0.25  # so that the scores have both signs
    raw, rectified = (method(model, images, weights, layer="first.0", relu=relu) for relu in (False, True))
    assert raw.min() < 0 < raw.max()
    torch.testing.assert_close(rectified, raw.relu())  # the layer is as large as the image


def test_relu_comes_before_enlarging():
    images, _ = images_and_classes(5, 10, 8)
    slopes = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    small = (F.avg_pool2d(images, 2) * slopes).sum(1)
    assert not torch.allclose(large(small).relu(), large(small.relu()))
    for relu, expected in ((True, small.relu()), (False, small)):
        found = cam.hires_cam(
            Weighing(nn.AvgPool2d(2), slopes), images, torch.zeros(5).long(), layer="layer", relu=relu
        )
        torch.testing.assert_close(found, large(expected))


def test_layer_whose_last_run_is_unused_is_refused():
    class Twice(Net):
        def forward(self, images):
            found = super().forward(images)
            self.second(torch.zeros(len(images), 6, 10, 8).to(images))
            return found

    images, targets = images_and_classes(5, 10, 8)
    with pytest.raises(ValueError, match=words("second logits")):
        cam.grad_cam(drawn_network(Twice), images, targets, layer="second")


# Gradient-weighted


@pytest.mark.parametrize("score", ["logit", "log_probability", "probability", "loss"])
def test_what_is_explained_can_be_chosen(score):
    """On a linear head, in closed form: gradient of the score by the pooled features, times the features."""
    model, (images, targets) = drawn_network(Net), images_and_classes(5, 10, 8)
    features = features_of(model, "last", images)
    logits, own = model.head(features.mean((2, 3))).detach(), F.one_hot(targets, 4).double()
    probability = logits.softmax(1)
    slope = {"logit": own, "log_probability": own - probability, "loss": probability - own}
    slope["probability"] = slope["log_probability"] * (probability * own).sum(1, keepdim=True)
    pooled = slope[score] @ model.head.weight.detach()
    expected = large(torch.einsum("nk,nkhw->nhw", pooled / 20, features))
    torch.testing.assert_close(cam.grad_cam(model, images, targets, score=score, relu=False), expected)


@pytest.mark.parametrize("layer", ["stage", "stage.0", "rest.0", "rest.1"])
def test_grad_cam_equals_captum(layer):
    model, (images, targets) = drawn_network(Behind), images_and_classes(5, 10, 8)
    captum = attr.LayerGradCam(model, model.get_submodule(layer))
    for relu in (True, False):
        small = captum.attribute(images, target=targets, relu_attributions=relu)
        expected = attr.LayerAttribution.interpolate(small, (10, 8), "bilinear")[:, 0].detach()
        found = cam.grad_cam(model, images, targets, layer=layer, relu=relu)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pooled", [True, False])
def test_hires_cam_before_a_linear_head_sums_to_the_logit_less_its_bias(pooled):
    model, (images, targets) = (
        drawn_network(partial(Net, pooled=pooled, stride=1)),
        images_and_classes(5, 10, 8),
    )  # nothing to enlarge
    found = cam.hires_cam(model, images, targets, relu=False)
    logits = model(images).detach() - model.head.bias.detach()
    torch.testing.assert_close(found.sum((1, 2)), logits.gather(1, targets[:, None])[:, 0])
    assert torch.allclose(found, cam.grad_cam(model, images, targets, relu=False)) == pooled


def loop(model, images, targets, layer):
    """Features and gradients of each image on its own."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: kept.append(output))
    for i in range(len(images)):
        logits = model(images[i : i + 1])
        (gradients,) = torch.autograd.grad(logits[0, targets[i]], kept[-1])
        yield kept[-1][0].detach(), gradients[0]
    handle.remove()


def test_layer_and_hires_cam_equal_plain_loops():
    model, (images, targets) = drawn_network(Behind), images_and_classes(5, 10, 8)
    for method, weigh in ((cam.hires_cam, lambda g: g), (cam.layer_cam, lambda g: max(g, 0.0))):
        expected = torch.zeros(5, 10, 8, dtype=torch.float64)
        for n, (features, gradients) in enumerate(loop(model, images, targets, "stage")):
            for k in range(6):
                for y in range(10):
                    for x in range(8):
                        expected[n, y, x] += weigh(gradients[k, y, x].item()) * features[k, y, x].item()
        torch.testing.assert_close(method(model, images, targets, layer="stage"), expected.relu())


def test_grad_cam_plus_plus_equals_the_derivatives_of_the_exponential():
    """Shares from the second and third derivatives of exp(logit) by each feature, as the paper defines them."""
    generator = torch.Generator().manual_seed(3)
    features = torch.rand(2, 3, 3, generator=generator, dtype=torch.float64)
    slope = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)

    class Linear(nn.Module):
        """The image is the layer's output; the head is linear in it."""

        def __init__(self):
            super().__init__()
            self.same = nn.Conv2d(2, 2, 1, bias=False).double()
            nn.init.dirac_(self.same.weight)

        def forward(self, images):
            score = (self.same(images) * slope).sum((1, 2, 3)) + 0.3
            return torch.stack([score, -score], 1)

    expected = torch.zeros(3, 3, dtype=torch.float64)
    score = ((features * slope).sum() + 0.3).exp()
    for k in range(2):
        weight = 0.0
        for y in range(3):
            for x in range(3):
                one = features[k, y, x].clone().requires_grad_()
                at = torch.zeros_like(features)
                at[k, y, x] = 1
                value = ((features + at * (one - one.detach())).mul(slope).sum() + 0.3).exp()
                (first,) = torch.autograd.grad(value, one, create_graph=True)
                (second,) = torch.autograd.grad(first, one, create_graph=True)
                (third,) = torch.autograd.grad(second, one)
                share = second / (2 * second + features[k].sum() * third)
                weight += (share * first.relu()).item()
        expected += weight * features[k]
    found = cam.grad_cam_plus_plus(Linear(), features[None], torch.tensor([0]), layer="same", relu=False)[0]
    torch.testing.assert_close(found * score, expected, rtol=1e-10, atol=1e-12)


def test_grad_cam_plus_plus_is_finite_where_a_share_has_no_denominator():
    """The features sum to -2. At the first place, 2 + 1 * -2 is 0; at the second, the gradient is negative."""
    features = torch.full((1, 1, 1, 2), -1.0)
    model = Weighing(nn.Identity(), torch.tensor([1.0, -3.0]))
    found = cam.grad_cam_plus_plus(model, features, torch.tensor([0]), layer="layer", relu=False)
    assert found.tolist() == [[[0.0, 0.0]]]


# Guided


def test_guided_grad_cam_is_the_product():
    model, (images, targets) = drawn_network(Behind), images_and_classes(5, 10, 8)
    coarse = cam.grad_cam(model, images, targets, layer="stage", score="probability")
    fine = backprop.guided_backprop(model, images, targets, score="probability")
    found = cam.guided_grad_cam(model, images, targets, layer="stage", score="probability")
    torch.testing.assert_close(found, fine * coarse[:, None])


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU", "ignore:Input Tensor 0 did not")
@pytest.mark.parametrize("layer", ["stage", "rest.0", "rest.1"])
def test_guided_grad_cam_equals_captum(layer):
    model, (images, targets) = drawn_network(Behind), images_and_classes(5, 10, 8)
    captum = attr.GuidedGradCam(model, model.get_submodule(layer))
    expected = captum.attribute(images, target=targets, interpolate_mode="bilinear").detach()
    found = cam.guided_grad_cam(model, images, targets, layer=layer)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert found.abs().sum() > 0


# Score-weighted


def masked_scores(model, image, target, features, score):
    """One mask at a time; None where a channel has no contrast."""
    for channel in features:
        mask = F.interpolate(channel[None, None], size=(10, 8), mode="bilinear", align_corners=False)[0, 0]
        if channel.max() == channel.min():
            yield None
            continue
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        logits = model((image * mask)[None])[0]
        yield (logits.softmax(0) if score == "probability" else logits)[target].item()


@pytest.mark.parametrize(
    ("weights", "score"), [("softmax", "logit"), ("softmax", "probability"), ("score", "probability")]
)
@pytest.mark.parametrize("layer", ["first", "second", "last"])
def test_score_cam_equals_a_plain_loop(weights, score, layer):
    model, (images, targets) = drawn_network(Net), images_and_classes(5, 10, 8)
    with torch.no_grad():
        model.second.weight[2], model.second.bias[2] = 0.0, 0.7  # a channel that is flat on every image
        features = features_of(model, layer, images)
        expected = []
        for n, image in enumerate(images):
            scores = list(masked_scores(model, image, targets[n], features[n], score))
            kept = [k for k, score in enumerate(scores) if score is not None]
            each = torch.tensor([scores[k] for k in kept], dtype=torch.float64)
            each = each.softmax(0) if weights == "softmax" else each
            expected.append(sum(weight * features[n, k] for k, weight in zip(kept, each, strict=True)))
    found = cam.score_cam(model, images, targets, layer=layer, score=score, weights=weights)
    torch.testing.assert_close(found, large(torch.stack(expected).relu()))


def test_score_cam_of_a_few_channels_takes_those_that_vary_most_on_each_image():
    model, (images, targets) = drawn_network(Net), images_and_classes(5, 10, 8)
    images[1] *= 0.2
    features = features_of(model, "first", images)
    most = features.flatten(2).std(2).argsort(1, descending=True)[:, :3]
    assert len({tuple(sorted(each)) for each in most.tolist()}) > 1
    found = cam.score_cam(model, images, targets, layer="first", channels=3)
    for n, image in enumerate(images):
        with torch.no_grad():
            scores = list(masked_scores(model, image, targets[n], features[n, most[n]], "logit"))
        weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
        torch.testing.assert_close(found[n], torch.einsum("k,khw->hw", weights, features[n, most[n]]).relu())
    whole = cam.score_cam(model, images, targets, layer="first")
    for channels in (6, 99):
        torch.testing.assert_close(cam.score_cam(model, images, targets, layer="first", channels=channels), whole)


def test_score_cam_without_any_contrast_is_zero():
    model, (images, targets) = drawn_network(Net), images_and_classes(5, 10, 8)
    with torch.no_grad():
        model.second.weight.zero_()
        model.second.bias.fill_(-1.0)
    found = cam.score_cam(model, images, targets)
    assert found.eq(0).all()


def test_impossible_settings_are_refused():
    images, targets = images_and_classes(5, 10, 8)
    with pytest.raises(ValueError, match=words("channels 0")):
        cam.score_cam(drawn_network(Net), images, targets, channels=0)
    with pytest.raises(ValueError, match=words("weights ratio softmax score")):
        cam.channel_weights(torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool), "ratio")
    with pytest.raises(ValueError, match=words("max_batch 0")):
        cam.grad_cam(drawn_network(Net), images, targets, max_batch=0)


def test_guided_grad_cam_without_relu_keeps_the_sign_of_grad_cam():
    model, (images, targets) = drawn_network(Behind), images_and_classes(5, 10, 8)
    found = cam.guided_grad_cam(model, images, targets, layer="stage", relu=False)
    coarse = cam.grad_cam(model, images, targets, layer="stage", relu=False)
    assert (coarse < 0).any()
    torch.testing.assert_close(found, backprop.guided_backprop(model, images, targets) * coarse[:, None])


@every_method
@pytest.mark.parametrize("layer", first_short(2, [None, "first", "first.0", "first.1", "second"]))
def test_maps_are_those_of_the_network_whose_batchnorms_are_not_folded(method, layer, monkeypatch):
    model, (images, targets) = drawn_network(Net), images_and_classes(5, 10, 8)
    quick = method(model, images, targets, layer=layer)
    monkeypatch.setattr(evaluation, "fast_copy", lambda model, _: model)
    torch.testing.assert_close(quick, method(model, images, targets, layer=layer), rtol=1e-8, atol=1e-9)


def test_on_a_cpu_a_pass_without_way_back_is_as_small_as_its_cache():
    assert memory.at_once(torch.zeros(1, 3, 32, 32), 256) == 32
    assert memory.at_once(torch.zeros(1, 3, 224, 224), 256) == 6
    assert memory.at_once(torch.zeros(1, 3, 224, 224), 2) == 2
    assert memory.at_once(torch.zeros(1, 3, 32, 32, device="meta"), 256) == 256
