"""One YAML file, checked whole."""

import pickle
import re
from pathlib import Path

import pytest
import yaml

from efface.study import study as whole_study
from efface.study.schema import MethodEntry
from efface.study.study import InvalidStudyError, check, dump, load, read
from small.messages import names, words

STUDY = """
out: runs/test
data: {call: efface.data.digits.digits}
model: {call: efface.models.resnet.resnet8, kwargs: {num_classes: 10, in_channels: 1}}
fit: {epochs: 2, optimizer: {call: torch.optim.Adam, kwargs: {lr: 1e-3}}}
attribution_methods:
  - {name: random, method: efface.methods.control.random}
  - {name: ig, method: efface.methods.path.integrated_gradients, kwargs: {steps: 4}}
post: [efface.erase.post.absolute, efface.erase.post.channel_sum]
metrics: [morf, roar]
"""


@pytest.fixture
def file(tmp_path):
    def write(text=STUDY):
        (tmp_path / "study.yml").write_text(text)
        return tmp_path / "study.yml"

    return write


def problems(path, overrides=()):
    with pytest.raises(InvalidStudyError) as found:
        read(path, overrides)
    return str(found.value).splitlines()


def test_all_problems_at_once_with_their_place_and_the_nearest_name(file):
    bad = STUDY.replace("epochs: 2", "epoch: 2").replace("control.random}", "control.randm}").replace("steps:", "step:")
    bad = bad.replace("[morf, roar]", "[morf, raor]").replace("out:", "outt:").replace("post.absolute", "post.absolut")
    lines = problems(path := file(bad))
    for said in (
        "fit.epoch epochs",
        "fit.epochs missing",
        "outt out",
        "out missing",
        "attribution_methods.random efface.methods.control randm random",
        "attribution_methods.ig efface.methods.path.integrated_gradients step steps",
        "efface.erase.post absolut absolute",
        "metrics.1 raor roar",
    ):
        assert any(line.startswith(f"{path}: ") and names(line, said) for line in lines), (said, lines)
    assert len(lines) == len(set(lines)) == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("name: ig", "name: random"), "attribution_methods random twice"),
        (("[morf, roar]", "[morf, morf]"), "metrics morf twice"),
        (("metrics:", "repeats: 0\nmetrics:"), "repeats"),
        (("metrics:", "fractions: [10]\nmetrics:"), "fractions.0"),
        (
            ("metrics:", "unit: pixels\nmetrics:"),
            "unit pixels pixel feature patch superpixel",
        ),
        (("morf, roar", "{name: morf, kwargs: {fractions: []}}"), "metrics.morf.kwargs.fractions"),
        (
            ("morf, roar", "{name: morf, kwargs: {repeats: 2}}"),
            "metrics.morf.kwargs.repeats trainings",
        ),
        (
            ("morf, roar", "{name: sparseness, kwargs: {fractions: [1]}}"),
            "metrics.sparseness.kwargs.fractions",
        ),
        (("fit: ", "x-fit: "), "metrics.roar fit"),
        (("method: efface.methods.control.random", "maps: no, post: []"), "attribution_methods.random"),
        (("method: efface.methods.control.random", "maps: gone, post: []"), "gone ig"),
        (("attribution_methods:", "old:"), "attribution_methods missing"),
        (("name: ig", "name: ig~2"), "attribution_methods.ig~2.name"),
    ],
)
def test_disagreements(file, change, said):
    assert any(names(line, said) for line in problems(file(STUDY.replace(*change))))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1e3", 1000.0), ("-2.5E+1", -25.0), (".5e1", 5.0), ("1.0e-3", 1e-3), ("3", 3), ("on", "on"),
     ("no", "no"), ("true", True), ("1:30", "1:30"), ("2026-11-29", "2026-11-29"),
     ("1e", "1e"), ("e3", "e3"), ("'1e3'", "1e3"), ("null", None)],
)  # fmt: skip
def test_numbers_and_words(file, text, value):
    found = load(file(f"a: {text}\n"))["a"]
    assert (found, type(found)) == (value, type(value))


def test_anchors_and_keys_of_ones_own(file):
    anchored = "x-adam: &adam {call: torch.optim.Adam, kwargs: {lr: 1e-2}}\n" + STUDY.replace(
        "{call: torch.optim.Adam, kwargs: {lr: 1e-3}}", "*adam"
    )
    assert read(file(anchored)).fit.optimizer.kwargs == {"lr": 0.01}


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.system [ls]", "a: [1", "a: !thing 3", "a: *none", "\tb"])
def test_unsafe_and_broken_yaml_is_one_sentence(file, text):
    lines = problems(path := file(text))
    assert len(lines) == 1
    assert re.match(rf"{re.escape(str(path))}:\d+: not YAML that can be read safely: ", lines[0])


@pytest.mark.parametrize("key", ["extract_cams", "pixel_perturbation_analysis", "train_cls"])
def test_the_reference_form_gets_one_sentence(file, key):
    lines = problems(file(f"{key}:\n  attribution_methods: []\nother: 1\n"))
    assert len(lines) == 1
    assert names(lines[0], f"{key} ROAR attribution_methods:")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("fit.nb_epochs=5", "fit.nb_epochs: 'epochs'"),
        ("fit.scheduler=StepLR", "fit.scheduler: 'schedule'"),
        ("model.arch=ResNet8", "model.arch: 'call'"),
        ("percentiles=[10]", "percentiles: 'fractions'"),
        ("outdir=x", "outdir: 'out'"),
        ("data.kwargs.split_ratio=0.875", "split_ratio 'validation'"),
    ],
)
def test_a_key_of_the_reference_system_is_answered_with_its_new_place_wherever_it_stands(file, key, place):
    (line,) = problems(file(), [key])
    assert names(line, place)


@pytest.mark.parametrize("text", ["", "- a", "word"])
def test_no_mapping_is_one_sentence(file, text):
    assert names(problems(file(text))[0], "data: model:")


def test_a_missing_file_names_its_neighbours(file):
    path = file()
    (line,) = problems(path.with_name("studdy.yml"))
    assert names(line, f"{path.with_name('studdy.yml')} {path}")
    assert problems(Path("nowhere") / "x.yml") == [f"nowhere/x.yml: no such file in {Path.cwd()}"]


def test_an_error_inside_a_module_is_that_error(file, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_lab.py").write_text("x = 1\ny = x / 0\n")
    lines = problems(file(STUDY.replace("efface.methods.control.random", "broken_lab.method")))
    assert len(lines) == 1
    assert re.search(r"importing 'broken_lab' fails: ZeroDivisionError: .*broken_lab\.py:2\)", lines[0])


def test_overrides(file):
    path = file()
    study = read(
        path,
        [
            "fit.epochs=5",
            "repeats=1",
            "fractions=[0.5]",
            "attribution_methods.ig.kwargs.steps=9",
            "attribution_methods.0.name=chance",
            "imputer=efface.impute.constant",
            "imputer.kwargs.value=1e-1",
            "fit.optimizer.kwargs.lr=1e-4",
            "post.1=efface.erase.post.channel_max",
            "metrics.morf.kwargs.fractions=[0.1]",
        ],
    )
    assert (study.fit.epochs, study.repeats, study.fractions) == (5, 1, (0.5,))
    assert study.attribution_methods[1].kwargs == {"steps": 9}
    assert study.map_names() == ["chance", "ig"]
    assert study.imputer.kwargs == {"value": 0.1}
    assert study.fit.optimizer.kwargs == {"lr": 1e-4}
    assert [(each.name, each.kwargs.fractions) for each in study.metrics] == [("morf", (0.1,)), ("roar", None)]
    assert [each.call for each in study.post] == ["efface.erase.post.absolute", "efface.erase.post.channel_max"]


def test_an_override_changes_one_place_of_an_anchor_and_all_of_a_shared_piece(file):
    methods = """attribution_methods:
  - {name: one, method: efface.methods.path.integrated_gradients, kwargs: &line {steps: 4, alphas: [0.1, 0.9]}}
  - {name: two, method: efface.methods.path.integrated_gradients, kwargs: *line}
  - {name: three, method: efface.methods.smooth.smooth_grad, kwargs: {base: *base}}
  - {name: four, method: efface.methods.smooth.smooth_grad, kwargs: {base: *base}}
"""
    base = "x-base: &base {call: efface.methods.path.integrated_gradients, kwargs: {steps: 4}}\n"
    before, after = STUDY.split("attribution_methods:")
    text = base + before + methods + after[after.index("post:") :]
    shared = "x-base.kwargs.steps=7"
    study = read(file(text), ["attribution_methods.one.kwargs.alphas.0=0.2", shared])
    kwargs = {each.name: each.kwargs for each in study.attribution_methods}
    assert (kwargs["one"]["alphas"], kwargs["two"]["alphas"]) == ([0.2, 0.9], [0.1, 0.9])
    assert {kwargs[name]["base"]["kwargs"]["steps"] for name in ("three", "four")} == {7}
    study = read(file(text), ["attribution_methods.three.kwargs.base.kwargs.steps=5"])
    kwargs = {each.name: each.kwargs for each in study.attribution_methods}
    assert [kwargs[name]["base"]["kwargs"]["steps"] for name in ("three", "four")] == [5, 4]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs", "epochs override key=value"),
        ("=3", "override key=value"),
        ("x-none.kwargs.steps=3", "override x-none.kwargs.steps x-none"),
        ("x-base={steps: 3}", "override x-base anchor"),
        ("fit.epoch=3", "fit.epoch epochs"),
        ("repeat=3", "repeat repeats"),
        ("attribution_methods.gone.kwargs.steps=3", "gone"),
        ("attribution_methods.7=3", "7 list"),
        ("repeats=[1", "YAML quote"),
        ("fit.epochs.x=3", "fit.epochs section 2"),
        ("attribution_methods.²=3", "attribution_methods.² list number name"),
        ("attribution_methods.٣=3", "٣ list number name"),
        (f"attribution_methods.{'7' * 5000}=3", "key fit.epochs=2"),
        (f"{'7' * 5000}=3", "key fit.epochs=2"),
        ("fit.ep\x1b[31m=3", "key \\x1b"),
        ("7" * 5000, "override key=value"),
        (f"seed={'7' * 5000}", "override seed 5,000 digits"),
        (f"seed='{'7' * 5000}'", "seed integer 5,000 characters"),
        (f"fit.epochs='{'7' * 5000}'", "fit.epochs integer 5,000 characters"),
        (f"model.kwargs.in_channels='{'7' * 5000}'", "in_channels number 5,000 characters"),
        (f"reference='{'7' * 50}'", f"reference {'7' * 50}"),
        ("out=3", "out path quotes 3"),
        ("weights=[1]", "weights path list"),
        ("mean=['7e999']", "mean finite"),
    ],
)
def test_wrong_overrides(file, override, said):
    lines = problems(file(), [override])
    assert any(names(line, said) for line in lines)
    assert all(len(line) < 450 and line.isprintable() for line in lines)


def test_the_resolved_study_reads_as_itself(file):
    study = read(file())
    assert check(yaml.safe_load(dump(study)), Path("again.yml")) == study
    assert study.with_metrics(["kar", "roar"]).metrics[1] == study.metrics[1]
    with pytest.raises(ValueError, match=words("kra kar")):
        study.with_metrics(["kra"])


def test_the_studies_that_come_along_are_valid():
    for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yml")):
        study = read(path)
        assert isinstance(study, whole_study.Study)
        assert pickle.loads(pickle.dumps(study)) == study, path  # noqa: S301  as an executor's workers get it


def test_the_references_own_file_with_its_tag_is_told_apart(tmp_path):
    path = tmp_path / "roar.yml"
    path.write_text("desc: x\nextract_cams:\n  model:\n    pretrained: !!python/object/apply:os.path.join [a, b]\n")
    with pytest.raises(InvalidStudyError, match=words("roar.yml extract_cams attribution_methods:")):
        read(path)


def test_a_setting_of_the_executor_alone_is_one_of_the_default_executor(file):
    executor = read(file(), ["executor.kwargs.workers=1"]).executor
    assert (executor.call, executor.kwargs) == ("efface.execute.processes", {"workers": 1})
    with pytest.raises(InvalidStudyError, match=r"executor.*wurkers"):
        read(file(), ["executor.kwargs.wurkers=1"])


@pytest.mark.parametrize(
    "key",
    [{"kwargs": {"steps": 3}}, {"outputs": ["a"]}, {"network": "second"}, {"draws": 2}, {"post": None}],
    ids=lambda key: next(iter(key)),
)
def test_a_view_of_other_maps_takes_a_post_and_nothing_else(key):
    view = {"name": "view", "maps": "ig", "post": ["absolute"]}
    assert MethodEntry.model_validate(view).maps == "ig"
    with pytest.raises(ValueError, match=words("view post")):
        MethodEntry.model_validate(view | key)
