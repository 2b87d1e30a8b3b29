"""Tables and figures for papers: the same numbers as the page, whole in each form."""

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest

from efface.report import page, paper
from efface.report.answer import bests
from efface.report.between import pairs, with_ranks
from efface.report.panels import panels
from small.reports import curve_of, facts_of

METHODS = ("random", "smooth_grad", "a&b_50%", "grad_cam")
IMAGES = 80


def curves():
    rng = np.random.default_rng(1)
    base = rng.uniform(0.3, 0.6, (IMAGES, 1))
    shifts = dict(zip(METHODS, (0.0, 0.2, 0.1, 0.2), strict=True))
    found = []
    for metric, direction, at in (
        ("morf", "lower", (0.0, 0.5)),
        ("lerf", "higher", (0.0, 0.5)),
        ("gap", "none", (0.0,)),
    ):
        for name in METHODS:
            sign = -1 if direction == "lower" else 1
            values = base + sign * shifts[name] + rng.normal(0, 0.02, (IMAGES, len(at)))
            control = name == "random"
            found.append(curve_of(values, name, metric=metric, direction=direction, at=at, control=control))
    return found


@pytest.fixture(scope="module")
def made():
    compared = pairs(panels(curves(), ["random"]))
    ranked = [with_ranks(one) for one in compared]
    return ranked, bests(compared), paper.tables(METHODS, ranked, bests(compared))


def test_the_table_has_the_numbers_of_the_panels_in_each_form(made):
    ranked, _, tables = made
    by_csv = {line["method"]: line for line in csv.DictReader(io.StringIO(tables.csv))}
    markdown = [line.split("|")[1:-1] for line in tables.md.splitlines() if line.startswith("|")]
    latex = [line[:-3].split(" & ") for line in tables.tex.splitlines() if line.endswith(r"\\")]
    assert len(markdown) == len(METHODS) + 2
    assert len(latex) == len(METHODS) + 1
    for i, name in enumerate(METHODS):
        for j, panel in enumerate(ranked):
            row = panel.row(name)
            assert float(by_csv[name][panel.metric]) == pytest.approx(row.area.mean, rel=1e-12)
            assert by_csv[name][f"{panel.metric} verdict"] == row.verdict
            half = max(row.area.mean - row.area.low, row.area.high - row.area.mean)
            assert f"{row.area.mean:.3f} ± {half:.3f}" in markdown[i + 2][j + 1]
            assert rf"{row.area.mean:.3f} \pm {half:.3f}" in latex[i + 1][j + 1]


def test_bold_is_the_best_and_all_that_are_not_told_apart(made):
    ranked, found, tables = made
    first = {best.panel.metric: set(best.first) for best in found}
    assert first == {"morf": {"smooth_grad", "grad_cam"}, "lerf": {"smooth_grad", "grad_cam"}}
    markdown = [line.split("|")[1:-1] for line in tables.md.splitlines() if line.startswith("|")][2:]
    for name, cells in zip(METHODS, markdown, strict=True):
        for panel, text in zip(ranked, cells[1:], strict=True):
            assert ("**" in text) == (name in first.get(panel.metric, ()))
    assert tables.tex.count(r"\mathbf") == tables.md.count("**") / 2 == 4


def test_names_are_escaped(made):
    *_, tables = made
    assert r"a\&b\_50\%" in tables.tex
    assert not re.search(r"(?<!\\)[&%_](?![ \n])", "".join(re.findall(r"^a.*? & ", tables.tex, re.MULTILINE)))
    assert r"a&b\_50%" in tables.md
    assert tables.tex.count(r"\begin{tabular}{llll}") == 1
    for arrow, metric in (("uparrow", "lerf"), ("downarrow", "morf")):
        assert rf"{metric} $\{arrow}$" in tables.tex


def test_every_number_is_a_line_of_the_tidy_table():
    found = panels(curves(), ["random"])
    table = paper.numbers(found)
    assert len(table) == 2 * len(METHODS) * 3 + 2 * (len(METHODS) - 1) + len(METHODS)
    assert not table.duplicated(["metric", "score", "method", "kind", "at"]).any()
    gains = table[table.kind == "gain"].set_index(["metric", "method"])
    for metric in ("morf", "lerf"):
        assert gains.loc[(metric, "smooth_grad")].value == pytest.approx(0.2, abs=0.02)
        assert gains.loc[(metric, "smooth_grad")].verdict == "better"
    again = pd.read_parquet(io.BytesIO(paper.parquet(table)))
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_without_pyarrow_there_is_no_parquet(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert paper.parquet(pd.DataFrame()) is None


def test_files_of_metrics_have_names_of_their_own():
    assert paper.file_names(["a b", "a-b", "a/b", "..", "é"]) == ["a-b", "a-b-2", "a-b-3", "metric", "metric-2"]


@pytest.mark.long
def test_the_files_lie_beside_the_page_and_figures_are_as_wide_as_a_column(tmp_path):
    page.write(tmp_path, curves(), None, facts_of(), references=["random"])
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"table.csv", "table.md", "table.tex", "results.parquet"} <= names
    assert {f"figures/{metric}.pdf" for metric in ("morf", "lerf", "gap")} <= names
    for metric in ("morf", "lerf", "gap"):
        text = (tmp_path / "figures" / f"{metric}.pdf").read_bytes().decode("latin-1")
        width = float(re.search(r"/MediaBox \[ 0 0 ([\d.]+)", text)[1])
        assert width == pytest.approx(72 * 3.25, abs=0.1)
    first = {name: (tmp_path / name).read_bytes() for name in names}
    page.write(tmp_path, curves(), None, facts_of(), references=["random"])
    assert {name: (tmp_path / name).read_bytes() for name in names} == first
