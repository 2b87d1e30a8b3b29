"""The studies of the papers: each whole and bound, each with a small sibling that claims something."""

from itertools import takewhile
from pathlib import Path

import pytest

from efface.config import read

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


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_a_small_study_claims_something_over_three_seeds_and_downloads_nothing(path):
    study = read(path)
    assert len(study.claims) >= 1
    assert len(study.seeds) >= 3
    assert all(claim.source and claim.published for claim in study.claims)
    assert study.data.call.split(".")[-2] in ("digits", "patches", "blocks", "synthetic")
    assert study.data.kwargs.get("source", "digits") == "digits"
