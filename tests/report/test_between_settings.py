"""Agreement of a metric with itself between settings: scipy's correlation, the worst pair, two halves of the images."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from efface.report.between_settings import between_settings, sentences, settings_cautions, settings_table
from efface.report.panels import panels
from efface.report.stats import Curve

METHODS = ("a", "b", "c", "d", "random")


def curve(metric, method, values, direction="higher", sample="images"):
    column = np.asarray(values, dtype=float)[:, None]
    return Curve(
        metric=metric,
        score="probability",
        method=method,
        at=(0.5,),
        values=column,
        sample=sample,
        direction=direction,
        pairs=tuple(range(len(column))),
        family="erasure",
        control=method == "random",
        missing=(),
    )


def compared(means, direction="higher", noise=0.0, images=40):
    """The comparison of settings at which the methods have these means."""
    draws = np.random.default_rng(0)
    made = [
        curve(f"m+{setting}", method, mean + noise * draws.normal(size=images), direction)
        for setting, row in means.items()
        for method, mean in zip(METHODS, row, strict=True)
    ]
    firsts = panels(made, ("random",))
    return between_settings(firsts, {f"m+{setting}": "m" for setting in means})


def test_each_pair_is_scipys_without_the_controls():
    means = {
        "one": (0.9, 0.5, 0.3, 0.1, 0.0),
        "two": (0.2, 0.4, 0.9, 0.8, 1.0),
        "three": (0.8, 0.4, 0.35, 0.2, 0.9),
    }
    (found,) = compared(means)
    assert found.methods == ("a", "b", "c", "d")
    for (one, two), rho in found.rho.items():
        assert rho == pytest.approx(spearmanr(means[one][:4], means[two][:4]).statistic)
    assert found.mean == pytest.approx(np.mean(list(found.rho.values())))
    assert found.worst == min(found.rho, key=lambda pair: found.rho[pair])
    assert found.first == {"a": ("one", "three"), "c": ("two",)}
    table = settings_table([found])
    assert len(table) == 3
    assert set(table.n) == {4}


def test_where_lower_is_better_the_smallest_mean_is_first_and_the_orders_agree_as_before():
    means = {"one": (0.1, 0.5, 0.7, 0.9, 1.0), "two": (0.2, 0.1, 0.8, 0.9, 1.0)}
    (lower,), (higher,) = compared(means, "lower"), compared(means)
    assert lower.first == {"a": ("one",), "b": ("two",)}
    assert lower.rho == pytest.approx(higher.rho)


def test_two_halves_of_images_without_noise_agree_wholly_and_of_noise_alone_hardly():
    means = {"one": (0.9, 0.5, 0.3, 0.1, 0.0), "two": (0.9, 0.5, 0.3, 0.1, 0.0)}
    (clear,) = compared(means)
    assert clear.halves == pytest.approx(1.0)
    (blurred,) = compared(dict.fromkeys(map(str, range(20)), (0.0,) * 5), noise=1.0)
    assert abs(blurred.halves) < 0.4


def test_the_sentences_name_the_worst_pair_and_who_is_first_where():
    means = {"one": (0.9, 0.5, 0.3, 0.1, 0.0), "two": (0.1, 0.3, 0.5, 0.9, 0.0)}
    (found,) = compared(means)
    said = " ".join(sentences(found))
    assert "At its 2 settings, m ranks the 4 methods" in said
    assert "The worst pair, one and two, has \N{MINUS SIGN}1.00." in said
    assert "a at 1 and d at 1" in said
    assert settings_cautions([found]) == [
        "The method with the best mean on m depends on the setting: a at 1 and d at 1."
    ]
    assert settings_cautions(compared({"one": means["one"], "two": means["one"]})) == []


def test_a_setting_that_ranks_all_alike_has_no_correlation_and_no_pair_is_worst():
    means = {"one": (0.5,) * 5, "two": (0.9, 0.5, 0.3, 0.1, 0.0)}
    (found,) = compared(means)
    assert np.isnan(found.rho["one", "two"])
    assert found.worst is None
    assert "no two settings at which the means of the methods differ" in sentences(found)[0]


def test_a_metric_that_only_describes_or_stands_alone_is_not_compared():
    rows = (0.9, 0.5, 0.3, 0.1, 0.0)
    assert compared({"one": rows, "two": rows}, "none") == []
    assert compared({"one": rows}) == []
