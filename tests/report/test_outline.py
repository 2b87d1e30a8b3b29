"""What the outline of the removed units explains of a retrained score: by hand, and on made-up networks."""

import numpy as np
import pytest

from efface.report.outline import chance_with_outline, outline_shares, outline_table, sentences
from efface.report.panels import panels
from efface.report.stats import Curve
from efface.study.mask_controls import Outline

AT = (0.0, 0.2, 0.8)
DIRECTION = {"roar": "lower", "kar": "higher", "diffroar": "higher", "mask_leak": "none"}


def curve(metric, method, images, at=AT, twin_of="", score=None):
    """A curve of these answers: right (1) or wrong (0), by repeat, point and image."""
    images = np.asarray(images, dtype=np.float32)
    return Curve(
        metric=metric,
        score=score or ("leak" if metric == "mask_leak" else "accuracy"),
        method=method,
        at=at,
        values=images.mean(2).astype(np.float64),
        images=images,
        sample="repeats",
        direction=DIRECTION[metric],
        pairs=tuple(range(len(images))),
        family="retraining",
        control=method == "random",
        missing=(),
        twin_of=twin_of,
    )


def test_the_expected_number_by_hand():
    right = curve("roar", "random", [[[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0]]])
    leak = curve("mask_leak", "a", [[[0, 0, 0, 0], [1, 1, 0, -1], [0, 1, 1, -1]]])
    same = chance_with_outline(right, leak, other=False)
    assert same.images.tolist() == [[[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 1, -1]]]
    other = chance_with_outline(right, leak, other=True)
    assert other.images.tolist() == [[[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, -1]]]
    assert same.values.tolist() == [[1.0, 0.75, 0.25]]
    assert same.bounds is None


def test_no_outline_leaves_random_as_it_is_and_one_that_tells_all_makes_it_perfect():
    draws = np.random.default_rng(0)
    right = curve("kar", "random", draws.integers(0, 2, (3, 3, 50)))
    nothing, everything = (curve("mask_leak", "a", np.full((3, 3, 50), value)) for value in (0, 1))
    assert np.array_equal(chance_with_outline(right, nothing, other=True).images, right.images)
    assert (chance_with_outline(right, everything, other=True).images[:, 1:] == 1).all()


def test_without_the_points_or_the_images_it_is_not_known():
    right = curve("roar", "random", np.ones((2, 3, 4)))
    few = curve("mask_leak", "a", np.ones((2, 2, 4)), at=(0.0, 0.2))
    assert chance_with_outline(right, few, other=False) is None
    assert chance_with_outline(curve("roar", "random", np.ones((2, 2, 4)), at=(0.0, 0.2)), few, other=False) is not None


def test_a_leak_that_is_not_measured_yet_leaves_the_point_open():
    right = curve("roar", "random", np.ones((2, 3, 4)))
    leak = Curve(**vars(curve("mask_leak", "a", np.zeros((2, 3, 4)))) | {"missing": (0.8,)})
    assert chance_with_outline(right, leak, other=False).missing == (0.8,)


def made(seed, repeats=5, images=400, of_pixels=0.0, leak=0.4, by_chance=0.4):
    """Networks of random pixels, of a method and of its outline, which are right by independent chances.

    The network of the method is right if random pixels, its outline, or what its pixels know besides tell the class.
    """
    draws = np.random.default_rng(seed)
    shape = (repeats, 1, images)

    def right(share):
        return draws.random(shape) < share

    whole = np.ones(shape)
    random_pixels, outline = right(by_chance), right(leak)
    method = right(by_chance) | right(leak) | right(of_pixels)
    found = {"random": random_pixels, "a": method}
    curves = [curve("kar", name, np.concatenate([whole, answers], 1), at=(0.0, 0.5)) for name, answers in found.items()]
    leaks = curve("mask_leak", "a", np.concatenate([0 * whole, outline], 1), at=(0.0, 0.5))
    firsts = panels(curves, ("random",))
    (shares,) = outline_shares(firsts, [*curves, leaks], [], {"kar": Outline("mask_leak", "kar", None, ("random",))})
    return shares


def test_a_method_that_has_only_an_outline_is_called_so_and_one_that_knows_more_is_not():
    nothing, something = made(0), made(0, of_pixels=0.5)
    assert nothing.shares[0].row.verdict == something.shares[0].row.verdict == "better"
    assert nothing.shares[0].by_outline
    assert "a is better than random only by the outline" in sentences(nothing)[0]
    assert not something.shares[0].by_outline
    assert sentences(something) == []
    assert something.shares[0].leak == pytest.approx(0.4, abs=0.03)


@pytest.mark.long
def test_it_is_found_to_know_more_as_rarely_as_the_test_says():
    verdicts = [made(seed).shares[0].over_chance.verdict for seed in range(400)]
    assert verdicts.count("better") <= 400 * 0.025 + 3 * (400 * 0.025 * 0.975) ** 0.5
    assert verdicts.count("worse") <= 400 * 0.025 + 3 * (400 * 0.025 * 0.975) ** 0.5


def test_an_outline_that_holds_a_method_back_in_roar_is_told():
    draws = np.random.default_rng(0)
    shape = (5, 1, 400)
    whole = np.ones(shape)
    answers = {"random": draws.random(shape) < 0.5, "a": draws.random(shape) < 0.6}
    curves = [curve("roar", name, np.concatenate([whole, right], 1), at=(0.0, 0.5)) for name, right in answers.items()]
    leaks = curve("mask_leak", "a", np.concatenate([0 * whole, draws.random(shape) < 0.7], 1), at=(0.0, 0.5))
    firsts = panels(curves, ("random",))
    (shares,) = outline_shares(firsts, [*curves, leaks], [], {"roar": Outline("mask_leak", None, "roar", ("random",))})
    assert shares.shares[0].row.verdict == "worse"
    assert shares.shares[0].held_back
    assert shares.shares[0].chance.mean == pytest.approx((1 + 0.85) / 2, abs=0.03)
    assert sentences(shares) == [
        "On roar, the outline holds a back: it is better than random pixels with the same outline."
    ]


@pytest.mark.parametrize("listed", [("random",), ("redrawn", "random"), ()])
def test_the_expected_number_is_that_of_random_pixels_whatever_the_others_are_compared_with(listed):
    draws = np.random.default_rng(0)
    shape = (5, 1, 400)
    answers = {"random": draws.random(shape) < 0.3, "a": draws.random(shape) < 0.4, "b": draws.random(shape) < 0.7}
    whole = np.ones(shape)
    curves = [curve("roar", name, np.concatenate([whole, right], 1), at=(0.0, 0.5)) for name, right in answers.items()]
    leaks = curve("mask_leak", "a", np.concatenate([0 * whole, draws.random(shape) < 0.5], 1), at=(0.0, 0.5))
    outline = {"roar": Outline("mask_leak", None, "roar", listed)}
    made = [outline_shares(panels(curves, (name,)), [*curves, leaks], [], outline)[0] for name in ("random", "b")]
    of_a = [next(share for share in shares.shares if share.row.method == "a") for shares in made]
    assert [one.row.verdict for one in of_a] == ["worse", "better"]
    expected = (1 + 0.3 + 0.7 * 0.5) / 2 if listed else np.nan
    assert [one.chance.mean for one in of_a] == pytest.approx([expected] * 2, abs=0.03, nan_ok=True)
    assert (of_a[1].by_outline, of_a[1].held_back) == (False, False)
    assert sentences(made[1]) == []


def test_a_leak_that_failed_has_no_number():
    right = [curve("kar", name, np.ones((3, 3, 20))) for name in ("random", "a")]
    leak = Curve(**vars(curve("mask_leak", "a", np.zeros((3, 3, 20)))) | {"failed": "boom"})
    outline = {"kar": Outline("mask_leak", "kar", None, ("random",))}
    (shares,) = outline_shares(panels(right, ("random",)), [*right, leak], [], outline)
    assert np.isnan(shares.shares[0].leak)


def test_diffroar_is_the_difference_of_what_is_expected_of_both():
    draws = np.random.default_rng(0)
    shape = (3, 3, 60)
    right = {(m, n): draws.integers(0, 2, shape) for m in ("roar", "kar") for n in ("random", "a")}
    curves = [curve(*key, answers) for key, answers in right.items()]
    curves += [curve("diffroar", name, right["kar", name] - right["roar", name]) for name in ("random", "a")]
    leak = curve("mask_leak", "a", draws.integers(-1, 2, shape))
    firsts = panels(curves, ("random",))
    (shares,) = outline_shares(
        firsts, [*curves, leak], [], {"diffroar": Outline("mask_leak", "kar", "roar", ("random",))}
    )
    by_name = {(each.metric, each.method): each for each in curves}
    kept = chance_with_outline(by_name["kar", "random"], leak, other=True)
    removed = chance_with_outline(by_name["roar", "random"], leak, other=False)
    area = np.trapezoid((kept.images - removed.images).mean((0, 2)), AT) / 0.8
    assert shares.shares[0].chance.mean == pytest.approx(area)


def test_a_twin_stands_beside_its_map_and_is_told_where_it_is_better():
    draws = np.random.default_rng(0)
    shape = (5, 1, 400)
    whole = np.ones(shape)
    answers = {"random": 0.5, "a": 0.6, "b": 0.6}
    curves = [
        curve("kar", name, np.concatenate([whole, draws.random(shape) < share], 1), at=(0.0, 0.5))
        for name, share in answers.items()
    ]
    better = np.concatenate([whole, draws.random(shape) < 0.8], 1)
    twins = [curve("kar", "a+blurred", better, at=(0.0, 0.5), twin_of="a")]
    (shares,) = outline_shares(
        panels(curves, ("random",)), curves, twins, {"kar": Outline("mask_leak", "kar", None, ("random",))}
    )
    one, other = sorted(shares.shares, key=lambda share: share.row.method)
    assert one.twin.mean == pytest.approx(better.mean((0, 2)).mean())
    assert one.over_map.gain.mean == pytest.approx(one.twin.mean - one.row.area.mean)
    assert one.over_map.verdict == "better"
    assert other.twin.n == 0
    assert "the blurred twin of a is better than the map itself" in sentences(shares)[0]
    table = outline_table([shares])
    assert list(table.method) == [share.row.method for share in shares.shares]
    assert table.set_index("method").twin_gain_over_map["a"] == pytest.approx(one.over_map.gain.mean)
