"""All stages on a small study: killed, started again, done twice, tampered with. Whatever happens, the table is one."""

import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from filelock import Timeout

from efface.__main__ import main
from efface.plug.call import resolve
from efface.stages.page.gallery_data import gallery
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.store.locks import locked
from efface.study.study import read
from small.messages import names
from small.studies import MODULES, STUDY, efface, ended, files, start, write_study
from small.tiers import first_short


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study after an undisturbed run."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder)
    assert efface(folder, "all", "study.yml").code == 0
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    """A finished study to tamper with."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    return folder


def rows(folder, out="run"):
    return [json.loads(line) for line in (folder / out / "results.jsonl").read_text().splitlines()]


def scores(folder, out="run"):
    """The table: what was measured, by key, to the last bit, with the values of each image."""
    found = {}
    for row in rows(folder, out):
        if "accuracy" in row:
            with np.load(folder / out / "scores" / f"{row['key']}.npz") as values:
                each = {name: values[name].tobytes() for name in values.files}
            found[row["key"]] = (row["accuracy"], row["probability"], row["n"], each)
    return found


def maps(folder, out="run"):
    """Every byte of every map file."""
    return {each.name: each.read_bytes() for each in (folder / out / "maps").iterdir() if each.is_file()}


def summary(folder, out="run"):
    return (folder / out / "report" / "summary.csv").read_text()


def weights(folder, out="run"):
    (path,) = (folder / out / "models").glob("network-*.pt")
    return {name: value.numpy().tobytes() for name, value in torch.load(path, weights_only=True).items()}


def assert_same(folder, finished, out="run"):
    assert scores(folder, out) == scores(finished)
    assert summary(folder, out) == summary(finished)
    assert weights(folder, out) == weights(finished)
    assert maps(folder, out) == maps(finished)


def sizes_and_bytes(folder):
    return {
        name: digest
        for name, (_, digest) in files(folder).items()
        if ".said-" not in name and name not in (".lock", ".owner", ".report-lock")
    }


def wrong(result):
    """The one line of an error: nothing but it is on stderr, bars aside."""
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if line.startswith("efface:")]
    assert len(lines) == 1, result.err
    return lines[0]


# Done once


def test_the_table_holds_every_probe_once_and_the_curves_start_at_nothing_removed(finished):
    # morf: 2 fractions x 4 maps, and nothing removed; roar: the same, twice. Before them, whether the 4 maps are fit.
    assert len(scores(finished)) == (2 * 4 + 1) + 2 * (2 * 4 + 1)
    assert sum(row["probe"]["probe"] == "degeneracy" for row in rows(finished)) == 4
    assert len({row["key"] for row in rows(finished)}) == len(rows(finished))
    lines = summary(finished).splitlines()
    assert sum(line.startswith("morf,accuracy,") for line in lines) == 3 * 4


def test_a_second_run_writes_no_file_and_computes_nothing(finished):
    before = files(finished / "run")
    again = efface(finished, "all", "study.yml")
    assert (again.code, again.err) == (0, "")
    assert not any(word in again.out for word in ("trained", "extracted", "probes to run"))
    after = files(finished / "run")
    for each in (before, after):
        del each[".lock"], each[".report-lock"], each[".owner"]  # says which process had the folder last
    assert after == before


@pytest.mark.long
def test_another_score_judges_without_a_number_computed_anew(copy):
    before = rows(copy)
    assert efface(copy, "report", "study.yml").code == 0
    compared = pd.read_csv(copy / "run" / "report" / "comparisons.csv")
    assert set(compared[compared.metric == "morf"].score) == {"accuracy"}
    plain = pd.read_csv(copy / "run" / "report" / "summary.csv")
    result = efface(copy, "measure", "study.yml", "metrics=[{name: morf, judge_by: relative_change}, roar]")
    assert result.code == 0, result.err
    assert rows(copy) == before
    compared = pd.read_csv(copy / "run" / "report" / "comparisons.csv")
    assert set(compared[compared.metric == "morf"].score) == {"relative_change"}
    judged = pd.read_csv(copy / "run" / "report" / "summary.csv")
    morf = [table[table.metric == "morf"].sort_values(["score", "method", "fraction"]) for table in (plain, judged)]
    for name in ("mean", "low", "high", "area", "random_difference"):
        np.testing.assert_array_equal(morf[0][name], morf[1][name])
    assert judged[judged.metric == "morf"].score.iloc[0] == "relative_change"
    wrong_score = efface(copy, "measure", "study.yml", "metrics=[{name: morf, judge_by: relativ}]")
    assert wrong_score.code == 2
    assert names(wrong_score.err, "metrics judge_by 'relativ' accuracy relative_change")


def test_a_measuring_command_prints_the_verdicts_of_its_metrics(copy):
    for metrics, others in ((["morf"], ["roar"]), (["roar"], ["morf"]), ([], [])):
        asked = ["--metrics", ",".join(metrics)] if metrics else []
        said = efface(copy, "measure", "study.yml", *asked).out
        heading, below = (line.split() for line in said[said.index("method ") :].splitlines()[:2])
        assert heading == ["method", *(metrics or ["roar", "morf"])]
        assert below[:2] == ["accuracy,", "lower"]
        assert not any(f" {other}" in said for other in others)
    table = pd.read_csv(copy / "run" / "report" / "verdicts.csv")
    assert set(table.method) == {"random", "mine", "red", "green"}
    for line in said[said.index("method ") :].splitlines()[2:6]:
        method, number = line.split()[:2]
        (value,) = table[(table.method == method) & (table.metric == "roar")].value
        assert number == f"{value:.3f}"
    again = efface(copy, "measure", "study.yml").out  # the page is kept
    assert said == again


@pytest.mark.long
def test_all_five_metrics_share_their_probes_with_the_two_that_ran(copy, finished):
    result = efface(copy, "all", "study.yml", "metrics=[morf, lerf, roar, kar, diffroar]")
    assert result.code == 0
    # lerf: 2 fractions x 4 maps; kar the same, twice; diffroar nothing.
    assert f"{2 * 4 + 2 * 2 * 4} probes to run, {2 * 2 * 4} of them trainings" in result.out
    assert scores(finished).items() <= scores(copy).items()
    assert set(summary(finished).splitlines()) <= set(summary(copy).splitlines())


def test_metrics_by_option_runs_those_alone_also_one_that_the_study_does_not_list(copy):
    result = efface(copy, "measure", "study.yml", "--metrics", "lerf,morf")
    assert "8 probes to run, 0 of them trainings" in result.out
    assert {line.split(",")[0] for line in summary(copy).splitlines()[1:]} == {
        "accuracy",
        "lerf",
        "morf",
        "roar",
    }  # and what was there


@pytest.mark.long
def test_shapes_hold_in_every_stage(tmp_path, monkeypatch, capsys):
    # In this process, where every signature's shapes are checked while it runs.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    write_study(tmp_path, fractions=[0.5], repeats=1)
    for stage in ("check", "train", "extract", "measure", "status"):
        assert main([stage, "study.yml"]) == 0
    assert "0 left" in capsys.readouterr().out


# Killed


@pytest.mark.long
def test_killed_at_any_touch_of_a_file_it_ends_as_if_never_killed(finished, tmp_path):
    write_study(tmp_path)
    draw, kills = random.Random(0), 0  # noqa: S311
    at = [1, 2, 3, 4, 6, 8]  # the run folder itself, then anywhere
    while (result := efface(tmp_path, "all", "study.yml", kill_at=at.pop(0))).code == -signal.SIGKILL:
        at = at or [draw.randint(12, 60)]
        kills += 1
        assert kills < 60
    assert result.code == 0, result.err
    assert kills > 8
    assert_same(tmp_path, finished)


@pytest.mark.long
def test_killed_at_any_moment_it_ends_as_if_never_killed(finished, tmp_path):
    write_study(tmp_path)
    draw, kills = random.Random(time.time_ns()), 0  # noqa: S311
    while True:
        process = start(tmp_path, "all", "study.yml")
        process.join(draw.uniform(0.2, 2.0) if kills < 12 else 120)
        if process.exitcode is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    assert ended(process, tmp_path).code == 0
    assert_same(tmp_path, finished)


@pytest.mark.long
def test_a_parent_killed_while_its_workers_write_is_gone_on_from_at_once_and_processes_give_what_serial_gives(
    finished, tmp_path
):
    slow = MODULES["mine"].replace("    return", "    import time\n    time.sleep(0.2)\n    return")
    write_study(tmp_path, executor={"call": "efface.execute.processes", "kwargs": {"workers": 2}})
    (tmp_path / "mine.py").write_text(slow)
    process = start(tmp_path, "all", "study.yml")
    _until((tmp_path / "run" / "maps" / "mine-train.h5.partial").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    _until(lambda session=process.pid: not _has_processes(session))
    process = start(tmp_path, "all", "study.yml")
    _until(lambda: (tmp_path / "run" / "results.jsonl").exists() and len(rows(tmp_path)) > 10)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    _until(lambda session=process.pid: not _has_processes(session))
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 0, result.err
    # Its source differs, and so do the keys; its numbers do not.
    assert sorted(map(str, scores(tmp_path).values())) == sorted(map(str, scores(finished).values()))
    assert summary(tmp_path) == summary(finished)


def _has_processes(session):
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def _until(happened):
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.05)
    pytest.fail("waited five minutes for nothing")


@pytest.mark.parametrize(
    ("stop", "workers"),
    [
        (signal.SIGINT, 1),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 1, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.long),
    ],
)
def test_a_stop_by_a_signal_says_that_the_same_command_goes_on(finished, tmp_path, stop, workers):
    write_study(tmp_path)
    more = (f"executor={{call: processes, kwargs: {{workers: {workers}}}}}",) if workers > 1 else ()
    process = start(tmp_path, "all", "study.yml", "repeats=500", *more)  # it cannot end by itself, however busy we are
    _until(lambda: (tmp_path / "run" / "results.jsonl").exists() and len(rows(tmp_path)) > 10)
    os.kill(process.pid, stop)
    result = ended(process, tmp_path)
    assert result.code == 130
    assert names(wrong(result), "stopped same command")
    _until(lambda: not _has_processes(process.pid))
    assert efface(tmp_path, "all", "study.yml").code == 0
    assert scores(tmp_path).items() >= scores(finished).items()
    assert summary(tmp_path) == summary(finished)
    assert maps(tmp_path).items() >= maps(finished).items()  # it has maps of random for more trainings


@pytest.mark.long
def test_status_and_report_do_not_disturb_a_run(finished, tmp_path):
    write_study(tmp_path)
    process = start(tmp_path, "all", "study.yml")
    while process.is_alive():
        looked = efface(tmp_path, "status", "study.yml")
        assert looked.code == 0, looked.err
        if (tmp_path / "run" / "results.jsonl").exists():
            assert efface(tmp_path, "report", "study.yml").code == 0
    assert ended(process, tmp_path).code == 0
    assert_same(tmp_path, finished)


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "inside"), [("report", "runs_of"), ("report", "write_pages"), ("measure", "write_pages")]
)
def test_results_are_read_and_pages_written_by_one_process_at_a_time(copy, monkeypatch, stage, inside):
    module = importlib.import_module(f"efface.stages.{stage}")
    plainly, was_held = getattr(module, inside), []

    def watched(*given, **settings):
        try:
            with locked(copy / "run" / ".report-lock", wait=False):
                was_held.append(False)
        except Timeout:
            was_held.append(True)
        return plainly(*given, **settings)

    monkeypatch.chdir(copy)
    monkeypatch.setattr(module, inside, watched)
    assert main([stage, "study.yml"]) == 0
    assert was_held[-1]


@pytest.mark.long
def test_two_at_once_in_one_folder_are_told_so(tmp_path):
    write_study(tmp_path)
    process = start(tmp_path, "all", "study.yml")
    _until((tmp_path / "run" / "models").exists)
    second = efface(tmp_path, "extract", "study.yml")
    assert second.code == 1
    assert names(wrong(second), f"run {process.pid}")
    assert ended(process, tmp_path).code == 0


# The same by another road


@pytest.mark.long
def test_images_from_a_file_give_what_images_in_memory_give(finished, tmp_path):
    write_study(tmp_path)
    assert efface(tmp_path, "all", "study.yml", "memory_gb=0").code == 0
    assert len(list((tmp_path / "run" / "data").glob("*.h5"))) == 2
    assert_same(tmp_path, finished)


@pytest.mark.long
def test_other_batches_and_another_folder_give_the_same_maps(finished, tmp_path):
    write_study(tmp_path)
    assert efface(tmp_path, "extract", "study.yml", "max_batch=5", "out=other").code == 0
    for path in sorted((finished / "run" / "maps").glob("*.h5")):
        with h5py.File(path) as one, h5py.File(tmp_path / "other" / "maps" / path.name) as two:
            np.testing.assert_allclose(one["maps"][:], two["maps"][:], atol=1e-5, rtol=0)


def test_a_copied_folder_with_other_rows_and_executor_runs_nothing_again(copy):
    shutil.move(copy / "run", copy / "moved")
    before = sizes_and_bytes(copy / "moved")
    words = (
        "out=moved",
        "max_batch=7",
        "executor={call: efface.execute.processes, kwargs: {workers: 2}}",
        "memory_gb=1",
    )
    result = efface(copy, "all", "study.yml", *words)
    assert result.code == 0
    assert "to run" not in result.out + result.err
    assert "extract" not in result.out + result.err
    after = sizes_and_bytes(copy / "moved")
    for name in ("results.jsonl", *(name for name in before if name.startswith(("maps/", "models/", "scores/")))):
        assert after[name] == before[name]


def test_a_renamed_method_runs_nothing_again(copy, finished):
    methods = [m | {"name": m["name"].replace("mine", "ours")} for m in STUDY["attribution_methods"]]
    write_study(copy, attribution_methods=methods)
    result = efface(copy, "all", "study.yml")
    assert result.code == 0, result.err
    assert (copy / "run" / "results.jsonl").read_bytes() == (finished / "run" / "results.jsonl").read_bytes()
    assert maps(copy)["ours-train.h5"] == maps(finished)["mine-train.h5"]
    assert sorted(summary(copy).replace("ours", "mine").splitlines()) == sorted(summary(finished).splitlines())


def test_an_import_inside_a_function_counts_from_the_start(copy):
    late = MODULES["mine"].replace("    return", "    import helper\n\n    return helper.one *")
    (copy / "mine.py").write_text(late)
    (copy / "helper.py").write_text("one = 1\n")
    for _ in range(2):
        result = efface(copy, "all", "study.yml")
        assert result.code == 0, result.err
    assert "extracted" not in result.out
    (copy / "helper.py").write_text("one = 2\n")
    assert "extracted 2 of 2" in efface(copy, "all", "study.yml").out


def test_an_edited_method_is_extracted_and_measured_again_alone(copy, finished):
    (copy / "mine.py").write_text(MODULES["mine"].replace("gain * images", "gain * images.square()"))
    result = efface(copy, "all", "study.yml")
    assert result.code == 0, result.err
    assert "extracted 2 of 2 sets of maps" in result.out
    assert f"{1 + 2 + 2 * 2} probes to run, {2 * 2} of them trainings" in result.out
    old, new = maps(finished), maps(copy)
    assert {name for name in old if old[name] != new[name]} == {"mine-train.h5", "mine-test.h5"}
    assert scores(finished).items() <= scores(copy).items()


def test_a_comment_in_a_method_runs_nothing_again(copy):
    (copy / "mine.py").write_text('"""About it."""\n' + MODULES["mine"] + "\n# and a comment\n")
    before = files(copy / "run" / "maps") | files(copy / "run" / "scores")
    assert efface(copy, "all", "study.yml").code == 0
    assert files(copy / "run" / "maps") | files(copy / "run" / "scores") == before


@pytest.mark.long
def test_another_post_extracts_nothing_and_measures_all_maps_again(copy):
    result = efface(copy, "all", "study.yml", "post=[efface.erase.post.square, efface.erase.post.channel_sum]")
    assert "extracted" not in result.out
    assert f"{4 + 24} probes to run, 16 of them trainings" in result.out


@pytest.mark.long
def test_another_fit_trains_extracts_and_measures_again(copy, finished):
    result = efface(copy, "all", "study.yml", "fit.epochs=1")
    assert "trained 1 epochs" in result.out
    assert "extracted 8 of 8" in result.out  # random has maps of its own for the second training
    assert f"{4 + 27} probes to run" in result.out
    assert scores(finished).items() <= scores(copy).items()


LIGHTER = """
from efface.base import draws


def lighter(images, seeds, *, by: float = 0.1):
    return (images + by * draws.uniform(seeds, (1, 1, 1))).clamp(0, 1)
"""


@pytest.mark.long
def test_with_augmentations_and_an_early_end_a_killed_run_is_the_same_and_edits_count(tmp_path):
    augment = [
        {
            "call": "efface.training.augment.colour_jitter",
            "kwargs": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
        },
        {"call": "efface.training.augment.rotation", "kwargs": {"degrees": 5.0}},
        "own.lighter",
    ]
    fit = STUDY["fit"] | {"epochs": 40, "augment": augment, "stop": {"loss": 1.37}}
    changes = {"fit": fit, "metrics": ["roar"], "fractions": [0.5], "repeats": 1, "modules": {"own": LIGHTER}}
    changes["attribution_methods"] = STUDY["attribution_methods"][:1]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write_study(folder, **changes)
    assert efface(whole, "all", "study.yml").code == 0
    (trained,) = [row for row in rows(whole) if row["probe"]["probe"] == "train"]
    assert 2 < len(trained["losses"]) == trained["epoch_kept"] < 40
    assert trained["losses"][-1] < 1.37 <= min(trained["losses"][:-1])
    retrained = [row["epochs"] for row in rows(whole) if row["probe"]["probe"] == "retrain"]
    assert len(retrained) == 2
    assert all(2 < epochs <= 40 for epochs in retrained)
    assert efface(killed, "all", "study.yml", kill_at=10).code == -signal.SIGKILL
    assert any((killed / "run" / "partial").iterdir())
    assert efface(killed, "all", "study.yml").code == 0
    assert_same(killed, whole)
    before = sizes_and_bytes(whole / "run")
    assert efface(whole, "all", "study.yml").code == 0
    assert sizes_and_bytes(whole / "run") == before
    (whole / "own.py").write_text(LIGHTER.replace("by *", "0.5 * by *"))
    assert efface(whole, "all", "study.yml").code == 0
    assert len([row for row in rows(whole) if row["probe"]["probe"] == "train"]) == 2
    assert not {*scores(killed)} & ({*scores(whole)} - {*scores(killed)})
    assert len(scores(whole)) == 2 * len(scores(killed))


@pytest.mark.long
def test_more_fractions_cost_only_themselves_and_one_of_all_is_shared_by_all_maps(copy):
    result = efface(copy, "all", "study.yml", "fractions=[0.3, 0.7, 1.0]")
    assert f"{1 + 2} probes to run, 2 of them trainings" in result.out


# Broken files


def _swap(folder):
    one, two = folder / "mine-train.h5", folder / "mine-test.h5"
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)
    return one


def _shorten(folder):
    path = folder / "mine-train.h5"
    with h5py.File(path, "r+") as file:
        shorter = {name: file[name][:40] for name in file}
        for name, data in shorter.items():
            del file[name]
            file[name] = data
    return path


def _replace(folder):
    path = folder / "mine-train.h5"
    with h5py.File(path, "w") as file:
        file["maps"] = np.zeros((48, 16, 16), np.float32)
    return path


def _cut(folder):
    path = folder / "mine-train.h5"
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def _cut_to_nothing(folder):
    path = folder / "mine-train.h5"
    path.write_bytes(b"")
    return path


def _flip(folder):
    path = folder / "mine-train.h5"
    with h5py.File(path) as file:
        at = file["maps"].id.get_offset() + 4 * 16 * 16 * 30 + 400
    content = bytearray(path.read_bytes())
    content[at] ^= 64
    path.write_bytes(content)
    return path


def _leave_unfinished(folder):
    path = folder / "mine-train.h5"
    with h5py.File(path, "r+") as file:
        file["done"][40:] = 0
    return path


def _take_the_network_of_another(folder):
    path = folder / "mine-train.h5"
    with h5py.File(path, "r+") as file:
        made_from = json.loads(file.attrs["provenance"])
        file.attrs["provenance"] = json.dumps(made_from | {"data": "0" * 16})
    return path


BROKEN = {
    _swap: "split test train",
    _shorten: "48",
    _replace: "map file",
    _cut: "HDF5",
    _cut_to_nothing: "HDF5",
    _flip: "row 30",
    _leave_unfinished: "40 48",
    _take_the_network_of_another: "other data",
}


REFUSED = (_swap, _take_the_network_of_another)
"""Whole files in the wrong place, which nobody but their owner may move."""


@pytest.mark.parametrize("break_it", first_short(2, BROKEN), ids=lambda each: each.__name__.strip("_"))
def test_a_broken_map_file_is_named_and_nothing_is_lost(copy, break_it):
    memory = "0" if break_it in (_swap, _shorten, _replace) else "2.0"  # read beside the images from their file
    whole = maps(copy)
    path = break_it(copy / "run" / "maps")
    broken, before = path.read_bytes(), sizes_and_bytes(copy / "run")
    result = efface(copy, "all", "study.yml", "fractions=[0.3, 0.7, 0.9]", f"memory_gb={memory}")
    assert names(wrong(result), f"run/maps/{path.name} {BROKEN[break_it]}")
    if break_it not in REFUSED:
        assert result.code == 0
        assert path.with_name(f"{path.name}.damaged-1").read_bytes() == broken
        assert path.read_bytes() == whole[path.name]
        return
    assert result.code == 1
    after = sizes_and_bytes(copy / "run")
    for name in ("study.yml", "plan.json"):  # of the study that was asked for last
        del before[name], after[name]
    assert before.items() <= after.items()


def test_a_deleted_map_file_of_a_family_comes_back_the_same_with_its_siblings(copy, finished):
    (copy / "run" / "maps" / "green-train.h5").unlink()
    result = efface(copy, "all", "study.yml")
    assert result.code == 0, result.err
    assert "extracted 1 of 1" in result.out
    assert "to run" not in result.out
    assert_same(copy, finished)


@pytest.mark.long
def test_an_unfinished_file_of_other_maps_is_started_anew(copy, finished):
    path = copy / "run" / "maps" / "mine-train.h5"
    path.rename(path.with_name("mine-train.h5.partial"))
    with h5py.File(path.with_name("mine-train.h5.partial"), "r+") as file:
        made_from = json.loads(file.attrs["provenance"])
        file.attrs["provenance"] = json.dumps(made_from | {"network": "0" * 16})
        file["maps"][:] = 0
    assert efface(copy, "all", "study.yml").code == 0
    assert_same(copy, finished)


def test_a_lost_values_file_is_measured_again(copy, finished):
    lost = next(iter(scores(finished)))
    (copy / "run" / "scores" / f"{lost}.npz").unlink()
    result = efface(copy, "all", "study.yml")
    assert "1 probes to run" in result.out
    assert_same(copy, finished)


# One method fails


@pytest.mark.long
def test_a_method_that_fails_on_the_way_is_named_and_the_others_are_measured(tmp_path, finished):
    late = MODULES["mine"].replace("    return", "    assert len(images) < 3, 'too many'\n    return")
    write_study(tmp_path, {"mine": late})
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 1
    assert "Traceback" not in result.err
    said = [line for line in result.err.splitlines() if line.startswith("efface:")]
    assert names(said[0], "failed mine train AssertionError too many")
    assert names(said[1], "failed mine test AssertionError too many")
    assert names(said[2], "2 failed run/failures.log")
    assert len(said) == 3
    assert "too many" in (tmp_path / "run" / "failures.log").read_text()
    assert scores(tmp_path).items() <= scores(finished).items()
    assert len(scores(tmp_path)) == 27 - 6
    (tmp_path / "mine.py").write_text(MODULES["mine"])
    assert efface(tmp_path, "all", "study.yml").code == 0
    assert_same(tmp_path, finished)


def test_an_unfinished_study_has_a_report_that_says_so(copy):
    assert efface(copy, "report", "study.yml", "fractions=[0.3, 0.7, 0.9]").code == 0
    assert "12 of 43 probes are not run yet" in (copy / "run" / "report" / "report.html").read_text()


def sealed(row):
    """A line of results with the digest of its fields."""
    fields = {name: value for name, value in row.items() if name != "digest"}
    return fields | {"digest": hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]}


def test_a_report_of_what_other_code_measured_is_refused_and_the_old_one_kept(copy):
    path, page = copy / "run" / "results.jsonl", copy / "run" / "report" / "report.html"
    lines = [sealed(row | {"key": row["key"][::-1] + "0"}) for row in rows(copy)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    before = page.read_bytes()
    result = efface(copy, "report", "study.yml")
    assert result.code == 1
    assert names(wrong(result), "results none 31")
    assert page.read_bytes() == before
    assert rows(copy) == lines


# What a study may say


def test_a_study_without_training_images_scores_the_frozen_network(tmp_path):
    mine = MODULES["mine"] + "\n\nfrom efface.data.patches import patches\n\n\ndef test_only():\n"
    mine += "    return {'test': patches(n_train=4, n_test=24, size=16)['test']}\n"
    write_study(tmp_path, {"mine": mine}, data="mine.test_only", fit=None, metrics=["morf", "lerf"])
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 0, result.err
    assert len(scores(tmp_path)) == 2 * 2 * 4 + 1
    assert sorted(maps(tmp_path)) == ["green-test.h5", "mine-test.h5", "random-test.h5", "red-test.h5"]


@pytest.mark.long
def test_views_single_images_true_classes_and_redrawn_rankings(tmp_path):
    pair = (
        MODULES["pair"]
        + "\n\ndef one(model, image, label):\n    return image[0].mean(0).numpy() * (label.item() + 1)\n"
    )
    methods = [
        *STUDY["attribution_methods"],
        {"name": "redrawn", "method": "efface.methods.control.random_resampled"},
        {"name": "single", "method": "pair.one", "batched": False},
        {"name": "negative", "maps": "mine", "post": [{"call": "torch.neg"}]},
        {"name": "again", "maps": "mine", "post": STUDY["post"]},
    ]
    write_study(tmp_path, {"pair": pair}, attribution_methods=methods, explain="true", repeats=1, fractions=[0.5])
    result = efface(tmp_path, "all", "study.yml", "metrics=[morf, lerf, roar]")
    assert result.code == 0, result.err
    table = [line.split(",") for line in summary(tmp_path).splitlines()[1:]]
    names = {metric: {row[2] for row in table if row[0] == metric} for metric in ("morf", "lerf", "roar")}
    assert names["roar"] - names["morf"] == {"redrawn"}
    assert "redrawn" in names["roar"]
    assert "redrawn is ranked anew" in (tmp_path / "run" / "report" / "report.html").read_text()
    # Most relevant first on the negative is least relevant first on the map itself, and a view of the same is the same.
    score = {(m, s, name, f): value for m, s, name, f, value, *_ in (row for row in table)}
    # (but for ties, which are many in an image of 8 bits).
    lerf, morf = (float(score[m, "probability", n, "0.5"]) for m, n in (("lerf", "mine"), ("morf", "negative")))
    assert morf == pytest.approx(lerf, abs=1e-4)
    assert score["morf", "probability", "again", "0.5"] == score["morf", "probability", "mine", "0.5"]
    with (
        h5py.File(tmp_path / "run" / "maps" / "single-test.h5") as one,
        h5py.File(tmp_path / "run" / "maps" / "red-test.h5") as red,
    ):
        assert one["targets"][:].tolist() == [i % 4 for i in range(24)]
        assert one["maps"].shape == red["maps"].shape
    assert not list((tmp_path / "run" / "maps").glob("negative*"))


def test_the_study_in_the_run_is_the_study_that_ran(finished, tmp_path):
    shutil.copy(finished / "run" / "study.yml", tmp_path / "study.yml")
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    shutil.copytree(finished / "run", tmp_path / "run")
    assert yaml.safe_load((tmp_path / "study.yml").read_text())["max_batch"] == 16
    before = (tmp_path / "run" / "results.jsonl").read_bytes()
    assert efface(tmp_path, "all", "study.yml").code == 0
    assert (tmp_path / "run" / "results.jsonl").read_bytes() == before


SCALED = """
from torch import nn


class Scaled(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.register_buffer("by", __import__("torch").tensor(by), persistent=False)
        self.last = nn.Linear(3, 4)

    def forward(self, images):
        return self.last(images.mean((2, 3)) * self.by)


def network(by: float = 1.0):
    return Scaled(by)
"""


@pytest.mark.long
def test_a_number_that_no_state_dict_holds_is_part_of_the_network(tmp_path):
    frozen = {"fit": None, "metrics": ["morf"], "attribution_methods": STUDY["attribution_methods"][:1]}
    write_study(tmp_path, {"scaled": SCALED}, model={"call": "scaled.network"}, **frozen)
    assert "4 probes to run" in efface(tmp_path, "all", "study.yml").out
    changed = efface(tmp_path, "all", "study.yml", "model.kwargs.by=-9.0")
    assert "extracted 1 of 1" in changed.out
    assert "4 probes to run" in changed.out
    (tmp_path / "scaled.py").write_text(SCALED.replace("images.mean", "2 * images.mean"))
    assert "4 probes to run" in efface(tmp_path, "all", "study.yml").out


@pytest.mark.long
def test_a_metric_with_its_own_post_and_unit_is_enough_for_a_report(tmp_path):
    entry = {"name": "morf", "kwargs": {"post": ["efface.erase.post.absolute"], "unit": "feature"}}
    gradient = {"name": "gradient", "method": "efface.methods.gradient.gradient"}
    write_study(tmp_path, post=[], metrics=[entry], attribution_methods=[gradient])
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 0, result.err
    assert (tmp_path / "run" / "report" / "report.html").exists()


def test_weights_of_the_study_may_come_from_a_wrapped_network(copy):
    (path,) = (copy / "run" / "models").glob("network-*.pt")
    state = {f"module.{name}": value for name, value in torch.load(path, weights_only=True).items()}
    torch.save({"state_dict": state, "epoch": 3}, copy / "wrapped.pt")
    result = efface(copy, "check", "study.yml", "weights=wrapped.pt")
    assert result.code == 0, result.err
    # The same weights: maps and scores of the frozen network are done, as the fit that retrains is.
    assert "maps: 0 files to extract" in result.out
    assert "probes: 0 of" in result.out


@pytest.mark.long
def test_a_random_rankings_picture_is_what_was_erased(tmp_path, monkeypatch):
    resampled = {"name": "again", "method": "efface.methods.control.random_resampled"}
    write_study(tmp_path, metrics=["roar"], attribution_methods=[resampled], fractions=[0.3])
    assert efface(tmp_path, "extract", "study.yml").code == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    resolve.cache_clear()
    shown = gallery(planned_run(Run(read(tmp_path / "study.yml"))))
    gone = (shown.masked["again"] != shown.images).any(1)
    count = int(0.3 * 256)
    for ranked, erased in zip(shown.maps["again"], gone, strict=True):
        lowest_erased = ranked[erased].min()
        assert (ranked > lowest_erased).sum() < count


LATE = """
from __future__ import annotations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nowhere import Maps


def grey(model, images: Maps, targets) -> Maps:
    return images.mean(1)
"""


@pytest.mark.long
def test_annotations_that_name_nothing_are_the_methods_own_business(tmp_path):
    write_study(tmp_path, {"late": LATE}, attribution_methods=[{"name": "late", "method": "late.grey"}])
    for stage in ("check", "status", "all"):
        result = efface(tmp_path, stage, "study.yml")
        assert result.code == 0, result.err


def test_a_loss_that_does_not_fit_is_one_line_and_its_trace_is_kept(tmp_path):
    fit = STUDY["fit"] | {"loss": "torch.nn.MSELoss"}
    write_study(tmp_path, fit=fit)
    result = efface(tmp_path, "train", "study.yml")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert names(result.err, "efface: failed network RuntimeError")
    assert "Traceback" in (tmp_path / "run" / "failures.log").read_text()


# A known truth

SPOTS = """
import torch
from torch import nn

from efface.base.types import Split

COLOURS = torch.tensor([[230, 60, 60], [60, 230, 60], [60, 60, 230], [220, 220, 40]])


def spots():
    return {"train": split(240, 0), "test": split(120, 1)}


def split(count, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 4
    places = torch.randint(3, 9, (count, 2, 1), generator=generator)
    down, across = (torch.arange(12) - places).unbind(1)
    masks = down[:, :, None].square() + across[:, None, :].square() <= 6
    noise = torch.randint(64, 192, (count, 3, 12, 12), generator=generator)
    spots = (COLOURS[targets][:, :, None, None] + noise) // 2
    return Split(torch.where(masks[:, None], spots, noise).byte(), targets, masks=masks)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 4),
    )
"""


@pytest.mark.long
def test_the_true_map_beats_random_on_every_metric(tmp_path):
    # A spot of the class's colour at a random place on grey noise: its 21 of 144 pixels, and no others, tell the class.
    names = ("random", "true_mask")
    write_study(
        tmp_path,
        {"spots": SPOTS},
        data="spots.spots",
        model="spots.network",
        fit=STUDY["fit"] | {"epochs": 10, "batch_size": 12, "crop": 0},
        explain="true",
        attribution_methods=[{"name": name, "method": f"efface.methods.control.{name}"} for name in names],
        metrics=["morf", "lerf", "roar", "kar", "diffroar"],
        fractions=[0.5],
    )
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 0, result.err
    table = pd.read_csv(tmp_path / "run" / "report" / "summary.csv")
    found = table[(table.fraction == 0.5) & (table.score == "accuracy")].set_index(["metric", "method"])["mean"]
    lead = found.xs("true_mask", level="method") - found.xs("random", level="method")
    assert lead[["lerf", "kar", "diffroar"]].min() > 0.1, found
    assert lead[["morf", "roar"]].max() < -0.1, found
