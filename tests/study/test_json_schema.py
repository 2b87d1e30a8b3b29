"""The JSON schema of a study takes every study that efface takes, and refuses what is misspelt."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest

from efface.plug import words
from efface.study.json_schema import DEFAULT_EXECUTOR, json_schema
from efface.study.study import Study, check
from efface.study.yaml_file import InvalidStudyError, load

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "configs").rglob("*.yml"))


@pytest.fixture(scope="module")
def schema():
    return json_schema()


@pytest.fixture(scope="module")
def validator(schema):
    kind = jsonschema.validators.validator_for(schema)
    assert kind is jsonschema.Draft202012Validator
    kind.check_schema(schema)
    return kind(schema)


@pytest.fixture
def digits():
    return load(ROOT / "configs" / "digits.yml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_every_study_here_is_valid(path, validator):
    found = [f"{list(each.absolute_path)}: {each.message[:200]}" for each in validator.iter_errors(load(path))]
    assert found == []


def changed(tree, where, value):
    tree = copy.deepcopy(tree)
    *parents, last = where
    part = tree
    for key in parents:
        part = part[key]
    if isinstance(part, dict) or last < len(part):
        part[last] = value
    else:
        part.append(value)
    return tree


WRONG = [
    (("metrcs",), []),
    (("fit", "epoch"), 3),
    (("fit",), {"batch_size": 8}),
    (("fit", "preset"), "shrt"),
    (("fit", "preset"), {"call": "short", "kwargs": {"shares": 0.5}}),
    (("fit", "epochs"), "many"),
    (("data",), "diggits"),
    (("data",), {"call": "digits", "kwargs": {"limt": 3}}),
    (("data",), {"call": "digits", "kwarg": {}}),
    (("model", "kwargs", "num_clases"), 10),
    (("explain",), "predictd"),
    (("attribution_methods", 1, "methd"), "gradient"),
    (("attribution_methods", 1, "method"), "gradeint"),
    (("attribution_methods", 4, "kwargs", "stpes"), 3),
    (("attribution_methods", 4, "kwargs", "steps"), "many"),
    (("attribution_methods",), []),
    (("metrics", 0), "marf"),
    (("metrics", 5, "kwargs", "epss"), [0]),
    (("metrics", 0), {"name": "morf", "kwargs": {"imputr": "blur"}}),
    (("metrics", 0), {"name": "mine", "metric": "morff"}),
    (("post", 0), "absolut"),
    (("imputer",), "bluur"),
    (("imputer",), {"call": "blur", "kwargs": {"sigm": 2}}),
    (("unit",), "pixels"),
    (("unit",), {"call": "patch", "kwargs": {"sise": 2}}),
    (("fractions",), [0.1, 1.5]),
    (("repeats",), True),
    (("repeats",), 0),
    (("executor",), {"kwargs": {"worker": 2}}),
    (("fit", "regularizers"), ["score_matchin"]),
    (("claims",), [{"says": "x"}]),
    (("decide",), {"levl": 0.1}),
]


@pytest.mark.parametrize(("where", "value"), WRONG, ids=lambda each: str(each)[:60])
def test_what_is_misspelt_is_refused_as_efface_refuses_it(where, value, validator, digits):
    assert validator.is_valid(digits)
    wrong = changed(digits, where, value)
    with pytest.raises(InvalidStudyError):
        check(copy.deepcopy(wrong), Path("study.yml"))
    assert not validator.is_valid(wrong)


RIGHT = [
    (("metrics",), "recommended"),
    (("metrics",), ["recommended", "mask_leak"]),
    (("x-shared",), {"anything": 1}),
    (("explain",), True),
    (("attribution_methods", 1, "method"), "my_maps.mine"),
    (("attribution_methods", 1), {"name": "a", "method": "my_maps.mine", "kwargs": {"strength": 2}}),
    (("attribution_methods", 1), {"name": "a", "method": "efface.methods.gradient.gradient"}),
    (("attribution_methods", 1), {"name": "a", "method": "smooth_grad", "kwargs": {"base": "guided_backprop"}}),
    (("attribution_methods", 1), {"name": "theirs", "file": "maps.npz"}),
    (("data",), {"call": "my_data.mine", "kwargs": {"root": "x"}}),
    (("model",), {"call": "timm", "kwargs": {"name": "vit_tiny_patch16_224", "img_size": 32}}),
    (("metrics", 0), "my_metrics.gap"),
    (("metrics", 0), {"name": "gap", "metric": "my_metrics.gap", "kwargs": {"levels": [1]}}),
    (("metrics", 0), {"name": "morf_blur", "metric": "morf", "kwargs": {"imputer": "blur", "fractions": [0.5]}}),
    (("executor",), {"kwargs": {"workers": 2}}),
    (("unit",), {"call": "patch", "kwargs": {"size": 4}}),
    (("unit",), "token"),
    (("variants",), {"robust": {"fit.attack": {"call": "pgd"}}}),
    (("weights",), None),
    (("fit", "regularizers"), [{"call": "score_matching", "weight": 0.1}]),
    (("fit",), {"preset": "short"}),
    (("refit",), {"preset": {"call": "short", "kwargs": {"share": 0.5}}, "batch_size": 8}),
    (("fit", "preset"), "my_presets.mine"),
]


@pytest.mark.parametrize(("where", "value"), RIGHT, ids=lambda each: str(each)[:60])
def test_what_a_study_may_say_is_accepted(where, value, validator, digits):
    found = [each.message[:300] for each in validator.iter_errors(changed(digits, where, value))]
    assert found == []


def test_every_key_and_every_word_is_there_and_every_reference_leads_somewhere(schema):
    assert set(schema["properties"]) == set(Study.model_fields)
    assert [key for key, each in schema["properties"].items() if not each.get("description")] == []
    text = json.dumps(schema)
    for name in re.findall(r'"#/\$defs/([^"]+)"', text):
        assert name in schema["$defs"], name
    for kind in words.KINDS:
        assert {f"{kind}.{word}" for word in words.index(kind)} <= set(schema["$defs"])
    assert "x-plug-in" not in text
    assert Study.model_fields["executor"].default.call.endswith(f".{DEFAULT_EXECUTOR}")


def test_the_command_prints_the_schema(schema, capsys):
    from efface.__main__ import main

    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(schema))
