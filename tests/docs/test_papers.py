"""The studies of the papers: whole, bound, with a small sibling that claims something; what headers of studies say."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

from efface.commands.demo import STUDY as DEMO
from efface.metrics import metric
from efface.stages.run.plan import make_plan
from efface.stages.run.run import Run
from efface.study import study as config
from efface.study.study import InvalidStudyError
from small.studies import STUDY
from small.tiers import first_short

ROOT = Path(__file__).parents[2]
PAPERS = ROOT / "configs" / "papers"
FILES = sorted(PAPERS.glob("*.yml"))
EVERY = [*sorted((ROOT / "configs").glob("*.yml")), *FILES]
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
    "mask_share",
    "idsds",
    "attention",
)
COUNTED = {
    "networks": r"(\d[\d,]*) networks\b",
    "attacked": r"(\d[\d,]*) of them trained (?:by PGD|on attacks)",
    "second networks": r"(\d[\d,]*) second networks\b",
    "trainings": r"(\d[\d,]*) (?:re)?trainings\b",
    "trainings a seed": r"trainings \((\d[\d,]*) a seed\)",
    "trainings a network": r"retrainings \((\d[\d,]*) a network\)",
}
"""What a header counts, and in which words; the first number is the study's own."""


@cache
def read(path):
    """A study, and the studies that it consists of, by variant; read once for all tests."""
    study = config.read(path)
    return study, study.parts()


def header(path):
    """The comment at the top of a study."""
    return "".join(takewhile(lambda line: line.startswith("#"), path.read_text().splitlines(keepends=True)))


def commands(path):
    """The commands of a header, each as words; `...` is the one before it."""
    found = []
    for line in re.findall(r"^#   +((?:\./taskw|\.\.\.) .*)$", header(path), re.MULTILINE):
        said = shlex.split(re.split(r"\s{3,}", line)[0])
        found.append(said if said[0] == "./taskw" else [*found[0], *said[1:]])
    return found


HEADERS = [(path, words) for path in EVERY for words in commands(path)]


def test_every_study_is_there_with_a_small_one():
    names = {path.stem for path in FILES}
    assert {*STUDIES, *(f"{name}_small" for name in STUDIES)} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_is_bound_whole_and_its_header_says_how_to_run_it(path):
    parts = [part for of in read(path)[1].values() for part in of]
    assert len({part.out for part in parts}) == len(parts)
    assert f"CONFIG=configs/papers/{path.name}" in header(path)


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_diffroar_and_leakage_never_stand_without_robust_accuracy(path):
    metrics = {each.name for each in read(path)[0].metrics}
    assert "robust_accuracy" in metrics or not metrics & {"diffroar", "leakage", "signal_rank"}


@pytest.mark.long
@pytest.mark.parametrize("path", first_short(3, FILES), ids=lambda path: path.stem)
def test_a_study_can_be_narrowed_to_any_of_its_metrics_and_to_those_of_every_task(path):
    study = read(path)[0]
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
        if not (study.fit or study.refit) and any(metric(name).sample == "repeats" for name in names):
            with pytest.raises(InvalidStudyError, match="retrains the network"):
                study.with_metrics(names)
            continue
        assert {*study.with_metrics(names).metric_names()} == {*names}


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_a_small_study_claims_something_over_three_seeds_and_downloads_nothing(path):
    study, _ = read(path)
    assert len(study.claims) >= 1
    assert len(study.seeds) >= 3
    assert all(claim.source and claim.published for claim in study.claims)
    assert study.data.call.split(".")[-2] in ("digits", "patches", "blocks", "synthetic")
    assert study.data.kwargs.get("source", "digits") == "digits"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_claim_is_of_what_the_study_measures_and_no_two_say_the_same(path):
    study, parts = read(path)
    methods = {}
    for claim in study.claims:
        sides = [side for side in (claim.more, claim.less) if not isinstance(side, float | int)]
        for side in sides:
            part = parts[side.variant][0]
            metric = {each.name: each for each in part.metrics}[claim.metric]
            shape = (1, 8, 8)
            fractions = metric.kwargs.fractions or metric.paper.fractions or part.fractions
            points = (
                metric.formula.points_for(shape)
                if metric.formula.points_for and not metric.kwargs.fractions
                else fractions
            )
            assert not claim.score or claim.score in metric.formula.direction
            assert claim.at is None or claim.at in points
            assert not side.method or side.method in part.map_names()
        assert methods.setdefault(claim.says, sides) == sides


@pytest.mark.parametrize(
    ("path", "words"), first_short(6, HEADERS), ids=lambda each: each.stem if isinstance(each, Path) else ""
)
def test_a_command_of_a_header_runs_the_study_with_its_overrides(path, words):
    task = shutil.which("task") or str(Path(sys.executable).parent / "task")
    done = subprocess.run([task, "--dry", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    called = shlex.split(re.sub(r"\x1b\[[\d;]*m", "", done.stderr).split("] ", 1)[1])
    overrides = words[words.index("--") + 1 :] if "--" in words else []
    assert len([each for each in words if "=" in each and each not in overrides]) <= 1  # CONFIG= and no other variable
    if called[1] == "demo":  # the package holds the same text
        assert DEMO.read_text() == path.read_text()
    else:
        assert called[2] == str(path.relative_to(ROOT))
    assert called[len(called) - len(overrides) :] == overrides
    if overrides:
        assert config.read(path, overrides) != read(path)[0]


@pytest.mark.parametrize("path", first_short(4, EVERY), ids=lambda path: path.stem)
def test_a_header_counts_as_the_study_does(path, tmp_path):
    said = {name: re.search(words, header(path)) for name, words in COUNTED.items()}
    said = {name: int(found[1].replace(",", "")) for name, found in said.items() if found}
    if not said:
        return
    _, by_variant = read(path)
    parts = [part for of in by_variant.values() for part in of]
    second_networks = {
        json.dumps([part.second_network.model_dump(mode="json"), part.seed])
        for part in parts
        if part.second_network is not None
    }
    ours = {
        "networks": len(parts),
        "attacked": sum(part.fit is not None and part.fit.attack is not None for part in parts),
        "second networks": len(second_networks),
    }
    if any(name.startswith("trainings") for name in said):
        tiny = {
            "model": "torch.nn.Identity",
            "attribution_methods": [{"name": "r", "method": "efface.methods.control.random"}],
        }
        like = Run(config.check(STUDY | tiny | {"out": str(tmp_path)}, Path("tiny.yml")))
        each = {name: trainings(of[0].model_copy(update={"out": tmp_path}), like) for name, of in by_variant.items()}
        ours["trainings"] = sum(each[name] * len(of) for name, of in by_variant.items())
        ours["trainings a seed"] = sum(each.values())
        ours["trainings a network"] = each[next(iter(by_variant))]
    assert said == {name: ours[name] for name in said}


def trainings(study, like):
    """How often a study's metrics train a network again; of other data, which changes no count."""
    return sum(not cell.probe.needs.network for cell in make_plan(Run(study, like=like)).tasks)
