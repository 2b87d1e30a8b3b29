"""Every attribution method: what holds for all of them, then each against a closed form, an axiom or Captum."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from scipy import ndimage
from torch import nn

from efface.base import draws
from efface.methods import cam, control, gradient, path, smooth
from efface.models.scores import odds_against, scores_of
from small.batches import all_inputs, explain
from small.messages import words
from small.networks import Detached, Residual, linear_network, residual_network, state_of
from small.tiers import first_short

# A new method joins the tests of the first part by its line here.
METHODS = {
    "gradient": gradient.gradient,
    "input_x_gradient": gradient.input_x_gradient,
    "smooth_grad": partial(smooth.smooth_grad, samples=5),
    "smooth_grad_squared": partial(smooth.smooth_grad_squared, samples=5),
    "var_grad": partial(smooth.var_grad, samples=5),
    "integrated_gradients": partial(path.integrated_gradients, steps=5),
    "grad_cam": cam.grad_cam,
    "grad_cam_of_layer": partial(cam.grad_cam, layer="first"),
    "random": control.random,
    "random_resampled": control.random_resampled,
    "sobel": control.sobel,
    "laplace": control.laplace,
    "greedy": partial(control.greedy, cells=3),
    "true_mask": control.true_mask,
}
PASSES = [name for name in METHODS if name not in ("random", "random_resampled", "sobel", "laplace", "true_mask")]

net = partial(residual_network, unused=True)
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_pass = pytest.mark.parametrize("method", [METHODS[name] for name in PASSES], ids=PASSES)


# Every method


@every_method
def test_map_has_the_images_shape_and_is_finite(method):
    inputs = all_inputs(6)
    maps = explain(method, net(), inputs)
    assert maps.shape in {(6,), (6, 8, 8), (6, 3, 8, 8)}
    assert maps.double().isfinite().all()
    assert not maps.requires_grad
    assert not torch.equal(maps[0], maps[1])


@every_method
def test_batch_equals_singles(method):
    inputs = all_inputs(6)
    together = explain(method, net(), inputs)
    singles = [explain(method, net(), {name: rows[i : i + 1] for name, rows in inputs.items()}) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(singles), rtol=1e-5, atol=1e-9)


@every_pass
@pytest.mark.parametrize("max_batch", first_short(2, [1, 7, 4, 13]))
def test_row_budget_changes_nothing_and_is_kept(method, max_batch):
    model, inputs, passed = net(), all_inputs(6), []
    whole = explain(method, model, inputs)
    model.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    torch.testing.assert_close(explain(method, model, inputs, max_batch=max_batch), whole, rtol=1e-5, atol=1e-12)
    assert max(passed) <= max_batch


@every_pass
def test_no_rows_are_refused(method):
    with pytest.raises(ValueError, match=words("max_batch 0")):
        explain(method, net(), all_inputs(6), max_batch=0)


@every_method
def test_model_and_images_are_as_before(method):
    model, inputs = net(), all_inputs(6)
    model.train()
    model.first[1].eval()
    model.head.bias.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    inputs["images"].requires_grad_()
    before = state_of(model, inputs["images"])
    maps = explain(method, model, inputs)
    assert state_of(model, inputs["images"]) == before
    torch.testing.assert_close(maps, explain(method, model.eval(), all_inputs(6)))  # nor did the mode matter


@every_pass
def test_model_is_as_before_an_exception(method):
    model, inputs = net(), all_inputs(6)
    model.train()

    def fail(module, arguments):
        raise RuntimeError("out of memory")

    handle = model.head.register_forward_pre_hook(fail)
    before = state_of(model, inputs["images"])
    with pytest.raises(RuntimeError, match="out of memory"):
        explain(method, model, inputs)
    assert state_of(model, inputs["images"]) == before
    handle.remove()


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_the_caller_records_no_gradients(method, mode):
    model = net()
    expected = explain(method, model, all_inputs(6))
    with mode():
        torch.testing.assert_close(explain(method, model, all_inputs(6)), expected)


@pytest.mark.parametrize("method", [METHODS[name] for name in PASSES if "cam" not in name])
def test_network_without_logits_is_refused(method):
    with pytest.raises(ValueError, match=r"Conv2d.*\(\d+, 2, 8, 8\)"):
        explain(method, nn.Conv2d(3, 2, 1).double(), all_inputs(6))


def test_network_without_gradient_is_refused():
    with pytest.raises(ValueError, match=words("Detached gradient")):
        explain(gradient.gradient, Detached(linear_network()), all_inputs(6))


# Gradients


def test_gradient_of_a_linear_network_is_its_weights():
    model, inputs = linear_network(), all_inputs(6)
    expected = model.of(inputs["targets"])
    torch.testing.assert_close(explain(gradient.gradient, model, inputs), expected)
    torch.testing.assert_close(explain(gradient.input_x_gradient, model, inputs), inputs["images"] * expected)


def test_gradient_is_the_slope_of_the_logit():
    model, inputs = net(nn.Softplus), all_inputs(6)
    images, targets = inputs["images"], inputs["targets"]
    step = 1e-6 * torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        change = (model(images + step) - model(images - step)).gather(1, targets[:, None])[:, 0] / 2
    slope = (explain(gradient.gradient, model, inputs) * step).sum((1, 2, 3))
    torch.testing.assert_close(slope, change, rtol=1e-5, atol=1e-13)


def test_gradients_equal_captum():
    model, inputs = net(), all_inputs(6)
    images, targets = inputs["images"].clone().requires_grad_(), inputs["targets"]
    saliency = attr.Saliency(model).attribute(images, target=targets, abs=False)
    product = attr.InputXGradient(model).attribute(images, target=targets).detach()
    torch.testing.assert_close(explain(gradient.gradient, model, inputs), saliency, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(explain(gradient.input_x_gradient, model, inputs), product, rtol=1e-5, atol=1e-9)


# Noise


def test_one_noiseless_sample_is_the_gradient():
    family = explain(smooth.smooth_grad_family, net(), all_inputs(6), samples=1, noise=0.0)
    expected = explain(gradient.gradient, net(), all_inputs(6))
    torch.testing.assert_close(family["smooth_grad"], expected)
    torch.testing.assert_close(family["smooth_grad_squared"], expected.square())
    assert family["var_grad"].eq(0).all()


@pytest.mark.parametrize("max_batch", [1, 5, 16, 256])
def test_family_is_mean_square_and_variance_of_the_noisy_gradients(max_batch):
    model, inputs = net(), all_inputs(6)
    deviation = 0.3 * (inputs["images"].amax((1, 2, 3)) - inputs["images"].amin((1, 2, 3)))[:, None, None, None]
    noise = [deviation * draws.normal(draws.fold(inputs["seeds"], s), (3, 8, 8)) for s in range(7)]
    noisy = [{**inputs, "images": inputs["images"] + each} for each in noise]
    gradients = torch.stack([explain(gradient.gradient, model, each) for each in noisy])
    expected = {
        "smooth_grad": gradients.mean(0),
        "smooth_grad_squared": gradients.square().mean(0),
        "var_grad": gradients.var(0, correction=0),
    }
    settings = {"samples": 7, "max_batch": max_batch}
    found = explain(smooth.smooth_grad_family, model, inputs, noise=0.3, **settings)
    given = explain(smooth.smooth_grad_family, model, inputs, noise=torch.stack(noise), **settings)
    for name, maps in expected.items():
        torch.testing.assert_close(found[name], maps, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(given[name], maps, rtol=1e-9, atol=1e-12)
        single = explain(getattr(smooth, name), model, inputs, noise=0.3, **settings)
        assert torch.equal(single, found[name])


def test_variance_of_a_constant_gradient_is_zero():
    inputs = all_inputs(6)
    model = linear_network()
    with torch.no_grad():
        model.fc.weight += 1e6  # the difference of two mean squares would leave 1e-4 here
    assert explain(smooth.var_grad, model, inputs).abs().max() < 1e-12
    torch.testing.assert_close(explain(smooth.smooth_grad, model, inputs), model.of(inputs["targets"]))


def test_noise_of_an_image_follows_its_own_range():
    model, inputs, seen = linear_network(), all_inputs(2), []
    model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].detach()))
    inputs["images"][0] = 0.5
    inputs["images"][0, 0, 0, 0] = 0.6
    explain(smooth.smooth_grad, model, inputs, samples=200, noise=0.15)
    noise = (torch.cat(seen).unflatten(0, (200, 2)) - inputs["images"]).std((0, 2, 3, 4))
    ranges = inputs["images"].amax((1, 2, 3)) - inputs["images"].amin((1, 2, 3))
    torch.testing.assert_close(noise, 0.15 * ranges, rtol=0.02, atol=0.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples": 0}, "samples 0"),
        ({"noise": -0.1}, "noise -0.1"),
        ({"noise": torch.zeros(3, 6, 3, 8, 8)}, "noise 3 50"),
    ],
)
def test_impossible_noise_is_refused(settings, said):
    with pytest.raises(ValueError, match=words(said)):
        explain(smooth.smooth_grad, linear_network(), all_inputs(6), **settings)


def test_noise_without_seeds_is_refused():
    inputs = all_inputs(6)
    with pytest.raises(ValueError, match=words("seeds")):
        smooth.smooth_grad(linear_network(), inputs["images"], inputs["targets"])


# Paths


@pytest.mark.parametrize("baseline", [0.0, 0.4, [0.1, 0.5, 0.9]])
def test_integrated_gradients_of_a_linear_network_in_closed_form(baseline):
    model, inputs = linear_network(), all_inputs(6)
    way = inputs["images"] - torch.tensor(baseline, dtype=torch.float64).reshape(1, -1, 1, 1)
    found = explain(path.integrated_gradients, model, inputs, steps=1, baseline=baseline)
    torch.testing.assert_close(found, way * model.of(inputs["targets"]))


def incompleteness(model, inputs, steps):
    maps = explain(path.integrated_gradients, model, inputs, steps=steps, baseline=0.2)
    with torch.no_grad():
        rise = model(inputs["images"]) - model(torch.full_like(inputs["images"], 0.2))
    return (maps.sum((1, 2, 3)) - rise.gather(1, inputs["targets"][:, None])[:, 0]).abs()


def test_integrated_gradients_sum_to_the_rise_of_the_logit():
    model, inputs = net(), all_inputs(6)
    assert incompleteness(model, inputs, 1000).max() < 1e-4


def test_midpoint_error_falls_fourfold_when_steps_double():
    model, inputs = net(nn.Softplus), all_inputs(6)
    ratio = incompleteness(model, inputs, 4) / incompleteness(model, inputs, 8)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 4.0), rtol=0.05, atol=0.0)


def test_integrated_gradients_equal_captum():
    model, inputs = net(), all_inputs(6)
    captum = attr.IntegratedGradients(model).attribute(
        inputs["images"], baselines=0.3, target=inputs["targets"], n_steps=20, method="riemann_middle"
    )
    found = explain(path.integrated_gradients, model, inputs, steps=20, baseline=0.3)
    torch.testing.assert_close(found, captum, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"steps": 0}, "steps 0"), ({"baseline": [0.0, 0.0]}, "baseline 2")],
)
def test_impossible_path_is_refused(settings, said):
    with pytest.raises(ValueError, match=words(said)):
        explain(path.integrated_gradients, linear_network(), all_inputs(6), **settings)


# Class activation maps


class Calm(Residual):
    """The same function as `Residual` with nothing in place: Captum reads a layer's output after it was changed."""

    def forward(self, images):
        features = self.first(images)
        return self.head(self.last(self.second(features) + features).mean((2, 3)))


@pytest.mark.parametrize("layer", ["first", "first.0", "first.1", "second", "last"])
def test_grad_cam_equals_captum(layer):
    model, inputs = net(partial(nn.ReLU, inplace=True)), all_inputs(6)
    calm = Calm(unused=True).double().eval()
    calm.load_state_dict(model.state_dict())
    images, targets = F.interpolate(inputs["images"], size=(9, 7)), inputs["targets"]
    small = attr.LayerGradCam(calm, calm.get_submodule(layer)).attribute(images, target=targets, relu_attributions=True)
    expected = attr.LayerAttribution.interpolate(small, images.shape[2:], "bilinear")[:, 0].detach()
    torch.testing.assert_close(cam.grad_cam(model, images, targets, layer=layer), expected, rtol=1e-5, atol=1e-9)
    assert expected.sum() > 0


def test_grad_cam_of_a_linear_head_is_the_weighted_sum_of_features():
    model, inputs = net(), all_inputs(6)
    features = []
    handle = model.last.register_forward_hook(lambda module, arguments, output: features.append(output))
    with torch.no_grad():
        model(inputs["images"])
    handle.remove()
    weight = model.head.weight.detach()[inputs["targets"]] / 64  # the head takes the mean over 8 x 8 places
    expected = torch.einsum("nc,nchw->nhw", weight, features[0]).relu()
    torch.testing.assert_close(explain(partial(cam.grad_cam, layer="last"), model, inputs), expected)
    torch.testing.assert_close(explain(cam.grad_cam, model, inputs), expected)  # nothing named: the same layer


def test_grad_cam_goes_back_no_further_than_the_layer():
    model, inputs, recorded = net(), all_inputs(6), []
    model.first.register_forward_hook(lambda module, arguments, output: recorded.append(output.requires_grad))
    cam.grad_cam(model, inputs["images"], inputs["targets"], layer="second")
    assert recorded == [False, False], "once to see how the layer is laid out, once for the map"


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("secnd", "secnd second"),
        ("head", "head (6, 4)"),
        ("unused", "unused logits"),
    ],
)
def test_layer_that_cannot_be_explained_is_refused(layer, said):
    model, inputs = net(), all_inputs(6)
    before = state_of(model, inputs["images"])
    with pytest.raises(ValueError, match=words(said)):
        cam.grad_cam(model, inputs["images"], inputs["targets"], layer=layer)
    assert state_of(model, inputs["images"]) == before


# Controls


def test_random_is_the_images_own_draw():
    inputs = all_inputs(6)
    assert torch.equal(explain(control.random, linear_network(), inputs), draws.uniform(inputs["seeds"], (8, 8)))
    assert torch.equal(explain(control.random_resampled, linear_network(), inputs), inputs["seeds"])


def test_sobel_of_a_ramp_is_its_slope_and_of_a_flat_image_zero():
    inputs = all_inputs(2)
    down, across = torch.arange(8.0)[:, None], torch.arange(8.0)[None, :]
    inputs["images"] = torch.stack([(0.03 * down + 0.04 * across).expand(3, 8, 8), torch.full((3, 8, 8), 0.7)]).double()
    maps = explain(control.sobel, linear_network(), inputs)
    torch.testing.assert_close(maps[0, 1:-1, 1:-1], torch.full((6, 6), 8 * 0.05, dtype=torch.float64))
    assert maps[1].abs().max() < 1e-12


def test_sobel_equals_scipy():
    inputs = all_inputs(6)
    planes = inputs["images"].flatten(0, 1).numpy()
    slopes = [[torch.from_numpy(ndimage.sobel(plane, axis, mode="nearest")) for plane in planes] for axis in (0, 1)]
    lengths = torch.hypot(*map(torch.stack, slopes)).unflatten(0, (6, 3))
    torch.testing.assert_close(explain(control.sobel, linear_network(), inputs), lengths.mean(1))


def test_laplace_is_the_size_of_scipys_and_of_a_ramp_zero():
    inputs = all_inputs(6)
    planes = inputs["images"].flatten(0, 1).numpy()
    found = torch.stack([torch.from_numpy(ndimage.laplace(plane, mode="nearest")) for plane in planes])
    maps = explain(control.laplace, linear_network(), inputs)
    torch.testing.assert_close(maps, found.abs().unflatten(0, (6, 3)).mean(1))
    inputs["images"] = (0.03 * torch.arange(8.0)[:, None] + 0.04 * torch.arange(8.0)).expand(6, 3, 8, 8).double()
    assert explain(control.laplace, linear_network(), inputs)[:, 1:-1, 1:-1].abs().max() < 1e-6


def test_true_mask_is_the_object():
    inputs = all_inputs(6)
    assert torch.equal(explain(control.true_mask, linear_network(), inputs), inputs["masks"].double())
    with pytest.raises(ValueError, match=words("masks")):
        control.true_mask(linear_network(), inputs["images"], inputs["targets"])


# What is differentiated


def logits_of_margin(margin, classes):
    """Of six images, the target ahead of all others together by the margin."""
    targets = torch.arange(6) % classes
    logits = torch.randn(6, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead = logits.scatter(1, targets[:, None], -torch.inf).logsumexp(1) + margin
    return logits.scatter(1, targets[:, None], ahead[:, None]), targets


def slope(logits, targets, score):
    logits = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(scores_of(logits, targets, score).sum(), logits)
    return found


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("margin", [-30.0, 0.0, 20.0, 40.0, 60.0, 80.0])
def test_a_sure_networks_loss_is_cross_entropy_in_value_and_gradient(margin, classes):
    logits, targets = logits_of_margin(margin, classes)
    expected = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(scores_of(logits, targets, "loss"), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(scores_of(logits, targets, "log_probability"), -expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(scores_of(logits, targets, "probability"), (-expected).exp(), rtol=0, atol=1e-12)
    torch.testing.assert_close(odds_against(logits, targets), torch.full((6,), -margin, dtype=torch.float64))
    wrong, right = torch.sigmoid(torch.tensor([-margin, margin], dtype=torch.float64))
    shares = logits.scatter(1, targets[:, None], -torch.inf).softmax(1)
    exact = wrong * (shares - F.one_hot(targets, classes))
    for score, factor in (("loss", 1.0), ("log_probability", -1.0), ("probability", -right)):
        torch.testing.assert_close(slope(logits, targets, score), factor * exact, rtol=1e-9, atol=0)
        single = slope(logits.float(), targets, score).double()
        torch.testing.assert_close(single / wrong, factor * exact / wrong, rtol=1e-4, atol=1e-6)


def test_a_probability_of_one_class_is_refused():
    with pytest.raises(ValueError, match=words("one class probability")):
        scores_of(torch.ones(3, 1), torch.zeros(3, dtype=torch.int64), "loss")
