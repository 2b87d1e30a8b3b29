"""The page in a browser without a network: whole, readable by a machine, and true to the numbers it was given."""

import csv
import functools
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from efface.report import page
from efface.report import panels as report_panels
from efface.report.gallery import Gallery, paint
from efface.report.headline import headline
from efface.report.looks import identifiers, styles
from efface.report.stats import differences, summaries
from efface.report.words import findings
from small.reports import curve_of, facts_of
from small.studies import efface, write_study
from small.tiers import first_short

CHANCE = ("random", "random_resampled")  # what the others are compared with
panels = functools.partial(report_panels.panels, references=CHANCE)
write = functools.partial(page.write, references=CHANCE)
FRACTIONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
FILES = [
    "agreement.csv",
    "comparisons.csv",
    "curves.pdf",
    "curves.svg",
    "pictures.json",
    "report.html",
    "results.parquet",
]
FILES += ["summary.csv", "table.csv", "table.md", "table.tex", "verdicts.csv"]
METHODS = ("random", "gradient", "input_x_gradient", "smooth_grad", "integrated_gradients", "grad_cam", "sobel")
# Means as a trial on handwritten digits gave them: retrained networks read the outline of what was erased.
MEANS = {
    ("roar", "lower"): {"random": (0.98, 0.97, 0.93, 0.83, 0.66, 0.37), "": (0.98, 0.98, 0.975, 0.96, 0.92, 0.78)},
    ("kar", "higher"): {"random": (0.98, 0.97, 0.93, 0.83, 0.66, 0.37), "": (0.98, 0.985, 0.98, 0.975, 0.96, 0.9)},
    ("morf", "lower"): {"random": (0.98, 0.97, 0.86, 0.6, 0.35, 0.18), "": (0.98, 0.4, 0.2, 0.14, 0.12, 0.1)},
    ("lerf", "higher"): {"random": (0.98, 0.97, 0.86, 0.6, 0.35, 0.18), "": (0.98, 0.98, 0.97, 0.93, 0.8, 0.45)},
}


def curves(methods=METHODS, repeats=3, images=200, scores=("accuracy",)):
    found = []
    for (metric, better), means in MEANS.items():
        over = "repeats" if metric in ("roar", "kar") else "images"
        for score in scores if over == "images" else ("accuracy",):
            for i, method in enumerate(methods):
                rng = np.random.default_rng([i, len(metric), len(score)])
                share = 0 if method.startswith("random") else 0.02 if method == "sobel" else 1 - 0.07 * i
                mean = share * np.array(means[""]) + (1 - share) * np.array(means["random"])
                n = repeats if over == "repeats" else images
                noise = rng.normal(0, 0.012 if over == "repeats" else 0.15, (n, len(FRACTIONS)))
                values = 100 * (1 - mean + noise) if score == "relative_change" else mean + noise
                flipped = {"lower": "higher", "higher": "lower"}[better] if score == "relative_change" else better
                control = method in (*CHANCE, "sobel")
                more = {"control": control, "value_unit": "%" if score == "relative_change" else ""}
                more |= {"metric": metric, "score": score, "at": FRACTIONS, "sample": over, "direction": flipped}
                found.append(curve_of(values, method, **more))
    return found


def gallery(methods=METHODS, edge=8, count=4):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:edge, :edge] / edge
    centre = rng.uniform(0.3, 0.7, (count, 2))
    blob = np.exp(-((y - centre[:, :1, None]) ** 2 + (x - centre[:, 1:, None]) ** 2) / 0.06)
    images = (255 * np.clip(blob, 0, 1))[:, None].astype(np.uint8)
    maps, masked = {}, {}
    for i, method in enumerate(methods):
        map_ = blob * rng.normal(1, 0.6, blob.shape) if i % 2 else np.abs(blob + rng.normal(0, 0.2, blob.shape))
        maps[method] = map_.astype(np.float32)
        high = map_ >= np.quantile(map_, 0.7, axis=(1, 2), keepdims=True)
        masked[method] = np.where(high[:, None], 80, images).astype(np.uint8)
    return Gallery(images, tuple(f"{i}, explained as {i}" for i in range(count)), maps, masked, 0.3)


def together(shown):
    """The summary of each curve, made with those of its metric and score, from which trainings borrow their spread."""
    groups = {}
    for curve in shown:
        groups.setdefault((curve.metric, curve.score), []).append(curve)
    made = (zip(map(id, group), summaries(group), strict=True) for group in groups.values())
    return {name: each for group in made for name, each in group}


def digits_facts(**changes):
    given = {
        "study": "out: runs/digits\ndata: efface.data.digits.digits\nrepeats: 3\n",
        "name": "digits",
        "versions": {"efface": "0.1.0", "torch": "2.15.0"},
        "device": "CPU, 2 cores",
        "seconds": {"train": 3.2, "extract": 12.5, "measure": 130.0},
        "data": "digits: 1,347 training and 450 test images, 1x8x8, 10 classes",
        "network": "efface.models.resnet.resnet8, 77,754 parameters, 98.9 % test accuracy",
    }
    return facts_of(**given | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished study with a gallery and two scores: its curves and its report."""
    shown = curves(scores=("accuracy", "relative_change"))
    return shown, write(tmp_path_factory.mktemp("whole") / "report", shown, gallery(), digits_facts())


def test_page_is_whole_and_true(whole, look):
    shown, path = whole
    assert sorted(p.name for p in path.parent.iterdir() if p.is_file()) == FILES
    page = look(path)
    sizes = page.evaluate("[...document.querySelectorAll('.gallery img')].map(i => i.complete ? i.naturalWidth : 0)")
    assert len(sizes) == 4 + 2 * 4 * len(METHODS)
    assert min(sizes) > 0
    for curve in shown:
        key = f'[data-metric="{curve.metric}"][data-score="{curve.score}"][data-method="{curve.method}"]'
        line = page.locator(f"svg g.curve#curve-{curve.metric}-{curve.score}-{curve.method} > path")
        assert line.first.evaluate("p => p.getTotalLength()") > 50
        for fraction, mean in zip(FRACTIONS, curve.values.mean(axis=0), strict=True):
            value = page.locator(f'td{key}[data-fraction="{fraction}"]').get_attribute("data-value")
            assert float(value) == pytest.approx(mean, rel=1e-14)
    assert page.locator("tr[data-row]").count() == len(METHODS)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    cell = page.locator('td[data-metric="roar"][data-method="grad_cam"][data-fraction="0.5"]')
    roar = next(c for c in shown if (c.metric, c.method) == ("roar", "grad_cam"))
    expected = together(shown)[id(roar)].points[3]
    assert cell.inner_text() == f"{expected.mean:.3f} ± {expected.high - expected.mean:.3f}"


def test_page_needs_nothing_but_itself(whole):
    text = whole[1].read_text()
    outside = set(re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)([^"']*)""", text))
    figures = {f"figures/{metric}.pdf" for metric, _ in MEANS}
    beside = {name for name in FILES if name not in ("report.html", "pictures.json")}
    assert outside == beside | figures, "links to what lies beside it"
    assert not re.search(r"@import|url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) <= set(ids)


def test_same_curves_give_the_same_files(tmp_path):
    few = ["random", "gradient"]
    first, second = (write(tmp_path / name, curves(few)[:4], gallery(few), digits_facts()).parent for name in "ab")
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_pointing_at_a_method_sets_it_apart_everywhere(whole, look):
    shown, path = whole
    page = look(path)
    page.locator('.legend button[data-method="grad_cam"]').first.click()
    page.mouse.move(0, 0)
    assert page.locator("g.curve.strong").count() == len(shown) / len(METHODS)
    assert page.locator("g.curve.faint").count() == len(shown) - len(shown) / len(METHODS)
    assert set(page.locator('button[aria-pressed="true"]').evaluate_all("b => b.map(x => x.dataset.method)")) == {
        "grad_cam"
    }
    page.locator('.legend button[data-method="grad_cam"]').first.click()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    assert page.locator("g.curve.faint").count() == 0


@pytest.mark.long
def test_thirty_methods_fit_any_width(tmp_path, look):
    many = [f"method_{i}_with_a_name_that_is_rather_long" for i in range(29)]
    path = write(tmp_path, curves(["random", *many])[-30:], gallery(many), digits_facts())
    for width in (400, 700, 1400):
        page = look(path, viewport={"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        heights = page.locator("tr[data-row]").evaluate_all("rows => rows.map(row => row.offsetHeight)")
        assert max(heights) < 160


@pytest.mark.long
def test_unfinished_study_says_so(tmp_path, look):
    shown = curves()[: 2 * len(METHODS)]
    for curve in shown:
        if curve.method == "grad_cam" and curve.metric == "kar":
            curve.values[:] = np.nan
        if curve.method == "gradient" and curve.metric == "kar":
            curve.values[1, 3:] = np.nan
        if curve.method == "smooth_grad" and curve.metric == "kar":
            curve.values[:, 5] = np.nan
    page = look(write(tmp_path, shown, None, digits_facts(unfinished=("measure: 12 of 90 trainings are left",))))
    assert "12 of 90 trainings are left" in page.locator(".unfinished").inner_text()
    cell = '[data-metric="kar"][data-method="{}"]'
    assert "not run yet" in page.locator(f"td{cell.format('grad_cam')}[data-verdict]").inner_text()
    assert page.locator("#curve-kar-accuracy-grad_cam").count() == 1
    page.locator("#metric-2 details").evaluate("d => d.open = true")
    assert page.locator(f'td{cell.format("smooth_grad")}[data-fraction="0.9"]').inner_text() == "not run yet"
    partly = page.locator(f'td{cell.format("gradient")}[data-fraction="0.9"]')
    kept = next(c for c in shown if (c.metric, c.method) == ("kar", "gradient")).values[[0, 2], 5]
    assert float(partly.get_attribute("data-value")) == pytest.approx(kept.mean())
    (said,) = re.findall("Values are still missing for (.*)", page.locator("#metric-2 .findings").inner_text())
    assert set(re.split(", | and ", said.rstrip("."))) == {"gradient", "smooth_grad", "grad_cam"}
    assert "get ranks when all values of kar are measured" in page.locator("#metric-2 .findings").inner_text()
    assert page.locator("#metric-2 .legend").get_attribute("aria-label") == "Methods"
    for metric, ranked in (("roar", True), ("kar", False)):
        cells = page.locator(f'td[data-metric="{metric}"][data-verdict]').all_inner_texts()
        assert len(cells) == len(METHODS)
        assert all(("rank" in cell) is ranked for cell in cells), metric


@pytest.mark.parametrize(
    "shown", first_short(2, [[], curves(["gradient"])[:1], curves(repeats=1)[:7]]), ids=["empty", "one", "one repeat"]
)
def test_page_holds_for_small_studies(tmp_path, look, shown):
    page = look(write(tmp_path, shown, None, digits_facts()))
    assert page.locator("g.curve").count() == len(shown)


HOSTILE = ("<script>alert(1)</script>", "a & b \"quoted\" 'single'", "$x_{1}$", "_hidden", "A b", "a-B", "n" * 120)


def test_hostile_names_are_only_names(tmp_path, look):
    shown = curves(["random", *HOSTILE])[: len(HOSTILE) + 1]
    name = "</title><b>bold</b>"
    page = look(write(tmp_path, shown, gallery(HOSTILE, count=1), digits_facts(name=name, study="<img src=x>: &amp;")))
    assert page.title() == f"{name} · efface"
    assert page.locator("pre").inner_text() == "<img src=x>: &amp;"
    assert set(page.locator("tr[data-row]").evaluate_all("r => r.map(x => x.dataset.row)")) == {"random", *HOSTILE}
    assert page.locator("g.curve").count() == len(shown)
    assert set(page.locator("g.curve").evaluate_all("r => r.map(x => x.dataset.method)")) == {"random", *HOSTILE}


def test_csv_equals_the_statistics(whole):
    shown, path = whole
    with path.with_name("summary.csv").open() as file:
        lines = {(r["metric"], r["score"], r["method"], float(r["fraction"])): r for r in csv.DictReader(file)}
    assert len(lines) == len(shown) * len(FRACTIONS)
    summed = together(shown)
    for key in dict.fromkeys((curve.metric, curve.score) for curve in shown):
        several = [curve for curve in shown if (curve.metric, curve.score) == key]
        random = next(curve for curve in several if curve.method == "random")
        others = [curve for curve in several if curve is not random]
        apart = dict(zip(map(id, others), differences([(each, random) for each in others]), strict=True))
        for curve, (i, fraction) in itertools.product(several, enumerate(FRACTIONS)):
            line, told = lines[*key, curve.method, fraction], summed[id(curve)]
            assert line["interval"] == told.by == ("crossed" if curve.sample == "repeats" else "hall")
            assert line["over"] == ("trainings" if curve.sample == "repeats" else "images")
            assert floats(line, "mean", "std", "low", "high", "n") == pytest.approx(told.points[i], rel=1e-12)
            assert floats(line, "area", "area_low", "area_high") == pytest.approx(
                [told.area[0], *told.area[2:4]], rel=1e-12
            )
            if curve is random:
                assert line["random_difference"] == line["random_p"] == ""
                continue
            own = apart[id(curve)]
            keys = ("random_difference", "random_difference_low", "random_difference_high")
            assert floats(line, *keys) == pytest.approx([own.interval[0], *own.interval[2:4]], rel=1e-12)
            assert float(line["random_p"]) >= own.p  # corrected


def floats(line, *names):
    return [float(line[name]) for name in names]


def test_words_name_the_leak_with_its_numbers():
    found = panels([c for c in curves() if c.method != "sobel"])
    roar = next(panel for panel in found if panel.metric == "roar")
    text = " ".join(findings(roar, found))
    gap = {row.method: [cell.mean for cell in row.intervals] for row in roar.rows}
    random = gap.pop("random")
    lowest = [min(line[i] for line in gap.values()) - random[i] for i in range(len(FRACTIONS))]
    at = int(np.argmax(lowest))
    assert f"At {FRACTIONS[at] * 100:.0f} % removed, every method stays above random" in text
    assert f"against {random[at]:.3f}" in text
    assert f"({min(line[at] for line in gap.values()):.3f} to" in text
    assert "mask leakage" in text
    assert "morf, which trains no network on the masks, finds all of them better than random" in text
    kar = next(panel for panel in found if panel.metric == "kar")
    assert "mask leakage" not in " ".join(findings(kar, found))


def test_words_without_control_and_without_repeats():
    (alone, *_) = panels(curves(["gradient", "grad_cam"]))
    assert "{name: random, method: random}" in " ".join(findings(alone, [alone]))
    assert {row.verdict for row in alone.rows} == {"alone"}
    single = panels(curves(repeats=1))[0]
    assert "no interval" in " ".join(findings(single, [single]))
    assert {row.verdict for row in single.rows} == {"control", "single"}


def test_headline_counts_methods_and_not_controls():
    found = [panel for panel in panels(curves()) if panel.metric != "roar"]
    (said,) = headline(found)
    assert said == "All 5 methods are shown to be better than random on kar, morf and lerf."
    said = headline(panels(curves()))
    assert said == [
        "All 5 methods are shown to be better than random on kar, morf and lerf.",
        "No method is shown to be better than random on roar.",
    ]
    few = [curve for curve in curves() if curve.metric == "roar" or curve.method in ("random", "gradient", "sobel")]
    assert headline(panels([each for each in few if each.metric == "roar"])) == [
        "No method is shown to be better than random on roar."
    ]


def test_every_method_has_its_own_line_and_its_own_id():
    methods = ["random", "sobel", *(f"m{i}" for i in range(64))]
    assert len(set(styles(methods, ["random", "sobel"]).values())) == 66
    names = identifiers(panels(curves(["A b", "a-B", "a b", "é", "ü"])))
    assert len(set(names.values())) == len(names) == 20


def test_map_colours_are_symmetric_around_white():
    ramp = np.linspace(-1, 1, 101)[None].astype(np.float32)
    picture = paint(ramp).astype(int)
    assert (picture[0, 50] == 247).all()
    assert picture[0, 0, 2] > picture[0, 0, 0]
    assert picture[0, -1, 0] > picture[0, -1, 2]
    assert (paint(2 * ramp) == paint(ramp)).all()
    assert (paint(np.zeros((4, 4), np.float32)) == paint(np.zeros((4, 4), np.float32))[0, 0]).all()
    spike = np.zeros((20, 20), np.float32)
    spike[3, 4] = 5
    assert paint(spike)[3, 4].sum() > 600 > paint(spike)[0, 0].sum()


def test_failed_write_leaves_the_earlier_report(tmp_path, monkeypatch):
    path = write(tmp_path, [], None, digits_facts())
    before = path.read_bytes()

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, curves(["gradient"])[:1], None, digits_facts())
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [name for name in FILES if name != "pictures.json"]


def test_the_page_of_a_run_shows_what_its_results_say(tmp_path, look):
    study = write_study(tmp_path)
    assert efface(tmp_path, "all", study.name).code == 0
    page = look(tmp_path / "run" / "report" / "report.html")
    table = {}
    for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "accuracy" in row:
            probe = row["probe"]
            at = (probe["probe"], row["method"], probe["fraction"])
            table.setdefault(at, []).append(row["accuracy"])
    for metric, probe in (("roar", "retrain"), ("morf", "perturb")):
        for method in ("random", "mine", "red", "green"):
            for fraction in (0.0, 0.3, 0.7):
                accuracies = table[probe, method if fraction else None, fraction]
                cell = page.locator(
                    f'td[data-metric="{metric}"][data-score="accuracy"][data-method="{method}"][data-fraction="{fraction}"]'
                )
                assert float(cell.get_attribute("data-value")) == pytest.approx(np.mean(accuracies), rel=1e-12)
            line = page.locator(f"svg g.curve#curve-{metric}-accuracy-{method} > path")
            assert line.first.evaluate("p => p.getTotalLength()") > 50
    sizes = page.evaluate("[...document.querySelectorAll('.gallery img')].map(i => i.complete ? i.naturalWidth : 0)")
    assert len(sizes) == 8 + 2 * 8 * 4
    assert min(sizes) > 0
