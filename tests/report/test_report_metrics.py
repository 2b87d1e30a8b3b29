"""The report of many kinds of metrics: any axis, one number, mere description, draws, pairs, agreement, cautions."""

import csv
import functools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from efface.report import page as report_page
from efface.report import panels as report_panels
from efface.report.between import agreement_sentences, agreements, pairs, with_ranks
from efface.report.cautions import cautions
from efface.report.facts import Cost
from efface.report.figure import sheet
from efface.report.formats import plus_minus, point
from efface.report.frames import summary_table
from efface.report.headline import headline
from efface.report.looks import styles
from efface.report.stats import (
    Interval,
    areas,
    combine,
    compare_methods,
    differences,
    holm,
    image_agreement,
    image_estimates,
    metric_agreement,
    min_p,
)
from efface.report.stats import summary as summarised
from efface.report.words import about, findings, gap_sentences
from small.reports import curve_of, facts_of
from small.studies import efface, write_study

CHANCE = ("random",)  # what the others are compared with
panels = functools.partial(report_panels.panels, references=CHANCE)
write = functools.partial(report_page.write, references=CHANCE)
METHODS = ("random", "gradient", "smooth_grad", "smooth_grad~2", "smooth_grad~3", "grad_cam", "blurred")
IMAGES = 60
KINDS = (  # metric, family, axis, points, better
    ("sparse", "complexity", "", (0.0,), "none"),
    ("degradation", "erasure", "patches removed", (0.0, 1.0, 2.0, 5.0), "lower"),
    ("morf", "erasure", "fraction removed", (0.0, 0.5, 1.0), "lower"),
    ("lerf", "erasure", "fraction removed", (0.0, 0.5, 1.0), "higher"),
    ("layers", "randomisation", "share of layers randomised", (0.0, 0.5, 1.0), "lower"),
    ("hits", "localisation", "", (0.0,), "higher"),
)


def curves(methods=METHODS, kinds=KINDS, images=IMAGES):
    found = []
    for i, method in enumerate(methods):
        for metric, family, axis, at, better in kinds:
            rng = np.random.default_rng([i, len(metric)])
            gain = 0 if method == "random" else 0.1 * (1 + METHODS.index(method) % 4)
            values = 0.5 + (gain if better == "higher" else -gain) + rng.normal(0, 0.1, (images, len(at)))
            common = {"axis": axis, "family": family, "control": method in CHANCE}
            common["opposite"] = {"morf": "lerf", "lerf": "morf"}.get(metric, "")
            of_first = method.partition("~")[0] if "~" in method else ""
            common |= {"metric": metric, "score": "value", "at": at, "direction": better, "draw_of": of_first}
            found.append(curve_of(values, method, **common))
    return found


def of(shown, metric, method):
    return next(curve for curve in shown if (curve.metric, curve.method) == (metric, method))


HOW = {"unit": "patch", "explain": "true", "imputer": "a.fill(size=3)", "ties": "shuffled", "count": "floor"}
FACTS = facts_of(
    name="kinds",
    how={metric: HOW for metric, *_ in KINDS},
    degenerate={
        "random": {"constant_of_all": 0.0, "levels": 1.0, "tied_share": 0.0, "alike": 0.0, "blind": 1.0},
        "grad_cam": {"constant_of_all": 0.25, "levels": 0.1, "tied_share": 0.9, "alike": 0.0, "blind": np.nan},
    },
    costs={"morf": Cost(12.0, 0.2, 0.04)},
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    shown = curves()
    return shown, write(tmp_path_factory.mktemp("kinds") / "report", shown, None, FACTS)


@pytest.fixture(scope="module")
def page(report, look_for_long):
    return look_for_long(report[1])


def test_of_many_metrics_those_of_the_network_have_their_value_in_the_cell(tmp_path):
    shown = [
        curve_of(
            np.full((4, 1), value), name, metric=f"m{i}", score="value", at=(0.0,), direction="higher", family=family
        )
        for i, family in enumerate(["network", *["erasure"] * 6])
        for name, value in (("standard", 0.25), ("robust", 0.75))
    ]
    text = write(tmp_path, shown, None, FACTS, network="standard").read_text()
    cells = re.findall(r'<td [^>]*data-metric="(m\d)"[^>]*data-verdict.*?</td>', text, re.DOTALL)
    assert cells.count("m0") == cells.count("m1") == 2
    for metric, method, inside in re.findall(
        r'<td [^>]*data-metric="(m\d)"[^>]*data-method="(\w+)" data-verdict[^>]*>(.*?)</td>', text, re.DOTALL
    ):
        value = {"standard": "0.250", "robust": "0.750"}[method]
        assert (f"<small>{value}</small>" in inside) == (metric == "m0")


def ranked(shown):
    """The panels with the ranks of their methods."""
    return [with_ranks(each) for each in pairs(panels(shown))]


def lines(path, name):
    with path.with_name(name).open() as file:
        return list(csv.DictReader(file))


def test_every_kind_of_metric_is_shown_whole(report, page):
    rows = {"random", "gradient", "smooth_grad", "grad_cam", "blurred"}
    assert set(page.locator("tr[data-row]").evaluate_all("r => r.map(x => x.dataset.row)")) == rows
    for metric, _, axis, at, better in KINDS:
        figure = page.locator(f'article[data-metric="{metric}"] figure svg')
        assert (axis or "value") in figure.evaluate("s => s.textContent")
        for method in rows:
            line = figure.locator(f"g.curve#curve-{metric}-value-{method} > path").first
            assert line.evaluate("p => p.getTotalLength()") > 1
            verdict = page.locator(f'td[data-verdict][data-metric="{metric}"][data-method="{method}"]')
            assert (verdict.get_attribute("data-verdict") == "described") == (better == "none" and method != "random")
            cells = page.locator(f'td[data-value][data-metric="{metric}"][data-method="{method}"]')
            assert cells.count() == len(at)


def test_families_come_in_order_and_group_their_metrics(page):
    headings = page.locator(".family > summary").evaluate_all("h => h.map(x => x.textContent.trim().split(':')[0])")
    assert headings == ["Erasure", "Localisation", "Randomisation", "Complexity"]
    inside = "f => [...f.querySelectorAll('.metric > h2')].map(x => x.textContent)"
    assert page.locator("#family-1").evaluate(inside) == ["degradation", "morf", "lerf"]


def test_what_numbers_depend_on_stands_below_each_figure_and_in_each_line(report, page):
    for caption in page.locator("figcaption .how").all():
        said = caption.evaluate("c => c.textContent")
        assert said == (
            "In these numbers, the unit is patch, the explained class is the true one, the fill is a.fill(size=3), "
            "ties are shuffled and the number of removed units is floor."
        )
    found = lines(report[1], "summary.csv")
    assert {tuple(line[name] for name in HOW) for line in found} == {tuple(HOW.values())}
    assert {(line["metric"], line["axis"]) for line in found} == {(metric, axis) for metric, _, axis, *_ in KINDS}


def test_maps_to_be_careful_with_stand_before_every_score(page):
    order = page.locator("main > section").evaluate_all("s => s.map(x => x.id)")
    assert order.index("careful") < order.index("verdict")
    said = page.locator(".cautions").inner_text()
    assert said.startswith("grad_cam: 25 % of its maps are constant")
    assert "90 % of the units have the same value" in said
    assert not re.search(r"^random: ", said, re.MULTILINE)  # a control knows no class
    shares = page.locator('td[data-method="grad_cam"][data-share="blind"]')
    assert shares.evaluate("s => s.textContent") == "?"


def test_cautions_are_few_and_told_in_words():
    assert cautions({"broken": {"nonfinite": 1 / 64}})["broken"][0].startswith("1.56 % of its maps hold values that")
    fine = {"constant_of_all": 0.0, "levels": 1.0, "tied_share": 0.5, "alike": 0.004, "blind": np.nan}
    assert cautions({"fine": fine}) == {}
    assert cautions({"sobel": fine | {"blind": 1.0}}, {"sobel"}) == {}
    assert cautions({"edges": fine | {"blind": 1.0}}) == {
        "edges": ["all of its maps are the same for another class: they do not depend on the class"]
    }


def test_time_by_metric(page):
    cells = page.locator(".costs tbody tr").evaluate_all("r => r.map(x => [...x.children].map(y => y.textContent))")
    assert cells == [["morf", "12.0 s", "200.0", "40.0"]]


def test_draws_are_one_row(report, page):
    shown, path = report
    drawn = [of(shown, "morf", name) for name in METHODS if name.startswith("smooth_grad")]
    whole = combine(drawn, "smooth_grad")
    (panel,) = (each for each in panels(shown) if each.metric == "morf")
    row = panel.row("smooth_grad")
    assert (row.draws, row.between, row.awaited) == (3, whole.between, 0)
    assert row.area == pytest.approx(summarised(whole.curve).area)
    found = next(
        line for line in lines(path, "summary.csv") if (line["metric"], line["method"]) == ("morf", row.method)
    )
    assert (int(found["draws"]), float(found["between_draws"])) == (3, whole.between)
    note = page.locator('article[data-metric="morf"] .draws')
    assert note.evaluate("n => n.textContent") == f"3 draws, {whole.between:.3f} apart"


def test_a_draw_that_is_awaited_is_said_and_not_averaged():
    shown = curves(kinds=KINDS[2:3])
    at = next(i for i, curve in enumerate(shown) if curve.method == "smooth_grad~2")
    empty = np.full((1, 3), np.nan)  # what is not measured yet has one line
    own = {"family": "erasure", "draw_of": "smooth_grad"}
    shown[at] = curve_of(empty, "smooth_grad~2", score="value", **own)
    (panel,) = panels(shown)
    row = panel.row("smooth_grad")
    assert (row.draws, row.awaited) == (2, 1)
    assert panel.unfinished == ("smooth_grad",)
    kept = [curve for curve in shown if curve.method in ("smooth_grad", "smooth_grad~3")]
    np.testing.assert_array_equal(row.curve.values, np.mean([curve.values for curve in kept], axis=0))


def test_verdicts_are_those_of_the_corrected_tests(report):
    """Oracle: the differences are put side by side by hand, and corrected for all methods and metrics together."""
    judged = [(panel, row) for panel in panels(report[0]) for row in panel.rows if row.difference.n]
    assert len(judged) == 5 * 4
    apart = np.column_stack([areas(row.curve) - areas(panel.row("random").curve) for panel, row in judged])
    estimates = image_estimates(apart, difference=True)
    p = np.array([each.p for each in estimates])
    drawn = [i for i, (_, row) in enumerate(judged) if row.draws > 1]
    p[drawn] = [differences([(row.curve, panel.row("random").curve)])[0].p for panel, row in (judged[i] for i in drawn)]
    corrected = min_p(p, apart, tuple(range(len(judged))), np.zeros(len(judged), dtype=bool))
    assert {panel.corrected for panel, _ in judged} == {len(judged)}
    for (panel, row), own, expected, estimate in zip(judged, p, corrected, estimates, strict=True):
        assert row.p == pytest.approx(expected)
        assert row.p >= own
        toward = row.difference.mean * (1 if panel.direction == "higher" else -1)
        assert row.verdict == ("same" if expected >= 0.05 else "better" if toward > 0 else "worse")
        if row.draws == 1:
            assert row.difference == pytest.approx(estimate.interval)
    assert {row.verdict for _, row in judged if row.draws == 1} == {"better"}
    assert {row.verdict for _, row in judged if row.draws > 1} == {"same"}  # draws that are far apart


def test_what_only_describes_is_neither_judged_nor_ranked():
    shown = [curve for curve in curves() if curve.metric in ("sparse", "hits")]
    hits, sparse = panels(shown)
    assert [row.method for row in sparse.rows] == ["random", "gradient", "smooth_grad", "grad_cam", "blurred"]
    assert {row.verdict for row in sparse.rows} == {"control", "described"}
    assert {row.rank for row in sparse.rows} == {0}
    assert {row.difference.n for row in sparse.rows} == {0}
    assert about(sparse).endswith("The metric describes the maps; no direction is better.")
    assert findings(sparse, [hits, sparse]) == []
    assert headline([hits, sparse]) == headline([hits])
    assert [panel.metric for panel in agreements([hits, sparse]).panels] == ["hits"]


def test_all_pairs_of_methods_are_in_the_table_and_have_their_letters(report, page):
    shown, path = report
    found = lines(path, "comparisons.csv")
    expected = [one for panel in panels(shown) for one in compare_methods([row.curve for row in panel.rows])]
    assert [(line["metric"], line["first"], line["second"]) for line in found] == [
        (one.metric, one.first, one.second) for one in expected
    ]
    curve = {(each.metric, row.method): row.curve for each in panels(shown) for row in each.rows}
    apart = [areas(curve[one.metric, one.first]) - areas(curve[one.metric, one.second]) for one in expected]
    own = np.array([one.p for one in expected])
    corrected = min_p(own, np.column_stack(apart), tuple(range(len(own))), np.zeros(len(own), dtype=bool))
    for line, one, p in zip(found, expected, corrected, strict=True):
        names = ("difference", "low", "high", "n", "p", "p_corrected", "effect", "common_language")
        difference = (one.difference.mean, one.difference.low, one.difference.high, one.difference.n)
        given = [*difference, one.p, p, one.effect, one.common_language]
        assert [float(line[name]) for name in names] == pytest.approx(given)
        assert line["by"] == one.by == "hall"
    for panel in panels(shown):
        cells = page.locator(f'#between-methods .lettered[data-metric="{panel.metric}"]')
        letters = dict(cells.evaluate_all("c => c.map(x => [x.dataset.method, x.querySelector('b').textContent])"))
        assert list(letters) == [row.method for row in panel.rows]
        for line in (line for line in found if line["metric"] == panel.metric):
            common = set(letters[line["first"]]) & set(letters[line["second"]])
            assert bool(common) == (float(line["p_corrected"]) >= 0.05)


def test_agreement_of_metrics_leaves_the_controls_out(report, page):
    shown, path = report
    found = {(line["kind"], line["metric"], line["other"]): line for line in lines(path, "agreement.csv")}
    by_metric = {panel.metric: [row.curve for row in panel.rows if row.method != "random"] for panel in panels(shown)}
    del by_metric["sparse"]
    assert len(found) == 5 * 4 / 2 + 5
    for (kind, metric, other), line in found.items():
        one = by_metric[metric]
        expected = metric_agreement(one, by_metric[other]) if other else image_agreement(one)
        given = [float(line[name] or "nan") for name in ("value", "low", "high", "n")]
        np.testing.assert_array_equal(given, expected[:4], err_msg=f"{kind} {metric} {other}")
        if not other:
            assert float(line["p"]) == expected.p
    taus = [line for line in found.values() if line["other"]]
    own = [metric_agreement(by_metric[line["metric"]], by_metric[line["other"]]).p for line in taus]
    np.testing.assert_array_equal([float(line["p"]) for line in taus], holm(np.array(own)))
    cell = page.locator('#between-metrics td[data-metric="morf"][data-other="lerf"]')
    assert float(cell.get_attribute("data-tau")) == float(found["kendall_tau_b", "morf", "lerf"]["value"])
    assert "morf and lerf rank the methods" in page.locator("#between-metrics .lead").inner_text()


def test_words_of_agreement_name_a_contradiction():
    better = {"mine": "lower", "its_opposite": "higher"}
    at, count = (0.0, 1.0), 5
    shown = [
        curve_of(
            np.full((30, 2), i / 10) + 1e-3 * np.arange(30)[:, None],
            f"m{i}",
            metric=metric,
            score="value",
            at=at,
            direction=way,
            opposite="its_opposite" if metric == "mine" else "",
        )
        for metric, way in better.items()
        for i in range(count)
    ]
    (said, *_) = agreement_sentences(agreements(panels(shown)))
    assert said.startswith("mine and its_opposite rank the methods against one another (tau \N{MINUS SIGN}1.000")
    assert agreements(panels(shown[:1])).tau == {}
    assert agreements(()).panels == ()


def test_lopsided_intervals_show_their_ends():
    assert plus_minus(Interval(0.5, 0.1, 0.4, 0.6, 9)) == "0.500 ± 0.100"
    assert plus_minus(Interval(0.5, 0.1, 0.45, 0.6, 9)) == "0.500 [0.450, 0.600]"


def test_points_are_told_in_the_units_of_their_axis():
    assert point(0.25, "fraction removed") == "25 %"
    assert point(0.25, "share of layers randomised") == "25 %"
    assert point(12.0, "patches removed") == "12"


def test_summary_without_provenance_has_the_columns_all_the_same():
    table = summary_table(panels(curves(kinds=KINDS[:1])), {})
    assert set(HOW) <= set(table.columns)
    assert set(table["unit"]) == {""}


BLUR = {"call": "efface.erase.post.gaussian_blur", "kwargs": {"sigma": 1.0}}


@pytest.mark.long
def test_a_blurred_twin_and_a_metric_of_one_number_through_a_run(tmp_path):
    own = """
from efface.metrics import Metric

one_number = Metric(
    probes=lambda point: {"erased": point.perturb("most_first", 0.5)},
    value=lambda scores: {"probability": scores["erased"].values["probability"]},
    direction={"probability": "lower"},
    sample="images",
    caption="Half is erased.",
    family="faithfulness",
    axis="",
    points_for=lambda shape: (0.0,),
)
"""
    study = write_study(
        tmp_path,
        {"own": own},
        metrics=[{"name": "half", "metric": "own.one_number"}, "morf"],
        attribution_methods=[
            {"name": "random", "method": "efface.methods.control.random"},
            {"name": "mine", "method": "mine.brightness"},
            {"name": "mine_blurred", "maps": "mine", "post": ["efface.erase.post.channel_sum", BLUR]},
        ],
    )
    ended = efface(tmp_path, "all", study.name)
    assert ended.code == 0, ended.err
    found = lines(tmp_path / "run" / "report" / "report.html", "summary.csv")
    half = [line for line in found if line["metric"] == "half"]
    assert {line["method"] for line in half} == {"random", "mine", "mine_blurred"}
    assert {(line["stands"], line["family"], line["n"]) for line in half} == {("value", "faithfulness", "24")}
    (own,) = (line for line in found if line["metric"] == "accuracy")
    clean = next(line for line in found if (line["metric"], line["fraction"]) == ("morf", "0.0"))
    assert (own["method"], own["mean"], own["n"], own["family"]) == ("network", clean["mean"], "24", "network")
    found.remove(own)
    assert {line["unit"] for line in found} == {"pixel"}
    assert {line["imputer"] for line in found} == {"efface.impute.channel_mean"}
    assert {line["explain"] for line in found} == {"predicted"}
    text = Path(tmp_path / "run" / "report" / "report.html").read_text()
    assert 'id="curve-half-probability-mine_blurred"' in text
    assert "Time by metric, without extraction" in text
    assert set(re.findall('data-share="constant_of_all" data-method="([^"]*)"', text)) == {
        "random",
        "mine",
        "mine_blurred",
    }


def test_the_sheet_holds_any_kinds_of_panels():
    for shown in (curves(kinds=KINDS[2:3]), curves(["random", *METHODS[1:2]]), curves(METHODS[:1])):
        found = panels(shown)
        files = sheet(found, styles(row.method for panel in found for row in panel.rows))
        assert {kind: content[:5] for kind, content in files.items()} == {"svg": b"<?xml", "pdf": b"%PDF-"}


def test_a_point_without_a_value_is_not_one_that_is_awaited():
    values = np.tile([0.5, np.nan, 0.3], (IMAGES, 1))
    how, told = {"metric": "convergence", "score": "cosine"}, {}
    for method, missing in (("measured", ()), ("awaited", (0.5,)), ("nobody", None)):
        told[method] = curve_of(values, method, missing=missing, **how)
    whole = np.nan_to_num(values, nan=0.4)
    told["whole"] = curve_of(whole, "whole", missing=(), **how)
    (panel,) = panels(list(told.values()))
    assert {row.method: row.verdict for row in panel.rows} == {
        "whole": "alone",
        "measured": "undefined",
        "awaited": "missing",
        "nobody": "missing",
    }
    assert set(panel.unfinished) == {"awaited", "nobody"}
    assert plus_minus(panel.row("measured").intervals[1], nothing="no value") == "no value"


@pytest.mark.long
def test_a_study_tells_points_and_metrics_without_a_value(tmp_path):
    patches = {"call": "efface.erase.units.patch", "kwargs": {"size": 4}}
    study = write_study(
        tmp_path,
        attribution_methods=[
            {"name": "random", "method": "efface.methods.control.random"},
            {"name": "mine", "method": "mine.brightness"},
        ],
        metrics=[
            {"name": "sensitivity_n", "kwargs": {"fractions": [0.0, 0.5, 1.0], "unit": patches}},
            {"name": "faithfulness_correlation", "kwargs": {"fraction": 0.001, "samples": 3, "unit": patches}},
        ],
        fractions=None,
        repeats=None,
    )
    ended = efface(tmp_path, "all", study.name)
    assert ended.code == 0, ended.err
    report = tmp_path / "run" / "report" / "report.html"
    found = lines(report, "summary.csv")
    points = {(line["metric"], line["method"], line["fraction"]): int(line["n"]) for line in found}
    assert {key for key in points if key[0] == "sensitivity_n"} == {
        ("sensitivity_n", "random", "0.5"),
        ("sensitivity_n", "mine", "0.5"),
    }
    assert points["sensitivity_n", "mine", "0.5"] > 0
    assert points["faithfulness_correlation", "mine", "0.0"] == 0
    text = report.read_text()
    assert (
        "sensitivity_n has no value at 0 % and 100 % for any method. Such points are left out of value and verdict."
        in text
    )
    assert "faithfulness_correlation was measured, but no method has a value" in text
    assert "not run yet" not in text


def told_of(values, method="m", **changes):
    """A curve of a metric whose probes all ran."""
    how = {"metric": "sensitivity_n", "score": "correlation", "at": (0.0, 0.5, 0.75, 1.0), "direction": "higher"}
    return curve_of(values, method, **how | {"missing": (), "summary": "area"} | changes)


def of_points(means, method, **changes):
    noise = np.random.default_rng(len(method)).normal(0, 0.02, (IMAGES, len(means)))
    return told_of(np.array(means) + noise, method, **changes)


def test_points_where_no_method_has_a_value_are_left_out_of_curve_area_and_verdict(tmp_path):
    shown = [of_points([np.nan, 0.0, 0.1, np.nan], "random"), of_points([np.nan, 0.8, 0.6, np.nan], "gradient")]
    (panel,) = ranked(shown)
    assert (panel.fractions, panel.empty) == ((0.5, 0.75), (0.0, 1.0))
    row = panel.row("gradient")
    assert (row.verdict, row.rank, row.area.n) == ("better", 1, IMAGES)
    assert row.area.mean == pytest.approx(shown[1].values[:, 1:3].mean())
    said = "sensitivity_n has no value at 0 % and 100 % for any method. "
    said += "Such points are left out of curve, area and verdict."
    assert gap_sentences(panel) == [said]
    assert said in findings(panel, [panel])
    page = write(tmp_path / "report", shown, None, FACTS)
    assert page.read_text().count(said) == 3  # in the answer, among the cautions, and beside the curve
    assert [line["fraction"] for line in lines(page, "summary.csv")] == ["0.5", "0.75"] * 2


def test_a_point_that_some_images_lack_stays_and_one_that_is_awaited_does():
    some = of_points([0.1, 0.2, 0.3, 0.4], "random")
    some.values[: IMAGES // 2, 0] = np.nan
    awaited = of_points([np.nan, 0.2, 0.3, 0.4], "gradient", missing=(0.0,))
    for shown in ([some], [awaited]):
        (panel,) = panels(shown)
        assert (len(panel.fractions), panel.empty) == (4, ())
    assert panels([some])[0].rows[0].area.n == IMAGES // 2


def test_a_method_that_has_some_points_is_summed_up_over_them_and_compared_over_the_shared_ones():
    common = {"may_lack_points": True, "direction": "lower"}
    random = of_points([0.1, 0.5, 0.5, 0.1], "random", **common)
    cam = of_points([np.nan, np.nan, 0.3, 0.9], "grad_cam", **common)
    blur = of_points([np.nan, 0.2, 0.2, 0.2], "blur", **common)
    (panel,) = ranked([cam, blur, random])
    # blur is below random over 0.5 to 1, and grad_cam above both over 0.75 to 1
    assert [(row.method, row.rank) for row in panel.rows] == [("random", 2), ("blur", 1), ("grad_cam", 3)]
    row = panel.row("grad_cam")
    assert (row.lacking, row.verdict) == ((0.0, 0.5), "worse")
    assert row.area.mean == pytest.approx(cam.values[:, 2:].mean())
    assert row.difference.mean == pytest.approx((cam.values - random.values)[:, 2:].mean())
    between = {(one.first, one.second): one.difference for one in compare_methods([cam, blur, random])}
    assert between["grad_cam", "blur"].mean == pytest.approx((cam.values - blur.values)[:, 2:].mean())
    assert between["grad_cam", "random"] == row.difference
    (said,) = [each for each in findings(panel, [panel]) if each.startswith("grad_cam has")]
    assert said.startswith("grad_cam has no value at 0 % and 50 %. Its area uses its other points.")
    assert "Its difference to random and its rank use the points that both have" in said
    strict = [told_of(each.values, each.method, direction="lower") for each in (cam, blur, random)]
    assert {row.method: row.area.n for row in panels(strict)[0].rows}["grad_cam"] == 0
    apart = of_points([0.3, 0.3, np.nan, np.nan], "early", **common)
    assert compare_methods([cam, apart])[0].difference.n == 0


def test_no_method_of_an_unfinished_panel_has_a_rank():
    random, blur = of_points([0.1, 0.5, 0.5, 0.1], "random"), of_points([0.2, 0.6, 0.6, 0.2], "blur")
    awaited = of_points([np.nan, 0.2, 0.3, 0.4], "gradient", missing=(0.0,))
    (panel,) = ranked([random, blur])
    assert {row.method: row.rank for row in panel.rows} == {"blur": 1, "random": 2}
    (panel,) = ranked([random, blur, awaited])
    assert {row.method: row.rank for row in panel.rows} == {"blur": 0, "random": 0, "gradient": 0}
    assert findings(panel, [panel])[-1] == "The methods get ranks when all values of sensitivity_n are measured."


def test_the_caption_names_no_setting_that_is_none(tmp_path):
    shown = [of_points([0.1, 0.5, 0.5, 0.1], "random")]
    how = {"unit": "none", "explain": "true", "imputer": "a.fill", "ties": "none", "count": "none"}
    for settings, caption in (
        (how, "In these numbers, the explained class is the true one and the fill is a.fill."),
        (dict.fromkeys(how, "none"), ""),
    ):
        page = write(tmp_path / "report", shown, None, replace(FACTS, how={"sensitivity_n": settings}))
        said = re.findall(r'<span class="how">(.*?)</span>', page.read_text())
        assert [re.sub("<[^>]*>", "", each) for each in said] == ([caption] if caption else [])
        assert [lines(page, "summary.csv")[0][each] for each in how] == list(settings.values())


def test_a_metric_without_any_value_is_shown_with_a_caution(tmp_path):
    nothing = [told_of(np.full((IMAGES, 1), np.nan), method, at=(0.0,)) for method in ("random", "gradient")]
    page = write(tmp_path / "report", nothing, None, FACTS)
    text = page.read_text()
    assert "sensitivity_n was measured, but no method has a value on any of the images" in text
    assert "not run yet" not in text
    assert [line["n"] for line in lines(page, "summary.csv")] == ["0", "0"]
    (panel,) = panels(nothing)
    assert {row.verdict for row in panel.rows} == {"undefined"}
    (panel,) = panels([told_of(each.values, each.method, at=(0.0,), missing=(0.0,)) for each in nothing])
    assert gap_sentences(panel) == []


def test_a_reference_without_a_value_is_undefined_and_not_awaited():
    gradient = of_points([0.1, 0.2, 0.3, 0.4], "gradient")
    for missing, verdict in (((), "undefined"), ((0.0,), "missing")):
        random = of_points([np.nan, 0.2, 0.3, 0.4], "random", missing=missing)
        assert panels([gradient, random])[0].verdict("gradient") == verdict


@pytest.mark.parametrize("count", [2, 3])
def test_repeats_of_one_difference_are_undecided_as_their_test_says(count):
    random = told_of(np.linspace(0.1, 0.7, count)[:, None], "random", at=(0.0,), sample="repeats")
    ours = told_of(random.values + 0.01, "ours", at=(0.0,), sample="repeats")
    (panel,) = panels([random, ours])
    row = panel.row("ours")
    why = "none" if count == 2 else "few"
    assert (row.verdict, row.tested, compare_methods([ours, random])[0].by) == ("undecided", why, why)
    assert np.isnan(row.p)
    reasons = {"none": "three trainings or more are needed", "few": "too few samples differ, so the spread is unknown"}
    assert f"There is no verdict on ours: {reasons[why]}." in findings(panel, [panel])
    alike = panels([random, told_of(random.values, "ours", at=(0.0,), sample="repeats")])[0]
    assert alike.verdict("ours") == ("undecided" if count == 2 else "same")
    apart = told_of(random.values + 0.01 + 1e-6 * np.arange(count)[:, None], "ours", at=(0.0,), sample="repeats")
    assert panels([random, apart])[0].verdict("ours") == ("undecided" if count == 2 else "better")


def test_images_of_one_difference_are_judged_if_the_range_of_the_score_is_known():
    many = [told_of(np.full((IMAGES, 1), level), name, at=(0.0,)) for level, name in ((0, "random"), (1, "ours"))]
    assert (panels(many)[0].verdict("ours"), panels(many)[0].row("ours").tested) == ("undecided", "few")
    known = panels([replace(each, bounds=(0.0, 1.0)) for each in many])[0]
    assert (known.verdict("ours"), known.row("ours").tested) == ("better", "tango")


def test_a_skewed_score_of_few_images_has_an_interval_but_no_verdict():
    random = np.zeros((20, 1))
    ours = np.exp(np.arange(20.0))[:, None]
    (panel,) = panels([told_of(random, "random", at=(0.0,)), told_of(ours, "ours", at=(0.0,))])
    row = panel.row("ours")
    assert (row.verdict, row.tested) == ("undecided", "skewed")
    assert row.difference.low < row.difference.mean < row.difference.high
    said = "There is no verdict on ours: the score is too skewed for so few images; take 50 or more."
    assert said in findings(panel, [panel])


def test_a_view_of_a_control_is_a_control():
    names = ("random", "true_mask_blurred", "gradient", "gradient_blurred")
    controls = (True, True, False, False)  # what the maps that they read are
    shown = [
        of_points([0.1 * i] * 4, name, metric=metric, control=control)
        for metric in ("morf", "lerf")
        for i, (name, control) in enumerate(zip(names, controls, strict=True))
    ]
    found = panels(shown)
    assert [row.method for row in found[0].rows if row.is_control] == ["true_mask_blurred", "random"]
    assert {each.n for each in agreements(found).tau.values()} == {2}
    assert {each.n for each in agreements(found).alpha.values()} == {2}
    assert "true_mask_blurred" not in " ".join(headline(found))
    careful = {"true_mask_blurred": {"blind": 1.0}}
    assert cautions(careful, {"true_mask_blurred"}) == {} != cautions(careful)
