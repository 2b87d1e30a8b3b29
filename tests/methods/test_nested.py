"""Methods within methods that learn: each wrapper against the sum or the method that it must equal, and in a study."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efface.base import draws
from efface.base.types import Method
from efface.methods.contrast import contrast
from efface.methods.control import explain_with
from efface.methods.gradient import gradient
from efface.methods.nested import FittedInner, build_method
from efface.methods.path import ExpectedGradients, LocalPathIntegration, integrated_gradients
from efface.methods.pattern import PatternAttribution, PatternGuided, PatternGuidedIG
from efface.methods.smooth import smooth_grad, smooth_grad_family, smooth_grad_squared
from efface.plug.call import Call
from efface.store.tensors import read_learnt
from efface.study.schema import MethodEntry
from small.batches import noise_split, with_seeds
from small.messages import names, words
from small.networks import one_convolution, seeded
from small.studies import STUDY, efface, files, write_study

LEARNER = "efface.methods.path.expected_gradients"
FEW = {"samples": 3, "pool": 8}
PATTERNS = {"pool": 12, "places": 4}


inputs = partial(with_seeds, "test", 5, dtype=torch.float32)


def five_channels(seed=0):
    return seeded(partial(one_convolution, 5, padding=0), seed).eval()


def taught(method, model, seed=3):
    method.fit(model, noise_split(20, seed=2), seed=seed, max_batch=8)
    return method


# What each wrapper must equal


def test_integrated_gradients_of_pattern_attribution_are_pattern_guided_ig():
    model, (images, targets, _) = five_channels(), inputs()
    line = {"steps": 4, "rule": "right", "baseline": 0.3}
    around = taught(
        FittedInner(method=partial(integrated_gradients, base=PatternAttribution(**PATTERNS), **line)), model
    )
    expected = taught(PatternGuidedIG(**line, **PATTERNS), model)
    found = around(model, images, targets)
    torch.testing.assert_close(found, expected(model, images, targets))
    assert found.abs().max() > 0


def test_smooth_grad_without_noise_is_the_method_on_its_own_seeds():
    model, (images, targets, seeds) = five_channels(), inputs()
    around = taught(
        FittedInner(method=partial(smooth_grad, base=partial(ExpectedGradients, **FEW), samples=2, noise=0.0)), model
    )
    inner = taught(ExpectedGradients(**FEW), model)
    copies = [inner(model, images, targets, seeds=draws.fold(draws.fold(seeds, copy), 0)) for copy in range(2)]
    assert not torch.allclose(copies[0], copies[1])
    torch.testing.assert_close(around(model, images, targets, seeds=seeds), torch.stack(copies).mean(0))


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_contrast_is_the_weighted_sum_over_classes(score):
    """By the logit the method runs once, on the weighted logits; else once a class."""
    model, (images, targets, seeds) = five_channels(), inputs()
    inner = taught(ExpectedGradients(**FEW, score=score), model)
    own = F.one_hot(targets, 4)
    with torch.no_grad():
        weights = own - model(images).masked_fill(own.bool(), -torch.inf).softmax(1)
    classes = [inner(model, images, torch.full((5,), k), seeds=seeds) for k in range(4)]
    expected = torch.einsum("nk,nkchw->nchw", weights, torch.stack(classes, 1))
    around = taught(FittedInner(method=partial(contrast, base=ExpectedGradients(**FEW, score=score))), model)
    torch.testing.assert_close(around(model, images, targets, seeds=seeds), expected)
    torch.testing.assert_close(contrast(model, images, targets, base=inner, seeds=seeds), expected)


def test_a_second_network_is_the_one_that_the_method_within_learns_with():
    model, other, (images, targets, seeds) = five_channels(), five_channels(1), inputs()
    settings = {"samples": 2, "centres": 3}
    inner, of_model = (taught(LocalPathIntegration(**settings), each) for each in (other, model))
    whole = partial(explain_with, network=partial(five_channels, 1), method=LocalPathIntegration(**settings))
    around = taught(FittedInner(method=whole), model)
    centres = around.learnt[".method.centres"]
    torch.testing.assert_close(centres, inner.learnt["centres"])
    assert not torch.allclose(centres, of_model.learnt["centres"])
    torch.testing.assert_close(around(model, images, targets, seeds=seeds), inner(other, images, targets, seeds=seeds))


def test_two_deep_the_innermost_learns():
    model, (images, targets, seeds) = five_channels(), inputs()
    smooth = partial(smooth_grad, samples=2, base=partial(ExpectedGradients, **FEW))
    around = taught(FittedInner(method=partial(contrast, base=smooth, against="max")), model)
    assert list(around.learnt) == [".base..base.images", ".base..base.rows"]
    fitted = taught(ExpectedGradients(**FEW), model)
    expected = contrast(
        model, images, targets, base=partial(smooth_grad, samples=2, base=fitted), against="max", seeds=seeds
    )
    torch.testing.assert_close(around(model, images, targets, seeds=seeds), expected)
    guided = taught(PatternGuided(method=smooth, **PATTERNS), model)
    assert ".method..base.images" in guided.learnt
    assert guided(model, images, targets, seeds=seeds).abs().max() > 0


@pytest.mark.parametrize("max_batch", [1, 2, 256])
def test_maps_do_not_depend_on_the_batch(max_batch):
    model, (images, targets, seeds) = five_channels(), inputs()
    for method in (
        partial(smooth_grad_family, samples=2, base=partial(ExpectedGradients, **FEW)),
        partial(contrast, base=partial(ExpectedGradients, **FEW)),
    ):
        around = taught(FittedInner(method=method), model)
        whole, one = (
            around(model, images, targets, seeds=seeds),
            around(model, images[3:4], targets[3:4], seeds=seeds[3:4], max_batch=max_batch),
        )
        for each, single in zip(
            *(found.values() if isinstance(found, dict) else [found] for found in (whole, one)), strict=True
        ):
            torch.testing.assert_close(each[3:4], single)


def test_what_was_learnt_is_read_back_into_a_fresh_one_and_is_its_own():
    model, (images, targets, seeds) = five_channels(), inputs()
    shared = ExpectedGradients(**FEW)
    first = taught(FittedInner(method=partial(smooth_grad, samples=2, base=shared)), model)
    expected = first(model, images, targets, seeds=seeds)
    taught(shared, model, seed=9)  # another one's fit of the same instance
    torch.testing.assert_close(first(model, images, targets, seeds=seeds), expected)
    fresh = FittedInner(method=partial(smooth_grad, samples=2, base=partial(ExpectedGradients, **FEW)))
    fresh.learnt = dict(first.learnt)
    torch.testing.assert_close(fresh(model, images, targets, seeds=seeds), expected)


def masked(model, images, targets, *, base: Method, masks, seeds=None):
    """Needs to know where the object is."""
    return masks[:, None] * base(model, images, targets, seeds=seeds)


def of_asked(model, images, targets, *, base: Method, seeds, classes_of):
    """Asks for the classes."""
    return base(model, images, classes_of(model(images)), seeds=seeds)


def one_image(model, image, label, *, base: Method):
    """Of one image and its label, as older code is; the label is a number."""
    return base(model, image, torch.full((1,), label))[0]


def red(model, images, targets, *, base: Method):
    """One of several maps."""
    return base(model, images, targets)["red"]


class Named:
    """Learns, and returns its maps by name."""

    def fit(self, model, data, *, seed, max_batch):
        self.learnt = {"seed": torch.tensor([seed])}

    def __call__(self, model, images, targets):
        return {"red": images[:, 0] * self.learnt["seed"]}


class Taught:
    """The gradient, which has learnt something."""

    def fit(self, model, data, *, seed, max_batch):
        self.learnt = {"seed": torch.tensor(seed)}

    def __call__(self, model, images, targets, *, score="logit", seeds=None):
        return gradient(model, images, targets, score=score)


class Maker:
    """Makes a network, and has a `fit` which is none of a method's."""

    def __call__(self):
        return five_channels(1)

    def fit(self):
        raise AssertionError


def with_maker(model, images, targets, *, base: Method, maker: Callable[[], nn.Module], seeds):
    """Takes something to call that is no method."""
    return base(maker(), images, targets, seeds=seeds)


def test_a_function_is_offered_masks_and_classes_while_it_is_found_out_what_it_shows():
    model, (images, targets, seeds) = five_channels(), inputs()
    known = noise_split(20, seed=2)
    masks = torch.arange(64).reshape(1, 8, 8).expand(len(known), 8, 8) % 3 == 0
    around = FittedInner(method=partial(masked, base=partial(ExpectedGradients, **FEW)))
    around.fit(model, replace(known, masks=masks), seed=3, max_batch=8)
    expected = taught(ExpectedGradients(**FEW), model)(model, images, targets, seeds=seeds)
    assert expected[:, :, ~masks[0]].abs().max() > 0
    found = around(model, images, targets, seeds=seeds, masks=masks[:5])
    torch.testing.assert_close(found, expected * masks[:5, None])
    asked = taught(FittedInner(method=partial(of_asked, base=partial(ExpectedGradients, **FEW))), model)
    torch.testing.assert_close(asked(model, images, targets, seeds=seeds, classes_of=lambda _: targets), expected)


def test_a_function_of_one_image_is_shown_one_image_and_its_number():
    model, (images, targets, _) = five_channels(), inputs()
    around = taught(
        FittedInner(method=partial(one_image, base=partial(PatternAttribution, **PATTERNS)), batched=False), model
    )
    expected = taught(PatternAttribution(**PATTERNS), model)(model, images, targets)
    found = [around(model, images[i : i + 1], int(targets[i])) for i in range(5)]
    torch.testing.assert_close(torch.stack(found), expected)


def test_a_function_that_reads_maps_by_name_may_have_a_method_that_learns():
    model, (images, targets, _) = five_channels(), inputs()
    around = taught(FittedInner(method=partial(red, base=Named)), model, seed=3)
    torch.testing.assert_close(around(model, images, targets), 3 * images[:, 0])


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_of_means_the_same_whether_it_is_written_or_a_default_or_the_learners_own(score):
    """Of a method that is not linear: contrast of the logit is one map of the difference, else a sum over classes."""
    model, (images, targets, seeds) = five_channels(), inputs()
    own = {} if score == "logit" else {"score": score}

    def contrasted(**more):
        squared = partial(smooth_grad_squared, samples=2, noise=0.2, base=Taught, **more)
        return taught(FittedInner(method=partial(contrast, base=squared)), model)(model, images, targets, seeds=seeds)

    plain = partial(smooth_grad_squared, samples=2, noise=0.2, base=gradient, score=score)
    expected = contrast(model, images, targets, base=plain, seeds=seeds)
    torch.testing.assert_close(contrasted(score=score), expected)
    torch.testing.assert_close(contrasted(**own), expected)
    assert expected.abs().max() > 0


def test_what_a_function_fails_with_before_it_has_shown_all_is_said():
    def broken(model, images, targets, *, base: Method):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        taught(FittedInner(method=partial(broken, base=ExpectedGradients)), five_channels())


# What is said


@pytest.mark.parametrize(
    ("function", "setting", "more"),
    [
        (smooth_grad, "base", {}),
        (integrated_gradients, "base", {}),
        (contrast, "base", {}),
        (explain_with, "method", {"network": five_channels}),
    ],
)
def test_a_function_alone_refuses_a_class_that_has_yet_to_learn(function, setting, more):
    model, (images, targets, seeds) = five_channels(), inputs()
    for given in (ExpectedGradients, partial(ExpectedGradients, samples=3)):
        with pytest.raises(ValueError, match=words(f"{setting} ExpectedGradients class fitted")):
            function(model, images, targets, seeds=seeds, **more, **{setting: given})
    with pytest.raises(ValueError, match=words("ExpectedGradients fit references")):
        function(model, images, targets, seeds=seeds, **more, **{setting: ExpectedGradients()})


def test_around_a_method_that_does_not_learn_is_refused():
    for method in (gradient, partial(smooth_grad, base=gradient), partial(explain_with, network=nn.Identity)):
        with pytest.raises(ValueError, match=words("FittedInner method fit")):
            FittedInner(method=method)


class Forgets:
    """Learns, but leaves nothing."""

    def fit(self, model, data, *, seed, max_batch):
        pass

    def __call__(self, model, images, targets):
        return images


class Short(Forgets):
    """Called with less than a method is."""

    def __call__(self, model):
        return model


class Fitting(nn.Module):
    """A network with a `fit`, which is no method."""

    def fit(self):
        raise AssertionError


def test_a_class_that_leaves_nothing_or_says_not_what_it_learns_from_is_refused():
    model = five_channels()
    for outer in (FittedInner(method=partial(smooth_grad, base=Forgets)), PatternGuided(method=Forgets, **PATTERNS)):
        with pytest.raises(ValueError, match=r"(base|method).*test_nested\.Forgets.*tensors"):
            taught(outer, model)
        with pytest.raises(ValueError, match=words("test_nested.Forgets learnt_from")):
            outer.learnt_from()


def test_without_masks_a_function_that_needs_them_is_refused_before_anything_is_learnt():
    around = FittedInner(method=partial(masked, base=partial(ExpectedGradients, **FEW)))
    with pytest.raises(ValueError, match=words("masks training")):
        taught(around, five_channels())
    assert around.learnt == {}


def test_a_network_with_a_fit_is_no_method_that_learns():
    assert build_method(method := partial(explain_with, network=Fitting, method=gradient)) is method


# In a study


def entry(method, /, **kwargs):
    return MethodEntry.model_validate({"name": "x", "method": f"efface.methods.{method}", "kwargs": kwargs})


def test_an_entry_is_as_it_was_unless_a_method_within_learns():
    plain = entry("smooth.smooth_grad", base="efface.methods.gradient.gradient")
    assert plain.call == Call(call="efface.methods.smooth.smooth_grad", kwargs=plain.kwargs)
    own = entry("pattern.PatternGuided", method=LEARNER)
    assert own.call == Call(call="efface.methods.pattern.PatternGuided", kwargs=own.kwargs)
    learns = entry("contrast.contrast", base={"call": "efface.methods.smooth.smooth_grad", "kwargs": {"base": LEARNER}})
    assert isinstance(learns.call(), FittedInner)
    assert {"seeds", "max_batch", "against"} <= {*learns.call().__signature__.parameters}
    assert "base" not in learns.call().__signature__.parameters


def test_only_the_settings_that_a_function_takes_as_methods_are_taught_in_a_study():
    more = {"base": LEARNER, "maker": "test_nested.Maker"}
    found = MethodEntry.model_validate({"name": "x", "method": "test_nested.with_maker", "kwargs": more})
    assert list(found.call().inner) == ["base"]


def test_a_control_is_one_whatever_it_is_given():
    other = {"network": "efface.models.resnet.resnet8"}
    assert entry("control.explain_with", method=LEARNER, **other).is_control
    assert entry("control.random").is_control
    assert not entry("smooth.smooth_grad", base=LEARNER).is_control


def test_what_is_learnt_from_names_the_method_within_only_where_it_learns():
    settings = {"fit": "patterns", "estimator": "two_component", "pool": 1024, "places": 64}
    plain = entry("pattern.PatternGuided", method="efface.methods.backprop.guided_backprop")
    assert plain.call().learnt_from() == settings == PatternAttribution().learnt_from()
    many, more, other = (
        entry("pattern.PatternGuided", method={"call": call, "kwargs": kwargs}).call().learnt_from()
        for call, kwargs in (
            (LEARNER, {"samples": 49}),
            (LEARNER, {"samples": 25}),
            (LEARNER, {"pool": 7}),
        )
    )
    assert many == more != other
    assert {name: many[name] for name in settings} == settings
    assert many["method"]["from"] == ExpectedGradients().learnt_from()


def test_other_settings_of_a_function_make_another_file(tmp_path):
    weights = tmp_path / "weights.pt"
    found = []
    for content, classes in ((b"a", 4), (b"b", 4), (b"b", 5)):
        weights.write_bytes(content)
        other = {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": classes}}
        found.append(
            entry("control.explain_with", method=LEARNER, network=other, weights=str(weights)).call().learnt_from()
        )
    assert found[0] != found[1] != found[2]


@pytest.mark.parametrize("method", ["pattern.PatternGuided", "contrast.contrast", "control.explain_with"])
@pytest.mark.parametrize(
    ("within", "said"),
    [
        ({"call": LEARNER, "kwargs": {"sample": 3}}, f"{LEARNER} sample samples"),
        ({"call": LEARNER, "kwargs": {"samples": 0}}, "samples 0"),
        ("test_nested.Short", "test_nested.Short (model, images, targets)"),
        ("fractions.Fraction", "fractions.Fraction __call__"),
    ],
)
def test_a_wrong_class_within_is_refused_when_the_study_is_read(method, within, said):
    setting = "base" if method.startswith("contrast") else "method"
    more = {"network": "efface.models.resnet.resnet8"} if method.startswith("control") else {}
    with pytest.raises(ValueError) as error:
        entry(method, **{setting: within}, **more)
    assert names(str(error.value), f"{setting} {said}")


def entries():
    guided, within = "efface.methods.pattern.PatternGuided", {"call": LEARNER, "kwargs": {"samples": 2, "pool": 9}}
    other, few = {"network": "net.network", "method": within}, {"call": LEARNER, "kwargs": {"samples": 2, "pool": 9}}
    return [
        *STUDY["attribution_methods"][:1],
        {"name": "pattern", "method": "efface.methods.pattern.PatternAttribution", "kwargs": PATTERNS},
        {"name": "pattern_ixg", "method": guided, "kwargs": PATTERNS},
        {"name": "pattern_eg", "method": guided, "kwargs": {**PATTERNS, "method": within}},
        {"name": "pattern_net_eg", "method": guided, "kwargs": {**PATTERNS, "method": within, "back": "pattern_net"}},
        {"name": "smooth_eg", "method": "efface.methods.smooth.smooth_grad", "kwargs": {"samples": 2, "base": few}},
        {"name": "other_eg", "method": "efface.methods.control.explain_with", "kwargs": other},
    ]


@pytest.mark.long
def test_a_study_keeps_what_methods_within_learnt_and_reads_it_back(tmp_path):
    write_study(tmp_path, attribution_methods=entries(), metrics=["morf"])
    run, maps = tmp_path / "run", tmp_path / "run" / "maps"
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 0, result.err
    # the patterns, for two; patterns and images, for two; images, for each function
    assert "4 of 4 methods learnt" in result.out
    learnt = sorted((run / "learnt").glob("*.h5"))
    assert [path.name.partition("-")[0] for path in learnt] == ["around", "around", "patterns", "patterns"]
    names = sorted(sorted(name for name in read_learnt(path) if name.startswith(".")) for path in learnt)
    assert names == [
        [],
        [".base.images", ".base.rows"],
        [".method.images", ".method.rows"],
        [".method.images", ".method.rows"],
    ]
    before = files(run / "learnt"), {name: digest for name, (_, digest) in files(maps).items()}
    for name in ("pattern_eg", "smooth_eg", "other_eg"):
        (maps / f"{name}-test.h5").unlink()
    again = efface(tmp_path, "extract", "study.yml")
    assert again.code == 0, again.err
    assert "learnt in" not in again.out
    assert (files(run / "learnt"), {name: digest for name, (_, digest) in files(maps).items()}) == before
    more = efface(tmp_path, "extract", "study.yml", "attribution_methods.smooth_eg.kwargs.base.kwargs.pool=8")
    assert "1 of 1 methods learnt" in more.out
    assert "extracted 1 of 1" in more.out


WITHIN = """
import torch

from efface.data.patches import patches
from efface.base.types import Method, Split


class Blind:
    def learnt_from(self):
        return {"fit": "blind"}

    def fit(self, model, data, *, seed, max_batch):
        self.learnt = {"mean": data.images.float().div(255).mean(0)}

    def __call__(self, model, images, targets):
        return images - self.learnt["mean"]


def masked(model, images, targets, *, base: Method, masks):
    return base(model, images, targets) * masks[:, None]


def one_image(model, image, label, *, base: Method):
    return base(model, image, torch.full((1,), label))[0]


def unmasked():
    whole = patches(n_train=48, n_test=24, size=16)
    return {name: Split(each.images, each.targets, each.classes) for name, each in whole.items()}
"""
BLIND = [
    {"name": "random", "method": "efface.methods.control.random"},
    {"name": "masked", "method": "own.masked", "kwargs": {"base": "own.Blind"}},
    {"name": "single", "method": "own.one_image", "kwargs": {"base": "own.Blind"}, "batched": False},
    {
        "name": "other",
        "method": "efface.methods.control.explain_with",
        "kwargs": {"network": "net.network", "method": "own.Blind"},
    },
]


@pytest.mark.long
def test_what_is_around_a_method_that_learns_is_tried_as_what_it_is_and_extracted_by_processes(tmp_path):
    write_study(tmp_path, {"own": WITHIN}, attribution_methods=BLIND, metrics=["morf"], fractions=[0.5])
    result = efface(tmp_path, "check", "study.yml")
    assert result.code == 0, result.err
    blind = "the map is the same whatever class is explained"
    assert "warning: other: " not in result.out  # a control
    assert f"warning: masked: {blind}\n" in result.out
    assert f"warning: single: {blind}\n" in result.out
    many = "executor={call: efface.execute.processes, kwargs: {workers: 2, threads: 1}}"
    maps = []
    for more in ([], ["out=many", many]):
        result = efface(tmp_path, "all", "study.yml", *more)
        assert result.code == 0, result.err
        assert "3 of 3 methods learnt" in result.out
        found = files(tmp_path / ("many" if more else "run") / "maps")
        maps.append({name: digest for name, (_, digest) in found.items()})
    assert len(maps[0]) == 4
    assert maps[0] == maps[1]
    pages = list(tmp_path.glob("run/**/*.html"))
    assert pages
    for page in pages:
        text = page.read_text()
        assert "own.masked" in text
        assert "FittedInner" not in text


@pytest.mark.long
def test_data_without_masks_are_named_before_anything_is_trained(tmp_path):
    write_study(
        tmp_path, {"own": WITHIN}, attribution_methods=BLIND[:2], metrics=["morf"], data={"call": "own.unmasked"}
    )
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 1
    assert names(result.err, "attribution_methods.masked masks training")
    assert not (tmp_path / "run" / "models").exists()


@pytest.mark.parametrize(
    "name",
    [pytest.param("pattern_eg", marks=pytest.mark.long), "smooth_eg", pytest.param("other_eg", marks=pytest.mark.long)],
)
def test_without_training_images_it_is_refused_in_the_words_of_the_study(tmp_path, name):
    mine = {
        "own": """
from efface.data.patches import patches


def test_only():
    return {"test": patches(n_train=48, n_test=24, size=16)["test"]}
"""
    }
    (chosen,) = (each for each in entries() if each["name"] == name)
    write_study(tmp_path, mine, attribution_methods=[chosen], metrics=["morf"], data="own.test_only", fit=None)
    result = efface(tmp_path, "check", "study.yml")
    assert result.code == 1
    assert names(result.err, f"attribution_methods.{name} {chosen['method']} training own.test_only")
    assert "Traceback" not in result.err
