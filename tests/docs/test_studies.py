"""The examples of docs/studies.md that need files of their own run as they stand."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

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
