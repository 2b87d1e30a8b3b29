"""The examples of docs/studies.md that need files of their own run as they stand."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from small.studies import efface as run_efface
from small.studies import write_study

PAGE = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()


@pytest.mark.long
def test_maps_made_elsewhere_are_written_and_measured_as_the_page_says(tmp_path, monkeypatch):
    (text,) = re.findall(r"^### Maps made elsewhere\n(.*?)^### ", PAGE, re.DOTALL | re.MULTILINE)
    (code,), (entries,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "yaml"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "handed_over.py").write_text(code)
    runpy.run_path("handed_over.py")
    study = write_study(
        tmp_path,
        data="digits",
        model={"call": "resnet8", "kwargs": {"in_channels": 1}},
        fit=None,
        metrics=["morf"],
        **yaml.safe_load(entries),
    )
    for word in ("check", "all"):
        done = run_efface(tmp_path, word, str(study), "max_batch=256")
        assert done.code == 0, done.err
    assert "theirs" in (tmp_path / "run" / "report" / "summary.csv").read_text()


SMALLEST = (
    "model.kwargs={name: vit_tiny_patch16_224, num_classes: 2, img_size: 32, depth: 1, embed_dim: 24}",
    "data.kwargs={root: my_pictures, size: 32, resize: 36}",
    "attribution_methods.integrated_gradients.kwargs={steps: 2}",
    "fit.epochs=1",
    "executor=serial",
)
"""A network without weights, for small pictures."""


@pytest.mark.long
def test_ten_lines_lead_from_a_folder_of_pictures_to_a_page(tmp_path):
    (text,) = re.findall(r"^## From a folder of pictures to a page\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
    (lines,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(lines.splitlines()) == 10
    drawn = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for shade, name in ((0, "dark"), (128, "light")):
            (tmp_path / "my_pictures" / split / name).mkdir(parents=True)
            for i in range(count):
                values = shade + drawn.integers(0, 128, (48, 40, 3), dtype=np.uint8)
                Image.fromarray(values).save(tmp_path / "my_pictures" / split / name / f"{i}.png")
    (tmp_path / "my_vit.yml").write_text(lines)
    done = run_efface(tmp_path, "all", "my_vit.yml", *SMALLEST)
    assert done.code == 0, done.err
    report = tmp_path / "runs" / "my_vit" / "report"
    summary = (report / "summary.csv").read_text()
    for method in ("input_x_gradient", "integrated_gradients", "grad_cam", "generic_attention", "cp_lrp"):
        assert method in summary
    assert (report / "report.html").is_file()
