"""Erasing metrics against images of four pixels worked out by hand, a linear network, and a small study."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from efface.base.types import Split
from efface.erase.masking import to_float
from efface.erase.ranking import count, rank, removed
from efface.erase.units import group_means, spread
from efface.metrics import Point, metric
from efface.metrics.degradation import Degrade, degradation
from efface.metrics.formula import logit_ratio
from efface.metrics.probes import Perturb, Score
from efface.plug.call import Call
from efface.stages.extract import extract
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.stages.work.measuring import measure_missing
from efface.study.metric_entry import MetricEntry
from small.batches import normal_numbers, stored_images
from small.cases import weighted_case
from small.messages import words
from small.networks import WeightedSum
from small.studies import checked

BLACK = Call(call="efface.impute.constant")
GREY = Call(call="efface.impute.constant", kwargs={"value": 0.5})
BOTH = ("probability", "accuracy")
ALL = ("deletion", "insertion", "srg", "road", "diffid", "pixel_perturb")


def values(formula, here, fractions, *, imputer=BLACK, unit="pixel"):
    """Of each named value, images by points."""
    found = []
    for fraction in fractions:
        probes = formula.probes(Point(fraction, 0, imputer, (), unit))
        found.append(formula.value({name: probe(here) for name, probe in probes.items()}))
    return {name: np.stack([each[name] for each in found], 1) for name in formula.direction}


def sigmoid(*logits):
    return 1 / (1 + np.exp(-np.array(logits, dtype=np.float64)))


# By hand: a white image of four pixels; what is left of the sum 4 + 2 + 1 - 1 is the logit.

WEIGHTS = torch.tensor([[[4.0, 2.0], [1.0, -1.0]]])
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST, LEAST = sigmoid(6, 2, 0, -1, 0), sigmoid(6, 7, 6, 4, 0)


@pytest.fixture
def four(tmp_path):
    return weighted_case(tmp_path, torch.full((1, 1, 2, 2), 255, dtype=torch.uint8), WEIGHTS, WEIGHTS)


def test_deletion_and_insertion_by_hand(four):
    found = {name: values(metric(name), four, QUARTERS) for name in ("deletion", "insertion")}
    np.testing.assert_allclose(found["deletion"]["probability"][0], MOST, atol=1e-6)
    np.testing.assert_allclose(found["insertion"]["probability"][0], LEAST, atol=1e-6)
    assert found["deletion"]["accuracy"][0, [0, 1, 3]].tolist() == [1, 1, 0]


def test_srg_and_road_by_hand(four):
    gain, combined = (values(metric(name), four, QUARTERS) for name in ("srg", "road"))
    np.testing.assert_allclose(gain["probability"][0], LEAST - MOST, atol=1e-6)
    np.testing.assert_allclose(combined["probability_combined"][0], (LEAST - MOST) / 2, atol=1e-6)
    np.testing.assert_allclose(combined["probability_most_first"][0], MOST, atol=1e-6)
    np.testing.assert_allclose(combined["probability_least_first"][0], LEAST, atol=1e-6)
    assert combined["combined"][0, 3] == 0.5  # right without the least relevant three, wrong without the best three
    for name in BOTH:
        halves = gain[f"{name}_most_relevant"] + gain[f"{name}_least_relevant"]
        np.testing.assert_allclose(halves, gain[name], atol=1e-12)
        assert gain[name][0, [0, 4]].tolist() == [0, 0]


def test_diffid_by_hand(four):
    found = values(metric("diffid"), four, (0.25, 0.5, 0.75))
    np.testing.assert_allclose(found["logit_ratio"][0], np.array([7 - 2, 6 - 0, 4 + 1]) / 6, atol=1e-6)
    np.testing.assert_allclose(found["probability"][0], (LEAST - MOST)[1:4], atol=1e-6)
    assert found["accuracy"][0, 2] == 1


def test_diffid_has_no_logit_ratio_where_the_clean_logit_is_not_positive(tmp_path):
    here = weighted_case(tmp_path, torch.full((1, 1, 2, 2), 255, dtype=torch.uint8), -WEIGHTS, -WEIGHTS)
    found = values(metric("diffid"), here, (0.5,))
    assert np.isnan(found["logit_ratio"]).all()
    assert np.isfinite(found["probability"]).all()


def test_a_random_order_is_one_probe_for_all_posts():
    summed = (Call(call="efface.erase.post.channel_sum"),)
    points = [Point(0.3, 0, Call(call="efface.impute.channel_mean"), post, "pixel") for post in ((), summed)]
    assert len({point.perturb("random") for point in points}) == 1
    assert len({point.perturb("most_first") for point in points}) == 2


def test_a_clean_logit_between_0_and_1_has_a_ratio():
    clean, erased = (Score({"logit": np.array(each, np.float32)}) for each in ([0.5, 1, 0, -0.5], [0.25, 3, 1, 1]))
    np.testing.assert_array_equal(logit_ratio(erased, clean), [0.5, 3, np.nan, np.nan])


def test_pixel_perturb_by_hand(four):
    found = values(metric("pixel_perturb"), four, (0.25, 0.75))
    assert found["accuracy"].tolist() == [[1, 1]]
    assert found["accuracy_most_first"].tolist() == [[1, 0]]


def columns(images):
    """Groups: each column of pixels."""
    n, _, h, w = images.shape
    return torch.arange(w).expand(n, h, w).contiguous()


def test_degradation_by_hand(four):
    found = values(degradation(), four, (0.0, 1.0, 2.0), unit=Call(call=f"{__name__}.columns"))
    np.testing.assert_allclose(found["probability"][0], sigmoid(6, 1, 0), atol=1e-6)  # the left column holds 5 of 6
    np.testing.assert_allclose(found["probability_least_first"][0], sigmoid(6, 5, 0), atol=1e-6)
    np.testing.assert_allclose(found["gain"][0], sigmoid(6, 5, 0) - sigmoid(6, 1, 0), atol=1e-6)
    np.testing.assert_allclose(found["drop"][0], sigmoid(6) - sigmoid(6, 1, 0), atol=1e-6)
    assert min(abs(found["probability_random"][0, 1] - sigmoid(1, 5))) < 1e-6


# Laws, on a linear network: erasing a set of pixels takes their shares from the logit, whatever else is erased.


@pytest.fixture
def linear(tmp_path):
    """40 images of 3 x 6 x 5, their exact shares as maps, and a random map."""
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (40, 3, 6, 5), generator=generator, dtype=torch.uint8)
    weights = torch.randn(3, 6, 5, generator=generator) / 3
    shares = (weights * to_float(images)).sum(1)
    targets = (shares.sum((1, 2)) < 0).long()

    def make(maps, max_batch=16):
        return weighted_case(tmp_path, images, maps, weights, max_batch=max_batch, targets=targets)

    return make, shares, torch.randn(40, 6, 5, generator=generator)


@pytest.mark.parametrize("fraction", [0.1, 0.37, 0.9])
def test_shares_bound_the_curves_of_every_other_map(linear, fraction):
    make, shares, other = linear
    best, rest = (values(metric("road"), make(maps), (fraction,)) for maps in (shares, other))
    assert (best["probability_most_first"] <= rest["probability_most_first"] + 1e-6).all()
    assert (best["probability_least_first"] >= rest["probability_least_first"] - 1e-6).all()
    gone = count(fraction, 30)
    ordered = shares.flatten(1).sort(dim=1, descending=True).values.double()
    np.testing.assert_allclose(
        best["probability_most_first"][:, 0], sigmoid(*ordered[:, gone:].sum(1).tolist()), atol=1e-5
    )
    np.testing.assert_allclose(
        best["probability_least_first"][:, 0], sigmoid(*ordered[:, : 30 - gone].sum(1).tolist()), atol=1e-5
    )
    gains = values(metric("srg"), make(shares), (fraction,))
    assert all((gains[name] >= -1e-6).all() for name in gains if name.startswith("probability"))


def test_what_is_inserted_first_is_what_is_deleted_first(linear):
    make, shares, _ = linear
    inserted = values(metric("insertion"), make(shares), QUARTERS, imputer=GREY)
    mirrored = values(metric("deletion"), make(-shares), QUARTERS, imputer=GREY)
    for name in BOTH:
        np.testing.assert_array_equal(inserted[name], mirrored[name])


def test_a_random_map_has_no_gain(linear):
    make, shares, other = linear
    for name in ("srg", "road", "diffid"):
        score = {"srg": "probability", "road": "probability_combined", "diffid": "probability"}[name]
        none, much = (values(metric(name), make(maps), (0.3, 0.5))[score].mean(1) for maps in (other, shares))
        error = none.std(ddof=1) / np.sqrt(len(none))
        assert abs(none.mean()) < 3 * error
        assert much.mean() > 3 * error


@pytest.mark.parametrize("name", ALL)
def test_the_row_budget_changes_nothing_but_rounding(linear, name):
    make, shares, _ = linear
    one, other = (values(metric(name), make(shares, max_batch), (0.2, 0.6)) for max_batch in (1, 64))
    for score in one:
        np.testing.assert_allclose(one[score], other[score], rtol=1e-5, atol=1e-6)


def test_diffid_elementwise_is_the_loop(linear):
    make, shares, _ = linear
    formula = metric("diffid", {"elementwise": True})
    assert formula.defaults["unit"] == "feature"
    here = make(shares)
    images, weights = to_float(here.data["test"].images).double().numpy(), here.network.weights.double().numpy()
    repeated = torch.randn(40, 3, 6, 5, generator=torch.Generator().manual_seed(1))
    here = make(repeated)
    fill = Call.model_validate(formula.defaults["imputer"])
    found = values(formula, here, (0.3,), imputer=fill, unit="feature")
    expected = []
    for image, ranked in zip(images, repeated.numpy(), strict=True):
        logits = []
        for order in (ranked.ravel(), -ranked.ravel()):  # least first, most first
            gone = np.argsort(order)[: int(90 * 0.3)]
            kept = np.delete(image.ravel(), gone)
            filled = image.ravel().copy()
            filled[gone] = np.round(kept.mean() * 255) / 255
            logits.append((filled * weights.ravel()).sum())
        expected.append(np.subtract(*sigmoid(*logits)))
    np.testing.assert_allclose(found["probability"][:, 0], expected, atol=1e-3)  # a mean rounded to 8 bits, two ways
    assert np.abs(found["probability"][:, 0] - expected).mean() < 1e-5


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # what quantus and what it imports warn of
def test_quantus_agrees(tmp_path):
    """Pixel flipping of single channel values is deletion, region perturbation in both orders degradation."""
    import quantus

    images = torch.randint(0, 256, (6, 3, 12, 12), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    maps = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(6))
    weights = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(7)) / 9
    classes, known = np.zeros(6, dtype=np.int64), {"abs": False, "normalise": False, "disable_warnings": True}
    asked = (WeightedSum(weights).eval(), to_float(images).numpy(), classes)
    flipping = quantus.PixelFlipping(features_in_step=24, perturb_baseline=0.0, **known)
    expected = np.array(flipping(*asked, maps.numpy(), softmax=True))
    steps = [24 * step / 432 for step in range(1, 19)]
    found = values(metric("deletion"), weighted_case(tmp_path, images, maps, weights), steps, unit="feature")
    np.testing.assert_allclose(found["probability"], expected, atol=1e-6)
    fields = values(
        degradation(size=4),
        weighted_case(tmp_path, images, maps[:, 0], weights),
        [float(step) for step in range(10)],
        unit=Call(call=f"{__name__}.fields"),
    )
    for order, name in (("morf", "probability"), ("lerf", "probability_least_first")):
        region = quantus.RegionPerturbation(
            patch_size=4, order=order, regions_evaluation=9, perturb_baseline=0.0, **known
        )
        expected = np.array(region(*asked, maps[:, :1].numpy(), softmax=True))
        np.testing.assert_allclose(fields[name][:, :1] - fields[name][:, 1:], expected, atol=1e-6)


def fields(images):
    """Groups: squares of 4 x 4 pixels."""
    n, _, h, w = images.shape
    return ((torch.arange(h) // 4)[:, None] * (w // 4) + torch.arange(w) // 4).expand(n, h, w).contiguous()


# Settings


@pytest.mark.parametrize("name", [*ALL, "degradation"])
def test_what_the_paper_fixes_is_a_setting_of_a_study(name):
    paper = MetricEntry(name=name).paper
    assert name == "srg" or paper.imputer is not None
    here = Point(0.5, 0, paper.imputer or BLACK, (), paper.unit or "pixel")
    fractions = paper.fractions or ()
    assert all(0 <= each <= 1 for each in fractions)
    if name != "degradation":
        assert {type(probe) for probe in metric(name).probes(here).values()} == {Perturb}


def test_pixel_perturb_removes_as_many_pixels_as_the_paper():
    counts = [10, 12, 15, 18, 22, 26, 32, 39, 47, 57, 69, 84, 102, 124, 150, 182, 220, 267, 323, 392, 475, 575, 697]
    fractions = metric("pixel_perturb").defaults["fractions"]
    assert [count(each, 1024) for each in fractions] == [*counts, 845, 1024]


@pytest.mark.parametrize(
    ("settings", "shape", "last"),
    [
        ({}, (3, 225, 225), 100),
        ({}, (3, 32, 32), 16),  # 4 x 4 patches, the last ones 5 pixels wide
        ({"size": 8}, (3, 32, 32), 16),
        ({"size": 1, "patches": 7}, (1, 4, 4), 7),
        ({"step": 5}, (3, 32, 32), 15),
    ],
)
def test_degradation_counts_patches(settings, shape, last):
    at = degradation(**settings).points_for(shape)
    assert at[0] == 0
    assert at[-1] == last
    assert set(np.diff(at)) == {settings.get("step", 1)}


def uneven(images):
    """Groups: two in an image, one in a black one."""
    return columns(images).clamp(max=1) * (images.flatten(1).amax(1) > 0)[:, None, None]


def test_what_degradation_cannot_count_is_one_clear_error(linear):
    with pytest.raises(ValueError, match=words("degradation size 0")):
        metric("degradation", {"size": 0})
    with pytest.raises(ValueError, match=words("fractions 0.3 patches step")):
        degradation().probes(Point(0.3, 0, BLACK, (), "pixel"))
    make, shares, _ = linear
    images = make(shares).data["test"].images
    images[9:] = 0  # beyond what a look at the first few images finds
    probe = Degrade("random", 1, BLACK, (), Call(call=f"{__name__}.uneven"))
    probe.check(nn.Identity(), to_float(images[:9]))
    for max_batch in (3, 100):
        with pytest.raises(ValueError, match=words("image 9 1 0 2 groups")):
            probe(make(shares, max_batch))
    with pytest.raises(ValueError, match=words("image 1 0 2 groups")):
        probe.check(nn.Identity(), to_float(images[8:10]))


def test_probes_of_degradation_are_told_apart_and_shared():
    where = itertools.product(
        (1.0, 2.0), (BLACK, GREY), ((), (Call(call="efface.erase.post.absolute"),)), ("pixel", "feature")
    )
    made = {probe for each in where for probe in degradation().probes(Point(each[0], 0, *each[1:])).values()}
    assert len(made) == len({str(probe.identity()) for probe in made})
    assert len(made) == 1 + 2 * 16 + 8  # clean; two orders of each; a random order knows no post
    assert (
        degradation().probes(Point(0.0, 0, BLACK, (), "pixel"))["most_first"]
        == Point(0.0, 0, BLACK, (), "pixel").clean()
    )


# Through a study


def answered():
    """Images of noise whose true class is the network's answer."""
    images = stored_images(24, seed=3)
    return {"test": Split(images, weighted()(to_float(images)).argmax(1))}


def weighted():
    return WeightedSum(normal_numbers(3, 8, 8, seed=4))


def shares(model, images, targets):
    sign = 1 - 2 * targets.float()[:, None, None]
    return sign * (model.weights * (images - 0.5)).sum(1)


@pytest.mark.long
def test_all_find_the_true_map_in_a_study(tmp_path):
    grey = {"imputer": GREY.model_dump(), "fractions": [0.0, 0.25, 0.5, 0.75, 1.0]}
    tree = {
        "out": str(tmp_path / "run"),
        "data": f"{__name__}.answered",
        "model": f"{__name__}.weighted",
        "attribution_methods": [
            {"name": "random", "method": "efface.methods.control.random"},
            {"name": "true", "method": f"{__name__}.shares"},
        ],
        "metrics": [
            *({"name": name, "kwargs": grey} for name in ALL),
            {"name": "degradation", "kwargs": {"size": 3, "step": 3, "imputer": GREY.model_dump()}},
        ],
        "executor": "efface.execute.serial",
    }
    study = checked(tmp_path, tree)
    assert extract(study) == []
    run = Run(study)
    assert measure_missing(planned_run(run)) == []
    found = {(each.metric, each.score, each.method): each for each in planned_run(run).curves}
    assert found["degradation", "probability", "true"].at == (0, 3, 6, 9)
    for name, score in {(curve.metric, curve.score) for curve in found.values()}:
        better = metric(name).direction[score]
        true, other = (found[name, score, each].values for each in ("true", "random"))
        assert np.isfinite(true).all() or score == "logit_ratio"
        if better == "none":
            np.testing.assert_array_equal(true, other)  # a random order has no map
        else:
            sign = 1 if better == "higher" else -1
            assert sign * np.nanmean(true - other) > 0, (name, score)


def test_a_share_of_superpixels_is_no_share_of_pixels():
    """What docs/metrics.md says of `srg`: the axis counts groups, where the paper counts the pixels of the groups."""
    labels = torch.tensor([0] * 18 + [1, 2]).reshape(1, 4, 5)  # one large group, two of a pixel each
    maps = torch.zeros(1, 4, 5)
    shares = {}
    for largest in (0, 1):
        maps[labels == largest] = 1.0
        maps[labels == 1 - largest] = -1.0
        ranks = spread(rank(group_means(maps, labels), torch.tensor([3])), labels)
        gone = {step: removed(ranks, step / 3, "most_first", grouped=True) for step in range(4)}
        assert [len(labels[gone[step]].unique()) for step in range(4)] == [0, 1, 2, 3]
        shares[largest] = [gone[step].double().mean().item() for step in range(4)]
    assert shares == {0: [0, 0.9, 0.95, 1], 1: [0, 0.05, 0.1, 1]}
