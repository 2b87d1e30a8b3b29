"""Climbing a logit: closed forms of linear networks, one image at a time, what is left untouched; both metrics."""

import copy
import inspect

import numpy as np
import pytest
import torch
from torch import nn

from efface.base import draws
from efface.base.types import Split
from efface.metrics import Point, metric
from efface.metrics.density_ratio import Noisy, changes, ratios
from efface.metrics.probes import Samples
from efface.plug.call import Call
from efface.report.stats import image_estimates
from efface.training.generate import COST, Sampling, denoise, grey_noise, maximise, samples
from small.batches import stored_images
from small.cases import case_of
from small.messages import words
from small.networks import Linear

N, C, H, W, CLASSES = 5, 3, 4, 4, 3
SHAPE = (C, H, W)
SEEDS = draws.seeds_of("test", torch.arange(N))
TARGETS = torch.tensor([0, 2, 1, 1, 0])


def linear(scale=1.0):
    return Linear(scale * draws.normal(draws.seeds_of("weights", torch.arange(CLASSES)), SHAPE))


def start_images(n=N):
    return draws.uniform(draws.seeds_of("images", torch.arange(n)), SHAPE)


def test_a_linear_network_is_climbed_by_the_affine_recursion():
    network, lr, decay, start = linear(0.1), 0.3, 0.2, start_images()
    found = maximise(network, TARGETS, start, steps=7, lr=lr, decay=decay)
    x = start.double()
    for _ in range(7):
        x = (x + lr * (network.of(TARGETS).double() - decay * (x - 0.5))).clamp(0, 1)
    torch.testing.assert_close(found.double(), x, atol=2e-6, rtol=0)
    assert 0.02 < ((found == 0) | (found == 1)).float().mean() < 0.9


def test_without_clipping_on_the_way_the_iterate_follows_the_closed_form():
    network, lr, decay, start, steps = linear(0.01), 0.3, 0.2, start_images() * 0.4 + 0.3, 7
    found = maximise(network, TARGETS, start, steps=steps, lr=lr, decay=decay, clip="last")
    kept = (1 - lr * decay) ** steps
    fixed = 0.5 + network.of(TARGETS) / decay  # where gradient and decay cancel
    torch.testing.assert_close(found, fixed + kept * (start - fixed), atol=2e-6, rtol=0)


def test_a_free_iterate_that_left_the_cube_comes_back_by_the_decay_alone():
    network, lr, decay = linear(3.0), 0.1, 0.5
    start = torch.where(network.of(TARGETS) > 0, 1.5, -0.5)
    found = maximise(network, TARGETS, start, steps=3, lr=lr, decay=decay, clip="last")
    torch.testing.assert_close(found, (0.5 + 0.95**3 * (start - 0.5)).clamp(0, 1))
    turned = maximise(network, TARGETS, start, steps=60, lr=lr, decay=decay, clip="last")
    assert (turned.sub(0.5).sign() == network.of(TARGETS).sign()).all()


def test_the_free_gradient_is_that_of_the_clipped_image(tiny):
    network, start = tiny(seed=1).eval(), start_images() * 2 - 0.5
    found = maximise(network, TARGETS, start, steps=1, lr=0.1, decay=0.0, clip="last")
    x = start.clone().requires_grad_()
    logits = network(x.clamp(0, 1)).gather(1, TARGETS[:, None]).sum()
    (gradient,) = torch.autograd.grad(logits, x)
    torch.testing.assert_close(found, (start + 0.1 * gradient).clamp(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_a_value_at_a_bound_has_its_whole_gradient_whatever_torch_gives_its_clamp(bound):
    network, lr = linear(0.01), 0.1
    start = torch.full_like(start_images(), bound)
    found = maximise(network, TARGETS, start, steps=1, lr=lr, decay=0.0, clip="last")
    torch.testing.assert_close(found, (start + lr * network.of(TARGETS)).clamp(0, 1), atol=1e-7, rtol=0)
    assert (found != bound).any()


def test_decay_alone_draws_to_grey():
    found = maximise(linear(0.0), TARGETS, start_images(), steps=200, lr=0.5, decay=0.2)
    torch.testing.assert_close(found, torch.full_like(found, 0.5))


def test_the_logit_rises_and_images_stay_in_the_cube(tiny):
    network, start = tiny(seed=2).eval(), grey_noise(SEEDS, SHAPE)
    found = maximise(network, TARGETS, start, steps=20)
    before, after = (network(each).gather(1, TARGETS[:, None]) for each in (start, found))
    assert (after > before).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_nothing_of_the_callers_is_changed(tiny):
    network, start, targets = tiny(seed=3).train(), start_images() * 2 - 0.5, TARGETS.clone()
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
    parts = samples(network, TARGETS, SEEDS, SHAPE, settings, max_batch=2)
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
    network, start = linear(0.1), start_images()
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
    samples(linear(), TARGETS, SEEDS, SHAPE, settings, max_batch=2, advance=told.append)
    assert sum(told) == settings.costs == COST * 3 * N


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps 0"),
        ({"lr": 0.0}, "lr 0.0"),
        ({"decay": -0.1}, "decay -0.1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=words(said)):
        maximise(linear(), TARGETS, start_images(), **changes)


def test_missing_seeds_other_shapes_and_values_that_are_no_numbers_are_said():
    with pytest.raises(ValueError, match=words("seeds")):
        denoise(linear(), start_images(), TARGETS)
    with pytest.raises(ValueError, match=words("noise (2, 3, 4, 4) (5, 3, 4, 4)")):
        denoise(linear(), start_images(), TARGETS, noise=torch.zeros(2, *SHAPE))
    with pytest.raises(ValueError, match=words("gradient finite")):
        maximise(linear(float("nan")), TARGETS, start_images(), steps=1)


def judged_case(network, **changes):
    """A case of test images, for a network that needs no maps."""
    data = {"test": Split(stored_images(N, H, W, seed=1), TARGETS)}
    given = {"build": linear, "target_classes": torch.zeros(N, dtype=torch.int64), "max_batch": 4}
    return case_of(data, network, **given | changes)


def classified(count=N, **settings):
    (probe,) = metric("gan_test", {"count": count, **settings}).probes(POINT).values()
    return probe


POINT = Point(0.0, 0, Call(call="efface.impute.channel_mean"), (), "pixel")


def test_gan_test_is_the_share_of_the_samples_that_the_judge_assigns_to_their_class():
    network, second, asked, told = linear(), linear(-1.0), [], []
    made = Samples(network.of(TARGETS).clamp(0, 1), TARGETS)

    def given(settings):
        asked.append(settings)
        return made

    probe = classified(steps=7)
    found = probe(judged_case(network, second_network=lambda: second, samples=given, advance=told.append)).values
    assert asked == [Sampling(count=N, steps=7)]
    for name, which in (("share", second), ("own_share", network)):
        logits = which(made.images).detach()
        by_hand = [float(logits[i].argmax() == TARGETS[i]) for i in range(N)]
        assert found[name].tolist() == by_hand
    assert found["own_share"].mean() == 1  # each image is its class's own weights
    assert found["share"].mean() == 0  # and the second network's are their negative
    expected = second(made.images).detach().double().softmax(1)[torch.arange(N), TARGETS]
    torch.testing.assert_close(torch.from_numpy(found["probability"]), expected, atol=1e-6, rtol=0)
    assert sum(told) == probe.cost({"test": N}, None)


def test_gan_test_wants_a_judge_of_as_many_classes():
    made = Samples(start_images(), TARGETS)
    with pytest.raises(ValueError, match=words("second_network")):
        classified()(judged_case(linear(), samples=lambda _: made))
    few = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 2))
    with pytest.raises(ValueError, match=words("2 class")):
        classified()(judged_case(linear(), samples=lambda _: made, second_network=lambda: few))


def test_what_a_judgement_depends_on():
    assert classified().identity() == classified().identity()
    assert classified().identity() != classified(lr=0.2).identity()
    assert classified().needs.samples == Sampling(count=N)  # the stage's defaults: the same file


def test_the_density_ratio_with_given_noise_is_the_exponential_of_the_weights_along_it():
    network, start = linear(0.3), start_images()
    noise = draws.normal(draws.fold(SEEDS, 9), (3, *SHAPE)).transpose(0, 1)
    found = changes(network, start, TARGETS, noise, max_batch=4)
    expected = torch.einsum("nchw,snchw->ns", network.of(TARGETS).double(), noise.double())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    ratio = ratios(found.numpy())
    torch.testing.assert_close(torch.from_numpy(ratio), expected.exp().mean(1), atol=0, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("level", [0.05, 0.2])
def test_the_density_ratio_of_a_linear_network_has_the_lognormal_mean(level):
    network, samples = linear(0.5), 2000
    probe = metric("density_ratio", {"levels": (level,), "samples": samples}).probes(point_at(level))["noisy"]
    found = probe(judged_case(network)).values
    spread = level * network.of(TARGETS).flatten(1).norm(dim=1).double()
    expected = (spread**2 / 2).exp()
    error = ((spread**2).exp() - 1).sqrt() * expected / samples**0.5  # of the lognormal mean
    assert (torch.from_numpy(found["ratio"]) - expected).abs().div(error).max() < 5
    assert (torch.from_numpy(found["change"]).abs() / (spread / samples**0.5)).max() < 5


def point_at(level):
    return Point(level, 0, Call(call="efface.impute.channel_mean"), (), "pixel")


def test_the_density_ratio_is_of_the_true_class_and_of_no_batch():
    network = linear(0.3)
    probe = Noisy(0.1, 3)
    whole = probe(judged_case(network)).values
    small = probe(judged_case(network, max_batch=1)).values
    other = probe(judged_case(network, target_classes=torch.ones(N, dtype=torch.int64))).values
    for name, values in whole.items():
        np.testing.assert_allclose(small[name], values, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(other[name], values)
    directions = Noisy(0.2, 3)(judged_case(network)).values["change"]
    np.testing.assert_allclose(directions, 2 * whole["change"], rtol=1e-4, atol=1e-5)  # the same, twice as far


def test_density_ratios_report_their_work_and_never_are_infinite():
    told, probe = [], Noisy(0.1, 3)
    probe(judged_case(linear(), advance=told.append))
    assert sum(told) == probe.cost({"test": N}, None)
    largest = ratios(
        np.array([[800.0, 800.0], [1e300, 1e300], [3.0, -np.inf], [79.0, 79.0]])
    )  # float max, were they e^x
    np.testing.assert_allclose(largest, np.exp([80.0, 80.0, 3.0 - np.log(2), 79.0]))
    with np.errstate(over="raise"):
        found = image_estimates(largest[:, None])[0].interval
    assert found.mean == pytest.approx(largest.mean())
    assert np.isfinite([found.low, found.high]).all()


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("density_ratio", {"levels": (0.2, 0.1)}, "above last"),
        ("density_ratio", {"levels": (0.0, 0.1)}, "0.0"),
        ("density_ratio", {"levels": ()}, "at least one"),
        ("density_ratio", {"samples": 0}, "samples 0"),
        ("gan_test", {"steps": 0}, "gan_test steps 0"),
    ],
)
def test_metric_settings_that_cannot_be_are_refused(name, settings, said):
    with pytest.raises(ValueError, match=words(said)):
        metric(name, settings)


# Published settings, as literals


def defaults(function):
    return {each.name: each.default for each in inspect.signature(function).parameters.values()}


def test_the_sampler_has_the_published_settings():
    published = {"steps": 500, "lr": 0.1, "decay": 0.01}
    assert Sampling().model_dump() == {"count": 1000, "deviation": 0.2} | published
    assert {name: defaults(maximise)[name] for name in published} == published
    assert defaults(maximise)["clip"] == "each"
    assert defaults(grey_noise)["deviation"] == 0.2
    assert metric("gan_test", {}).probes(point_at(0.0))["classified"].needs.samples == Sampling()


def test_denoising_has_the_published_settings():
    published = {"noise": 0.1, "steps": 200, "lr": 0.01, "decay": 0.0}
    assert {name: defaults(denoise)[name] for name in published} == published
