"""Path methods: what holds for all of them, then each against a closed form, an axiom, a double loop or Captum."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch
from captum import attr
from captum.attr._core.gradient_shap import InputBaselineXGradient  # what GradientShap averages
from torch import nn

from efface.base import draws
from efface.base.types import Split
from efface.erase.blur import gaussian_blur
from efface.methods import path
from efface.methods.gradient import gradient
from efface.methods.path import adversarial
from efface.methods.path.average import check_recalibrate
from efface.methods.path.baseline import start_of
from efface.methods.path.clusters import k_means, representatives
from efface.methods.path.grid import grid_of, points_and_weights
from efface.methods.smooth import smooth_grad, smooth_grad_family
from efface.plug.call import resolve
from small.batches import all_inputs, explain, noise_split, uniform_numbers
from small.messages import words
from small.networks import Detached, linear_network, residual_network, state_of
from small.tiers import first_short

RULES = ("midpoint", "gauss_legendre", "trapezoid", "left", "right", "closed", "interior")
MODES = ("none", "references", "points")
CLASSES = 4


def slopes(model, points, targets):
    points = points.clone().requires_grad_()
    return torch.autograd.grad(model(points).gather(1, targets[:, None]).sum(), points)[0]


def scores(model, points, targets):
    with torch.no_grad():
        return model(points).gather(1, targets[:, None])[:, 0]


def training_split():
    return noise_split(40, seed=5, validation=torch.arange(0, 40, 5))


def fitted(method, **settings):
    method.fit(residual_network().float(), training_split(), seed=3, max_batch=7, **settings)
    return method


METHODS = {
    "integrated_gradients": partial(path.integrated_gradients, steps=5),
    "ig_gauss": partial(path.integrated_gradients, steps=5, rule="gauss_legendre", baseline="blur"),
    "ig_on_smooth_grad": partial(path.integrated_gradients, steps=3, base=partial(smooth_grad, samples=3)),
    "smooth_integrated_gradients": partial(path.smooth_integrated_gradients, steps=3, samples=4),
    "ig_uniform": partial(path.ig_uniform, samples=4, steps=3),
    "ig_uniform_references": partial(path.ig_uniform, samples=4, steps=3, recalibrate="references"),
    "ig_smooth": partial(path.ig_smooth, samples=4, steps=3),
    "ig_smooth_points": partial(path.ig_smooth, samples=4, steps=3, recalibrate="points"),
    "ig_squared": partial(path.ig_squared, samples=4, steps=3),
    "adversarial": partial(path.adversarial_gradient_integration, samples=3, steps=4, step_size=0.02),
    "adversarial_points": partial(path.adversarial_gradient_integration, samples=3, steps=4, recalibrate="points"),
    "blur_ig": partial(path.blur_ig, steps=5),
    "guided_ig": partial(path.guided_ig, steps=6, max_distance=0.3),
    "expected_gradients": fitted(path.ExpectedGradients(samples=6, steps=2, pool=20)),
    "local_path_integration": fitted(path.LocalPathIntegration(samples=4, steps=3, centres=2)),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_mode = pytest.mark.parametrize("mode", MODES)


# Every method


@every_method
def test_map_has_the_images_shape_and_batch_equals_singles(method):
    inputs = all_inputs(4)
    together = explain(method, residual_network(), inputs)
    assert together.shape == inputs["images"].shape
    assert together.isfinite().all()
    assert not together.requires_grad
    singles = [
        explain(method, residual_network(), {name: rows[i : i + 1] for name, rows in inputs.items()}) for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(singles), rtol=1e-6, atol=1e-12)


@every_method
@pytest.mark.parametrize("max_batch", first_short(1, [7, 1]))
def test_row_budget_changes_nothing_and_is_kept(method, max_batch):
    model, inputs, passed = residual_network(), all_inputs(3), []
    whole = explain(method, model, inputs)
    model.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    torch.testing.assert_close(explain(method, model, inputs, max_batch=max_batch), whole, rtol=1e-6, atol=1e-12)
    assert max(passed) <= max_batch


@every_method
def test_model_and_images_are_as_before(method):
    model, inputs = residual_network(), all_inputs(3)
    model.train()
    model.first[1].eval()
    model.head.bias.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    inputs["images"].requires_grad_()
    before = state_of(model, inputs["images"])
    maps = explain(method, model, inputs)
    assert state_of(model, inputs["images"]) == before
    torch.testing.assert_close(maps, explain(method, model.eval(), all_inputs(3)))  # nor did the mode matter

    def fail(module, arguments):
        raise RuntimeError("out of memory")

    handle = model.train().head.register_forward_pre_hook(fail)
    before = state_of(model, inputs["images"])
    with pytest.raises(RuntimeError, match="out of memory"):
        explain(method, model, inputs)
    assert state_of(model, inputs["images"]) == before
    handle.remove()


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_the_caller_records_no_gradients(method, mode):
    model = residual_network()
    expected = explain(method, model, all_inputs(3))
    with mode():
        torch.testing.assert_close(explain(method, model, all_inputs(3)), expected)


@every_method
def test_weights_of_classes_stand_for_a_class(method):
    inputs = all_inputs(3)
    one_hot = nn.functional.one_hot(inputs["targets"], CLASSES).double()
    torch.testing.assert_close(
        explain(method, residual_network(), inputs | {"targets": one_hot}),
        explain(method, residual_network(), inputs),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("name", [name for name in METHODS if "local" not in name and "expected" not in name])
def test_minus_log_probability_is_the_loss(name):
    settings = {"max_batch": 100, "recalibrate": "none"} if "recalibrate" in METHODS[name].keywords else {}
    log, loss = (
        explain(METHODS[name], residual_network(), all_inputs(3), score=score, **settings)
        for score in ("log_probability", "loss")
    )
    assert log.abs().max() > 0
    torch.testing.assert_close(loss, log if name == "ig_squared" else -log)


@pytest.mark.parametrize("name", [name for name in METHODS if "seeds" in inspect.signature(METHODS[name]).parameters])
def test_draws_depend_on_the_seed(name):
    if name in ("integrated_gradients", "ig_gauss"):
        return
    inputs = all_inputs(3)
    other = draws.seeds_of("other", torch.arange(3))
    first, second = (
        explain(METHODS[name], residual_network(), inputs),
        explain(METHODS[name], residual_network(), inputs, seeds=other),
    )
    same = "adversarial" in name  # all three other classes there are
    assert torch.equal(first, second) == same
    if not same:
        with pytest.raises(ValueError, match=words("seeds")):
            METHODS[name](residual_network(), inputs["images"], inputs["targets"])


# Grids


def test_points_and_weights_of_each_rule():
    expected = {
        "midpoint": ((0.125, 0.375, 0.625, 0.875), 0.25),
        "left": ((0, 0.25, 0.5, 0.75), 0.25),
        "right": ((0.25, 0.5, 0.75, 1), 0.25),
        "closed": ((0, 1 / 3, 2 / 3, 1), 0.25),
        "interior": ((0.25, 0.5, 0.75), 0.25),
        "trapezoid": ((0, 1 / 3, 2 / 3, 1), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    }
    for rule, (points, weights) in expected.items():
        weights = weights if isinstance(weights, tuple) else (weights,) * len(points)
        np.testing.assert_allclose(points_and_weights(rule, 4), (points, weights), atol=1e-15)
    points, weights = map(np.array, points_and_weights("gauss_legendre", 4))
    for power in range(8):
        np.testing.assert_allclose((weights * points**power).sum(), 1 / (power + 1), atol=1e-15)
    assert points_and_weights("closed", 1) == ((1.0,), (1.0,))


def incompleteness(rule, steps, activation=nn.Softplus):
    model, inputs = residual_network(activation), all_inputs(3)
    maps = explain(path.integrated_gradients, model, inputs, steps=steps, rule=rule, baseline=0.2)
    if rule == "interior":
        maps = maps * steps / (steps - 1)
    rise = scores(model, inputs["images"], inputs["targets"])
    rise -= scores(model, torch.full_like(inputs["images"], 0.2), inputs["targets"])
    return (maps.sum((1, 2, 3)) - rise).abs()


@pytest.mark.parametrize(
    ("rule", "order"), [("midpoint", 4), ("trapezoid", 4), ("left", 2), ("right", 2), ("closed", 2)]
)
def test_error_falls_as_the_rule_says(rule, order):
    offset = rule in ("trapezoid", "closed")  # their points have one part less
    first, second = incompleteness(rule, 8 + offset), incompleteness(rule, 16 + offset)
    torch.testing.assert_close(first / second, torch.full_like(first, order), rtol=0.1, atol=0.0)


def test_few_gauss_legendre_points_are_complete_on_a_smooth_network():
    assert incompleteness("gauss_legendre", 6).max() < 1e-9
    assert incompleteness("interior", 100).max() < 1e-3
    assert incompleteness("midpoint", 1000, nn.ReLU).max() < 1e-4


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        ("midpoint", "riemann_middle"),
        ("gauss_legendre", "gausslegendre"),
        ("left", "riemann_left"),
        ("right", "riemann_right"),
        ("trapezoid", "riemann_trapezoid"),
    ],
)
def test_integrated_gradients_equal_captum(rule, theirs):
    model, inputs, steps = residual_network(), all_inputs(3), 9
    captum = attr.IntegratedGradients(model).attribute(
        inputs["images"], baselines=0.3, target=inputs["targets"], n_steps=steps, method=theirs
    )
    if rule == "trapezoid":  # their weights sum to 1 - 1/steps
        captum = captum * steps / (steps - 1)
    found = explain(path.integrated_gradients, model, inputs, steps=steps, rule=rule, baseline=0.3)
    torch.testing.assert_close(found, captum, rtol=1e-5, atol=1e-9)


def test_given_points_and_weights_replace_the_rule():
    points, weights = points_and_weights("gauss_legendre", 7)
    found = explain(
        path.integrated_gradients, residual_network(), all_inputs(3), alphas=points, weights=torch.tensor(weights)
    )
    expected = explain(path.integrated_gradients, residual_network(), all_inputs(3), steps=7, rule="gauss_legendre")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    found = explain(
        path.integrated_gradients,
        residual_network(),
        all_inputs(3),
        alphas=torch.tensor([0.25, 0.75], dtype=torch.float64),
    )
    torch.testing.assert_close(found, explain(path.integrated_gradients, residual_network(), all_inputs(3), steps=2))


# One baseline


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["black", "number", "channels", "values", "mean", "blur", "one", "each"])
def test_integrated_gradients_of_a_linear_network_in_closed_form(kind, rule):
    model, inputs = linear_network(), all_inputs(3)
    images = inputs["images"]
    given = uniform_numbers(3, 3, 8, 8, seed=9)
    baseline, start = {
        "black": (0.0, torch.zeros(1, 1, 1, 1)),
        "number": (0.4, torch.full((1, 1, 1, 1), 0.4)),
        "channels": ([0.1, 0.5, 0.9], torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)[:, None, None]),
        "values": (torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.1, 0.5, 0.9])[:, None, None]),
        "mean": ("mean", images.mean((2, 3), keepdim=True)),
        "blur": ("blur", gaussian_blur(images, sigma=2.0)),
        "one": (given[0], given[:1]),
        "each": (given, given),
    }[kind]
    sigma = 2.0 if kind == "blur" else None
    found = explain(path.integrated_gradients, model, inputs, steps=4, baseline=baseline, sigma=sigma, rule=rule)
    whole = 0.75 if rule == "interior" else 1.0
    torch.testing.assert_close(found, whole * (images - start) * model.of(inputs["targets"]))


def test_a_base_stands_for_the_gradient():
    model, inputs = residual_network(), all_inputs(3)
    plain = explain(path.integrated_gradients, model, inputs, steps=5, score="probability")
    found = explain(path.integrated_gradients, model, inputs, steps=5, base=gradient, score="probability")
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-15)
    own = explain(path.integrated_gradients, model, inputs, steps=5, base=partial(gradient, score="probability"))
    torch.testing.assert_close(own, plain, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("base", "settings", "said"),
    [
        (lambda model, images, targets: images.sum(1), {}, "base (12, 8, 8)"),
        (smooth_grad_family, {}, "base dict"),
        (
            lambda model, images, targets: images,
            {"score": "loss"},
            "loss base",
        ),
        (smooth_grad, {"seeds": None}, "seeds"),
    ],
)
def test_an_unfit_base_is_refused(base, settings, said):
    with pytest.raises(ValueError, match=words(said)):
        explain(path.integrated_gradients, linear_network(), all_inputs(3), steps=4, base=base, **settings)


# SmoothGrad on the line


def test_smooth_integrated_gradients_are_integrated_smooth_grad():
    inputs = all_inputs(3)
    settings = {"steps": 3, "rule": "right", "baseline": 0.1}
    found = explain(path.smooth_integrated_gradients, residual_network(), inputs, samples=4, noise=0.2, **settings)
    base = partial(smooth_grad, samples=4, noise=0.2)
    expected = explain(path.integrated_gradients, residual_network(), inputs, base=base, **settings)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_smooth_integrated_gradients_by_hand():
    model, inputs = residual_network(), all_inputs(3)
    images, targets = inputs["images"], inputs["targets"]
    noise = uniform_numbers(6, 3, 3, 8, 8, seed=4) - 0.5
    total = torch.zeros_like(images)
    for step, alpha in enumerate((0.25, 0.75)):
        for sample in range(3):
            total += slopes(model, alpha * images + noise[3 * step + sample], targets) / 6
    found = path.smooth_integrated_gradients(model, images, targets, steps=2, samples=3, noise=noise)
    torch.testing.assert_close(found, images * total, rtol=1e-9, atol=1e-12)
    without = explain(path.smooth_integrated_gradients, model, inputs, steps=5, samples=2, noise=0.0)
    torch.testing.assert_close(without, explain(path.integrated_gradients, model, inputs, steps=5))


# Several references: 5 and 10 are not coprime, which hides no mistake in pairing them


def double_loop(model, images, targets, references, alphas, mode, *, squared=False, densities=None):
    """The definition, one image, reference and point at a time. alphas: n r p."""
    maps = torch.zeros_like(images)
    n, r, p = alphas.shape
    for i in range(n):
        target = targets[i : i + 1]
        total, number = torch.zeros(images.shape[1:]), torch.zeros(images.shape[1:])
        for j in range(r):
            density = 1.0 if densities is None else densities[i, j]
            way = images[i] - references[i, j]
            each = [slopes(model, (references[i, j] + a * way)[None], target)[0] / p for a in alphas[i, j]]
            if mode == "points":
                terms = [(1 - a) * way * g for a, g in zip(alphas[i, j], each, strict=True)]
            else:
                terms = [way * sum(each)]
            for term in terms:
                kept = (term >= 0).double() if mode != "none" else torch.ones_like(term)
                value = term
                if squared:
                    value = way * sum(each) ** 2 if mode == "none" else term**2
                total = total + density * kept * value
                number = number + density * kept
        maps[i] = total / number.where(number > 0, 1.0)
    return maps


def drawn_references(seed=7):
    return uniform_numbers(3, 5, 3, 8, 8, seed=seed)


def random_alphas(r=5, p=10):
    return uniform_numbers(3, r, p, seed=8)


def closed(r=5, p=10):
    return torch.linspace(0, 1, p, dtype=torch.float64).expand(3, r, p)


@every_mode
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("alphas", [None, random_alphas()], ids=["closed", "random"])
def test_several_references_by_hand(mode, squared, alphas):
    model, inputs, references = residual_network(), all_inputs(3), drawn_references()
    settings = {"references": references, "steps": 10, "alphas": alphas, "recalibrate": mode, "max_batch": 7}
    grid = closed() if alphas is None else alphas
    images, targets = inputs["images"], inputs["targets"]
    expected = double_loop(model, images, targets, references, grid, mode, squared=squared)
    methods = [path.ig_squared] if squared else [path.ig_uniform, path.ig_smooth]
    for method in methods:
        torch.testing.assert_close(method(model, images, targets, **settings), expected, rtol=1e-9, atol=1e-14)
    if mode != "none":
        assert expected.min() >= 0


@every_mode
def test_expected_gradients_by_hand(mode):
    model, inputs, references, alphas = residual_network(), all_inputs(3), drawn_references(), random_alphas()
    expected = double_loop(model, inputs["images"], inputs["targets"], references, alphas, mode)
    method = path.ExpectedGradients(recalibrate=mode)
    found = method(model, inputs["images"], inputs["targets"], references=references, alphas=alphas, max_batch=7)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


@every_mode
def test_local_path_integration_by_hand(mode):
    model, inputs, references, alphas = residual_network(), all_inputs(3), drawn_references(), random_alphas()
    densities = uniform_numbers(3, 5, seed=10)
    densities /= densities.sum(1, keepdim=True)
    expected = double_loop(model, inputs["images"], inputs["targets"], references, alphas, mode, densities=densities)
    method = path.LocalPathIntegration(recalibrate=mode)
    found = method(
        model,
        inputs["images"],
        inputs["targets"],
        references=references,
        alphas=alphas,
        densities=densities,
        max_batch=7,
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 5])
def test_one_reference_is_a_baseline(rule, steps):
    model, inputs, references = residual_network(), all_inputs(3), drawn_references()[:, :1]
    found = explain(path.ig_uniform, model, inputs, references=references, steps=steps, rule=rule)
    expected = explain(path.integrated_gradients, model, inputs, baseline=references[:, 0], steps=steps, rule=rule)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_paths_of_one_point_at_the_image_need_one_pass():
    model, inputs, references = residual_network(), all_inputs(3), drawn_references()
    passed = []
    model.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    found = explain(path.ig_uniform, model, inputs, references=references, steps=1, rule="right")
    assert sum(passed) == 3
    way = inputs["images"] - references.mean(1)
    torch.testing.assert_close(found, way * slopes(residual_network(), inputs["images"], inputs["targets"]))


@pytest.mark.parametrize(("rule", "each"), [("closed", 1 + 5 * 9), ("left", 5 * 10), ("right", 1 + 5 * 9)])
def test_the_image_itself_is_computed_once(rule, each):
    model, passed = residual_network(), []
    model.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    explain(path.ig_uniform, model, all_inputs(3), references=drawn_references(), steps=10, rule=rule)
    assert sum(passed) == 3 * each


def test_maps_of_several_references_are_complete():
    model, inputs, references = residual_network(nn.Softplus), all_inputs(3), drawn_references()
    images, targets = inputs["images"], inputs["targets"]
    densities = uniform_numbers(3, 5, seed=10)
    densities /= densities.sum(1, keepdim=True)
    below = torch.stack([scores(model, references[:, j], targets) for j in range(5)], 1)
    settings = {"references": references, "alphas": torch.linspace(0.005, 0.995, 100, dtype=torch.float64)}
    for maps, expected in (
        (path.ig_uniform(model, images, targets, **settings), below.mean(1)),
        (path.ExpectedGradients()(model, images, targets, **settings), below.mean(1)),
        (
            path.LocalPathIntegration()(model, images, targets, densities=densities, **settings),
            (densities * below).sum(1),
        ),
    ):
        torch.testing.assert_close(maps.sum((1, 2, 3)), scores(model, images, targets) - expected, rtol=1e-3, atol=1e-6)


def test_expected_gradients_equal_captum():
    model, inputs, references = residual_network(), all_inputs(3), drawn_references()
    np.random.seed(0)  # noqa: NPY002  what Captum draws from
    alphas = torch.from_numpy(np.stack([np.random.uniform(0, 1, 3) for _ in range(5)], 1))[:, :, None]  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    theirs = [
        InputBaselineXGradient(model, multiply_by_inputs=True).attribute(
            inputs["images"], baselines=references[:, j], target=inputs["targets"]
        )
        for j in range(5)
    ]
    found = path.ExpectedGradients()(model, inputs["images"], inputs["targets"], references=references, alphas=alphas)
    torch.testing.assert_close(found, torch.stack(theirs).mean(0), rtol=1e-5, atol=1e-9)


def test_several_references_of_a_linear_network_in_closed_form():
    model, inputs, references = linear_network(), all_inputs(3), drawn_references()
    images, weights = inputs["images"], model.of(inputs["targets"])
    ways = images[:, None] - references
    terms = ways * weights[:, None]

    def kept(values):
        return (values * (terms >= 0)).sum(1) / (terms >= 0).sum(1).clamp(min=1)

    given = {"references": references, "steps": 4}
    for method in (path.ig_uniform, path.ig_smooth):
        torch.testing.assert_close(explain(method, model, inputs, **given), terms.mean(1))
        found = explain(method, model, inputs, recalibrate="references", **given)
        torch.testing.assert_close(found, kept(terms))
        found = explain(method, model, inputs, recalibrate="points", **given)  # on average half the way is left
        torch.testing.assert_close(found, kept_points(terms, 4))
    torch.testing.assert_close(explain(path.ig_squared, model, inputs, **given), (ways * weights[:, None] ** 2).mean(1))
    found = explain(path.ig_squared, model, inputs, recalibrate="references", **given)
    torch.testing.assert_close(found, kept(terms**2))
    torch.testing.assert_close(explain(path.ExpectedGradients(), model, inputs, references=references), terms.mean(1))


def kept_points(terms, steps):
    """Of a linear network: the end of the path is kept on each, the others where the way has the weight's sign."""
    parts = torch.linspace(1, 0, steps, dtype=torch.float64) / steps
    number = steps * (terms >= 0).sum(1) + (terms < 0).sum(1)
    return (terms.clamp(min=0) * parts.sum()).sum(1) / number


def test_uniform_references_are_the_images_own_draws():
    inputs = all_inputs(3)
    references = torch.stack([draws.uniform(draws.fold(inputs["seeds"], j), (3, 8, 8)) for j in range(4)], 1).double()
    assert 0.45 < references.mean() < 0.55
    found = explain(path.ig_uniform, residual_network(), inputs, samples=4, steps=3)
    expected = explain(path.ig_uniform, residual_network(), inputs, references=references, steps=3)
    torch.testing.assert_close(found, expected)


def test_smooth_references_are_noisy_copies_of_the_image_itself():
    inputs = all_inputs(3)
    inputs["images"][0] *= 0.1  # a range of its own
    images = inputs["images"]
    spread = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    noise = torch.stack([draws.normal(draws.fold(inputs["seeds"], j), (3, 8, 8)) for j in range(4)]).double()
    noise *= 0.3 * spread
    references = (images + noise).clamp(0, 1).transpose(0, 1)
    for method in (path.ig_smooth, path.ig_squared):
        expected = explain(method, residual_network(), inputs, references=references, steps=3)
        torch.testing.assert_close(explain(method, residual_network(), inputs, samples=4, steps=3, noise=0.3), expected)
        given = method(residual_network(), images, inputs["targets"], samples=4, steps=3, noise=noise)
        torch.testing.assert_close(given, expected)


def test_recalibration_with_nothing_kept_is_zero():
    model, inputs = linear_network(), all_inputs(3)
    with torch.no_grad():
        model.fc.weight.fill_(-1.0)
    references = torch.zeros(3, 2, 3, 8, 8, dtype=torch.float64)
    for mode, rule in (("references", "closed"), ("points", "left")):
        found = explain(path.ig_uniform, model, inputs, references=references, rule=rule, recalibrate=mode)
        assert torch.equal(found, torch.zeros_like(found))


# Adversarial paths


def attacked(model, image, target, classes, *, steps, step_size, mode):
    """The definition for one image; and where its paths end."""
    total, number, ends = torch.zeros_like(image), torch.zeros_like(image), []
    for other in classes:
        point, whole, moved = image.clone(), torch.zeros_like(image), False
        for _ in range(steps):
            if model(point[None]).argmax() == other:
                break
            rise = slopes(model, point[None], other[None])[0]
            slope = slopes(model, point[None], target[None])[0]
            after = (point + step_size * rise.sign()).clamp(0, 1)
            term = -slope * (after - point)
            point, moved, whole = after, True, whole + term
            if mode == "points":
                total, number = total + term.clamp(min=0), number + (term >= 0)
        ends.append(point)
        if mode == "none":
            total = total + whole
        elif mode == "references" and moved:
            total, number = total + whole.clamp(min=0), number + (whole >= 0)
    return (total if mode == "none" else total / number.clamp(min=1)), torch.stack(ends)


@every_mode
@pytest.mark.parametrize("max_batch", [1, 5, 100])
def test_adversarial_gradient_integration_by_hand(mode, max_batch):
    model, inputs = residual_network(seed=4), all_inputs(3)
    with torch.no_grad():  # no class is far, so that some paths end early
        model.head.bias -= model(inputs["images"]).mean(0)
    classes = torch.tensor([[1, 2, 3], [3, 0, 2], [0, 1, 3]])
    settings = {"steps": 6, "step_size": 0.03}
    found = path.adversarial_gradient_integration(
        model, inputs["images"], inputs["targets"], classes=classes, recalibrate=mode, max_batch=max_batch, **settings
    )
    answers = []
    for i in range(3):
        expected, ends = attacked(model, inputs["images"][i], inputs["targets"][i], classes[i], mode=mode, **settings)
        torch.testing.assert_close(found[i], expected, rtol=1e-9, atol=1e-14)
        answers.append(model(ends).argmax(1) == classes[i])
    assert 0 < torch.stack(answers).sum() < 9  # some paths reach their class, some do not


def test_adversarial_maps_sum_to_the_fall_of_the_logit():
    model, inputs = residual_network(nn.Softplus), all_inputs(3)
    classes = torch.tensor([[1, 2], [3, 0], [0, 1]])
    settings = {"steps": 30, "step_size": 0.002}
    maps = path.adversarial_gradient_integration(
        model, inputs["images"], inputs["targets"], classes=classes, **settings
    )
    for i in range(3):
        target = inputs["targets"][i]
        _, ends = attacked(model, inputs["images"][i], target, classes[i], mode="none", **settings)
        fall = (scores(model, inputs["images"][i : i + 1], target[None]) - scores(model, ends, target.expand(2))).sum()
        torch.testing.assert_close(maps[i].sum(), fall, rtol=0.02, atol=1e-6)


def test_adversarial_paths_of_a_linear_network_in_closed_form():
    model = linear_network()
    images, targets = 0.4 + 0.2 * uniform_numbers(3, 3, 8, 8), torch.tensor([0, 1, 2])
    with torch.no_grad():
        model.fc.bias[3] = -1000.0  # class 3 is never answered, so all steps are done
    found = path.adversarial_gradient_integration(
        model, images, targets, classes=torch.tensor([[3], [3], [3]]), steps=5, step_size=0.01
    )
    weights = model.fc.weight.detach().unflatten(1, (3, 8, 8))
    torch.testing.assert_close(found, -0.05 * weights[targets] * weights[3].sign())


def test_other_classes_are_drawn_without_repeats_and_without_the_target():
    targets, seeds = torch.arange(50) % CLASSES, draws.seeds_of("test", torch.arange(50))
    images = uniform_numbers(50, 3, 8, 8)
    drawn = adversarial.other_classes(linear_network(), images, targets, seeds, 2)
    assert drawn.shape == (50, 2)
    assert not (drawn == targets[:, None]).any()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert set(drawn.flatten().tolist()) == {0, 1, 2, 3}
    all_of_them = adversarial.other_classes(linear_network(), images, targets, seeds, 20)
    assert all(set(row.tolist()) == {0, 1, 2, 3} - {int(t)} for row, t in zip(all_of_them, targets, strict=True))
    torch.testing.assert_close(
        adversarial.other_classes(linear_network(), images[7:9], targets[7:9], seeds[7:9], 2), drawn[7:9]
    )


# Blurred paths


def test_blur_ig_is_complete_and_its_error_falls_fourfold():
    model, inputs = residual_network(nn.Softplus), all_inputs(3)
    images, targets = inputs["images"], inputs["targets"]
    rise = scores(model, images, targets) - scores(model, gaussian_blur(images, sigma=2.0), targets)

    def error(steps):
        return (path.blur_ig(model, images, targets, steps=steps, sigma=2.0).sum((1, 2, 3)) - rise).abs()

    assert error(50).max() < 1e-4 * rise.abs().max()
    assert (error(8) / error(32) > 6).all()


def test_blur_ig_by_hand():
    model, inputs = residual_network(), all_inputs(3)
    images, targets = inputs["images"], inputs["targets"]
    sigmas = [0.0, 0.5, 1.0, 1.5]
    blurred = [images, *(gaussian_blur(images, sigma=sigma) for sigma in sigmas[1:])]
    expected = sum(
        slopes(model, gaussian_blur(images, sigma=sigmas[i] + 0.25), targets) * (blurred[i] - blurred[i + 1])
        for i in range(3)
    )
    torch.testing.assert_close(path.blur_ig(model, images, targets, steps=3, sigma=1.5, max_batch=4), expected)
    model = linear_network()
    found = path.blur_ig(model, images, targets, steps=4)
    whole = images - gaussian_blur(images, sigma=8 * 50 / 224)
    torch.testing.assert_close(found, whole * model.of(targets))


# Guided paths


def guided_by_hand(model, image, target, start, *, steps, fraction, distance):
    """The algorithm for one image, feature by feature: smallest gradients first, a group at a time."""
    way = (image - start).flatten().numpy()
    done, total = np.zeros(len(way)), np.zeros(len(way))
    size = int(fraction * (len(way) - 1)) + 1
    for step in range(1, steps + 1):
        point = start + torch.from_numpy(way * done).view_as(image)
        slope = slopes(model, point[None], target[None])[0].flatten().numpy()
        low, high = max(step / steps - distance, 0), min(step / steps + distance, 1)
        before = done.copy()
        done = np.maximum(done, low)
        goal = np.abs(way).sum() * (1 - step / steps)
        while (gap := (np.abs(way) * (1 - done)).sum() - goal) > 1e-12:
            able = [i for i in np.argsort(np.abs(slope), kind="stable") if done[i] < high and way[i] != 0][:size]
            room = (np.abs(way[able]) * (high - done[able])).sum()
            done[able] += min(gap / room, 1.0) * (high - done[able])
            if gap <= room:
                break
        total += slope * way * (done - before)
    return torch.from_numpy(total).view_as(image)


@pytest.mark.parametrize(("fraction", "distance"), [(0.25, 0.02), (0.1, 0.3), (0.4, 1.0), (0.0, 0.5), (1.0, 0.5)])
def test_guided_ig_by_hand(fraction, distance):
    model, inputs = residual_network(nn.Softplus), all_inputs(3)  # smooth: no ties among the gradients
    inputs["images"][0, 1, 2] = 0.3  # nothing to do where the image is the baseline
    settings = {"steps": 7, "fraction": fraction}
    found = explain(path.guided_ig, model, inputs, baseline=0.3, max_distance=distance, **settings)
    for i in range(3):
        image = inputs["images"][i]
        expected = guided_by_hand(
            model, image, inputs["targets"][i], torch.full_like(image, 0.3), distance=distance, **settings
        )
        torch.testing.assert_close(found[i], expected, rtol=1e-8, atol=1e-12)
    assert (found[0, 1, 2] == 0).all()


def test_guided_ig_on_a_leash_of_zero_is_the_straight_line():
    inputs = all_inputs(3)
    found = explain(path.guided_ig, residual_network(), inputs, steps=6, max_distance=0.0, baseline=0.2)
    expected = explain(path.integrated_gradients, residual_network(), inputs, steps=6, rule="left", baseline=0.2)
    torch.testing.assert_close(found, expected)


def test_guided_ig_is_complete():
    model, inputs = residual_network(nn.Softplus), all_inputs(3)
    images, targets = inputs["images"], inputs["targets"]
    rise = scores(model, images, targets) - scores(model, torch.zeros_like(images), targets)
    errors = [
        (path.guided_ig(model, images, targets, steps=steps, max_distance=0.2).sum((1, 2, 3)) - rise).abs()
        for steps in (10, 80)
    ]
    assert (errors[1] < 0.4 * errors[0]).all()
    assert (errors[1] < 0.02 * rise.abs()).all()
    linear = linear_network()
    found = explain(path.guided_ig, linear, inputs, steps=9, max_distance=0.7)
    torch.testing.assert_close(found, inputs["images"] * linear.of(inputs["targets"]))


# Training images


def test_expected_gradients_keep_training_images_by_seed():
    method = fitted(path.ExpectedGradients(pool=10))
    rows = method.learnt["rows"]
    assert len(rows.unique()) == 10
    assert not set(rows.tolist()) & set(range(0, 40, 5))  # validation rows
    assert torch.equal(method.learnt["images"], training_split().images[rows])
    again, other = path.ExpectedGradients(pool=10), path.ExpectedGradients(pool=10)
    again.fit(residual_network(), training_split(), seed=3, max_batch=1)
    other.fit(residual_network(), training_split(), seed=4, max_batch=1)
    assert torch.equal(again.learnt["rows"], rows)
    assert not torch.equal(other.learnt["rows"], rows)
    everything = fitted(path.ExpectedGradients(pool=1000))
    assert len(everything.learnt["rows"]) == 32


def test_references_of_expected_gradients_are_kept_images_without_repeats():
    method, model, inputs = fitted(path.ExpectedGradients(samples=50, pool=10)), linear_network(), all_inputs(3)
    kept = method.learnt["images"].double() / 255  # ten of them: each is drawn once
    expected = (inputs["images"] - kept.mean(0)) * model.of(inputs["targets"])
    torch.testing.assert_close(explain(method, model, inputs), expected)
    some = fitted(path.ExpectedGradients(samples=3, pool=10))
    assert not torch.equal(explain(some, model, inputs), expected)


def test_small_pieces_draw_the_same_references(monkeypatch):
    method, inputs = fitted(path.ExpectedGradients(samples=6, pool=20)), all_inputs(3)
    whole = explain(method, residual_network(), inputs)
    monkeypatch.setattr("efface.methods.path.background.KEYS_AT_ONCE", 1)
    assert torch.equal(explain(method, residual_network(), inputs), whole)


def test_settings_that_share_a_fit_say_so():
    assert path.ExpectedGradients(samples=3).learnt_from() == path.ExpectedGradients(recalibrate="points").learnt_from()
    assert path.LocalPathIntegration(steps=3).learnt_from() == path.LocalPathIntegration(score="loss").learnt_from()
    assert path.LocalPathIntegration(samples=3).learnt_from() != path.LocalPathIntegration().learnt_from()
    assert path.ExpectedGradients().learnt_from() != path.LocalPathIntegration().learnt_from()


def test_local_path_integration_finds_clusters_and_their_densities():
    """Logits are the colour of the first three pixels: two far groups, of two groups each."""

    class Colours(nn.Module):
        def forward(self, images):
            return images[:, 0, 0, :3]

    images = torch.zeros(20, 1, 2, 4, dtype=torch.uint8)
    images[:8, 0, 0, 0] = torch.tensor([*range(200, 205), *range(240, 243)], dtype=torch.uint8)
    images[8:, 0, 0, 1] = torch.tensor([*range(100, 109), *range(180, 183)], dtype=torch.uint8)
    method = path.LocalPathIntegration(samples=2, steps=2, centres=2)
    method.fit(Colours(), Split(images, torch.zeros(20, dtype=torch.int64)), seed=0, max_batch=3)
    found = {}
    for centre, rows, densities in zip(
        *(method.learnt[name] for name in ("centres", "rows", "densities")), strict=True
    ):
        found[int(centre.argmax())] = dict(zip(rows.tolist(), densities.tolist(), strict=True))
    assert found[0] == pytest.approx({2: 5 / 8, 6: 3 / 8})
    assert found[1] == pytest.approx({12: 9 / 12, 18: 3 / 12})
    torch.testing.assert_close(method.learnt["densities"].sum(1), torch.ones(2))
    assert torch.equal(method.learnt["images"], images[method.learnt["rows"]])

    class Sum(Colours):
        def forward(self, images):
            return super().forward(images) + 0 * images.sum((1, 2, 3))[:, None]

    point = images[:1].float() / 255  # its references are those of its own group
    maps = method(Sum(), point, torch.tensor([0]), seeds=torch.tensor([5]))
    mean = sum(images[row, 0, 0, 0].item() / 255 * density for row, density in found[0].items())
    assert maps[0, 0, 0, 0].item() == pytest.approx(200 / 255 - mean, abs=1e-6)
    assert maps.abs().sum() == maps[0, 0, 0, 0].abs()


def test_clusters_of_few_or_equal_rows():
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
    centres, cluster, shares = k_means(logits, 5, seed=0)
    assert len(centres) == 2
    assert cluster[0] == cluster[1] != cluster[2]
    assert sorted(shares.tolist()) == pytest.approx([1 / 3, 2 / 3])
    rows, densities = representatives(logits, 4, seed=0)
    assert len(rows) == 4
    assert densities.sum().item() == pytest.approx(1.0)
    assert (densities == 0).sum() == 2


def test_local_path_integration_leaves_the_model_as_it_was_and_is_reproducible():
    model = residual_network().float().train()
    before = state_of(model, training_split().images)
    first, second = (path.LocalPathIntegration(samples=3, centres=2) for _ in range(2))
    first.fit(model, training_split(), seed=1, max_batch=5)
    second.fit(model, training_split(), seed=1, max_batch=100)
    assert state_of(model, training_split().images) == before
    assert torch.equal(first.learnt["rows"], second.learnt["rows"])
    torch.testing.assert_close(first.learnt["densities"].sum(1), torch.ones(len(first.learnt["centres"])))


def test_learnt_tensors_are_all_that_a_fit_leaves():
    for name in ("expected_gradients", "local_path_integration"):
        method = METHODS[name]
        copy = type(method)(samples=method.samples, steps=method.steps)
        if name == "local_path_integration":
            copy = path.LocalPathIntegration(samples=4, steps=3, centres=2)
        copy.learnt = {key: value.clone() for key, value in method.learnt.items()}
        assert all(value.device.type == "cpu" for value in copy.learnt.values())
        assert torch.equal(
            explain(copy, residual_network(), all_inputs(3)), explain(method, residual_network(), all_inputs(3))
        )


# What is refused


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        (path.integrated_gradients, {"steps": 0}, "steps 0"),
        (path.integrated_gradients, {"steps": 1, "rule": "trapezoid"}, "steps 1 trapezoid 2"),
        (path.integrated_gradients, {"baseline": [0.0, 0.0]}, "baseline 2"),
        (
            path.integrated_gradients,
            {"baseline": torch.zeros(3, 4, 4)},
            "baseline (3, 4, 4)",
        ),
        (path.integrated_gradients, {"sigma": 2.0}, "blurred"),
        (path.integrated_gradients, {"sigma": 0.0, "baseline": "blur"}, "sigma 0.0"),
        (path.integrated_gradients, {"alphas": [0.5, 1.5]}, "alphas 0.5 1.5"),
        (path.integrated_gradients, {"alphas": [0.5], "weights": [0.5, 0.5]}, "weights 2"),
        (path.integrated_gradients, {"weights": [0.5, 0.5]}, "weights alphas"),
        (path.smooth_integrated_gradients, {"samples": 0}, "samples 0"),
        (path.smooth_integrated_gradients, {"noise": -0.1}, "noise -0.1"),
        (
            path.smooth_integrated_gradients,
            {"noise": torch.zeros(4, 3, 3, 8, 8)},
            "noise 4 625",
        ),
        (path.ig_uniform, {"samples": 0}, "samples 0"),
        (path.ig_uniform, {"references": torch.zeros(3, 0, 3, 8, 8)}, "references 0"),
        (
            path.ig_uniform,
            {"alphas": torch.zeros(3, 4, 2)},
            "alphas 3 4",
        ),
        (path.ig_smooth, {"noise": -1.0}, "noise -1.0"),
        (
            path.ig_smooth,
            {"noise": torch.zeros(10, 3, 3, 8, 8), "references": torch.zeros(3, 1, 3, 8, 8)},
            "noise references",
        ),
        (path.blur_ig, {"steps": 0}, "steps 0"),
        (path.blur_ig, {"sigma": -1.0}, "sigma -1.0"),
        (path.guided_ig, {"fraction": 1.5}, "fraction 1.5"),
        (path.guided_ig, {"max_distance": -0.5}, "max_distance -0.5"),
        (path.adversarial_gradient_integration, {"step_size": 0.0}, "step_size 0.0"),
        (path.adversarial_gradient_integration, {"steps": 0}, "steps 0"),
        (path.adversarial_gradient_integration, {"samples": 0}, "samples 0"),
        (
            path.adversarial_gradient_integration,
            {"classes": torch.tensor([[1], [1], [0]])},
            "classes 1 target",
        ),
        (path.ExpectedGradients(), {}, "ExpectedGradients fit references"),
        (path.LocalPathIntegration(), {}, "LocalPathIntegration fitted"),
        (path.LocalPathIntegration(), {"densities": torch.ones(3, 2)}, "densities references"),
    ],
)
def test_impossible_settings_are_refused(method, settings, said):
    with pytest.raises(ValueError, match=words(said)):
        explain(method, linear_network(), all_inputs(3), **settings)


def test_words_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match=words("rule simpson midpoint gauss_legendre")):
        points_and_weights("simpson", 3)
    with pytest.raises(ValueError, match=words("recalibrate valid_ip none references points")):
        check_recalibrate("valid_ip")
    with pytest.raises(ValueError, match=words("baseline white mean blur")):
        start_of(all_inputs(3)["images"], "white", None)
    for settings in ({"samples": 0}, {"steps": 0}, {"pool": 0}):
        for method in (path.ExpectedGradients, path.LocalPathIntegration):
            with pytest.raises(ValueError, match=words(f"{next(iter(settings))} 0")):
                method(**settings)


def test_networks_that_no_attack_can_work_on_are_refused():
    with pytest.raises(ValueError, match=words("Detached gradient")):
        explain(path.adversarial_gradient_integration, Detached(linear_network()), all_inputs(3))
    one = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=words("Sequential 1 2")):
        path.adversarial_gradient_integration(
            one, all_inputs(3)["images"], torch.zeros(3, dtype=torch.int64), seeds=all_inputs(3)["seeds"]
        )


@every_method
def test_no_rows_are_refused(method):
    with pytest.raises(ValueError, match=words("max_batch 0")):
        explain(method, residual_network(), all_inputs(3), max_batch=0)


def test_a_grid_given_as_a_list_may_be_any_line():
    assert grid_of("midpoint", 5, [0.0, 0.5, 1.0]).weights == (1 / 3,) * 3
    assert grid_of("midpoint", 5, [0.0, 1.0]).ends_at_image


def test_methods_that_learn_have_the_papers_word_for_a_name_too():
    assert resolve("efface.methods.path.expected_gradients") is path.ExpectedGradients
    assert resolve("efface.methods.path.local_path_integration") is path.LocalPathIntegration
