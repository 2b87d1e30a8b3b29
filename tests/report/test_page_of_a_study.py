"""What a page takes from its study: links, looks of methods, cautions of each network, points without an interval."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from efface.report import page
from efface.report.facts import Origin
from efface.report.looks import styles
from efface.report.panels import panels
from efface.report.stats import summaries
from efface.report.words import intervals_sentences
from small.reports import curve_of, facts_of
from small.studies import efface, write_study

METHODS = ("random", "gradient", "smooth_grad", "grad_cam")


def curves(methods=METHODS, metrics=("morf", "a metric/with: signs"), seed=0, **changes):
    rng = np.random.default_rng(seed)
    return [
        curve_of(rng.uniform(0, 1, (30, 3)), name, metric=metric, control=name == "random", **changes)
        for metric in metrics
        for name in methods
    ]


def links(path):
    head = path.read_text().partition("<header>")[2].partition("</header>")[0]
    return re.findall(r'href="([^"]*)"', head)


def test_the_head_links_to_every_table_and_figure_that_exists_and_to_no_other(tmp_path):
    folder = tmp_path / "report"
    origin = Origin(tables=(("study.yml", "../study.yml"), ("results.jsonl", "../results.jsonl")))
    (tmp_path / "results.jsonl").write_text("{}")
    path = page.write(folder, curves(), None, facts_of(origin=origin), references=["random"])
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert sorted(links(path)) == sorted({*found, "../results.jsonl"} - {"report.html"})
    assert {"results.parquet", "table.csv", "table.md", "table.tex", "curves.pdf", "figures/morf.pdf"} <= found
    page.write(folder, curves(metrics=["morf"]), None, facts_of(), references=["random"])
    assert not [link for link in links(path) if "signs" in link], "a figure of an earlier page is no figure of this one"


def test_a_page_without_numbers_links_to_no_table_of_numbers(tmp_path):
    assert links(page.write(tmp_path, [], None, facts_of())) == []


def drawn(path):
    """The stroke and dash of each method on a page, from its swatches and from its curves."""
    text = path.read_text()
    swatches = re.findall(
        r'data-method="([^"]+)"[^>]*><svg class="swatch"[^>]*><path d="M1 4H25" stroke="([^"]*)" '
        r'stroke-dasharray="([^"]*)"',
        text.replace("\n", ""),
    )
    return {name: (colour, dashes) for name, colour, dashes in swatches}


@pytest.mark.long
def test_a_method_looks_the_same_whatever_the_results_the_metrics_and_the_reference_are(tmp_path):
    whole = drawn(page.write(tmp_path / "a", curves(), None, facts_of(), references=["random"], methods=METHODS))
    assert set(whole) == set(METHODS)
    pages = {
        "other results": (curves(seed=3), ["random"]),
        "another order": (curves()[::-1], ["random"]),
        "fewer methods": (curves(["smooth_grad", "random"]), ["random"]),
        "another reference": (curves(), ["grad_cam"]),
    }
    for name, (shown, references) in pages.items():
        path = page.write(tmp_path / name, shown, None, facts_of(), references=references, methods=METHODS)
        found = drawn(path)
        assert found == {each: whole[each] for each in found}, name
    looks = styles(METHODS, ["random"])
    assert {name: look.colour for name, look in looks.items()} == {name: look[0] for name, look in whole.items()}


def retrained(values, method, **changes):
    images = np.asarray(values, dtype=np.float64)
    return curve_of(images.mean(axis=2), method, images=images, sample="repeats", family="retraining", **changes)


def differences(at_zero=0.0):
    """Three trainings of 40 images on three points: differences that are 0 where nothing is removed."""
    rng = np.random.default_rng(1)
    values = rng.integers(-1, 2, (3, 3, 3, 40)).astype(float)
    values[:, :, 0] = at_zero
    more = {"metric": "diffroar", "direction": "higher", "bounds": (-1.0, 1.0), "axis": "fraction removed"}
    return [retrained(one, name, **more) for one, name in zip(values, ("random", "a", "b"), strict=True)]


def test_a_point_that_cannot_differ_has_no_interval_and_the_page_says_why(tmp_path):
    shown = differences()
    assert summaries(shown)[0].points[0].high > 0.01, "the spread that trainings share is of other points"
    (panel,) = panels(shown, ["random"])
    assert panel.fixed == (0.0,)
    for row in panel.rows:
        assert np.isnan([row.intervals[0].low, row.intervals[0].high]).all()
        assert row.intervals[0].mean == 0
        assert not np.isnan([cell.low for cell in (*row.intervals[1:], row.area)]).any()
    said = "There is no interval at 0 %, because the value there is the same for every method and every training."
    assert said in intervals_sentences(panel)
    assert said in page.write(tmp_path, shown, None, facts_of(), references=["random"]).read_text()


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (differences(1.0), "all may be right by chance, at the end of the range"),
        ([*differences()[:2], retrained(np.full((3, 3, 40), 0.1), "b", metric="diffroar", direction="higher")], "b"),
        ([curve_of(np.full((40, 1), 0.5), name, at=(0.0,), axis="") for name in "ab"], "one number has no axis"),
        ([curve_of(np.full((40, 2), 0.5), name, at=(0.1, 0.5)) for name in "ab"], "by chance, where some are removed"),
    ],
)
def test_values_that_are_equal_by_chance_keep_their_interval(shown, why):
    (panel,) = panels(shown)
    assert panel.fixed == (), why


def test_verdicts_and_areas_are_those_without_the_rule():
    shown = differences()
    (panel,) = panels(shown, ["random"])
    for row in panel.rows:
        own = summaries(shown)[[curve.method for curve in shown].index(row.method)]
        assert row.area == own.area
        assert row.intervals[1:] == own.points[1:]


EASY = """
import torch

from efface.base.types import Split


def colours():
    def split(n):
        classes = torch.arange(n) % 4
        images = torch.full((n, 3, 16, 16), 60, dtype=torch.uint8)
        for channel in range(3):
            images[classes == channel, channel] = 200
        return Split(images, classes)

    return {"train": split(64), "test": split(24)}
"""


@pytest.fixture(scope="module")
def two_networks(tmp_path_factory):
    """A study of a network that has learnt nothing and of one that has learnt; each of two seeds."""
    folder = tmp_path_factory.mktemp("networks")
    weak = {"fit.optimizer": {"call": "torch.optim.SGD", "kwargs": {"lr": 0.0}}}
    changes = {"data": "easy.colours", "metrics": ["morf"], "fractions": [0.5], "repeats": None}
    study = write_study(
        folder, {"easy": EASY}, variants={"good": {"fit.epochs": 12}, "weak": weak}, seeds=[1, 2], **changes
    )
    assert efface(folder, "all", study.name).code == 0
    return folder


def cautions_of(path):
    """The cautions that stand above all numbers of a page."""
    above = path.read_text().partition('<section id="answer">')[2].partition('<p class="lead">')[0]
    return html.unescape(re.sub("<[^>]*>", "\n", above))


WEAK = r"classifies only \d+\.?\d* % of the test images correctly, and chance is 25 %"


@pytest.mark.long
def test_the_cautions_of_each_network_stand_above_its_numbers_in_every_view(two_networks, tmp_path):
    run = two_networks / "run"
    together = run / "report/report.html"
    assert efface(two_networks, "compare", "run/weak", "run/good", f"--out={tmp_path / 'both'}").code == 0
    assert efface(two_networks, "compare", "run/good/seed-1", "run/weak/seed-1", f"--out={tmp_path / 'one'}").code == 0
    for path in (together, tmp_path / "both/report.html", tmp_path / "one/report.html"):
        said = cautions_of(path)
        assert re.search(f"weak[^\n]*: The network {WEAK}", said) or re.search(
            f"seed-1[^\n]*: The network {WEAK}", said
        )
        assert not re.search(f"good[^\n]*{WEAK}", said), path
        text = path.read_text()
        assert "has learnt little" in text
        assert re.search(r"weak[^;]*?, [\d. to]+ % of the test images right", text), "how good each network is"
        assert "efface all" in text.partition("</header>")[0], "how it is made again"
    for seed in (1, 2):
        assert re.search(WEAK, cautions_of(run / f"weak/seed-{seed}/report/report.html"))
        assert not re.search(WEAK, cautions_of(run / f"good/seed-{seed}/report/report.html"))
    assert efface(two_networks, "report", "run/weak").code == 0, "by its plan alone, without its code"
    assert re.search(WEAK, cautions_of(run / "weak/seed-1/report/report.html"))
    assert re.search(f"seeds? 1[^\n]*: The network {WEAK}", cautions_of(run / "weak/report/report.html"))


def test_a_method_looks_the_same_on_the_page_of_a_run_and_on_that_of_its_seeds(two_networks):
    one = drawn(two_networks / "run/good/seed-1/report/report.html")
    assert efface(two_networks, "report", "run/good").code == 0
    seeds = drawn(two_networks / "run/good/report/report.html")
    assert {name: seeds[name] for name in one} == one
    assert len({*one.values()}) == len(one) == 4


VECTORS = """
import torch
from torch import nn

from efface.base.types import Split


def rows():
    def split(n):
        classes = torch.arange(n) % 2
        images = torch.randint(0, 100, (n, 20, 1, 1), generator=torch.Generator().manual_seed(n)).to(torch.uint8)
        images[:, 3, 0, 0] = 200 * classes.to(torch.uint8)
        return Split(images, classes)

    return {"train": split(64), "test": split(24)}


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(20, 2))
"""


def test_maps_of_one_pixel_of_many_channels_are_a_heat_map_of_all_coordinates(tmp_path):
    methods = [{"name": name, "method": name} for name in ("random", "gradient")]
    study = write_study(
        tmp_path,
        {"vectors": VECTORS},
        data="vectors.rows",
        model={"call": "vectors.network"},
        attribution_methods=methods,
        post=["absolute"],
        unit="feature",
        metrics=["morf"],
        fractions=[0.5],
        repeats=None,
    )
    done = efface(tmp_path, "all", study.name)
    assert done.code == 0, done.err
    text = (tmp_path / "run/report/report.html").read_text()
    heat = re.findall(r'<img src="data:image/png;base64,([^"]*)"', text.partition('class="gallery heat"')[2])
    sizes = []
    for each in heat:
        with Image.open(io.BytesIO(base64.b64decode(each))) as picture:
            sizes.append(picture.size)
    assert len(sizes) == 3, "the images, and the maps of two methods"
    assert [width // 8 for width, _ in sizes] == [20, 1, 20], "a random map has one value for all channels"
    assert "has one value for all channels of a position" in text
    assert len({height for _, height in sizes}) == 1, "the same images in each"
    assert "three channels" not in text
