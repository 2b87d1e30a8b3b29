"""The table that a measuring command prints: the numbers and words of the page, in little space."""

import re

import numpy as np
import pandas as pd
import pytest

from efface.report import page
from efface.report.verdicts import MOST_METRICS, MOST_ROWS, WIDTH, printed
from efface.report.words import VERDICTS
from efface.stages.page.printed import say_verdicts
from small.reports import curve_of, facts_of

RETRAINED = {"metric": "roar", "score": "accuracy", "sample": "repeats", "family": "retraining", "summary": "area"}


def noisy(level, method, n=60, **changes):
    """A curve that falls to this level, with some noise of its own for each image."""
    noise = np.random.default_rng(abs(hash_of(method))).normal(0, 0.02, (n, 3))
    return curve_of(np.array([0.9, level, 0.1]) + noise, method, **changes)


def hash_of(text):
    return sum(ord(letter) * 31**place for place, letter in enumerate(text[:6]))


def some(metric="morf", methods=("random", "good", "bad", "like_random"), **changes):
    levels = {"random": 0.5, "good": 0.3, "bad": 0.7, "like_random": 0.5}
    return [noisy(levels[method], method, metric=metric, control=method == "random", **changes) for method in methods]


def write(folder, curves, **how):
    how = {"references": ("random",)} | how
    return page.write(folder, curves, None, facts_of(), **how)


def table_of(folder):
    return pd.read_csv(
        folder / "verdicts.csv", keep_default_na=False, na_values={name: [""] for name in ("low", "high", "rank")}
    )


def test_cells_have_the_number_and_the_word_of_the_page(tmp_path, capsys):
    path = write(tmp_path, some() + some("lerf", direction="higher"))
    say_verdicts(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    html = path.read_text()
    cells = re.findall(
        r'<td class="\w+" data-column="\w+" data-metric="(\w+)" data-score="\w+" data-method="(\w+)" '
        r'data-verdict="(\w+)" data-area="([^"]+)"',
        html,
    )
    assert len(cells) == 8
    said = {line.split()[0]: " ".join(line.split()) for line in lines if line}
    for method in dict.fromkeys(method for _, method, *_ in cells):
        rest = said[method].removeprefix(method)
        for _, _, verdict, area in (each for each in cells if each[1] == method):  # in the order of the columns
            number, rest = rest.strip().split(VERDICTS[verdict], 1)
            assert number.startswith(f"{float(area):.3f} ")
            assert f">{number.strip()}<" in html  # as the table of the metric has it
        assert rest == ""
    assert "Numbers: the area of morf and lerf, with 95 % intervals. Compared with random." in lines


def test_the_best_come_first_and_the_control_last(tmp_path):
    write(tmp_path, some())
    table = table_of(tmp_path)
    lines = printed(table)
    assert [line.split()[0] for line in lines[3:7]] == ["good", "like_random", "bad", "random"]
    assert dict(zip(table.method, table["rank"], strict=True)) == {"good": 1, "random": 2, "like_random": 2, "bad": 4}


@pytest.mark.long
def test_only_the_metrics_that_were_asked_for_are_shown(tmp_path):
    write(tmp_path, some() + some("lerf", direction="higher"))
    table = table_of(tmp_path)
    assert "lerf" not in " ".join(printed(table, ["morf"]))
    assert "probability, higher is better" in printed(table, ["lerf"])[2]
    assert printed(table, ["roar"]) == []


@pytest.mark.long
@pytest.mark.parametrize("control", [True, False])
def test_of_many_methods_the_best_are_shown_and_the_rest_is_counted(tmp_path, control):
    methods = [noisy(0.2 + 0.005 * at, f"method_{at}") for at in range(39)]
    write(tmp_path, some(methods=("random",)) * control + methods)
    lines = printed(table_of(tmp_path))
    rows = [line.split()[0] for line in lines[3 : 3 + MOST_ROWS]]
    assert len(set(rows)) == MOST_ROWS
    assert (rows[-1] == "random") == control
    assert set(rows[:4]) <= {f"method_{at}" for at in range(12)}
    assert f"{39 + control - MOST_ROWS} more methods: see the page" in lines


@pytest.mark.long
def test_no_line_is_wider_than_100_characters_and_columns_that_do_not_fit_stand_below(tmp_path):
    long = "a_method_with_a_name_of_eighty_characters_which_is_the_longest_that_a_study_takes"[:80]
    curves = [curve for at in range(9) for curve in some(f"metric_{at}")]
    curves += [noisy(0.3, long, metric=f"metric_{at}") for at in range(9)]
    write(tmp_path, curves)
    lines = printed(table_of(tmp_path))
    assert max(map(len, lines)) <= WIDTH
    assert [metric for metric in range(9) if f"metric_{metric}" in " ".join(lines)] == list(range(MOST_METRICS))
    assert f"{9 - MOST_METRICS} more metrics: see the page" in lines
    assert any(line.startswith("a_method_with_a_name_of_eig...") for line in lines)


@pytest.mark.long
def test_a_verdict_that_leakage_may_explain_has_its_caution(tmp_path):
    draw = np.random.default_rng(0)
    levels = {"random": 0.5, "outlined": 0.8}
    curves = [
        curve_of(0.01 * draw.normal(size=(5, 3)) + level, method, control=method == "random", **RETRAINED)
        for method, level in levels.items()
    ]
    path = write(tmp_path, curves)
    assert "†" in path.read_text()
    lines = printed(table_of(tmp_path))
    (row,) = (line for line in lines if line.startswith("outlined"))
    assert row.endswith("worse†")
    assert lines[-1].startswith("† The outline of the erased pixels may tell the class")


def test_what_judges_the_network_is_a_line_of_its_own(tmp_path):
    own = noisy(0.4, "network", metric="robust_accuracy", score="accuracy", family="network", direction="higher")
    write(tmp_path, [*some(), own])
    lines = printed(table_of(tmp_path))
    assert lines[-1].startswith("robust_accuracy of the network: 0.4")
    assert lines[-1].endswith("(area of accuracy, higher is better)")
    assert not any("robust_accuracy" in line for line in lines[:-1])
    assert printed(table_of(tmp_path), ["robust_accuracy"]) == lines[-1:]


def test_a_metric_of_the_network_without_a_direction_describes_it(tmp_path):
    write(tmp_path, [*some(), noisy(0.4, "network", metric="r_oms", family="network", direction="none")])
    (line,) = [line for line in printed(table_of(tmp_path)) if line.startswith("r_oms of the network")]
    assert line.endswith("describes)")


def test_signs_that_the_terminal_lacks_become_plain_ones(tmp_path, monkeypatch):
    import io
    import sys

    write(tmp_path, some())
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    say_verdicts(tmp_path)
    out.flush()
    said = out.buffer.getvalue().decode("ascii")
    assert "+-" in said or "[0." in said
    assert "better" in said


def test_without_a_page_nothing_is_said(tmp_path, capsys):
    say_verdicts(tmp_path)
    assert capsys.readouterr().out == ""
