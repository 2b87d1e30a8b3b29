"""Short words of plug-ins: each names one function of its kind; a study with them is the study with dotted paths."""

import copy
import importlib
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
import yaml

from efface import impute
from efface.base.types import Unit
from efface.data.digits import digits
from efface.plug import moved, moved_names, words
from efface.plug.call import Call, resolve
from efface.stages.run.plan import make_plan
from efface.stages.run.run import Run
from efface.study.metric_entry import MetricEntry
from efface.study.schema import MethodEntry
from efface.study.study import InvalidStudyError, Study, check, dump, read
from small.caches import forget
from small.messages import names
from small.messages import words as named

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "methods.md").read_text()

SHORT = {
    "out": "run",
    "data": {"call": "digits", "kwargs": {"limit": 40, "test_limit": 20}},
    "model": {"call": "resnet8", "kwargs": {"num_classes": 10, "in_channels": 1}},
    "fit": {
        "epochs": 1,
        "augment": [{"call": "rotation", "kwargs": {"degrees": 2.0}}],
        "attack": {"call": "pgd", "kwargs": {"norm": "l2", "eps": 0.5}},
        "regularizers": [{"call": "gradient_norm", "weight": 0.1}],
    },
    "second_network": {"model": {"call": "resnet8", "kwargs": {"in_channels": 1}}},
    "attribution_methods": [
        {"name": "random", "method": "random"},
        {"name": "noisy", "method": "smooth_grad", "kwargs": {"base": "gradient", "samples": 2}},
        {
            "name": "other",
            "method": "var_grad",
            "kwargs": {"base": {"call": "smooth_grad", "kwargs": {"base": "gradient"}}},
        },
        {"name": "learns", "method": "expected_gradients", "post": ["square"]},
        {
            "name": "cross",
            "method": "explain_with",
            "kwargs": {"network": {"call": "resnet8", "kwargs": {"in_channels": 1}}, "method": "gradient"},
        },
        {"name": "captum", "method": "captum", "kwargs": {"algorithm": "Saliency"}},
    ],
    "post": ["absolute", {"call": "gaussian_blur", "kwargs": {"sigma": 1.0}}, "channel_sum"],
    "imputer": "blur",
    "unit": {"call": "patch", "kwargs": {"size": 2}},
    "metrics": [
        "morf",
        "roar",
        {
            "name": "again",
            "metric": "lerf",
            "kwargs": {"imputer": "constant", "unit": "pixel", "post": ["channel_max"]},
        },
    ],
    "executor": "serial",
}


def with_paths(tree):
    """The same study with the dotted path of every word, found by hand."""
    tree = copy.deepcopy(tree)
    tree["data"]["call"] = "efface.data.digits.digits"
    tree["model"]["call"] = tree["second_network"]["model"]["call"] = "efface.models.resnet.resnet8"
    tree["fit"]["augment"][0]["call"] = "efface.training.augment.rotation"
    tree["fit"]["attack"]["call"] = "efface.training.attack.pgd"
    tree["fit"]["regularizers"][0]["call"] = "efface.training.regularize.gradient_norm"
    gradient, smooth = "efface.methods.gradient.gradient", "efface.methods.smooth.smooth_grad"
    methods = tree["attribution_methods"]
    methods[0]["method"] = "efface.methods.control.random"
    methods[1] |= {"method": smooth, "kwargs": {"base": gradient, "samples": 2}}
    methods[2] |= {
        "method": "efface.methods.smooth.var_grad",
        "kwargs": {"base": {"call": smooth, "kwargs": {"base": gradient}}},
    }
    methods[3] |= {"method": "efface.methods.path.expected_gradients", "post": ["efface.erase.post.square"]}
    methods[4]["method"] = "efface.methods.control.explain_with"
    methods[4]["kwargs"] = {
        "network": {"call": "efface.models.resnet.resnet8", "kwargs": {"in_channels": 1}},
        "method": gradient,
    }
    methods[5]["method"] = "efface.methods.captum.attribute"
    tree["post"] = [
        "efface.erase.post.absolute",
        {"call": "efface.erase.post.gaussian_blur", "kwargs": {"sigma": 1.0}},
        "efface.erase.post.channel_sum",
    ]
    tree["imputer"] = "efface.impute.blur"
    tree["unit"]["call"] = "efface.erase.units.patch"
    tree["metrics"][2]["metric"] = "efface.metrics.lerf.lerf"
    tree["metrics"][2]["kwargs"] |= {"imputer": "efface.impute.constant", "post": ["efface.erase.post.channel_max"]}
    tree["executor"] = "efface.execute.serial"
    return tree


def read_tree(tree) -> Study:
    return check(copy.deepcopy(tree), Path("study.yml"))


def fresh(code: str) -> str:
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("kind", words.KINDS)
def test_each_word_names_one_plug_in_of_its_kind(kind):
    found = list(words.entries(kind))
    assert len({word for word, _ in found}) == len({path for _, path in found}) == len(found) > 0
    for word, path in found:
        assert words.expand(kind, words.word_of(path)) == path
        assert words.word_of(path) == word
        assert words.expand(kind, path) == path
        assert "." not in word
        resolve(path)
    assert not {word for word, _ in found} & {*get_args(Unit), "true", "false", "null", "on", "off", "yes", "no"}


def test_no_path_has_two_kinds():
    paths = [path for kind in words.KINDS for _, path in words.entries(kind)]
    assert len(set(paths)) == len(paths)


def test_the_words_of_methods_are_those_of_the_page():
    listed = re.findall(r"^\| `([\w.]+\.\w+)`", PAGE, re.MULTILINE)
    assert sorted(f"efface.methods.{each}" for each in listed) == sorted(words.index("method").values())


def test_the_words_of_the_other_kinds():
    assert list(words.index("imputer")) == sorted(impute.__all__)
    assert list(words.index("unit")) == ["patch", "superpixel", "token"]
    assert list(words.index("executor")) == ["processes", "ray", "serial", "slurm"]
    assert list(words.index("attack")) == ["minimal", "pgd"]
    assert list(words.index("augmentation")) == ["colour_jitter", "random_resized_crop", "rotation"]
    assert list(words.index("regularizer")) == ["anti_score_matching", "gradient_norm", "score_matching"]
    assert list(words.index("preset")) == ["short"]
    page = (ROOT / "docs" / "studies.md").read_text()
    for kind in ("data", "model"):
        assert [each for each in words.index(kind) if f"`{each}`" not in page] == []


@pytest.mark.parametrize("kind", words.KINDS)
def test_helpers_are_no_words(kind):
    helpers = ("check_pgd", "looking_at", "nonlinearity", "average_over_paths", "gradient_at", "Around", "Patterns")
    helpers += (
        "splits",
        "grouped_folder",
        "normalisation",
        "load",
        "attribute",
        "noise_of",
        "spread",
        "settle",
    )
    helpers += (
        "hessian_traces",
        "check_score_matching",
        "full_grad_parts",
        "null_block",
        "drawn_factors",
        "formula",
        "Term",
    )
    assert not set(helpers) & set(words.index(kind))


def test_an_unknown_word_is_answered_with_near_ones():
    with pytest.raises(ValueError, match=named("grad_cm method grad_cam dotted path")):
        words.expand("method", "grad_cm")
    with pytest.raises(ValueError, match=named("zzz executor processes serial dotted path")):
        words.expand("executor", "zzz")
    for change, said in (
        ({"data": "digit"}, "data: 'digit' is no data; did you mean 'digits'"),
        ({"executor": {"call": "serail"}}, "executor: 'serail' is no executor; there are processes, ray, serial"),
        ({"unit": "pixels"}, "unit: 'pixels' is no unit; there are pixel, feature, patch, superpixel"),
        ({"post": ["absolut"]}, "post.0: 'absolut' is no post; did you mean 'absolute'"),
    ):
        with pytest.raises(InvalidStudyError) as error:
            read_tree(SHORT | change)
        (line,) = [line for line in str(error.value).splitlines() if said in line]
        assert line.count("dotted path of your own function") == 1
    tree = copy.deepcopy(SHORT)
    tree["attribution_methods"][1]["kwargs"]["base"] = "gradeint"
    with pytest.raises(InvalidStudyError, match=named("noisy kwargs base gradeint gradient")):
        read_tree(tree)


def test_a_study_of_words_is_the_study_of_paths():
    short, long = read_tree(SHORT), read_tree(with_paths(SHORT))
    assert short == long
    assert short.model_dump() == long.model_dump()
    for one, other in zip(short.attribution_methods, long.attribution_methods, strict=True):
        assert one.call.draw_text == other.call.draw_text
        assert one.call.identity() == other.call.identity()
    assert read_tree(yaml.safe_load(dump(short))) == short
    assert "efface." not in dump(short)
    assert dump(short) == dump(long)


def test_the_numbers_are_drawn_from_the_words_of_efface_0_1():
    entry = MethodEntry(name="x", method="smooth_grad", kwargs={"base": "gradient"})
    assert entry.call.draw_text == (
        '{"call": "efface.methods.smooth.smooth_grad", "kwargs": {"base": "efface.methods.gradient.gradient"}}'
    )
    first = Call(call="efface.erase.post.absolute").draw_text
    assert first == '{"call": "efface.post.absolute", "kwargs": {}}'


def test_the_keys_of_results_are_those_of_paths(tmp_path):
    trees = [copy.deepcopy(each) | {"out": str(tmp_path)} for each in (SHORT, with_paths(SHORT))]
    for tree in trees:  # what has its own network or its own training is left out: none is trained here
        del tree["fit"]["attack"], tree["fit"]["regularizers"], tree["second_network"], tree["attribution_methods"][3:]
    runs = [Run(read_tree(each)) for each in trees]
    one, other = ([task.key for task in make_plan(run).tasks] for run in runs)
    assert one == other
    assert len(one) > 10


def test_a_variant_may_use_words(tmp_path):
    changes = {"fit.attack": {"call": "pgd", "kwargs": {"norm": "l2", "eps": 1.0}}, "model.call": "resnet20"}
    tree = SHORT | {"out": str(tmp_path), "variants": {"plain": {}, "robust": changes}}
    ((_,), (robust,)) = read_tree(tree).parts().values()
    assert robust.model.call == "efface.models.resnet.resnet20"
    assert robust.fit.attack.call == "efface.training.attack.pgd"


def test_a_metric_by_a_word_is_the_metric():
    assert MetricEntry(name="x", metric="infidelity").metric == "efface.metrics.infidelity.infidelity"


def test_a_moved_path_works_with_one_note(capsys):
    forget(moved)
    for _ in range(2):
        assert Call(call="efface.post.absolute").call == "efface.erase.post.absolute"
    base = {"base": "efface.methods.passes.logits_of"}
    assert Call(call="efface.methods.smooth.var_grad", kwargs=base).kwargs == {"base": "efface.models.scores.logits_of"}
    ends = "the old name works until efface 0.3"
    assert capsys.readouterr().err.splitlines() == [
        f"note: efface.post.absolute is now absolute (efface.erase.post.absolute); {ends}",
        f"note: efface.methods.passes.logits_of is now efface.models.scores.logits_of; {ends}",
    ]


def test_a_name_whose_numbers_have_changed_has_one_note(capsys):
    forget(moved)
    for path in ("efface.impute.histogram", words.expand("imputer", "histogram"), "efface.impute.image_pixels"):
        assert Call(call=path).call == path
    (said,) = capsys.readouterr().err.splitlines()
    assert names(said, "note histogram one colour efface 0.1 image_pixels")
    assert all(resolve(path) for path in moved_names.CHANGED)


def test_every_old_name_leads_to_a_name_of_today():
    for new in moved_names.MODULES.values():
        importlib.import_module(f"efface.{new}")
    for new in moved_names.NAMES.values():
        module, _, name = new.rpartition(".")
        assert hasattr(importlib.import_module(f"efface.{module}"), name), new


def test_statistics_that_are_gone_are_no_old_names(recwarn):
    stats = importlib.import_module("efface.stats")
    assert stats.compare_methods.__module__ == "efface.report.stats.paired"
    for name in ("bootstrap", "mean_intervals", "difference", "is_spreadless"):
        assert not any(old.endswith(f".{name}") for old in moved_names.NAMES)
        with pytest.raises(AttributeError, match=name):
            getattr(stats, name)


def test_a_worker_repeats_no_note(monkeypatch, capsys):
    forget(moved)
    monkeypatch.setattr("multiprocessing.parent_process", object)
    assert Call(call="efface.post.absolute").call == "efface.erase.post.absolute"
    assert capsys.readouterr().err == ""


def test_words_are_read_without_an_import():
    code = "from efface.plug import words; import sys; words.expand('method', 'captum'); words.word_of('x.y')\n"
    assert fresh(code + "print({'torch', 'numpy', 'captum', 'efface.methods'} & set(sys.modules))").strip() == "set()"


@pytest.mark.long
def test_help_imports_no_torch_and_a_study_none_of_what_it_does_not_use():
    code = "import sys\nfrom efface.__main__ import main\ntry:\n    main(['-h'])\nexcept SystemExit:\n    pass\n"
    assert fresh(code + "print('torch' in sys.modules)").splitlines()[-1] == "False"
    code = (
        "import sys\nfrom pathlib import Path\nfrom efface.study.study import read\nread(Path('configs/digits.yml'))\n"
    )
    slow = {
        "sklearn",
        "pandas",
        "matplotlib",
        "scipy.stats",
        "scipy.special",
        "torchvision",
        "jinja2",
        "skimage",
        "captum",
    }
    code += "from efface.plug.call import resolve\nresolve('efface.data.digits.digits')()\n"
    code += f"print({slow!r} & set(sys.modules))"
    assert fresh(code).strip() == "set()"


def test_the_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    known, found = load_digits(), digits()
    rows = {split: found[split].images.flatten(1).tolist() for split in ("train", "test")}
    scaled = (known.data * (255 / 16)).round().astype("uint8").tolist()
    expected = sorted([*image, int(label)] for image, label in zip(scaled, known.target, strict=True))
    together = [
        [*image, label]
        for split in rows
        for image, label in zip(rows[split], found[split].targets.tolist(), strict=True)
    ]
    assert sorted(together) == expected
    assert found["test"].classes == tuple(map(str, known.target_names))


def test_what_a_call_says_of_itself_is_worked_out_once():
    call = read(ROOT / "configs" / "digits.yml").attribution_methods[2].call
    call.identity()
    start = time.process_time()
    for _ in range(10_000):
        call.identity()
        assert call.wants("seeds")
        assert not call.learns
    assert time.process_time() - start < 6.0  # 20 s without, 1 s on a quiet machine


def test_a_function_without_the_annotations_of_its_kind_is_told_apart():
    with pytest.raises(ValueError, match=r"'last_convolution' is no model, although efface/models/.*annotations"):
        words.expand("model", "last_convolution")
