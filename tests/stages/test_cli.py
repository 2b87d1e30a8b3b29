"""Every mistake gets one clear error on stderr and the right exit status, no traceback, and loses nothing."""

import csv
import importlib
import io
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import h5py
import pytest
import torch
import yaml

import efface as package
from efface.__main__ import STAGES, main
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.stages.trial.methods import preflight
from efface.study.study import read
from small.messages import names
from small.studies import MODULES, STUDY, efface, files, write_study
from small.tiers import first_short

TEST_ONLY = """

def test_only():
    from efface.data.patches import patches
    return {"test": patches(n_train=4, n_test=24, size=16)["test"]}
"""


def errors(result):
    """The lines of an error; stderr holds nothing else but lines of progress."""
    assert "Traceback" not in result.err + result.out, result.err
    bars = ("train:", "extract:", "measure:")
    return [line for line in result.err.splitlines() if line.strip() and not line.lstrip("\r").startswith(bars)]


def error(result, code=1):
    """The one line of an error, of this exit status."""
    assert result.code == code, result.err
    (line,) = errors(result)
    return line


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study whose network is trained and whose maps are there."""
    folder = tmp_path_factory.mktemp("trained")
    write_study(folder)
    assert efface(folder, "extract", "study.yml").code == 0
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    folder = tmp_path / "copy"
    subprocess.run(["cp", "-a", trained, folder], check=True)
    return folder


# The command itself


@pytest.mark.parametrize("stage", STAGES)
def test_help_says_what_the_stage_does(stage, capsys):
    assert main([stage, "-h"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Usage: efface {stage}" in said
    assert f"{STAGES[stage][0].upper()}{STAGES[stage][1:]}." in said
    for word in {"compare": ("--out", "STUDY"), "prune": ("--remove", "STUDY")}.get(stage, ("--metrics", "key=value")):
        assert word in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["measur", "study.yml"], "efface: measur 'measure'"),
        (["train"], "efface train: 'STUDY' train"),
        (["train", "study.yml", "--metric"], "efface train: '--metric' '--metrics'"),
        (["train", "study.yml", "--metrics"], "'--metrics' argument"),
        (["check", "--remove", "study.yml"], "efface check: '--remove'"),
        (["compare"], "efface compare: 'STUDY...'"),
        (["completion", "tcsh"], "efface completion: 'tcsh' 'bash', 'zsh', 'fish'"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_one_line_after_the_usage(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    out, err = capsys.readouterr()
    usage, line = err.splitlines() if "Usage" in err else ("Usage: efface ", err.strip())
    assert out == ""
    assert usage.startswith("Usage: efface ")
    assert names(line, said)
    assert names(line, "-h says takes")


def test_without_words_the_help_is_an_error(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: efface ")
    assert all(f"\n  {stage} " in err for stage in STAGES)


def test_help_does_not_wait_for_torch():
    code = "import sys, efface.__main__\ntry: efface.__main__.main(['-h'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0
    assert all(stage in done.stdout for stage in STAGES)


@pytest.mark.parametrize("words", [["--version"], ["-h"], ["train", "-h"], ["measur"], ["completion", "bash"]])
def test_what_needs_no_study_imports_no_torch(words):
    code = (
        "import sys, efface.__main__ as program\n"
        f"try: program.main({words!r})\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "False False"


def test_the_version_is_that_of_the_package():
    said = subprocess.run([sys.executable, "-m", "efface", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"efface {package.__version__}\n"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == package.__version__


def test_a_stop_while_python_ends_leaves_no_trace():
    code = (
        "import atexit, os, signal, efface.__main__ as program\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "program.main = lambda _: 0\n"
        "program.command()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_stop_while_torch_is_imported_is_one_line(tmp_path):
    write_study(tmp_path)
    command = [sys.executable, "-m", "efface", "status", "study.yml"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  background jobs ignore it
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in maps.read_text():  # torch takes seconds to import after that
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == (130, "", "efface: stopped; the same command continues from here\n")


@pytest.mark.long
def test_the_module_is_the_program(tmp_path):
    command = [sys.executable, "-m", "efface", "status", "nowhere.yml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"nowhere.yml: no such file in {tmp_path}\n")


# The study


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_the_same_of_a_file_that_is_not_there(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    assert main([stage, "studie.yml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert names(line, "studie.yml study.yml")


def test_all_that_is_wrong_with_a_study_is_said_at_once(tmp_path):
    tree = STUDY | {"repeat": 3, "max_batch": "many", "fractions": [0.3, 1.5]}
    tree["fit"] = STUDY["fit"] | {"epoch": 3}
    (tmp_path / "study.yml").write_text(yaml.safe_dump(tree))
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 2
    said = errors(result)
    assert len(said) == 4
    assert all(line.startswith("study.yml: ") for line in said)
    found = "\n".join(said)
    for wrong in ("repeat repeats", "fit.epoch epochs", "max_batch many", "fractions.1"):
        assert any(names(line, wrong) for line in said), (wrong, found)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    first_short(
        4,
        [
            ("fit.epoch=3", "study.yml fit.epoch epochs"),
            ("max_batch=0", "study.yml max_batch"),
            ("epochs", "epochs override key=value"),
            ("attribution_methods.mine.method=mine.brightnes", "mine brightnes brightness"),
            ("attribution_methods.mine.method=theirs.brightness", "module theirs"),
            (
                "attribution_methods.mine.kwargs={gian: 2.0}",
                "mine.brightness gian gain",
            ),
            ("attribution_methods.mine.kwargs={gain: much}", "gain much number"),
            ("metrics=[roar, marf]", "marf"),
        ],
    ),
)
def test_a_wrong_override_is_an_error_of_the_study(word, said, tmp_path):
    write_study(tmp_path)
    assert names(error(efface(tmp_path, "all", "study.yml", word), 2), said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("asked", "said"), [("marf", "marf"), ("roar", "fit")])
def test_a_metric_that_cannot_be_is_an_error_of_the_command(asked, said, tmp_path):
    write_study(tmp_path, fit=None, metrics=["morf"])
    line = error(efface(tmp_path, "measure", "study.yml", "--metrics", asked), 2)
    assert line.startswith("--metrics: ")
    assert names(line, said)


def test_an_error_in_the_users_module_is_shown_as_that_error(tmp_path):
    write_study(tmp_path, {"mine": "import json\n\njson.loads('{')\n"})
    line = error(efface(tmp_path, "check", "study.yml"), 2)
    assert names(line, "mine JSONDecodeError")


# Methods


BAD_METHODS = {
    "nan": ("images.mean(1) * float('nan')", "NaN 2 images"),
    "shape": ("images.mean((1, 2))", "(2, 16) (2, 16, 16)"),
    "batch": ("images.mean(1)[:1]", "(1, 16, 16) 2 images"),
    "nothing": ("None", "nothing tensor shape"),
    "raises": ("{}['layer']", "KeyError layer"),
    "dict": ("{'one': images[:, 0]}", "outputs [one]"),
}


def test_a_study_of_too_many_points_is_refused_before_it_is_planned(tmp_path):
    write_study(tmp_path, metrics=["roar"])
    line = error(efface(tmp_path, "check", "study.yml", "repeats=1000", f"fractions={[i / 999 for i in range(1000)]}"))
    assert names(line, "study.yml metrics points roar 500,000")


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 1000])
def test_a_method_that_writes_into_the_run_leaves_no_maps_out_in_silence(times, tmp_path):
    code = (
        "from pathlib import Path\n\n"
        "def mine(model, images, targets):\n"
        "    path, log = Path('run/maps/other-test.h5'), Path('calls')\n"
        "    calls = int(log.read_text()) if log.exists() else 0\n"
        f"    if path.exists() and calls < {times}:\n"
        "        path.write_bytes(b'')\n"
        "        log.write_text(str(calls + 1))\n"
        "    return images.mean(1)\n"
    )
    other, mine = {"name": "other", "method": "gradient"}, {"name": "mine", "method": "writing.mine"}
    write_study(tmp_path, {"writing": code}, attribution_methods=[other, mine], metrics=["morf"])
    result = efface(tmp_path, "all", "study.yml")
    with (tmp_path / "run/report/summary.csv").open() as file:
        empty = [row for row in csv.DictReader(file) if row["method"] == "other" and not row["mean"]]
    assert bool(empty) == bool(result.code)
    assert names(result.err, "run/maps/other-test.h5")
    assert result.code == (0 if times == 1 else 1)


@pytest.mark.parametrize("kind", first_short(3, BAD_METHODS))
def test_a_bad_method_is_named_before_anything_is_computed(kind, tmp_path):
    (code, said), stage = BAD_METHODS[kind], "check" if kind == "dict" else "all"
    write_study(tmp_path, {"mine": f"def brightness(model, images, targets):\n    return {code}\n"})
    line = error(efface(tmp_path, stage, "study.yml"))
    assert line.startswith("efface: study.yml: attribution_methods.mine: ")
    assert names(line, said)
    assert not (tmp_path / "run" / "models").exists()


AXES = {
    "one image, axes": (True, "images[0].permute(1, 2, 0).mean(3)[0]"),
    "one image, label": (True, "images.mean(1) * targets.item()"),
    "one image, batch axis": (True, "model(images[None]) and None"),
    "one image, map": (True, "images.mean((0, 1))"),
    "n images, labels": (False, "images.mean(1) * targets[:, None, None]"),
    "n images, iteration": (False, "images.mean(1) * len(targets)"),
    "n images, gather": (False, "model(images).gather(1, targets[:, None])"),
    "another": (True, "images.mean(1) * open('no such file').read()"),
    "another, single": (False, "{}['layer']"),
}


@pytest.mark.parametrize("kind", first_short(3, AXES))
def test_a_method_that_fails_on_axes_is_told_what_it_is_given(kind, tmp_path):
    batched, code = AXES[kind]
    write_study(
        tmp_path,
        {"mine": f"def brightness(model, images, targets):\n    return {code}\n"},
        attribution_methods=[{"name": "mine", "method": "mine.brightness", "batched": batched}],
    )
    line = error(efface(tmp_path, "check", "study.yml"))
    hint = "batched: false n images (n, c, h, w)" if batched else "batched: false one image (1, c, h, w) label"
    assert names(line, hint) != kind.startswith("another"), line


def test_two_bad_methods_are_both_named(tmp_path):
    mine, pair = (
        "def brightness(model, images, targets):\n    return 1\n",
        "def two(model, images, targets):\n    1 / 0\n",
    )
    write_study(tmp_path, {"mine": mine, "pair": pair})
    said = errors(efface(tmp_path, "all", "study.yml"))
    assert names(said[0], "attribution_methods.mine int tensor")
    assert names(said[1], "attribution_methods.pair ZeroDivisionError division zero")
    assert len(said) == 2


def test_a_method_that_returns_nan_late_keeps_what_was_there(copy):
    before = files(copy / "run" / "maps")
    late = "def brightness(model, images, targets):\n    return images.mean(1) / (len(images) < 3)\n"
    (copy / "mine.py").write_text(late)
    result = efface(copy, "extract", "study.yml")
    assert result.code == 1
    said = errors(result)
    assert names(said[0], "failed train attribution_methods.mine NaN 16")
    after = files(copy / "run" / "maps")
    assert before.items() <= after.items()


# Data and networks


@pytest.mark.parametrize(
    ("word", "said"),
    first_short(
        4,
        [
            ("model.kwargs={classes: 3}", "model 3 4 classes"),
            ("data.kwargs={n_train: 48, n_test: 24, size: 32}", "model net.network 32"),
            (
                "data={call: efface.data.digits.digits, kwargs: {limit: 20}}",
                "model net.network 8",
            ),
            ("data=mine.test_only", "mine.test_only train"),
            ("data=mine.broken_data", "data mine.broken_data KeyError root"),
            ("data=mine.no_data", "data mine.no_data dict"),
            ("model=mine.broken_network", "model mine.broken_network TypeError"),
            ("fit.keep=best", "data.kwargs.validation=0.125"),
            ("data={call: efface.data.folder.image_folder, kwargs: {root: nowhere}}", "nowhere"),
            ("data={call: efface.data.folder.image_folder, kwargs: {root: empty}}", "empty"),
            ("device=tpu", "device tpu"),
            ("device=cuda:99", "device cuda:99"),
            ("weights=nowhere.pt", "nowhere.pt"),
            ("weights=foreign.pt", "foreign.pt fit"),
            ("weights=garbage.pt", "garbage.pt tensors"),
        ],
    ),
)
def test_what_does_not_fit_is_said_before_anything_is_computed(word, said, tmp_path):
    more = TEST_ONLY + (
        "\ndef broken_data():\n    return {}['root']\n\ndef no_data():\n    return [1]\n"
        "\ndef broken_network():\n    return int('1', None, 3)\n"
    )
    write_study(tmp_path, {"mine": MODULES["mine"] + more})
    (tmp_path / "empty" / "test" / "cat").mkdir(parents=True)
    torch.save({"head.weight": torch.zeros(2, 2)}, tmp_path / "foreign.pt")
    (tmp_path / "garbage.pt").write_bytes(b"no weights at all")
    stage = ("check", "train", "all")[len(word) % 3]  # each of them says it
    line = error(efface(tmp_path, stage, "study.yml", word))
    assert line.startswith("efface: ")
    assert names(line, said)
    assert "delete" not in line
    assert not (tmp_path / "run" / "models").exists()
    assert not (tmp_path / "run" / "results.jsonl").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(tmp_path):
    write_study(tmp_path)
    assert names(error(efface(tmp_path, "all", "study.yml", "device=cuda")), "device cuda")


@pytest.mark.long
def test_each_stage_that_writes_a_page_compares_with_the_method_that_is_asked_for(copy):
    page = copy / STUDY["out"] / "report" / "report.html"
    for word in ("all", "measure", "report"):
        done = efface(copy, word, "study.yml", "metrics=[morf]", "--against", "mine")
        assert done.code == 0, done.err
        assert "Better than mine" in page.read_text()
        page.unlink()
    assert names(error(efface(copy, "all", "study.yml", "--against", "yours"), 2), "--against: no method 'yours' mine")


@pytest.mark.long
def test_a_damaged_network_file_is_named_set_aside_and_made_again(copy):
    (path,) = (copy / "run" / "models").glob("network-*.pt")
    content = path.read_bytes()
    path.write_bytes(content[:500])
    result = efface(copy, "all", "study.yml")
    assert result.code == 0, result.err
    assert names(result.err, f"run/models/{path.name} seal trained again {path.name}.damaged-1")
    assert path.with_name(f"{path.name}.damaged-1").read_bytes() == content[:500]
    again, before = (torch.load(each, weights_only=True) for each in (path, io.BytesIO(content)))
    assert all(torch.equal(value, before[name]) for name, value in again.items())


# Disks


def test_a_file_in_the_place_of_the_folder(tmp_path):
    write_study(tmp_path)
    (tmp_path / "run").write_text("mine")
    line = error(efface(tmp_path, "all", "study.yml"))
    assert names(line, "efface: run file folder out=")
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_that_may_not_be_written(tmp_path):
    write_study(tmp_path)
    out = tmp_path / "locked" / "run"
    out.parent.mkdir()
    out.parent.chmod(0o555)
    if os.geteuid() == 0:  # whom no mode keeps out, but the kernel's own folders do
        out = "/sys/efface"
    line = error(efface(tmp_path, "all", "study.yml", f"out={out}"))
    assert str(out) in line
    assert any(why in line for why in ("permission denied", "not permitted", "read-only"))


def test_a_file_that_may_not_grow_stops_extraction_and_the_rest_goes_on_later(copy, trained):
    for path in (copy / "run" / "maps").glob("mine-*"):
        path.unlink()
    before = files(copy / "run")
    result = efface(copy, "extract", "study.yml", file_limit=40_000)
    assert result.code == 1
    said = errors(result)
    assert names(said[0], "failed mine train run/maps/mine-train.h5.partial")
    after = files(copy / "run")
    assert all(after[name] == before[name] for name in before if name.startswith(("maps/", "models/")))
    assert efface(copy, "extract", "study.yml").code == 0
    for path in (trained / "run" / "maps").iterdir():
        assert (copy / "run" / "maps" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.long
def test_results_that_may_not_grow_stop_measuring_and_nothing_is_lost(copy):
    path = copy / "run" / "results.jsonl"
    before = path.read_bytes()
    line = error(efface(copy, "measure", "study.yml", "--metrics", "morf", file_limit=len(before) + 1500))
    assert "file too large" in line
    assert path.read_bytes().startswith(before)
    result = efface(copy, "measure", "study.yml", "--metrics", "morf")
    assert result.code == 0
    kept = path.read_bytes().count(b'"probe": "perturb"')
    assert kept == 9


# Looking without doing


def test_check_plans_warns_and_keeps_nothing(tmp_path):
    mine = "def brightness(model, images, targets):\n    return images.mean(1) * 0\n"
    write_study(tmp_path, {"mine": mine})
    before = files(tmp_path)
    result = efface(tmp_path, "check", "study.yml")
    assert (result.code, result.err) == (0, "")
    assert "48 train, 24 test images of 3 x 16 x 16" in result.out
    assert "the methods are tried on fresh weights" in result.out
    assert "warning: mine: the map of an image is constant" in result.out
    assert "warning: pair: red: the map is the same whatever class is explained" in result.out
    assert "warning: random" not in result.out
    assert f"first network: {3 * 2 * 48} passes" in result.out
    # Of the three, only `mine` could ask the network; this one does not.
    assert "maps: 8 files to extract, 0 passes" in result.out
    # 9 scores of 24 images; 18 trainings of 2 epochs, a step counting three, each scored on 24.
    assert f"probes: 31 of 31 to run: 18 trainings, {4 * 8 + 9 * 24 + 18 * (3 * 2 * 48 + 24):,} passes" in result.out
    estimate = next(line for line in result.out.splitlines() if "estimate: " in line)
    assert names(estimate, "to of passes workers, page")
    after = {name: what for name, what in files(tmp_path).items() if not name.startswith((".said-", "__pycache__"))}
    assert after == before


@pytest.mark.long
def test_a_map_that_another_class_changes_by_rounding_alone_is_said_to_be_blind(tmp_path):
    mine = (
        "def brightness(model, images, targets):\n"
        "    return images.mean(1) * (1 + 1e-7 * targets[:, None, None])\n"
        "def seeing(model, images, targets):\n"
        "    return images.mean(1) * (1 + 1e-3 * targets[:, None, None])\n"
    )
    methods = [{"name": name, "method": f"mine.{name}"} for name in ("brightness", "seeing")]
    write_study(tmp_path, {"mine": mine}, attribution_methods=methods, metrics=["morf"])
    result = efface(tmp_path, "check", "study.yml")
    assert result.code == 0, result.err
    assert "warning: brightness: the map is the same whatever class is explained" in result.out
    assert "warning: seeing" not in result.out


LONG = """
import copy
import time

copies = []


def quick(model, images, targets):
    copies.append(copy.deepcopy(model))
    return images.mean(1)


def slow(model, images, targets):
    for _ in range(100):
        try:
            model(images)
        except Exception:
            pass
        time.sleep(0.02)
    return images.mean(1)


def slow_for_one(model, images, targets):
    return slow(model, images, targets) if len(images) == 1 else quick(model, images, targets)


def elsewhere(model, images, targets):
    return slow(copy.deepcopy(model), images, targets)
"""


@pytest.mark.long
def test_a_method_that_is_tried_for_long_is_left_for_its_extraction_and_said(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = ("quick", "slow", "slow_for_one", "elsewhere")
    methods = [{"name": name, "method": f"tried_long.{name}"} for name in names]
    write_study(tmp_path, {"tried_long": LONG}, attribution_methods=methods, metrics=["morf"])
    run = Run(read(tmp_path / "study.yml"))
    quick, slow, one, elsewhere = preflight(planned_run(run), warn=True, long=0.8)
    for each in (slow, elsewhere):
        assert each.shapes == {}, "no map was made"
        assert each.warnings[0].startswith("test stopped after 0.8 s on cpu")
        assert 1 < each.passes < 60, "passes of the two images, of 100"
    for each in (quick, one):
        assert each.shapes == {each.name: (16, 16)}
    assert quick.warnings == ["the map is the same whatever class is explained"]
    assert one.warnings == [], "its map of another class was not waited for"
    assert [each.cut for each in (quick, slow, one, elsewhere)] == [False, True, False, True]
    images = torch.zeros(1, 3, 16, 16)
    for copied in (*importlib.import_module("tried_long").copies, run.first.fresh()):
        assert copied(images).shape == (1, 4), "the limit ended with the trial"


def test_check_warns_where_features_are_ranked_by_maps_without_channels(tmp_path):
    gradient = {"name": "gradient", "method": "efface.methods.gradient.gradient"}
    write_study(tmp_path, unit="feature", attribution_methods=[gradient], metrics=["morf"])
    result = efface(tmp_path, "check", "study.yml")
    assert result.code == 0, result.err
    assert "warning: metrics.morf, gradient: unit 'feature' ranks channels, but 'post' leaves one value" in result.out
    assert "leaves one value" not in efface(tmp_path, "check", "study.yml", "post=[]").out


def test_check_and_status_know_what_is_done(copy):
    result = efface(copy, "check", "study.yml")
    assert "fresh weights" not in result.out
    assert "first network: done" in result.out
    assert "maps: 0 files to extract" in result.out
    (copy / "run" / "maps" / "mine-test.h5").unlink()
    result = efface(copy, "status", "study.yml")
    assert "run: network there" in result.out
    assert "to extract: mine, test: 0 of 24 maps are there" in result.out
    assert "probes: 0 of 31 done, 31 left" in result.out
    assert "train" not in result.out.replace("trained", "")


def test_check_misses_the_control(tmp_path):
    write_study(tmp_path, attribution_methods=STUDY["attribution_methods"][1:])
    assert "warning: no method is a random control" in efface(tmp_path, "check", "study.yml").out


def test_status_of_nothing_writes_nothing(tmp_path):
    write_study(tmp_path)
    result = efface(tmp_path, "status", "study.yml")
    assert result.code == 0
    assert "network to be trained" in result.out
    assert "probes: 0 of 31 done, 31 left" in result.out
    assert not (tmp_path / "run").exists()


def test_a_report_of_nothing_names_the_stage_that_is_missing(tmp_path):
    write_study(tmp_path)
    line = error(efface(tmp_path, "report", "study.yml"))
    assert names(line, "run/results.jsonl measure")
    assert not (tmp_path / "run").exists()


def test_a_study_without_metrics_is_extracted_but_not_measured(tmp_path):
    write_study(tmp_path, metrics=[])
    assert "the study names none" in error(efface(tmp_path, "measure", "study.yml"))


@pytest.mark.long
def test_options_and_overrides_come_in_any_order(tmp_path):
    study = write_study(tmp_path)
    for words in (
        ("status", study.name, "--metrics", "morf", "repeats=1"),
        ("status", study.name, "repeats=1", "--metrics", "morf"),
        ("status", "--metrics=morf", study.name, "repeats=1"),
    ):
        said = efface(tmp_path, *words)
        assert said.code == 0, said.err
        assert "13 left" in said.out  # whole images, and two fractions and a look at four maps


@pytest.mark.long
@pytest.mark.parametrize("damage", ["flip", "cut", "text"])
def test_a_damaged_file_of_maps_is_named_set_aside_and_made_again(copy, damage):
    path = copy / "run" / "maps" / "mine-test.h5"
    content = path.read_bytes()
    with h5py.File(path) as file:
        at = file["maps"].id.get_offset() + 5
    damaged = {
        "flip": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :],
        "cut": content[:5000],
        "text": b"no",
    }
    path.write_bytes(damaged[damage])
    result = efface(copy, "extract", "study.yml")
    assert result.code == 0, result.err
    assert names(result.err, "run/maps/mine-test.h5 extracted again mine-test.h5.damaged-1")
    assert path.read_bytes() == content
    assert path.with_name("mine-test.h5.damaged-1").read_bytes() == damaged[damage]
    assert errors(efface(copy, "extract", "study.yml")) == []


def test_bad_lines_of_results_are_set_aside_also_when_there_is_nothing_to_do(copy):
    path = copy / "run" / "results.jsonl"
    with path.open("a") as file:
        file.write('{"key": "theirs"}\n')
    assert names(error(efface(copy, "extract", "study.yml"), 0), "results.jsonl does not count")
    assert "theirs" not in path.read_text()
    assert "theirs" in path.with_name("results.jsonl.damaged").read_text()
    assert errors(efface(copy, "extract", "study.yml")) == []


def test_a_folder_that_cannot_be_written_is_refused_by_check(tmp_path):
    write_study(tmp_path)
    (tmp_path / "file").touch()
    for out in ("file/run", "/proc/nowhere/run", "/dev/null/x"):
        line = error(efface(tmp_path, "check", "study.yml", f"out={out}"))
        assert names(line, f"out: {out} written")
    before = {*tmp_path.iterdir()}
    assert efface(tmp_path, "check", "study.yml").code == 0
    assert {each.name for each in {*tmp_path.iterdir()} - before if not each.name.startswith(".said")} == set()
