"""Every script in scripts/ runs in its smallest size, ends well, and prints the numbers that it promises."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from efface.models import resnet
from efface.models.torchvision import load

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
ONE_METHOD = "attribution_methods=[{name: gradient, method: efface.methods.gradient.gradient}]"

# Words of each script's smallest run, and what must stand in its output.
SMALLEST = {
    "bench_attention.py": (
        ["--images", "1", "--rounds", "1"],
        r"generic_attention .*\d\.\d+x +<= 1\.25[^\n]*(\n.*)*the extract stage +\d+\.\d +\d\.\d+ +>= 0\.85",
    ),
    "bench_cluster.py": (
        ["--quick"],
        r"ray: (.*\n)* +one of them: \d+\.\d\d ms (.*\n)*slurm: (.*\n)*.* one: \d\.\d\d times",
    ),
    "bench_impute.py": (["--images", "1", "--rounds", "1", "--sizes", "16"], r"16 +random .*\d\.\d+x"),
    "bench_maps.py": (["--maps", "64", "--size", "8", "--batch", "16", "--rounds", "1"], r"\d\.\d+x"),
    "bench_memory.py": (["--stage", "status", "--every", "0.1"], r"\d\.\d+ GB +\d+"),
    "bench_methods.py": (["--images", "2", "--rounds", "1"], r"SmoothGrad family[^\n]*(\n.*)*?\d\.\d+x"),
    "bench_metrics.py": (
        ["--images", "2", "--rounds", "1"],
        r"single_deletion +17 +\d+\.\d +\d+\.\d\d +<= 1\.3\n(.*\n)*emd, side 8 +0 +\d+\.\d",
    ),
    "bench_perturb.py": (["--images", "2", "--rounds", "1"], r"\d\.\d+"),
    "bench_evaluate.py": (
        ["--quick"],
        r"import efface: \d\.\d+ s(.*\n)*evaluate beside the command line, 16 images: \d\.\d+",
    ),
    "bench_report.py": (["--quick"], r"page in \d+\.\d s of CPU .*\d\.\d MB"),
    "bench_short.py": (
        ["--quick", "--data", "digits", "--repeats", "2"],
        (
            r"## digits\n(.*\n)*\| short \| 1 \| 1 \| \d+\.\d\d \| 30 (.*\n)*"
            r"\| kar \| tau (.*\n)*\| full, full \| -?\d\.\d\d "
        ),
    ),
    "bench_scaling.py": (["--quick", "--axes", "images"], r"\| images \| 600 \| \d+\.\d \| \d+\.\d \| \d\.\d\d \|"),
    "bench_start.py": (["--quick"], r"\d\.\d\d s \(goal"),
    "bench_train.py": (
        ["--images", "256", "--rounds", "1", "--networks", "resnet8"],
        r"ours, fp32 .*\d\.\d+x .*>= 1\.4",
    ),
    "bench_verdicts.py": (["--quick"], r"## means\n(.*\n)*## power\n(.*\n)*\| trainings, normal \| 3 .*\d\.\d\d \|"),
    "bench_whole.py": (["--quick"], r"frozen, 4 images: efface is \d\.\d+x(.*\n)*roar, 64 images: efface is \d\.\d+x"),
    "soak.py": (["--quick", "--ceiling", "100"], r"kill: \d+ cases, 0 bad[^\n]*(\n.*)*hostile: 2 cases"),
    "soak_cluster.py": (["--quick"], r"cluster: \d+ cases, 0 bad"),
    "describe_networks.py": (
        ["--networks", "ConvNeXt,ViT", "--methods", "gradient,guided_backprop"],
        r"Work on all of these networks: `gradient`(.*\n)*\| `guided_backprop` \| no \(1\) \|\n(.*\n)*1\. no ReLU",
    ),
    "gpu.py": (
        ["--device", "cpu", "--quick"],
        (
            r"verdicts that agree \| 6 of 6 (.*\n)*.*2 side by side \| \d"
            r"(.*\n)*.*Captum over efface \| \d(.*\n)*.*a batch was halved \| [1-9]"
        ),
    ),
    "pattern_toy.py": ([], r"0\.210561[^\n]*(\n.*)*0\.000694"),
}


WRITING = ["gpu.py", "bench_short.py"]
"""Scripts that write into the folder of --out."""


def run(script, *words, root=ROOT):
    """The output of a script that must end with 0, run as a user runs it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    asked = [sys.executable, str(root / "scripts" / script), *map(str, words)]
    done = subprocess.run(asked, cwd=root, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_script_is_forgotten():
    own = {"check_networks.py", "describe_methods.py", "describe_metrics.py", "known_truth.py", "leaderboard.py"}
    own |= {"page_picture.py"}
    assert {*SMALLEST} | own == {*SCRIPTS}


@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=[] if name == "pattern_toy.py" else pytest.mark.long) for name in SMALLEST]
)
def test_a_script_prints_the_numbers_that_it_promises(script, tmp_path):
    words, promised = SMALLEST[script]
    said = run(script, *words, *(["--out", tmp_path] if script in WRITING else []))
    assert re.search(promised, said), said
    assert "nan" not in said.split()


@pytest.mark.long
def test_the_picture_of_a_page_is_its_top(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.html").write_text("<body style='margin: 0; background: rgb(1, 2, 3)'>")
    assert run("page_picture.py", tmp_path, tmp_path / "top.png") == f"{tmp_path / 'top.png'}\n"
    with Image.open(tmp_path / "top.png") as picture:
        assert picture.size == (1280, 1560)
        assert picture.getcolors() == [(1280 * 1560, (1, 2, 3))]


@pytest.mark.long
def test_a_part_without_enough_time_has_its_error_in_both_files_and_the_others_go_on(tmp_path):
    words = ["--device", "cpu", "--quick", "--parts", "extraction", "tests", "--minutes", "0.03"]
    said = run("gpu.py", *words, "--out", tmp_path)
    assert re.search(
        r"\| extraction \| error \| - \| not done after 2 s \|\n\| tests \| left out \| - \| no time is left", said
    )
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [(each["part"], each["value"]) for each in rows[-2:]] == [("extraction", None), ("tests", None)]
    assert {each["part"] for each in rows[:-2]} <= {"extraction"}  # what a fast machine measured before the limit
    assert (tmp_path / "gpu.md").read_text() in said


@pytest.mark.long
def test_false_verdicts_are_counted_on_real_trainings(tmp_path):
    """Two repeats give no verdict; three of four do, in all four choices."""
    said = run("bench_verdicts.py", "--parts", "pool", "--pool", tmp_path / "pool", "--make-pool", "--quick")
    assert "3 random controls with 4 trainings each, 500 test images" in said
    assert re.search(r"\| 2 \| no interval \| no verdict \| no verdict \|", said)
    assert re.search(r"\| 3 \| - \| \d+\.\d ± \d+\.\d % \| \d+\.\d", said)


@pytest.mark.long
def test_real_studies_in_rounds_are_held_against_whole_ones(tmp_path):
    said = run("bench_verdicts.py", "--parts", "digits", "digits_roar", "--folder", tmp_path, "--seeds", "1", "--quick")
    for part, pairs in (("digits", 30), ("digits_roar", 10)):
        assert re.search(rf"## {part}\n(.*\n)*\| all \| spending \| {pairs} \| \d+ \| 0 \| \d+ % \|", said)


@pytest.fixture
def photographs(tmp_path):
    """Two JPEG files in each of the two packs, and random weights under the names that the script looks for."""
    rng = np.random.default_rng(0)
    for name, side in (("cifar10-test", 32), ("imagenet-sample", 260)):
        files = [io.BytesIO() for _ in range(2)]
        for file in files:
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "JPEG")
        contents = [file.getvalue() for file in files]
        offset = np.cumsum([0, *map(len, contents)])
        jpeg = np.frombuffer(b"".join(contents), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", jpeg=jpeg, offset=offset, label=np.arange(2))
    for depth in (20, 32, 44, 56):
        weights = getattr(resnet, f"resnet{depth}")().state_dict()
        torch.save(weights, tmp_path / f"cifar10-resnet{depth}.pth")
    torch.save(load("squeezenet1_0").state_dict(), tmp_path / "imagenet-squeezenet1_0.pth")
    return tmp_path


@pytest.mark.long
def test_check_networks_prints_the_accuracy_of_each_network(photographs):
    lines = run("check_networks.py", photographs, "--batch", "2").splitlines()
    assert [line.split()[0] for line in lines] == [
        "network",
        *(f"resnet{depth}" for depth in (20, 32, 44, 56)),
        "squeezenet1_0",
    ]
    for line in lines[1:]:
        _, first, five, count, _ = line.split()
        assert 0 <= float(first.rstrip("%")) <= float(five.rstrip("%")) <= 100
        assert count == "2"


@pytest.fixture
def checkout(tmp_path):
    """A copy of the pages, studies and scripts, for scripts that write into the pages."""
    for name in ("docs", "configs", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.long
def test_describe_scripts_write_the_pages_as_they_are(checkout):
    run("describe_metrics.py", root=checkout)
    run("describe_methods.py", "table", root=checkout)
    for page in ("metrics.md", "methods.md"):
        assert (checkout / "docs" / page).read_text() == (ROOT / "docs" / page).read_text()


@pytest.mark.long
def test_describe_methods_runs_a_study(checkout):
    overrides = [ONE_METHOD, "metrics=[]", f"out={checkout / 'run'}"]
    run("describe_methods.py", "speed", "configs/digits.yml", *overrides, "--images", "2", root=checkout)
    page = (checkout / "docs" / "methods.md").read_text()
    assert page != (ROOT / "docs" / "methods.md").read_text()
    assert "gradient" in page
