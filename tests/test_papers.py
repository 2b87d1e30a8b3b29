"""The studies of the papers: each whole and bound, each with a small sibling that claims something."""

import re
from itertools import takewhile
from pathlib import Path

import pytest

from efface.config import InvalidStudyError, read
from efface.metrics import metric

PAPERS = Path(__file__).parent.parent / "configs" / "papers"
FILES = sorted(PAPERS.glob("*.yml"))
SMALL = [path for path in FILES if path.stem.endswith("_small")]
STUDIES = (
    "score_matching",
    "feature_inversion",
    "block_leakage",
    "synthetic_leakage",
    "recalibration",
    "pattern_guided",
    "roar",
    "critical_pathways",
)


def test_every_study_is_there_with_a_small_one():
    names = {path.stem for path in FILES}
    assert {*STUDIES, *(f"{name}_small" for name in STUDIES)} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_is_bound_whole_and_its_header_says_how_to_run_it(path):
    study = read(path)
    parts = [part for of in study.parts().values() for part in of]
    assert len({part.out for part in parts}) == len(parts)
    header = "".join(takewhile(lambda line: line.startswith("#"), path.read_text().splitlines(keepends=True)))
    assert f"CONFIG=configs/papers/{path.name}" in header
    metrics = {each.name for each in study.metrics}
    if metrics & {"diffroar", "leakage", "signal_rank"} and path.stem.startswith(("feature", "block", "synthetic")):
        assert "robust_accuracy" in metrics


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_can_be_narrowed_to_any_of_its_metrics_and_to_those_of_every_task(path):
    study = read(path)
    whole = {name: part.metrics for name, (part, *_) in study.parts().items()}
    listed = {each.name for metrics in whole.values() for each in metrics}
    for name in sorted(listed):
        narrowed = study.with_metrics([name])
        assert narrowed.claims == tuple(claim for claim in study.claims if claim.metric in (name, "accuracy"))
        for variant, (part, *_) in narrowed.parts().items():
            assert part.metrics == tuple(each for each in whole[variant] if each.name == name), variant
    tasks = re.findall("--metrics ([a-z_,]+) ", (PAPERS.parents[1] / "Taskfile.yml").read_text())
    assert {"roar", "gan_test", "lerf,morf"} <= {*tasks}
    for names in (each.split(",") for each in tasks):
        if not (study.fit or study.refit) and any(metric(name).over == "repeats" for name in names):
            with pytest.raises(InvalidStudyError, match="retrains the network"):
                study.with_metrics(names)
            continue
        assert {*study.with_metrics(names).metric_names()} == {*names}


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_a_small_study_claims_something_over_three_seeds_and_downloads_nothing(path):
    study = read(path)
    assert len(study.claims) >= 1
    assert len(study.seeds) >= 3
    assert all(claim.source and claim.published for claim in study.claims)
    assert study.data.call.split(".")[-2] in ("digits", "patches", "blocks", "synthetic")
    assert study.data.kwargs.get("source", "digits") == "digits"
