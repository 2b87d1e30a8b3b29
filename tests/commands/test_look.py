"""`efface list` and `efface show` say what docstrings, signatures, facts and a trial say; nothing is kept by hand."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from efface.__main__ import main
from efface.commands import catalogue
from efface.plug import docstrings, words
from efface.plug.call import resolve
from efface.stages.trial import networks
from small.messages import names
from small.studies import write_study

CHOOSING = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text()


def shown(capsys, *asked):
    assert main(["show", *asked, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["plug_ins"]


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_a_list_has_every_plug_in_of_its_kind_and_its_own_sentence(kind, capsys):
    assert main(["list", kind, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == kind
    index = words.index(catalogue.KINDS[kind])
    assert {each["name"]: each["path"] for each in document["names"]} == index
    for each in document["names"]:
        target = resolve(each["path"])
        own = inspect.getdoc(target) if inspect.isfunction(target) or inspect.isclass(target) else None
        text = own or inspect.getdoc(sys.modules[each["path"].rpartition(".")[0]])
        assert each["says"], each["name"]
        assert text.startswith(each["says"])
        assert each["source"] == docstrings.said(text, "Source")
    assert main(["list", kind]) == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(name)}\s", said, re.MULTILINE) for name in index)


def test_kinds_of_the_list_are_those_that_a_study_names():
    assert sorted(catalogue.KINDS.values()) == sorted(words.KINDS)


def test_a_list_imports_no_torch():
    code = "import sys; from efface.__main__ import main; main(['list', 'methods']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_settings_have_their_defaults_and_their_meaning(capsys):
    (found,) = shown(capsys, "smooth_grad", "samples=4")
    settings = {each["name"]: each for each in found["settings"]}
    known = inspect.signature(resolve(found["path"])).parameters
    assert set(settings) == set(known) - {"model", "images", "targets", "seeds", "max_batch"}
    assert settings["samples"]["default"] == known["samples"].default
    assert "at least 1" in settings["samples"]["means"]  # of smooth_grad_family, whose settings it takes
    assert found["cost"] == {"forward": "4", "backward": "4", "on": "resnet8 of efface"}


def test_every_setting_of_every_method_and_metric_has_a_meaning():
    missing = []
    for kind in ("method", "metric", "imputer"):
        for path in words.index(kind).values():
            target = resolve(path)
            text = docstrings.docstring(path)
            missing += [(path, each["name"]) for each in catalogue.settings(kind, target, text) if not each["means"]]
    assert missing == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["grad_cam", "guided_backprop", "generic_attention", "full_grad"])
def test_networks_are_those_of_the_tables(name, capsys):
    (found,) = shown(capsys, name)
    columns = {"thin ResNet": 0, "ConvNeXt": 1, "ViT": 2, "Swin": 3}
    for column, place in columns.items():
        works = [*found["networks"].values()][place] == ""
        assert works == in_table(name, column), (column, found["networks"])


def in_table(name, column):
    """Whether docs/choosing.md says that a method works on a network."""
    part = next(text for text in CHOOSING.split("<!-- begin: ")[1:] if f"| {column} |" in text)
    everywhere = part.partition("Work on all of these networks: ")[2].partition("\n\n")[0]
    if f"`{name}`" in everywhere:
        return True
    head = next(line for line in part.splitlines() if line.startswith("| the others |")).split(" | ")
    row = next(line for line in part.splitlines() if line.startswith("| `") and f"`{name}`" in line).split(" | ")
    return row[[cell.strip(" |") for cell in head].index(column)].strip(" |") == "yes"


@pytest.mark.long
def test_a_control_asks_no_network_and_a_needed_setting_is_asked_for(capsys):
    (found,) = shown(capsys, "sobel")
    assert (found["control"], found["cost"]["forward"]) == (True, "0")
    (found,) = shown(capsys, "contrast")
    assert names(found["cost"]["unknown"], "base=...")
    (found,) = shown(capsys, "contrast", "base=grad_cam")
    assert found["cost"]["forward"] != "0"
    (found,) = shown(capsys, "smooth_grad_family", "samples=2")
    assert found["outputs"] == ["smooth_grad", "smooth_grad_squared", "var_grad"]
    assert "outputs: [smooth_grad, smooth_grad_squared, var_grad]" in catalogue.in_a_study(found, {})


def test_a_metric_says_its_values_points_and_cost(capsys):
    (roar,) = shown(capsys, "roar")
    assert (roar["values"], roar["cost"]) == ({"accuracy": "lower"}, {"passes": 0.0, "trainings": 6})
    assert any("fit" in each for each in roar["needs"])
    (morf,) = shown(capsys, "morf")
    assert morf["cost"] == {"passes": 6.0, "trainings": 0}  # the whole image, and five fractions
    (fewer,) = shown(capsys, "robust_accuracy", "eps=[0, 1]")
    assert fewer["points"] == [0.0, 1.0]


def test_a_word_of_two_kinds_shows_both(capsys):
    assert [each["kind"] for each in shown(capsys, "huggingface")] == ["data", "model"]


def test_a_function_of_ones_own_is_shown_by_its_path(tmp_path, monkeypatch, capsys):
    one = (
        "def dark(model, image, label, *, power: float = 1.0):\n"
        '    """One minus the image.\n\n    power: of the brightness.\n    """\n'
        "    return (1 - image[0].mean(0)).detach().numpy() ** power\n"
    )
    write_study(tmp_path, {"own_show": one})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (found,) = shown(capsys, "own_show.dark")
    assert (found["kind"], found["batched"], found["says"]) == ("method", False, "One minus the image.")
    assert found["settings"] == [{"name": "power", "needed": False, "default": 1.0, "means": "of the brightness."}]
    assert found["networks"]["a ViT"].startswith("differs: the map is the same for every class")
    assert main(["show", "own_show.dark"]) == 0
    assert "{name: dark, method: own_show.dark, batched: false}" in capsys.readouterr().out
    assert main(["show", "own_show.drak"]) == 1
    assert names(capsys.readouterr().err, "'drak' 'dark'")


def test_an_unknown_name_is_an_error_with_near_names(capsys):
    assert main(["show", "grad_kam"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert names(line, "'grad_kam' grad_cam")
    assert main(["show", "grad_cam", "laier=x"]) == 1
    assert names(capsys.readouterr().err, "'laier' 'layer'")
    assert main(["show", "blur", "sigma=2"]) == 1
    assert names(capsys.readouterr().err, "efface.impute.blur sigma")


def test_passes_are_those_of_the_method():
    from efface.methods.calling import MethodCall
    from efface.plug.call import Call

    network = networks.fresh(networks.RESNET)
    call = Call(call="efface.methods.path.integrated_gradients", kwargs={"steps": 7})
    assert networks.cost(MethodCall("ig", call), network, 32) == {"forward": "7", "backward": "7"}


def test_the_line_for_a_study_is_one_that_the_schema_takes():
    import jsonschema
    import yaml

    from efface.study.json_schema import json_schema

    validator = jsonschema.Draft202012Validator(json_schema())
    least = {"out": "x", "data": "digits", "model": "resnet8"}
    least["attribution_methods"] = [{"name": "random", "method": "random"}]
    for kind in words.KINDS:
        for name, path in words.index(kind).items():
            settings = list(catalogue.settings(kind, resolve(path), ""))
            line = catalogue.in_a_study({"name": name, "kind": kind, "settings": settings}, {})
            tree = least | yaml.safe_load(line)
            if "fit" in tree:
                tree["fit"] |= {"epochs": 1}
            faults = list(validator.iter_errors(_filled(tree)))
            assert faults == [], line


def _filled(tree):
    """A study without what a person must fill in: settings that are `...` are left out, and a weight is a number."""
    if isinstance(tree, dict):
        return {
            key: 1.0 if key == "weight" else _filled(value)
            for key, value in tree.items()
            if value != "..." or key == "weight"
        }
    return [_filled(each) for each in tree] if isinstance(tree, list) else tree
