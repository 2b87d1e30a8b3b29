"""Regularisers: networks whose Hessian is known, derivatives by finite differences, what is refused."""

import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import StochasticDepth

from efface.base import draws
from efface.execute import set_torch_defaults
from efface.training.regularize import (
    PRESETS,
    anti_score_matching,
    check_anti_score_matching,
    check_score_matching,
    gradient_norm,
    hessian_traces,
    rounds_to_tf32,
    score_matching,
    squared_gradients,
)
from efface.training.settings import Regularizer
from small.messages import words

N, C, H, W, K = 4, 2, 3, 2, 3
D = C * H * W
TARGETS = torch.tensor([0, 2, 1, 2])


class Quadratic(nn.Module):
    """f_k(x) = x' A_k x / 2 + b_k' x: the Hessian is A_k everywhere."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        matrices = torch.randn(K, D, D, generator=generator, dtype=torch.float64)
        self.matrices = nn.Parameter(((matrices + matrices.mT) / 2).to(dtype))
        self.slopes = nn.Parameter(torch.randn(K, D, generator=generator, dtype=torch.float64).to(dtype))

    def forward(self, images):
        flat = images.flatten(1)
        return torch.einsum("nd,kde,ne->nk", flat, self.matrices, flat) / 2 + flat @ self.slopes.T

    def traces(self):
        return self.matrices.diagonal(dim1=1, dim2=2).sum(1)[TARGETS]

    def gradients(self, images):
        flat = images.flatten(1)
        symmetric = (self.matrices + self.matrices.mT) / 2
        return torch.einsum("nde,ne->nd", symmetric[TARGETS], flat) + self.slopes[TARGETS]


def pictures(count=N, dtype=torch.float64):
    found = torch.rand(count, C, H, W, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return found.requires_grad_()


def normals(samples, count=N, dtype=torch.float64):
    return torch.randn(samples, count, C, H, W, generator=torch.Generator().manual_seed(2), dtype=dtype)


def axes(count=N):
    """Draws whose mean of z z' is the identity: any quadratic form's mean is its trace, exactly."""
    steps = torch.eye(D, dtype=torch.float64) * math.sqrt(D)
    both = torch.cat([steps, -steps])
    return both.view(-1, 1, C, H, W).expand(-1, count, -1, -1, -1)


def traces(network, images, **settings):
    return hessian_traces(network, images, TARGETS, network(images), **settings).detach()


def weights_of(value, network):
    return torch.autograd.grad(value, list(network.parameters()), allow_unused=True, retain_graph=True)


# A quadratic network: everything is known


@pytest.mark.parametrize("estimator", ["one_sided", "antithetic"])
def test_the_trace_of_a_quadratic_network_is_exact_along_the_axes(estimator):
    network = Quadratic()
    found = traces(network, pictures(), samples=2 * D, sigma=0.3, estimator=estimator, noise=axes())
    torch.testing.assert_close(found, network.traces())


def test_opposite_draws_leave_the_quadratic_form_alone():
    network, images, noise = Quadratic(), pictures(), normals(1)
    flat = noise[0].flatten(1)
    expected = torch.einsum("nd,nde,ne->n", flat, network.matrices[TARGETS], flat)
    pair = torch.cat([noise, -noise])
    torch.testing.assert_close(traces(network, images, samples=2, sigma=0.3, noise=pair), expected)
    once = traces(network, images, samples=1, sigma=0.3, estimator="antithetic", noise=noise)
    torch.testing.assert_close(once, expected)


def test_one_sided_draws_are_the_form_and_the_slope_over_sigma():
    network, images, noise = Quadratic(), pictures(), normals(3)
    flat = noise.flatten(2)
    forms = torch.einsum("snd,nde,sne->sn", flat, network.matrices[TARGETS], flat)
    slopes = torch.einsum("snd,nd->sn", flat, network.gradients(images))
    expected = (forms + 2 * slopes / 0.05).mean(0)
    torch.testing.assert_close(traces(network, images, samples=3, sigma=0.05, noise=noise), expected)


@pytest.mark.parametrize("estimator", ["one_sided", "antithetic"])
def test_the_mean_over_seeds_is_the_trace_and_the_spread_what_theory_says(estimator):
    network, count, sigma = Quadratic(), 20_000, 0.1
    images = pictures(1).detach().expand(count, -1, -1, -1)
    classes = torch.full((count,), 2)
    seeds = draws.seeds_of("traces", torch.arange(count))
    with torch.no_grad():
        found = hessian_traces(
            network, images, classes, network(images), samples=1, sigma=sigma, estimator=estimator, seeds=seeds
        )
        matrix = network.matrices[2]
        slope = matrix @ images[0].flatten() + network.slopes[2]
    variance = 2 * matrix.square().sum() + (4 * slope.square().sum() / sigma**2 if estimator == "one_sided" else 0)
    assert abs(found.mean() - matrix.trace()) < 5 * (variance / count).sqrt()
    assert found.var() == pytest.approx(variance.item(), rel=0.05)


@pytest.mark.parametrize("stability", [0.0, 0.3])
def test_score_matching_of_a_quadratic_network_and_its_derivatives(stability):
    network, images = Quadratic(), pictures()
    settings = {"samples": 2 * D, "sigma": 0.2, "stability": stability, "noise": axes()}
    found = score_matching(network, images, TARGETS, network(images), **settings)
    traces, norms = network.traces(), network.gradients(images).square().sum(1)
    expected = traces.mean() + norms.mean() / 2 + stability * traces.square().mean()
    torch.testing.assert_close(found.value, expected)
    torch.testing.assert_close(weights_of(found.value, network), weights_of(expected, network))
    told = {name: float(value) for name, value in found.parts.items()}
    parts = {"trace": traces, "squared_trace": traces.square(), "squared_gradient": norms}
    assert told == pytest.approx({name: each.mean().item() for name, each in parts.items()})
    assert not any(each.requires_grad for each in found.parts.values())


def test_anti_score_matching_cuts_each_image_off_above():
    network, images = Quadratic(), pictures()
    traces = network.traces()
    threshold = traces.sort().values[1:3].mean().item()
    settings = {"samples": 2 * D, "sigma": 0.2, "threshold": threshold, "noise": axes()}
    found = anti_score_matching(network, images, TARGETS, network(images), **settings)
    expected = -traces.clamp(max=threshold).mean()
    torch.testing.assert_close(found.value, expected)
    torch.testing.assert_close(weights_of(found.value, network)[0], weights_of(expected, network)[0])
    assert float(found.parts["trace"]) == pytest.approx(traces.mean().item())
    assert float(found.parts["cut_off"]) == (traces > threshold).double().mean().item()


def test_gradient_norm_of_a_linear_network():
    network = nn.Sequential(nn.Flatten(), nn.Linear(D, K, dtype=torch.float64))
    images, matrix = pictures(), network[1].weight
    found = gradient_norm(network, images, TARGETS, network(images))
    assert found.value.item() == pytest.approx(matrix[TARGETS].square().sum().item() / N / 2)
    share = torch.bincount(TARGETS, minlength=K)[:, None] / N
    torch.testing.assert_close(weights_of(found.value, network)[0], share * matrix)
    assert float(found.parts["squared_gradient"]) == pytest.approx(2 * found.value.item())


# A network like those that are trained


def smooth(*, norm=True, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Conv2d(C, 5, 3, padding=1), *([nn.BatchNorm2d(5)] if norm else []), nn.Softplus(beta=10)]
        layers += [nn.Conv2d(5, 4, 2), nn.Softplus(beta=10), nn.MaxPool2d((2, 1)), nn.Flatten(), nn.Linear(4, K)]
        return nn.Sequential(*layers).to(dtype)


TERMS = {
    "score_matching": lambda *args: score_matching(*args, samples=2, sigma=0.3, stability=0.1, noise=normals(2)),
    "antithetic": lambda *args: score_matching(*args, samples=1, sigma=0.3, estimator="antithetic", noise=normals(1)),
    "anti_score_matching": lambda *args: anti_score_matching(*args, sigma=0.3, noise=normals(1), threshold=0.1),
    "gradient_norm": gradient_norm,
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_derivatives_are_finite_differences_through_batch_norm_in_training_mode(term, layout):
    network = smooth().to(memory_format=layout).train()
    images = pictures().detach().contiguous(memory_format=layout).requires_grad_()

    def value():
        return term(network, images, TARGETS, network(images)).value

    gradients = weights_of(value(), network)
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        way = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in network.parameters()]
        ends = []
        for side in (1e-5, -2e-5):
            with torch.no_grad():
                for each, step in zip(network.parameters(), way, strict=True):
                    each += side * step
            ends.append(value().item())
        with torch.no_grad():
            for each, step in zip(network.parameters(), way, strict=True):
                each += 1e-5 * step
        slope = sum(float((each * step).sum()) for each, step in zip(gradients, way, strict=True) if each is not None)
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-8)


def test_along_the_axes_the_trace_is_autograds_but_for_sigma_squared():
    network, images = smooth(norm=False), pictures()

    def answer(row):
        return lambda image: network(image[None])[0, TARGETS[row]]

    hessians = [torch.autograd.functional.hessian(answer(row), image) for row, image in enumerate(images.detach())]
    exact = torch.stack([each.reshape(D, D).trace() for each in hessians])
    errors = [(traces(network, images, samples=2 * D, sigma=s, noise=axes()) - exact).abs().max() for s in (2e-3, 1e-3)]
    assert errors[1] < 1e-3 * exact.abs().max()
    assert float(errors[0] / errors[1]) == pytest.approx(4, rel=0.05)


def test_a_row_is_the_gradient_of_its_own_image():
    network, images = smooth(norm=False), pictures()
    found = squared_gradients(images, TARGETS, network(images)).detach()
    for row, image in enumerate(images.detach()):
        alone = image[None].clone().requires_grad_()
        network(alone)[0, TARGETS[row]].backward()
        assert float(found[row]) == pytest.approx(float(alone.grad.square().sum()))


def test_draws_belong_to_the_image():
    network, images, seeds = smooth(norm=False), pictures(), draws.seeds_of("x", torch.arange(N))
    settings = {"samples": 3, "sigma": 0.1}
    whole = traces(network, images, seeds=seeds, **settings)
    for row in range(N):
        part = slice(row, row + 1)
        outputs = network(images[part])
        alone = hessian_traces(network, images[part], TARGETS[part], outputs, seeds=seeds[part], **settings)
        torch.testing.assert_close(alone, whole[part])
    own = torch.stack([draws.normal(draws.fold(seeds, k), (C, H, W)).double() for k in range(3)])
    assert torch.equal(traces(network, images, noise=own, **settings), whole)


class Spy(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, []

    def forward(self, images):
        self.seen.append(images.detach())
        return self.network(images)


@pytest.mark.parametrize(("estimator", "passes"), [("one_sided", 2), ("antithetic", 4)])
def test_noisy_images_are_not_clipped_and_move_the_running_statistics(estimator, passes):
    network = Spy(smooth()).train()
    images, noise = pictures(), normals(2)
    outputs = network(images)
    score_matching(network, images, TARGETS, outputs, samples=2, sigma=0.5, estimator=estimator, noise=noise)
    assert len(network.seen) == 2 + passes  # the second is to see whether the network answers the same
    torch.testing.assert_close(network.seen[2], images.detach() + 0.5 * noise[0])
    assert network.seen[2].min() < 0
    assert network.seen[2].max() > 1
    assert int(network.network[1].num_batches_tracked) == 1 + passes


def test_relu_has_no_hessian_but_a_gradient():
    network = nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, K)).double()
    images = pictures()
    found = traces(network, images, samples=1, sigma=1e-6, estimator="antithetic", noise=normals(1))
    assert found.abs().max() < 1e-2  # rounding of a difference over sigma^2
    assert gradient_norm(network, images, TARGETS, network(images)).value > 0


# What is published, what is refused


def test_presets_are_the_published_numbers():
    score = {"samples": 1, "sigma": 0.01, "stability": 1e-3}
    anti = {"samples": 1, "sigma": 0.001}
    assert {
        "score_matching": {"paper": {"weight": 1e-3} | score, "code": {"weight": 1e-5} | score},
        "anti_score_matching": {
            "paper": {"weight": 1e-4, "threshold": 1000.0} | anti,
            "code": {"weight": 1e-5, "threshold": 10_000.0} | anti,
        },
        "gradient_norm": {"paper": {"weight": 1e-3}, "code": {"weight": 1e-5}},
    } == PRESETS


@pytest.mark.parametrize(
    ("function", "published"),
    [
        (score_matching, {"samples": 10, "sigma": 0.01, "stability": 0.0}),
        (check_score_matching, {"samples": 10, "sigma": 0.01, "stability": 0.0}),
        (anti_score_matching, {"samples": 1, "sigma": 0.01, "threshold": 1e4}),
        (check_anti_score_matching, {"samples": 1, "sigma": 0.01, "threshold": 1e4}),
    ],
)
def test_defaults_are_those_of_the_published_code(function, published):
    defaults = {each.name: each.default for each in inspect.signature(function).parameters.values()}
    assert {name: defaults[name] for name in published} == published
    assert defaults["estimator"] == "one_sided"


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_autocast_is_refused(term):
    network = smooth(dtype=torch.float32)
    images = pictures(dtype=torch.float32)
    outputs = network(images)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=words("autocast fit.precision fp32")):
        term(network, images, TARGETS, outputs)


def test_dropout_is_refused_where_two_passes_are_compared():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(D, K)).double()
    images = pictures()
    outputs = network(images)
    with pytest.raises(ValueError, match=words("dropout")):
        score_matching(network, images, TARGETS, outputs, samples=1, noise=normals(1))
    gradient_norm(network, images, TARGETS, outputs)
    network.eval()
    score_matching(network, images, TARGETS, network(images), samples=1, noise=normals(1))


class Noisy(nn.Module):
    """Linear, with noise of some making on its logits."""

    def __init__(self, noise):
        super().__init__()
        self.body, self.noise = nn.Sequential(nn.Flatten(), nn.Linear(D, K, dtype=torch.float64)), noise

    def forward(self, images):
        return self.noise(self.body(images))


NOISES = {
    "functional dropout": lambda z: F.dropout(z, 1e-6),  # so rare that two passes are hardly ever different
    "stochastic depth": StochasticDepth(1e-6, "row"),
    "normal": lambda z: z + 1e-9 * torch.randn_like(z),
    "numpy": lambda z: z * (1 + 0.1 * float(np.random.default_rng().normal())),
}
TWO_PASSES = {"score_matching": score_matching, "anti_score_matching": anti_score_matching}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("term", TWO_PASSES.values(), ids=TWO_PASSES)
def test_noise_of_any_making_is_refused_where_two_passes_are_compared(term, noise):
    network, images = Noisy(noise), pictures()
    outputs, state = network(images), torch.get_rng_state()
    with pytest.raises(ValueError, match=r"Noisy.*(random|second)"):
        term(network, images, TARGETS, outputs, samples=1, noise=normals(1))
    assert torch.equal(torch.get_rng_state(), state)
    gradient_norm(network, images, TARGETS, outputs)


def test_the_pass_that_looks_for_noise_is_made_once_and_leaves_no_trace():
    network, other, images, noise = Spy(smooth()).train(), smooth().train(), pictures(), normals(1)
    values = []
    for _ in range(2):
        outputs = network(images)
        values.append(score_matching(network, images, TARGETS, outputs, samples=1, sigma=0.1, noise=noise).value)
    assert len(network.seen) == 2 * 2 + 1
    for _ in range(2):
        other(images.detach())
        other(images.detach() + 0.1 * noise[0])
    for mine, plain in zip(network.network.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, plain)
    torch.testing.assert_close(values[0], values[1])
    values[0].backward()
    network.eval()
    score_matching(network, images, TARGETS, network(images), samples=1, sigma=0.1, noise=noise)
    assert len(network.seen) == 2 * 2 + 1 + 3  # looked at again in another mode


@pytest.mark.parametrize("term", [score_matching, anti_score_matching, gradient_norm])
def test_weights_coarser_than_float32_are_refused(term):
    network, images = smooth(norm=False, dtype=torch.bfloat16), pictures(dtype=torch.bfloat16)
    seeds = {} if term is gradient_norm else {"samples": 1, "seeds": draws.seeds_of("x", torch.arange(N))}
    with pytest.raises(ValueError, match=words("Sequential torch.bfloat16 network.float()")):
        term(network, images, TARGETS, network(images), **seeds)


def test_tf32_is_found_on_a_gpu_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert rounds_to_tf32(torch.device("cuda"))
    assert not rounds_to_tf32(torch.device("cpu"))
    set_torch_defaults(torch.get_num_threads())  # as every training of a study
    assert not rounds_to_tf32(torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tf32_is_refused_on_a_gpu(monkeypatch):
    network, images = smooth(dtype=torch.float32).cuda(), pictures(dtype=torch.float32).detach().cuda().requires_grad_()
    call = (network, images, TARGETS.cuda(), network(images))
    noise = normals(1, dtype=torch.float32).cuda()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pytest.raises(ValueError, match=words("TF32 cudnn.allow_tf32 False")):
        score_matching(*call, samples=1, noise=noise)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    score_matching(*call, samples=1, noise=noise)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples 0"),
        ({"sigma": 0.0}, "sigma 0"),
        ({"sigma": math.inf}, "sigma inf"),
        ({"stability": -1.0}, "stability -1"),
        ({"samples": 2, "noise": normals(3)}, "noise 3 2"),
        ({}, "seeds"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    network, images = Quadratic(), pictures()
    with pytest.raises(ValueError, match=words(message)):
        score_matching(network, images, TARGETS, network(images), **settings)


def test_an_unknown_estimator_is_refused_as_the_study_is_read():
    with pytest.raises(ValueError, match=words("estimator two_sided")):
        Regularizer(call="efface.training.regularize.score_matching", kwargs={"estimator": "two_sided"}, weight=1e-3)


def test_a_threshold_must_be_a_number():
    network, images = Quadratic(), pictures()
    with pytest.raises(ValueError, match=words("threshold nan")):
        anti_score_matching(network, images, TARGETS, network(images), threshold=math.nan, noise=normals(1))


def test_images_without_a_gradient_are_refused():
    network, images = Quadratic(), pictures().detach()
    with pytest.raises(ValueError, match=words("images.requires_grad_()")):
        gradient_norm(network, images, TARGETS, network(images))
