"""SmoothGrad and its kin: what is smoothed, of what, and against Captum's tunnel on the same noise."""

import pytest
import torch
from captum import attr

from efface.base import draws
from efface.methods import gradient, smooth
from efface.methods.noise import check_noise
from small.batches import images_and_classes, normal_numbers
from small.messages import words

N, SAMPLES = 3, 5
NAMES = {"smooth_grad": "smoothgrad", "smooth_grad_squared": "smoothgrad_sq", "var_grad": "vargrad"}


def with_noise():
    return *images_and_classes(N), 0.1 * normal_numbers(SAMPLES, N, 3, 8, 8, dtype=torch.float64)


def family(model, targets, **settings):
    images, _, noise = with_noise()
    return smooth.smooth_grad_family(model, images, targets, samples=SAMPLES, noise=noise, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_family_equals_captums_tunnel_on_the_same_noise(tiny, monkeypatch, name):
    model = tiny(seed=3).double().eval()
    images, targets, noise = with_noise()
    noisy = (images + noise).transpose(0, 1).flatten(0, 1)  # Captum keeps an image's copies together
    monkeypatch.setattr(attr.NoiseTunnel, "_add_noise_to_input", staticmethod(lambda *_: noisy.clone()))
    tunnel = attr.NoiseTunnel(attr.Saliency(model))
    expected = tunnel.attribute(images, nt_type=NAMES[name], nt_samples=SAMPLES, target=targets, abs=False)
    torch.testing.assert_close(family(model, targets)[name], expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("score", ["logit", "log_probability", "probability", "loss"])
@pytest.mark.parametrize("max_batch", [1, 4, 256])
def test_family_is_that_of_what_is_differentiated(tiny, score, max_batch):
    model = tiny(seed=3).double()
    images, targets, noise = with_noise()
    gradients = torch.stack([gradient.gradient(model, images + each, targets, score=score) for each in noise])
    found = family(model, targets, score=score, max_batch=max_batch)
    torch.testing.assert_close(found["smooth_grad"], gradients.mean(0), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(found["var_grad"], gradients.var(0, correction=0), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("max_batch", [2, 256])
def test_weights_of_the_classes_are_explained(tiny, max_batch):
    model = tiny(seed=3).double()
    weights = torch.tensor([[1.0, -0.5, 0.0, 0.25]], dtype=torch.float64).repeat(N, 1)
    single = [family(model, torch.full((N,), k))["smooth_grad"] for k in range(4)]
    expected = single[0] - 0.5 * single[1] + 0.25 * single[3]
    torch.testing.assert_close(family(model, weights, max_batch=max_batch)["smooth_grad"], expected)


@pytest.mark.parametrize("max_batch", [2, 256])
def test_any_method_of_the_images_shape_stands_for_the_gradient(tiny, max_batch):
    model = tiny(seed=3).double()
    images, targets, noise = with_noise()
    products = torch.stack([gradient.input_x_gradient(model, images + each, targets) for each in noise])
    found = family(model, targets, base=gradient.input_x_gradient, max_batch=max_batch)
    torch.testing.assert_close(found["smooth_grad"], products.mean(0))
    torch.testing.assert_close(found["smooth_grad_squared"], products.square().mean(0))
    for name in NAMES:
        single = getattr(smooth, name)
        alone = single(
            model, images, targets, samples=SAMPLES, noise=noise, base=gradient.input_x_gradient, max_batch=max_batch
        )
        assert torch.equal(alone, found[name])


def test_base_is_told_what_is_differentiated_if_it_asks(tiny):
    model, (_, targets, _) = tiny(seed=3).double(), with_noise()
    plain = family(model, targets, score="probability")["smooth_grad"]
    torch.testing.assert_close(
        family(model, targets, score="probability", base=gradient.gradient)["smooth_grad"], plain
    )
    with pytest.raises(ValueError, match=words("probability base")):
        family(model, targets, score="probability", base=lambda model, images, targets: images)


def test_base_is_handed_the_row_budget_and_no_more_points(tiny):
    told = []

    def base(model, points, targets, *, max_batch):
        told.append((len(points), max_batch))
        return points

    family(tiny(seed=3).double(), with_noise()[1], base=base, max_batch=2)
    assert {rows for _, rows in told} == {2}
    assert max(points for points, _ in told) <= 2


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (
            lambda model, images, targets: images.sum(1),
            r"\(\d+, 8, 8\).*\(\d+, 3, 8, 8\)",
        ),
        (lambda model, images, targets: None, "NoneType"),
        (smooth.smooth_grad_family, "dict"),
    ],
)
def test_base_of_another_shape_is_refused(tiny, base, said):
    with pytest.raises(ValueError, match=said):
        family(tiny(seed=3).double(), with_noise()[1], base=base, seeds=torch.arange(N))


@pytest.mark.parametrize("max_batch", [2, 256])
def test_a_base_that_draws_gets_seeds_of_its_own_at_each_copy(tiny, max_batch):
    told = []

    def base(model, points, targets, *, seeds):
        told.append(seeds)
        return draws.uniform(seeds, tuple(points.shape[1:])).double()

    model, (images, targets, _) = tiny(seed=3).double(), with_noise()
    settings = {"seeds": torch.arange(N), "samples": 4, "base": base}
    found = smooth.smooth_grad(model, images, targets, **settings, max_batch=max_batch)
    own = torch.stack([draws.fold(draws.fold(torch.arange(N), sample), 0) for sample in range(4)])
    assert len(own.unique()) == 4 * N
    assert torch.cat(told).sort().values.tolist() == own.flatten().sort().values.tolist()
    expected = torch.stack([draws.uniform(each, (3, 8, 8)) for each in own]).double().mean(0)
    torch.testing.assert_close(found, expected)


def test_noise_of_an_image_is_its_seeds(tiny):
    model, (images, targets, _) = tiny(seed=3).double(), with_noise()
    seeds = draws.seeds_of("smooth", torch.arange(N))
    whole = smooth.smooth_grad(model, images, targets, seeds=seeds, samples=4)
    turned = smooth.smooth_grad(model, images.flip(0), targets.flip(0), seeds=seeds.flip(0), samples=4, max_batch=3)
    torch.testing.assert_close(turned.flip(0), whole)


def test_given_noise_is_for_these_images_and_of_any_type(tiny):
    model, images, targets = tiny(seed=3), torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])
    noise = torch.randn(4, 3, 3, 8, 8, dtype=torch.float64)
    found = smooth.smooth_grad(model, images, targets, samples=4, noise=noise)
    torch.testing.assert_close(found, smooth.smooth_grad(model, images, targets, samples=4, noise=noise.float()))
    with pytest.raises(ValueError, match=words("noise (4, 1, 3, 8, 8) (4, 3, 3, 8, 8)")):
        check_noise(noise[:, :1], 4, images)  # which would go to the first image of each pass, or to all
