"""What the pages promise: examples run, studies load, commands parse, every metric and method is described."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from efface import metrics
from efface.methods.calling import MethodCall, attribute
from efface.study import study as config
from efface.study.schema import MethodEntry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGS = sorted((ROOT / "configs").glob("*.yml"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder that holds the README's example files, and is importable as the current folder is."""
    for text in blocks("python"):
        name = text.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def entries() -> list[dict[str, object]]:
    found = [yaml.safe_load(text) for text in blocks("yaml") if text.lstrip().startswith("- name")]
    return [entry for listed in found for entry in listed]


@pytest.mark.usefixtures("own_folder")
def test_the_two_calling_conventions_of_the_readme_give_the_maps_they_say() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    images, targets = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 1])
    found = {}
    for tree in entries():
        entry = MethodEntry.model_validate(tree)
        method = MethodCall(entry.name, entry.call, entry.batched, entry.outputs)
        found |= attribute(method, model, images, targets, seeds=torch.arange(5), max_batch=16)
    weight = model[1].weight[targets].reshape(5, 3, 8, 8)
    torch.testing.assert_close(found["mine"], 2 * weight.detach())
    torch.testing.assert_close(found["older"], images.mean(1) ** 2)


def test_the_study_of_the_readme_loads() -> None:
    (text,) = [text for text in blocks("yaml") if text.startswith("out:")]
    study = config.check(yaml.safe_load(text), Path("README.md"))
    assert study.map_names() == ["random", "grad_cam"]
    assert study.fit is not None
    assert study.fit.keep == "best"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_study_loads_and_says_its_command(path: Path) -> None:
    study = config.read(path)
    assert study.out == Path("runs") / path.stem
    assert "random" in study.map_names(), "no control, no verdict"
    header = path.read_text().split("\nout:")[0]
    assert f"CONFIG=configs/{path.name}" in header or "./taskw demo" in header
    assert f"`configs/{path.name}`" in README


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "cluster").glob("*.yml")), ids=lambda path: path.stem)
def test_every_start_for_a_cluster_loads_and_is_named(path: Path) -> None:
    study = config.read(path)
    assert study.out == Path("runs") / f"cluster_{path.stem}"
    shares = study.fit is not None and study.fit.devices != 1
    many = ("efface.execute.ray", "efface.execute.slurm")
    assert study.executor.call in ((*many, "efface.execute.serial") if shares else many)
    header = path.read_text().split("\nout:")[0]
    assert f"CONFIG=configs/cluster/{path.name}" in header
    assert f"configs/cluster/{path.name}" in (ROOT / "docs" / "cluster.md").read_text()


def test_every_metric_and_method_is_described() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert all(f"`{name}`" in page for name in metrics.names())
    page = (ROOT / "docs" / "methods.md").read_text()
    for path in CONFIGS:
        for entry in config.read(path).attribution_methods:
            assert entry.method is None or f"`{entry.method.removeprefix('efface.methods.')}`" in page, entry.method


def test_every_key_of_a_study_is_described() -> None:
    page = (ROOT / "docs" / "studies.md").read_text()
    keys = [*config.Study.model_fields, *config.TrainingSettings.model_fields]
    assert [key for key in keys if f"| `{key}` |" not in page] == []


def test_every_command_of_the_readme_parses() -> None:
    task = shutil.which("task") or str(Path(sys.executable).parent / "task")
    commands = [line.split("#")[0] for text in blocks("sh") for line in text.splitlines() if line.startswith("./taskw")]
    commands += re.findall(r"`(\./taskw [^`]+)`", README)
    assert len(commands) > 8
    for command in commands:
        words = command.split()[1:]
        done = subprocess.run([task, "--dry", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    listed = json.loads(
        subprocess.run([task, "--list-all", "--json"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )
    known = {each["name"] for each in listed["tasks"]}
    assert {command.split()[1] for command in commands} <= known


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
