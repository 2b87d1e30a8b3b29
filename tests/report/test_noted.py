"""What stands above the numbers: methods that failed take no part in them, missing values are counted."""

from dataclasses import replace

import numpy as np

from efface.report import between, page
from efface.report.answer import bests, is_ahead, overall
from efface.report.cells import cell
from efface.report.headline import headline
from efface.report.noted import described, notes
from efface.report.panels import panels
from efface.report.verdicts import printed, verdicts_table
from small.reports import curve_of, facts_of

RNG = np.random.default_rng(0)
LEVELS = {"random": 0.6, "good": 0.2, "best": 0.1, "late": 0.05}


def curves(metric="morf", **changes):
    values = {name: level + 0.02 * RNG.standard_normal((60, 3)) for name, level in LEVELS.items()}
    return [
        curve_of(of, name, metric=metric, control=name == "random", missing=(), **changes)
        for name, of in values.items()
    ]


def ranked(given):
    return [between.with_ranks(one) for one in between.pairs(panels(given, ["random"]))]


def test_a_failed_method_is_never_best_nor_ranked_and_the_others_are():
    *others, late = curves()
    late = replace(late, failed="boom (late.py:3)")  # its numbers, if it has some, do not count
    compared = between.pairs(panels([*others, late], ["random"]))
    (panel,) = ranked([*others, late])
    (best,) = bests(compared)
    assert best.leader.method == "best"
    assert "late" not in (*best.together, *overall([best]).times, *compared[0].methods)
    assert {row.method: row.rank for row in panel.rows} == {"best": 1, "good": 2, "random": 3, "late": 0}
    assert panel.verdict("late") == "failed"
    assert panel.unfinished == ()
    without = ranked(others)[0]
    for name in ("best", "good"):
        assert panel.row(name).p == without.row(name).p, "no comparison with it is corrected for"


def test_the_answer_counts_the_methods_that_did_not_fail():
    *others, late = curves()
    late = replace(late, failed="boom", values=np.full((60, 3), np.nan), missing=(0.5,))
    said = headline(ranked([*others, late]))
    assert said == ["All methods that did not fail are shown to be better than random on morf."]
    kar = [replace(one, metric="kar") for one in curves()]
    assert headline(ranked([*others, late, *kar])) == [
        "All methods that did not fail are shown to be better than random on morf and kar."
    ]


def test_a_failed_cell_tells_why_in_a_sentence():
    *others, late = curves()
    (panel,) = ranked([*others, replace(late, failed="RuntimeError: too many (late.py:3).")])
    made = cell(panel.row("late"), panel)
    assert (made.mark, made.word) == ("✕", "failed")
    assert made.details.startswith("late on morf: it failed: RuntimeError: too many (late.py:3). ")


def test_if_the_reference_failed_nothing_is_compared_with_it():
    first, *others = curves()
    (panel,) = ranked([replace(first, failed="boom", values=np.full((60, 3), np.nan), missing=(0.5,)), *others])
    assert panel.reference == ""
    assert {panel.verdict(name) for name in ("good", "best", "late")} == {"alone"}
    assert notes([panel]) == ["On morf, random failed: boom."]


def test_if_all_failed_the_answer_says_so():
    failed = [replace(one, failed="boom", values=np.full((60, 3), np.nan), missing=(0.5,)) for one in curves()]
    (best,) = bests(between.pairs(panels(failed, ["random"])))
    assert is_ahead(best) == "all failed"
    assert notes([best.panel]) == ["On morf, random, good, best and late failed: boom."]


def test_images_without_a_value_are_told_above_the_numbers(tmp_path):
    given = curves()
    given[1].values[:7] = np.nan
    given[2].values[:] = np.nan
    (panel,) = ranked(given)
    said = [
        "On morf, good had no value on 7 of the 60 images, which are left out.",
        "On morf, best had no value on any of the 60 images.",
    ]
    assert sorted(notes([panel])) == sorted(said)
    lines = printed(verdicts_table([panel]))
    assert all(lines.index(f"Caution: {line}") < lines.index("") + 4 for line in said)
    text = page.write(tmp_path, given, None, facts_of(), references=["random"]).read_text()
    above = text[text.index('<section id="answer">') : text.index('aria-label="Best')]
    assert all(line in above for line in said)


def test_a_metric_without_a_better_direction_is_said_to_describe(tmp_path):
    given = curves("complexity", direction="none")
    assert "complexity only describes the maps" in described(["complexity"])[0]
    text = page.write(tmp_path, given, None, facts_of(), references=["random"]).read_text()
    assert (
        described(["complexity"])[0] in text[text.index('<section id="answer">') : text.index('<section id="verdict">')]
    )
    (panel,) = ranked(given)
    assert any("complexity only describes" in line for line in printed(verdicts_table([panel])))
    assert headline([panel]) == []


def test_all_rows_and_metrics_are_printed_in_any_width_if_asked():
    given = [one for i in range(9) for one in curves(f"m{i}")]
    table = verdicts_table(ranked(given))
    lines = printed(table, width=60, most_rows=None, most_metrics=None)
    assert max(map(len, lines)) <= 60
    text = "\n".join(lines)
    assert all(f"m{i}" in text for i in range(9))
    assert "see the page" not in text
