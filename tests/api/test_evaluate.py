"""A study from Python: the numbers of the command line, for every form of method, and nothing of the caller changes."""

import importlib
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency
from torch import nn

import efface
from efface.api.networks import network_keys
from efface.methods.gradient import gradient, input_x_gradient
from efface.plug.path import resolve
from efface.stages.measure import measure
from efface.study.study import Study
from small.messages import names

pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting backward hooks:UserWarning", "ignore:Setting forward:UserWarning"
)

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (16, 3, 8, 8), generator=GENERATOR, dtype=torch.uint8)
FLOATS = IMAGES.float() / 255
SHORT = {"fractions": [0.3, 0.7], "verbose": False}


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()


NETWORK = network()
LABELS = NETWORK(FLOATS).argmax(1).detach()


def weighted(model, images, targets, *, gain=1.0):
    return gain * images.mean(1) * (1 + model(images).gather(1, targets[:, None])[:, :, None].detach())


def one_at_a_time(model, image, label):
    return image.mean(1) * (1 + int(label))


@pytest.fixture(scope="module")
def result():
    return efface.evaluate(NETWORK, IMAGES, LABELS, {"gradient": gradient, "mine": weighted}, **SHORT)


@pytest.mark.long
def test_a_result_has_its_own_page_after_a_later_call_in_its_folder(tmp_path):
    first = efface.evaluate(NETWORK, IMAGES, LABELS, ["gradient"], "morf", out=tmp_path / "run", **SHORT)
    page = first.report().read_text()
    other = network()
    with torch.no_grad():
        other[3].bias.copy_(torch.tensor([5.0, 0.0, 0.0]))
    second = efface.evaluate(other, IMAGES, LABELS, ["gradient"], "lerf", out=tmp_path / "run", **SHORT)
    assert second.is_current
    with pytest.raises(ValueError, match="of a later call in the same folder"):
        first.report()
    copied = first.report(tmp_path / "first.html").read_text()
    assert "100 % of the test images right" in copied
    assert copied == re.sub("<!-- beside -->.*?<!-- /beside -->", "", page, flags=re.DOTALL)
    assert not re.search(r'href="(?!#|data:)', copied), "a copy has no links to files that are not beside it"
    assert "page:" not in repr(first)
    with pytest.raises(ValueError, match="a later call"):
        efface.compare(a=first, b=second, out=tmp_path / "both")


@pytest.mark.long
def test_a_network_that_has_learnt_little_is_told_above_the_numbers(result):
    wrong = efface.evaluate(NETWORK, IMAGES, (LABELS + 1) % 3, ["gradient"], ["morf"], **SHORT)
    caution = wrong.cautions[0]
    assert names(caution, "only 0 % of the test images correctly")
    assert " ".join(repr(wrong).split()).startswith(f"Caution: {caution}")
    assert wrong._repr_html_().startswith(f"<p><b>Caution:</b> {caution}</p>")
    assert not any("learnt little" in each for each in result.cautions)


def test_no_number_of_the_table_is_minus_zero():
    maps = torch.rand(len(IMAGES), 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    methods = {"one": maps, "same": maps}
    table = efface.evaluate(NETWORK, IMAGES, LABELS, methods, ["morf", "lerf"], reference="one", **SHORT).table
    numbers = table[table.method == "same"].select_dtypes("float")
    assert (numbers.gain == 0).all()
    assert not (np.signbit(numbers) & (numbers == 0)).any(axis=None)


@pytest.mark.parametrize(("model", "origin"), [(NETWORK, "handed over"), (lambda: NETWORK, "its function makes it")])
def test_the_origin_of_the_network_is_said(model, origin, capsys):
    efface.evaluate(model, IMAGES, LABELS, ["gradient"], ["morf"], **(SHORT | {"verbose": True}))
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("network: "))
    assert line.endswith(f"(as {'it was ' if origin == 'handed over' else ''}{origin})")


def test_the_page_says_that_a_call_made_it(result):
    text = result.report().read_text()
    assert "the same call of efface.evaluate in Python" in text
    assert "efface_given" not in text.split("<h2>The study</h2>")[0]


def test_the_numbers_are_those_of_the_command_line(tmp_path, monkeypatch, result):
    torch.save({"images": IMAGES, "labels": LABELS, "network": NETWORK.state_dict()}, tmp_path / "given.pt")
    (tmp_path / "by_hand.py").write_text(
        "import torch\nfrom pathlib import Path\nfrom torch import nn\nfrom efface.base.types import Split\n"
        "GIVEN = torch.load(Path(__file__).parent / 'given.pt')\n"
        "def data():\n    return {'test': Split(GIVEN['images'], GIVEN['labels'])}\n"
        "def network():\n    made = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),\n"
        "                         nn.Linear(256, 3))\n"
        "    made.load_state_dict(GIVEN['network'])\n    return made\n"
        "def weighted(model, images, targets):\n"
        "    return images.mean(1) * (1 + model(images).gather(1, targets[:, None])[:, :, None].detach())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    study = Study.model_validate(
        {
            "out": tmp_path / "run",
            "data": {"call": "by_hand.data"},
            "model": {"call": "by_hand.network"},
            "attribution_methods": [
                {"name": "random", "method": "random"},
                {"name": "gradient", "method": "gradient"},
                {"name": "mine", "method": "by_hand.weighted"},
            ],
            "metrics": ["morf", "lerf"],
            "post": ["channel_sum"],
            "fractions": [0.3, 0.7],
            "executor": {"call": "serial"},
        }
    )
    assert measure(study) == []
    ours, theirs = (pd.read_csv(out / "report/summary.csv") for out in (result.out, tmp_path / "run"))
    pd.testing.assert_frame_equal(ours, theirs)


def test_the_table_says_what_the_page_says(result):
    table, summary = result.table, pd.read_csv(result.out / "report/summary.csv")
    assert list(table.metric.unique()) == ["morf", "lerf"]
    assert set(table.method) == {"random", "gradient", "mine"}
    for row in table.itertuples():
        same = summary[(summary.metric == row.metric) & (summary.score == row.score) & (summary.method == row.method)]
        assert same.area.iloc[0] == pytest.approx(row.value)
        sign = -1 if row.metric == "morf" else 1
        gain = sign * same.random_difference.iloc[0]
        assert row.gain == pytest.approx(gain, nan_ok=True)
        assert row.method == "random" or row.gain_low <= row.gain <= row.gain_high
    assert set(table[table.method == "random"].verdict) == {"the reference"}
    assert result.accuracy == 1.0


def test_scores_of_images_give_the_areas(result):
    scores, table = result.scores, result.table
    for row in table.itertuples():
        own = scores[(scores.metric == row.metric) & (scores.score == row.score) & (scores.method == row.method)]
        by_image = own.pivot(index="image", columns="fraction", values="value")
        areas = np.trapezoid(by_image.to_numpy(), by_image.columns.to_numpy(), axis=1)
        assert len(by_image) == 16
        assert areas.mean() / (by_image.columns[-1] - by_image.columns[0]) == pytest.approx(row.value)


def test_the_page_and_the_notebook_view_are_whole(tmp_path, result):
    page = result.report(tmp_path / "page.html")
    assert page.read_text() in re.sub(
        "<!-- beside -->.*?<!-- /beside -->", "", result.report().read_text(), flags=re.DOTALL
    )
    assert "mine" in page.read_text()
    assert "<table" in result._repr_html_()
    assert "100 % of the images right" in result._repr_html_()
    assert "mine" in repr(result)


METHODS = {
    "word": ("gradient", gradient),
    "function of efface": (input_x_gradient, input_x_gradient),
    "function": (weighted, weighted),
    "lambda": (
        lambda model, images, targets: images[:, 0] - images[:, 1],
        lambda _, images, __: images[:, 0] - images[:, 1],
    ),
    "one image": (one_at_a_time, lambda _, images, targets: images.mean(1) * (1 + targets[:, None, None])),
    "entry": ({"method": weighted, "kwargs": {"gain": 3.0}}, lambda *case: weighted(*case, gain=3.0)),
    "object of Captum": (
        IntegratedGradients(NETWORK),
        lambda model, images, targets: IntegratedGradients(model).attribute(images, target=targets),
    ),
    "object of Captum with a setting": (
        IntegratedGradients(NETWORK, multiply_by_inputs=False),
        lambda model, images, targets: IntegratedGradients(model, False).attribute(images, target=targets),
    ),
    "class of Captum": (
        Saliency,
        lambda model, images, targets: Saliency(model).attribute(images.requires_grad_(), target=targets),
    ),
    "layer of Captum": (
        LayerGradCam(NETWORK, NETWORK[0]),
        lambda model, images, targets: LayerGradCam(model, model[0]).attribute(images, target=targets),
    ),
    "maps": (FLOATS[:, 2], lambda _, images, __: images[:, 2]),
    "array of maps": (FLOATS.numpy(), lambda _, images, __: images),
}


@pytest.fixture(scope="module")
def found():
    return efface.maps(NETWORK, FLOATS, methods={name.replace(" ", "_"): given for name, (given, _) in METHODS.items()})


@pytest.mark.parametrize("name", METHODS)
def test_every_form_of_a_method_gives_its_own_maps(found, name):
    maps = found[name.replace(" ", "_")]
    wanted = METHODS[name][1](NETWORK, FLOATS.clone(), LABELS).detach()
    torch.testing.assert_close(maps.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-6)


def test_a_noise_tunnel_is_one_around_its_method():
    tunnel = NoiseTunnel(Saliency(NETWORK))
    maps = efface.maps(NETWORK, FLOATS[:3], methods={"tunnel": tunnel})["tunnel"]
    assert maps.shape[0] == 3
    assert not torch.allclose(maps, efface.maps(NETWORK, FLOATS[:3], methods={"plain": Saliency})["plain"])


def noting(path, factor):
    def mine(model, images, targets):
        with path.open("a") as file:
            file.write(f"{factor} ")
        return factor * images.sum(1)

    return mine


@pytest.mark.long
def test_the_same_call_goes_on_and_another_method_is_computed_anew(tmp_path):
    path, calls = tmp_path / "calls", []
    for factor in (1.0, 1.0, -1.0):
        path.write_text("")
        mine = noting(path, factor)
        efface.evaluate(NETWORK, IMAGES, LABELS, {"mine": mine}, ["morf"], out=tmp_path / "run", **SHORT)
        calls.append(set(path.read_text().split()))
    assert calls == [{"1.0"}, set(), {"-1.0"}]


@pytest.mark.long
def test_a_function_of_a_file_that_was_edited_and_loaded_again_is_computed_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "def mine(model, images, targets):\n    return {} * images.sum(1)\n"
    (tmp_path / "edited_here.py").write_text(text.format("1.0"))
    module = importlib.import_module("edited_here")
    called = [NETWORK, IMAGES, LABELS]
    first = efface.evaluate(*called, {"mine": module.mine}, ["morf"], out=tmp_path / "run", **SHORT).table
    (tmp_path / "edited_here.py").write_text(text.format("-1.0 "))
    importlib.invalidate_caches()
    module = importlib.reload(module)
    second = efface.evaluate(*called, {"mine": module.mine}, ["morf"], out=tmp_path / "run", **SHORT).table
    fresh = efface.evaluate(*called, {"mine": module.mine}, ["morf"], **SHORT).table
    pd.testing.assert_frame_equal(second, fresh)
    assert not first.equals(second)


@pytest.mark.long
def test_a_network_that_no_digest_can_tell_is_measured_each_time(tmp_path):
    model = network()
    model.opened = _Opened()
    for sign in (1.0, -1.0):
        model[3].weight.data.mul_(sign)
        same = efface.evaluate(model, IMAGES, LABELS, ["gradient"], ["morf"], out=tmp_path / "run", **SHORT).table
        fresh = efface.evaluate(model, IMAGES, LABELS, ["gradient"], ["morf"], **SHORT).table
        pd.testing.assert_frame_equal(same, fresh)


class _Opened:
    """What copies but does not tell what it is."""

    __slots__ = ()

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError("cannot be told")


@pytest.mark.long
def test_other_weights_in_the_same_folder_are_measured_anew(tmp_path):
    other = network()
    with torch.no_grad():
        other[3].weight.neg_()
    for model in (NETWORK, other):
        fresh = efface.evaluate(model, IMAGES, LABELS, ["gradient"], ["morf"], **SHORT).table
        same = efface.evaluate(model, IMAGES, LABELS, ["gradient"], ["morf"], out=tmp_path / "run", **SHORT).table
        pd.testing.assert_frame_equal(fresh, same)
    with pytest.raises(ValueError, match="other data"):
        efface.evaluate(NETWORK, 255 - IMAGES, LABELS, ["gradient"], ["morf"], out=tmp_path / "run", **SHORT)


@pytest.mark.long
def test_an_ordinary_run_folder_is_left_which_commands_read(tmp_path):
    efface.evaluate(NETWORK, IMAGES, LABELS, {"mine": weighted}, ["morf"], out=tmp_path / "run", **SHORT)
    for words in (["status"], ["report"]):
        done = subprocess.run(
            [sys.executable, "-m", "efface", *words, str(tmp_path / "run")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "left" in done.stdout or "report" in done.stdout
    assert json.loads((tmp_path / "run/plan.json").read_text())


@pytest.mark.long
def test_nothing_of_the_caller_changes(tmp_path):
    model = network().train()
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    state, numbers, threads = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()  # noqa: NPY002
    floats = FLOATS.clone()
    efface.evaluate(
        model, floats, LABELS, {"mine": weighted, "n": "smooth_grad"}, ["morf"], out=tmp_path / "r", **SHORT
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002
    assert torch.get_num_threads() == threads
    assert model.training
    assert not model[0].weight.requires_grad
    assert model[3].weight.grad is None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(floats, FLOATS)


def test_trainings_start_from_fresh_weights_and_the_given_network_is_explained(tmp_path):
    keys = network_keys(NETWORK, tmp_path, retrains=True)
    make = resolve(keys["model"]["call"])
    weights = [make()[3].weight for _ in range(2)]
    assert not torch.equal(*weights)
    assert all(weight.std() > 0 and not torch.equal(weight, NETWORK[3].weight) for weight in weights)
    kept = torch.load(keys["weights"], weights_only=True)
    assert all(torch.equal(kept[name], value) for name, value in NETWORK.state_dict().items())

    refit = {"epochs": 1, "batch_size": 8, "optimizer": {"call": "torch.optim.SGD", "kwargs": {"lr": 0.1}}}
    called = {"train": (IMAGES, LABELS), "refit": refit, "repeats": 2, "fractions": [0.5], "verbose": False}
    found = efface.evaluate(NETWORK, IMAGES, LABELS, ["gradient"], ["roar"], **called)
    assert found.accuracy == 1.0
    assert set(found.scores.repeat) == {0, 1}


def test_a_network_whose_weights_cannot_be_drawn_anew_is_refused(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = network(), nn.Parameter(torch.ones(1))

        def forward(self, images):
            return self.scale * self.inner(images)

    with pytest.raises(ValueError, match="reset_parameters"):
        efface.evaluate(Scaled(), IMAGES, LABELS, ["gradient"], ["roar"], train=(IMAGES, LABELS), refit=REFIT)
    assert efface.evaluate(Scaled(), IMAGES, LABELS, ["gradient"], ["morf"], **SHORT).accuracy == 1.0


def test_a_method_that_fails_is_named_and_the_others_stand():
    def broken(model, images, targets):
        if len(images) > 2:  # more than are tried
            raise RuntimeError("no maps today")
        return images.sum(1)

    with pytest.warns(UserWarning, match="no maps today"):
        found = efface.evaluate(NETWORK, IMAGES, LABELS, {"broken": broken, "mine": weighted}, ["morf"], **SHORT)
    assert any(names(line, "broken no maps today") for line in found.failures)
    assert found.table.set_index("method").loc["mine", "value"] > 0


@pytest.mark.long
def test_two_results_stand_beside_one_another(tmp_path, result):
    page = efface.compare(out=tmp_path / "both", first=result, second=result.out)
    assert all(label in page.read_text() for label in ("first", "second"))
    with pytest.raises(ValueError, match="two or more"):
        efface.compare(only=result)


@pytest.mark.long
def test_workers_get_what_pickles_and_the_rest_stays_in_this_process():
    called = SHORT | {"executor": {"call": "processes", "kwargs": {"workers": 2}}}
    alone = efface.evaluate(NETWORK, IMAGES, LABELS, ["gradient"], ["morf"], **SHORT)
    several = efface.evaluate(NETWORK, IMAGES, LABELS, ["gradient"], ["morf"], **called)
    pd.testing.assert_frame_equal(alone.table, several.table)
    with pytest.warns(UserWarning, match="does not pickle"):
        efface.evaluate(NETWORK, IMAGES, LABELS, {"mine": lambda *case: -weighted(*case)}, ["morf"], **called)


REFIT = {"epochs": 1, "optimizer": {"call": "torch.optim.SGD", "kwargs": {"lr": 0.1}}}
WRONG = {
    "method": ((NETWORK, IMAGES, LABELS, {"mine": 3}), {}, "methods mine int expected"),
    "no method": ((NETWORK, IMAGES, LABELS, {}), {}, "methods none"),
    "twice": ((NETWORK, IMAGES, LABELS, [weighted, weighted]), {}, "weighted twice dict"),
    "unnamed maps": ((NETWORK, IMAGES, LABELS, [FLOATS]), {}, "maps have no name"),
    "maps of others": ((NETWORK, IMAGES, LABELS, {"m": FLOATS[:3]}), {}, "3 maps 16"),
    "misspelt word": ((NETWORK, IMAGES, LABELS, ["gradent"]), {}, "gradent did you mean"),
    "misspelt metric": ((NETWORK, IMAGES, LABELS, ["gradient"], ["mofr"]), {}, "mofr"),
    "misspelt setting": ((NETWORK, IMAGES, LABELS), {"fraction": [0.5]}, "fraction"),
    "own key": ((NETWORK, IMAGES, LABELS), {"variants": {}}, "variants no setting of a call"),
    "retraining without images": ((NETWORK, IMAGES, LABELS, ["gradient"], ["roar"]), {"refit": REFIT}, "train"),
    "training the model anew": ((NETWORK, IMAGES, LABELS), {"fit": REFIT}, "fit refit"),
    "captum of another network": (
        (NETWORK, IMAGES, LABELS, {"ig": IntegratedGradients(network())}),
        {},
        "ig made for another network",
    ),
    "captum of a function": (
        (NETWORK, IMAGES, LABELS, {"ig": IntegratedGradients(lambda images: NETWORK(images)[:, :2])}),
        {},
        "ig function around",
    ),
    "a layer of another": (
        (NETWORK, IMAGES, LABELS, {"cam": LayerGradCam(NETWORK, nn.ReLU())}),
        {},
        "cam layer no module of the model",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_one_error_in_words(case):
    given, settings, said = WRONG[case]
    with pytest.raises(ValueError) as error:
        efface.evaluate(*given, verbose=False, **settings)
    assert names(str(error.value), said), str(error.value)
    assert "efface_given" not in str(error.value)


def test_a_folder_of_its_own_goes_with_the_result():
    found = efface.evaluate(NETWORK, IMAGES, LABELS, ["gradient"], ["morf"], **SHORT)
    folder = found.out
    assert folder.is_dir()
    del found
    assert not folder.exists()


@pytest.mark.long
def test_a_function_makes_the_network():
    found = efface.evaluate(network, IMAGES, LABELS, ["gradient"], ["morf"], **SHORT)
    same = efface.evaluate(NETWORK, IMAGES, LABELS, ["gradient"], ["morf"], **SHORT)
    pd.testing.assert_frame_equal(found.table, same.table)


def test_a_result_is_shown_whole_in_the_width_of_the_terminal(result, monkeypatch):
    for width in (60, 100, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        text = repr(result)
        body = text.partition("accuracy ")[0].partition("\naccuracy")[0]
        assert max(map(len, body.splitlines())) <= width
        assert "..." not in body
        assert all(name in text for name in ("morf", "lerf", "mine", "gradient", "random"))
        assert all(f"{value:.3f}" in text for value in result.table.value)
    assert "<table" in result._repr_html_()  # what a notebook asks for


def test_show_prints_the_table_and_opens_the_page(result, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    result.show()
    assert repr(result) in capsys.readouterr().out
    assert opened == [result.report().as_uri()]


def test_a_folder_that_cannot_be_used_is_refused_in_words(tmp_path, result):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/study.yml").write_text("out: runs/x\nmodel: resnet8\n")
    refused = {
        tmp_path / "file": "out: file is a file",
        tmp_path / "file/below": "out: file is a file",
        "/proc/efface": "out: nothing can be written there",
        tmp_path / "other": "out: other study.yml run from a file another folder",
    }
    for out, said in refused.items():
        for call in (efface.evaluate, efface.maps):
            with pytest.raises(ValueError, match="out:") as error:
                call(NETWORK, IMAGES, LABELS, ["gradient"], out=out, verbose=False)
            assert names(str(error.value).replace("/", " / "), said)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "other", "study.yml"], "nothing was written"
    for out in ("file", "file/below"):
        with pytest.raises(ValueError, match="out:"):
            efface.compare(a=result, b=result, out=tmp_path / out)
    for path in (tmp_path / "no/page.html", tmp_path):
        with pytest.raises(ValueError, match="report:"):
            result.report(path)


ODD = ("IG (50 steps)", "IG [50 steps]", "mine, a=1/b", "cost $x_1$ & 5 % <b>\\", "größe")


@pytest.mark.long
def test_methods_have_any_name_that_can_be_printed(tmp_path):
    methods = {name: {"method": weighted, "kwargs": {"gain": 1.0 + i}} for i, name in enumerate(ODD)}
    out = tmp_path / "run"
    result = efface.evaluate(NETWORK, IMAGES, LABELS, methods, "morf", out=out, **SHORT)
    assert set(result.table.method) == {*ODD, "random"}
    maps = sorted(path.name for path in (out / "maps").glob("*.h5"))
    assert len(maps) == len(ODD) + 1
    assert all(re.fullmatch(r"[A-Za-z0-9_.+-]+", name) for name in maps)
    page = result.report().read_text()
    assert "cost $x_1$ &amp; 5 % &lt;b&gt;\\" in page
    assert "<b>\\" not in page
    assert r"cost \$x\_1\$ \& 5 \% <b>\textbackslash{}" in (out / "report/table.tex").read_text()
    again = efface.evaluate(NETWORK, IMAGES, LABELS, methods, "morf", out=out, **SHORT)
    pd.testing.assert_frame_equal(again.table, result.table)
    told = subprocess.run(
        [sys.executable, "-m", "efface", "status", str(out)], capture_output=True, text=True, check=True
    )
    assert "to extract" not in told.stdout
    assert ", 0 left" in told.stdout
    kept = efface.maps(NETWORK, IMAGES, LABELS, {ODD[0]: weighted}, verbose=False)
    assert list(kept) == [ODD[0]]


@pytest.mark.parametrize("name", ["", " mine", "mine ", "a~2", "a\nb", "\x1b[31m", "x" * 81])
def test_a_name_that_cannot_be_shown_is_refused_with_the_rule(name):
    with pytest.raises(ValueError, match="no name of a method; expected 1 to 80 characters"):
        efface.evaluate(NETWORK, IMAGES, LABELS, {name: weighted}, "morf", **SHORT)
