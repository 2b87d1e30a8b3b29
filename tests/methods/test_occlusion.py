"""Occlusion and RISE: against brute force, closed forms of a linear network, and Captum."""

import itertools
from functools import partial

import pytest
import torch
from captum import attr
from torch import nn

from efface.methods import occlusion
from efface.models.scores import target_scores
from small.batches import uniform_numbers, with_seeds
from small.messages import words
from small.networks import linear_network

N, SIZE = 3, 8
inputs = partial(with_seeds, "occlusion", N)
rise = partial(occlusion.rise, score="logit", cells=3)


def fields(samples=6, count=N, size=SIZE):
    return uniform_numbers(samples, count, size, size, seed=2)


METHODS = {
    "occlusion": lambda model, images, targets, **settings: occlusion.occlusion(
        model, images, targets, patch=3, stride=2, **{k: v for k, v in settings.items() if k != "seeds"}
    ),
    "rise": partial(occlusion.rise, samples=5, cells=3),
}
both = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


# Both


@both
@pytest.mark.parametrize("max_batch", [1, 2, 4, 7])
def test_row_budget_is_kept_and_changes_nothing(tiny, method, max_batch):
    model, passed = tiny(seed=3).double(), []
    images, targets, seeds = inputs()
    whole = method(model, images, targets, seeds=seeds)
    model.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    torch.testing.assert_close(
        method(model, images, targets, seeds=seeds, max_batch=max_batch), whole, rtol=1e-9, atol=1e-15
    )
    assert max(passed) <= max_batch


@both
def test_batch_equals_singles(tiny, method):
    model, (images, targets, seeds) = tiny(seed=3).double(), inputs()
    whole = method(model, images, targets, seeds=seeds)
    for i in range(N):
        one = slice(i, i + 1)
        single = method(model, images[one], targets[one], seeds=seeds[one])
        torch.testing.assert_close(single, whole[one], rtol=1e-9, atol=1e-15)


@both
@pytest.mark.parametrize("score", ["logit", "log_probability", "probability", "loss"])
def test_weights_and_scores_are_explained(tiny, method, score):
    model, (images, targets, seeds) = tiny(seed=3).double().eval(), inputs()
    maps = method(model, images, targets, seeds=seeds, score=score)

    class Scores(nn.Module):
        def forward(self, points):
            labels = targets.repeat(len(points) // N)
            return target_scores(model, points, labels, score)[:, None]

    first = torch.zeros_like(targets)
    torch.testing.assert_close(method(Scores().eval(), images, first, seeds=seeds, score="logit"), maps)
    if score == "logit":
        weights = 2.0 * nn.functional.one_hot(targets, 4).double()
        torch.testing.assert_close(method(model, images, weights, seeds=seeds, score="logit"), 2 * maps)


@both
def test_no_graph_is_made_and_nothing_is_left_behind(tiny, method):
    model, graphs = tiny(seed=3).double().train(), []
    images, targets, seeds = inputs()
    images.requires_grad_()
    model.register_forward_hook(lambda module, arguments, output: graphs.append(output.requires_grad))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maps = method(model, images, targets, seeds=seeds)
    assert not any(graphs)
    assert not maps.requires_grad
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert images.grad is None
    assert torch.is_grad_enabled()


@both
def test_model_is_as_before_an_exception(tiny, method):
    model, (images, targets, seeds) = tiny(seed=3).double().train(), inputs()

    def fail(module, arguments):
        raise RuntimeError("out of memory")

    model.fc.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        method(model, images, targets, seeds=seeds)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()


@both
@pytest.mark.parametrize(
    ("value", "said"),
    [([0.0, 1.0], "value 2 3"), ("grey", "grey")],
)
def test_impossible_value_is_refused(method, value, said):
    images, targets, seeds = inputs()
    with pytest.raises(ValueError, match=words(said)):
        method(linear_network(), images, targets, seeds=seeds, value=value)


@both
def test_no_rows_are_refused(method):
    images, targets, seeds = inputs()
    with pytest.raises(ValueError, match=words("max_batch 0")):
        method(linear_network(), images, targets, seeds=seeds, max_batch=0)


# Occlusion


@pytest.mark.parametrize(("patch", "stride"), [(3, 2), (3, 3), (1, 1), (8, 8), ((2, 5), (1, 3)), ([4, 3], 3)])
def test_occlusion_equals_captum(tiny, patch, stride):
    model = tiny(seed=3).double().eval()
    images, targets, _ = inputs(w=10)
    windows = (3, *((patch, patch) if isinstance(patch, int) else patch))
    steps = (3, *((stride, stride) if isinstance(stride, int) else stride))
    expected = attr.Occlusion(model).attribute(images, windows, steps, baselines=0.5, target=targets)
    found = occlusion.occlusion(model, images, targets, patch=patch, stride=stride)
    torch.testing.assert_close(found.float(), expected[:, 0], rtol=1e-5, atol=1e-8)  # which Captum keeps in float32


@pytest.mark.parametrize("value", [0.0, 0.7, [0.1, 0.5, 0.9], "mean"])
def test_occlusion_of_a_linear_network_is_the_loss_of_the_patch(value):
    model, (images, targets, _) = linear_network(), inputs()
    fill = images.mean((2, 3)) if value == "mean" else torch.tensor(value, dtype=torch.float64).expand(N, 3)
    lost = model.fc.weight.detach()[targets].unflatten(1, (3, SIZE, SIZE)) * (images - fill[:, :, None, None])
    expected = nn.functional.avg_pool2d(lost.sum(1), 2, divisor_override=1).repeat_interleave(2, 1)
    found = occlusion.occlusion(model, images, targets, patch=2, stride=2, value=value)
    torch.testing.assert_close(found, expected.repeat_interleave(2, 2))


def test_half_the_patch_is_the_stride_by_default():
    model, (images, targets, _) = linear_network(), inputs()
    found = occlusion.occlusion(model, images, targets, patch=(4, 1))
    torch.testing.assert_close(found, occlusion.occlusion(model, images, targets, patch=(4, 1), stride=(2, 1)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"patch": 9}, "patch 9 8"),
        ({"patch": 2, "stride": 3}, "stride 3 patch 2"),
        ({"patch": 0}, "patch 0"),
        ({"patch": (1, 2, 3)}, "patch (1, 2, 3)"),
        ({"patch": 2, "stride": 0}, "stride 0"),
    ],
)
def test_impossible_patch_is_refused(settings, said):
    images, targets, _ = inputs()
    with pytest.raises(ValueError, match=words(said)):
        occlusion.occlusion(linear_network(), images, targets, **settings)


# RISE


@pytest.mark.parametrize("value", [0.0, 0.3, "mean"])
@pytest.mark.parametrize("max_batch", [2, 256])
def test_rise_with_given_fields_is_the_weighted_mean_of_the_scores(tiny, value, max_batch):
    model, (images, targets, _) = tiny(seed=3).double().eval(), inputs()
    given = fields()
    fill = images.mean((2, 3), keepdim=True) if value == "mean" else value
    expected = torch.zeros(N, SIZE, SIZE, dtype=torch.float64)
    for field in given:
        veiled = images * field[:, None] + fill * (1 - field[:, None])
        with torch.no_grad():
            scores = model(veiled).softmax(1).gather(1, targets[:, None])
        expected += scores[:, :, None] * field / (len(given) * 0.25)
    settings = {"samples": len(given), "fields": given, "visible": 0.25, "value": value, "max_batch": max_batch}
    torch.testing.assert_close(occlusion.rise(model, images, targets, **settings), expected)


def every_field():
    """Each veil of 2 x 2 cells on a 4 x 4 image, all alike in probability at one half: 16 grids at 4 places."""
    found = []
    for bits, y, x in itertools.product(itertools.product((0.0, 1.0), repeat=4), range(2), range(2)):
        grid = torch.tensor(bits, dtype=torch.float64).reshape(1, 1, 2, 2)
        whole = nn.functional.interpolate(grid, size=(6, 6), mode="bilinear", align_corners=False)[0, 0]
        found.append(whole[y : y + 4, x : x + 4])
    return torch.stack(found)


def test_rise_tends_to_its_expectation_on_a_linear_network():
    model, samples = linear_network(4), 6000
    images, targets, seeds = inputs(4)
    veils = every_field()
    scores = torch.stack([model(images * veil).gather(1, targets[:, None])[:, 0] for veil in veils]).detach()
    each = scores[:, :, None, None] * veils[:, None] / 0.5
    found = rise(model, images, targets, seeds=seeds, samples=samples, cells=2)
    error = (found - each.mean(0)) / (each.std(0) / samples**0.5)
    assert error.abs().max() < 4.5  # standard errors, of 48 numbers
    assert error.square().mean() < 2
    given = rise(model, images, targets, samples=64, fields=veils[:, None].expand(-1, N, -1, -1))
    torch.testing.assert_close(given, each.mean(0))  # every veil once: the expectation itself
    second = torch.einsum("shw,sij->hwij", veils, veils) / 64  # and in closed form: E[M_p (w . M x + b)] / p
    evidence = (model.fc.weight.detach()[targets].unflatten(1, (3, 4, 4)) * images).sum(1)
    closed = torch.einsum("hwij,nij->nhw", second, evidence) / 0.5 + model.fc.bias.detach()[targets][:, None, None]
    torch.testing.assert_close(given, closed)


@pytest.mark.parametrize(("cells", "size", "width"), [(3, 8, 8), (7, 8, 9), (1, 8, 5), (2, 7, 12), (8, 8, 8)])
def test_drawn_veils_are_visible_as_often_as_said(cells, size, width):
    images, _, seeds = inputs(size, width)
    drawn = occlusion.drawn_veils(images, seeds, cells, 0.3)
    veils = drawn(slice(0, N), slice(0, 3000))
    assert veils.shape == (3000, N, size, width)
    assert veils.min() >= 0
    assert veils.max() <= 1
    assert (veils.mean((0, 1)) - 0.3).abs().max() < 0.025
    assert not torch.equal(veils[:, 0], veils[:, 1])
    torch.testing.assert_close(drawn(slice(1, 3), slice(5, 9)), veils[5:9, 1:])


def test_all_visible_is_the_score():
    model, (images, targets, seeds) = linear_network(), inputs()
    score = model(images).detach().gather(1, targets[:, None])[:, :, None]
    found = rise(model, images, targets, seeds=seeds, samples=4, visible=1.0)
    torch.testing.assert_close(found, score.expand(N, SIZE, SIZE))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples": 0}, "samples 0"),
        ({"visible": 0.0}, "visible 0.0"),
        ({"visible": 1.5}, "visible 1.5"),
        ({"cells": 9}, "cells 9 8"),
        ({"cells": 0}, "cells 0 8"),
        ({"seeds": None}, "seeds fields"),
        ({"fields": fields()}, "fields 6 4000 samples=6"),
    ],
)
def test_impossible_veil_is_refused(settings, said):
    images, targets, seeds = inputs()
    with pytest.raises(ValueError, match=words(said)):
        rise(linear_network(), images, targets, **{"seeds": seeds} | settings)


def test_weights_of_the_classes_want_the_logit():
    images, _, seeds = inputs()
    with pytest.raises(ValueError, match=words("weights logit")):
        occlusion.rise(linear_network(), images, torch.ones(N, 4).double(), seeds=seeds, samples=1)


def test_given_veils_are_for_these_images_and_of_any_type():
    images, targets, _ = inputs()
    given = fields().float()
    found = rise(linear_network(), images, targets, samples=6, fields=given)
    assert torch.equal(found, rise(linear_network(), images, targets, samples=6, fields=given.double()))
    with pytest.raises(ValueError, match=words("fields (6, 1, 8, 8) (6, 3, 8, 8)")):
        occlusion.given_veils(given[:, :1], 6, images)
