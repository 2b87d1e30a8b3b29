"""Class-contrastive explanations: identities of the softmax, and plain sums over classes."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from efface.base import draws
from efface.methods import cam, control, fullgrad, gradient, occlusion, smooth
from efface.methods.contrast import contrast
from efface.plug.call import Call
from small.batches import images_and_classes
from small.messages import words
from small.networks import state_of

AGAINST = ("mean", "max", "weighted")
every_kind = pytest.mark.parametrize("against", AGAINST)


def squared(model, images, targets):
    """A method that explains one class and nothing else, as users write them."""
    assert not targets.is_floating_point()
    return gradient.gradient(model, images, targets).square().sum(1)


def rowwise(model, images, targets, *, max_batch=256):
    """Takes the row budget; one class at a time, signed, by channel."""
    assert not targets.is_floating_point()
    return gradient.input_x_gradient(model, images, targets, max_batch=max_batch)


BASES = {
    "gradient": gradient.gradient,
    "grad_cam": cam.grad_cam,
    "score_cam": cam.score_cam,
    "full_grad": fullgrad.full_grad,
    "smooth_grad": partial(smooth.smooth_grad, samples=3),
    "squared": squared,
    "rowwise": rowwise,
}
every_base = pytest.mark.parametrize("base", BASES.values(), ids=BASES)


@pytest.fixture
def sharp(tiny):
    """A network whose logits are far enough apart for the kinds of weights to differ, images and targets."""
    model = tiny(3, 4, seed=0).double().eval()
    with torch.no_grad():
        model.fc.weight.mul_(8)
    return model, *images_and_classes()


def coefficients(logits, target, against):
    """Of one image, class by class."""
    others = [k for k in range(len(logits)) if k != target]
    if against == "mean":
        shares = dict.fromkeys(others, 1 / len(others))
    elif against == "max":
        shares = {max(others, key=lambda k: logits[k].item()): 1.0}
    else:
        shares = dict(zip(others, logits[others].softmax(0).tolist(), strict=True))
    return {target: 1.0} | {k: -share for k, share in shares.items()}


def by_hand(method, sharp, against):
    """The method for each class of each image, and their sum."""
    model, images, targets = sharp
    logits, maps = model(images).detach(), []
    for i, target in enumerate(targets.tolist()):
        weights = coefficients(logits[i], target, against)
        each = [w * method(model, images[i : i + 1], torch.tensor([k]))[0] for k, w in weights.items()]
        maps.append(sum(each))
    return torch.stack(maps)


@every_kind
@pytest.mark.parametrize(
    "base",
    [
        gradient.gradient,
        gradient.input_x_gradient,
        partial(fullgrad.full_grad, psi=False),
        partial(cam.hires_cam, relu=False),
        squared,
        rowwise,
    ],
)
def test_contrast_is_the_weighted_difference_of_the_maps(sharp, base, against):
    found = contrast(*sharp, base=base, against=against)
    torch.testing.assert_close(found, by_hand(base, sharp, against))
    assert found.abs().sum() > 0


@every_kind
@pytest.mark.parametrize("method", [cam.grad_cam, cam.hires_cam])
def test_class_activation_maps_are_contrasted_before_their_relu(sharp, method, against):
    expected = by_hand(partial(method, relu=False), sharp, against)
    found = contrast(*sharp, base=method, against=against)
    torch.testing.assert_close(found, expected)
    assert found.min() < 0 < found.max()
    torch.testing.assert_close(contrast(*sharp, base=method, against=against, relu=True), expected.relu())


@every_kind
def test_maps_of_a_method_without_scores_are_contrasted_before_their_relu(sharp, against):
    def own(model, images, targets, *, relu=True):
        return cam.grad_cam(model, images, targets, relu=relu)

    expected = by_hand(partial(own, relu=False), sharp, against)
    torch.testing.assert_close(contrast(*sharp, base=own, against=against), expected)
    torch.testing.assert_close(contrast(*sharp, base=own, against=against, relu=True), expected.relu())


def test_weighted_contrast_is_the_gradient_of_the_probability(sharp):
    model, images, targets = sharp
    p = model(images).detach().softmax(1).gather(1, targets[:, None])[:, :, None, None]
    for method in (gradient.gradient, partial(cam.grad_cam, relu=False), partial(fullgrad.full_grad, psi=False)):
        found = contrast(*sharp, base=method)
        scale = p if found.ndim == 4 else p[:, 0]
        torch.testing.assert_close(scale * (1 - scale) * found, method(*sharp, score="probability"))
        torch.testing.assert_close((1 - scale) * found, method(*sharp, score="log_probability"))


@every_kind
def test_non_linear_base_explains_the_difference_of_the_logits(sharp, against):
    model, images, targets = sharp
    logits = model(images).detach()
    weights = torch.zeros_like(logits)
    for i, target in enumerate(targets.tolist()):
        for k, weight in coefficients(logits[i], target, against).items():
            weights[i, k] = weight
    torch.testing.assert_close(weights.sum(1), torch.zeros(5, dtype=torch.float64), rtol=0.0, atol=1e-12)
    for method in (fullgrad.full_grad, partial(cam.score_cam, relu=False)):
        torch.testing.assert_close(contrast(*sharp, base=method, against=against), method(model, images, weights))


@pytest.mark.parametrize(("against", "runs"), [("mean", 4), ("max", 2), ("weighted", 4)])
def test_runs_are_those_promised(sharp, against, runs):
    asked = []

    def counting(model, images, targets):
        asked.append(targets)
        return squared(model, images, targets)

    contrast(*sharp, base=counting, against=against)
    assert len(asked) == runs
    passed = []
    sharp[0].register_forward_hook(lambda module, inputs, output: passed.append(len(output)))
    contrast(*sharp, base=gradient.gradient, against=against)
    assert passed == [5, 5]  # the weights, then one run


def test_base_of_a_study_keeps_its_own_settings(sharp):
    plain = contrast(*sharp, base=partial(cam.grad_cam, layer="layer1"))
    call = Call.model_validate({"call": "efface.methods.cam.grad_cam", "kwargs": {"layer": "layer1"}})
    torch.testing.assert_close(contrast(*sharp, base=call), plain)
    told = Call.model_validate({"call": "efface.methods.gradient.gradient", "kwargs": {"score": "probability"}})
    expected = by_hand(partial(gradient.gradient, score="probability"), sharp, "weighted")
    for base in (told, partial(gradient.gradient, score="probability")):
        torch.testing.assert_close(contrast(*sharp, base=base), expected)  # what it explains is taken: class by class


def test_a_base_told_to_explain_the_logit_runs_once(sharp):
    passed = []
    plain = contrast(*sharp, base=gradient.gradient)
    sharp[0].register_forward_hook(lambda module, inputs, output: passed.append(len(output)))
    told = Call.model_validate({"call": "efface.methods.gradient.gradient", "kwargs": {"score": "logit"}})
    torch.testing.assert_close(contrast(*sharp, base=told), plain)
    assert passed == [5, 5]


def test_maps_of_probabilities_are_subtracted(sharp):
    fields = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = by_hand(partial(occlusion.rise, samples=6, fields=fields), sharp, "weighted")
    whole = partial(occlusion.rise, samples=6, fields=fields.expand(-1, 5, -1, -1))
    torch.testing.assert_close(contrast(*sharp, base=whole), expected)


def test_draws_are_the_same_for_every_class(sharp):
    """What does not depend on the class is gone: here, all of it."""
    seeds = draws.seeds_of("test", torch.arange(5))
    for against in AGAINST:
        found = contrast(*sharp, base=control.random, against=against, seeds=seeds)
        assert found.abs().max() < 1e-6


@every_base
@every_kind
def test_batch_and_row_budget_change_nothing(sharp, base, against):
    model, images, targets = sharp
    seeds = draws.seeds_of("test", torch.arange(5))
    whole = contrast(*sharp, base=base, against=against, seeds=seeds)
    assert not whole.requires_grad
    rowwise = contrast(*sharp, base=base, against=against, seeds=seeds, max_batch=1)
    torch.testing.assert_close(rowwise, whole, rtol=1e-9, atol=1e-12)
    for i in range(5):
        one = slice(i, i + 1)
        single = contrast(model, images[one], targets[one], base=base, against=against, seeds=seeds[one])
        torch.testing.assert_close(single, whole[one], rtol=1e-9, atol=1e-12)


@every_base
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_model_is_as_before_also_after_an_exception(sharp, base, mode):
    model, images, _ = sharp
    seeds = draws.seeds_of("test", torch.arange(5))
    expected = contrast(*sharp, base=base, seeds=seeds)
    model.train()
    model.fc.bias.requires_grad_(False)
    images.requires_grad_()
    before = state_of(model)
    with mode():
        torch.testing.assert_close(contrast(*sharp, base=base, seeds=seeds), expected)
    assert state_of(model) == before
    assert images.grad is None
    calls = []

    def fail(module, inputs):
        calls.append(module)
        if len(calls) > 2:
            raise RuntimeError("out of memory")

    model.fc.register_forward_pre_hook(fail)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        contrast(*sharp, base=base, seeds=seeds, max_batch=2)
    assert state_of(model) == before


def test_large_logits_have_finite_weights(sharp):
    with torch.no_grad():
        sharp[0].fc.weight.mul_(1e4)
    assert contrast(*sharp, base=gradient.gradient).isfinite().all()
    strongest = contrast(*sharp, base=squared, against="max")
    torch.testing.assert_close(contrast(*sharp, base=squared), strongest)  # all weight on one other class


def test_impossible_contrasts_are_refused(sharp, tiny):
    _, images, targets = sharp
    with pytest.raises(ValueError, match=words("one class two")):
        contrast(tiny(3, 1, seed=0).double(), images, targets * 0, base=gradient.gradient)
    with pytest.raises(ValueError, match=words("base dict")):
        contrast(*sharp, base=smooth.smooth_grad_family, seeds=targets)
    with pytest.raises(ValueError, match=words("base (5,)")):
        contrast(*sharp, base=control.random_resampled, seeds=targets)
    with pytest.raises(ValueError, match=words("max_batch 0")):
        contrast(*sharp, base=gradient.gradient, max_batch=0)


def test_one_hot_difference_of_two_classes(tiny):
    """With two classes, all three kinds are the difference of the two logits."""
    model = tiny(3, 2, seed=1).double().eval()
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    targets = torch.tensor([0, 1, 1, 0])
    difference = (2 * F.one_hot(targets, 2) - 1).double()
    expected = gradient.gradient(model, images, difference)
    for against in AGAINST:
        torch.testing.assert_close(contrast(model, images, targets, base=gradient.gradient, against=against), expected)
