"""Climbing a logit: closed forms of linear networks, one image at a time, what is left untouched; both metrics."""

import copy

import pytest
import torch
from torch import nn

from efface import draws
from efface.generate import COST, Sampling, denoise, grey_noise, maximise, samples

N, C, H, W, CLASSES = 5, 3, 4, 4, 3
SHAPE = (C, H, W)
SEEDS = draws.seeds_of("test", torch.arange(N))
TARGETS = torch.tensor([0, 2, 1, 1, 0])


class Linear(nn.Module):
    """Logits that are linear in the image: the gradient is the weights of the class."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.fc = nn.Linear(C * H * W, CLASSES)
        weights = draws.normal(draws.seeds_of("weights", torch.arange(CLASSES)), SHAPE)
        self.fc.weight.data = (scale * weights).flatten(1)

    def forward(self, images):
        return self.fc(images.flatten(1))

    def of(self, targets):
        return self.fc.weight.detach()[targets].unflatten(1, SHAPE)


def images(n=N):
    return draws.uniform(draws.seeds_of("images", torch.arange(n)), SHAPE)


def test_a_linear_network_is_climbed_by_the_affine_recursion():
    network, lr, decay, start = Linear(0.1), 0.3, 0.2, images()
    found = maximise(network, TARGETS, start, steps=7, lr=lr, decay=decay)
    x = start.double()
    for _ in range(7):
        x = (x + lr * (network.of(TARGETS).double() - decay * (x - 0.5))).clamp(0, 1)
    torch.testing.assert_close(found.double(), x, atol=2e-6, rtol=0)
    assert 0.02 < ((found == 0) | (found == 1)).float().mean() < 0.9


def test_without_clipping_on_the_way_the_iterate_follows_the_closed_form():
    network, lr, decay, start, steps = Linear(0.01), 0.3, 0.2, images() * 0.4 + 0.3, 7
    found = maximise(network, TARGETS, start, steps=steps, lr=lr, decay=decay, clip="last")
    kept = (1 - lr * decay) ** steps
    fixed = 0.5 + network.of(TARGETS) / decay  # where gradient and decay cancel
    torch.testing.assert_close(found, fixed + kept * (start - fixed), atol=2e-6, rtol=0)


def test_a_free_iterate_that_left_the_cube_comes_back_by_the_decay_alone():
    network, lr, decay = Linear(3.0), 0.1, 0.5
    start = torch.where(network.of(TARGETS) > 0, 1.5, -0.5)
    found = maximise(network, TARGETS, start, steps=3, lr=lr, decay=decay, clip="last")
    torch.testing.assert_close(found, (0.5 + 0.95**3 * (start - 0.5)).clamp(0, 1))
    turned = maximise(network, TARGETS, start, steps=60, lr=lr, decay=decay, clip="last")
    assert (turned.sub(0.5).sign() == network.of(TARGETS).sign()).all()


def test_the_free_gradient_is_that_of_the_clipped_image(tiny):
    network, start = tiny(seed=1).eval(), images() * 2 - 0.5
    found = maximise(network, TARGETS, start, steps=1, lr=0.1, decay=0.0, clip="last")
    x = start.clone().requires_grad_()
    logits = network(x.clamp(0, 1)).gather(1, TARGETS[:, None]).sum()
    (gradient,) = torch.autograd.grad(logits, x)
    torch.testing.assert_close(found, (start + 0.1 * gradient).clamp(0, 1), atol=1e-6, rtol=0)


def test_decay_alone_draws_to_grey():
    found = maximise(Linear(0.0), TARGETS, images(), steps=200, lr=0.5, decay=0.2)
    torch.testing.assert_close(found, torch.full_like(found, 0.5))


def test_the_logit_rises_and_images_stay_in_the_cube(tiny):
    network, start = tiny(seed=2).eval(), grey_noise(SEEDS, SHAPE)
    found = maximise(network, TARGETS, start, steps=20)
    before, after = (network(each).gather(1, TARGETS[:, None]) for each in (start, found))
    assert (after > before).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_nothing_of_the_callers_is_changed(tiny):
    network, start, targets = tiny(seed=3).train(), images() * 2 - 0.5, TARGETS.clone()
    before, kept = copy.deepcopy(network.state_dict()), start.clone()
    for clip in ("each", "last"):
        maximise(network, targets, start, steps=2, clip=clip)
    denoise(network, start, targets, seeds=SEEDS, steps=2)
    assert network.training
    assert network.dropout.training
    assert all(each.requires_grad for each in network.parameters())
    assert all(each.grad is None for each in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(start, kept)
    assert torch.equal(targets, TARGETS)


def test_any_batch_gives_the_images_of_single_ones(tiny):
    network, settings = tiny(seed=4), Sampling(steps=5)
    whole = samples(network, TARGETS, SEEDS, SHAPE, settings)
    parts = samples(network, TARGETS, SEEDS, SHAPE, settings, rows=2)
    single = [samples(network, TARGETS[i : i + 1], SEEDS[i : i + 1], SHAPE, settings) for i in range(N)]
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(single), whole, atol=1e-5, rtol=0)


def test_works_within_inference_mode(tiny):
    with torch.inference_mode():
        found = maximise(tiny(seed=5), TARGETS, grey_noise(SEEDS, SHAPE), steps=2)
    assert found.isfinite().all()


def test_grey_noise_has_the_moments_of_clipped_normal_noise():
    found = grey_noise(draws.seeds_of("many", torch.arange(400)), (3, 8, 8)).flatten()
    assert found.min() == 0
    assert found.max() == 1
    assert abs(float(found.mean()) - 0.5) < 5 * 0.2 / len(found) ** 0.5
    beyond = 0.5 * torch.erfc(torch.tensor(2.5) / 2**0.5)  # 0.5 is 2.5 deviations
    share = (found == 0).float().mean()
    assert abs(share - beyond) < 5 * (beyond / len(found)) ** 0.5


def test_denoising_begins_at_the_noisy_images_themselves():
    network, start = Linear(0.1), images()
    noise = draws.normal(SEEDS, SHAPE) * 0.5
    found = denoise(network, start, TARGETS, noise=noise, steps=1, lr=0.2)
    torch.testing.assert_close(found.noisy, start + noise)
    assert found.noisy.min() < 0
    assert found.noisy.max() > 1
    torch.testing.assert_close(found.images, (start + noise + 0.2 * network.of(TARGETS)).clamp(0, 1))
    drawn = denoise(network, start, TARGETS, seeds=SEEDS, noise=0.5, steps=1, lr=0.2)
    torch.testing.assert_close(drawn.images, found.images)


def test_progress_counts_forward_rows():
    told = []
    settings = Sampling(count=N, steps=3)
    samples(Linear(), TARGETS, SEEDS, SHAPE, settings, rows=2, advance=told.append)
    assert sum(told) == settings.costs == COST * 3 * N


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps is 0; expected a whole number of at least 1"),
        ({"lr": 0.0}, "lr is 0.0; expected a number above 0"),
        ({"decay": -0.1}, "decay is -0.1; expected a number of at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        maximise(Linear(), TARGETS, images(), **changes)


def test_missing_seeds_other_shapes_and_values_that_are_no_numbers_are_said():
    with pytest.raises(ValueError, match="seeds are missing"):
        denoise(Linear(), images(), TARGETS)
    with pytest.raises(ValueError, match=r"noise has shape \(2, 3, 4, 4\); expected \(5, 3, 4, 4\)"):
        denoise(Linear(), images(), TARGETS, noise=torch.zeros(2, *SHAPE))
    with pytest.raises(ValueError, match="gradient is not finite"):
        maximise(Linear(float("nan")), TARGETS, images(), steps=1)
