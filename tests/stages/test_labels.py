"""The data's classes and the network's: a sure network that is right at chance, more outputs, one class, notes."""

import shutil

import numpy as np
import pytest
import torch

from efface.base.types import Split
from efface.models.small import mlp
from efface.plug.call import Call
from efface.stages.run.inputs import checked_data
from efface.stages.run.labels import other_numbers, sure_and_wrong
from small.messages import names, words
from small.studies import efface as run_efface
from small.studies import write_study
from test_data import tree

RANDOM = {"name": "random", "method": "random"}


def logits(right, n, classes, *, sure=8.0):
    """Answers of which the first `right` are right."""
    targets = torch.arange(n) % classes
    given = torch.where(torch.arange(n) < right, targets, (targets + 1) % classes)
    return sure * torch.nn.functional.one_hot(given, classes).float(), targets


@pytest.mark.parametrize(
    ("right", "n", "classes", "sure", "said"),
    [
        (8, 48, 12, 8.0, True),  # numbers sorted as words: 0 and 1 keep their places
        (0, 100, 10, 8.0, True),
        (4, 100, 2, 8.0, True),  # two classes, the wrong way round
        (50, 100, 2, 8.0, True),
        (20, 1000, 100, 8.0, True),
        (8, 48, 12, 0.1, False),  # not sure
        (90, 100, 10, 8.0, False),
        (40, 100, 10, 8.0, False),  # overfitted, but far above chance
        (70, 100, 2, 8.0, False),
        (1, 10, 10, 8.0, False),  # too few images
    ],
)
def test_a_sure_network_that_is_right_at_chance_is_told(right, n, classes, sure, said):
    found = sure_and_wrong(*logits(right, n, classes, sure=sure))
    assert bool(found) == said
    assert all(names(each, f"labels class order {n} data.kwargs.classes") for each in found)


@pytest.fixture
def sure(tmp_path):
    """A tree of bright and dark images, and a network that is sure which is which, its outputs in the other order."""
    root = tree(tmp_path / "set", classes=("bright", "dark"), each=12)
    random = np.random.default_rng(0)
    from PIL import Image

    for path in root.glob("*/*/*.png"):
        level = 200 if path.parent.name == "bright" else 20
        Image.fromarray(random.integers(level, level + 40, (20, 20, 3), np.uint8)).save(path)
    network = mlp(in_features=3 * 256, widths=(), num_classes=2)
    state = {name: torch.zeros_like(each) for name, each in network.state_dict().items()}
    (weight,) = [name for name in state if name.endswith("weight")]
    (bias,) = [name for name in state if name.endswith("bias")]
    state[weight][1], state[bias][1] = 40 / 768, -20.0
    torch.save(state, tmp_path / "theirs.pt")
    return tmp_path


def study(folder, **changes):
    kwargs = {"root": str(folder / "set"), "size": 16, "resize": 20} | changes.pop("kwargs", {})
    settings = {
        "data": {"call": "image_folder", "kwargs": kwargs},
        "model": {"call": "mlp", "kwargs": {"in_features": 768, "widths": [], "num_classes": 2}},
        "weights": "theirs.pt",
        "fit": None,
        "attribution_methods": [RANDOM],
        "metrics": ["morf"],
    }
    return str(write_study(folder, **settings | changes))


@pytest.mark.long
def test_check_and_the_page_tell_of_labels_that_are_not_the_networks(sure):
    path = study(sure)
    done = run_efface(sure, "check", path)
    assert done.code == 0, done.err
    assert names(done.out, "warning: labels 0 % 24 50 %")
    assert not list((sure / "run").glob("models/*")), "check keeps nothing"
    done = run_efface(sure, "all", path)
    assert done.code == 0, done.err
    assert names(done.out, "warning: labels")
    page = (sure / "run" / "report" / "report.html").read_text()
    assert page.lower().index("the labels may not be the network") < page.index('<p class="lead">'), (
        "above every number"
    )
    weak = "caution: The network classifies only 0 % of the test images correctly, and chance is 50 %."
    assert done.out.count(weak) == 1
    for again in (path, str(sure / "run")):
        done = run_efface(sure, "report", again)
        assert done.code == 0, done.err
        assert done.out.count(weak) == 1


@pytest.mark.long
@pytest.mark.parametrize("classes", [[1, 0], ["dark", "bright"], {"bright": 1, "dark": 0}])
def test_with_its_own_numbers_the_network_is_right(classes, sure):
    done = run_efface(sure, "all", study(sure, kwargs={"classes": classes}))
    assert done.code == 0, done.err
    assert "100 % of 24 test images right" in done.out
    assert "labels" not in done.out


@pytest.mark.long
def test_more_outputs_than_classes_are_said(sure):
    model = {"call": "mlp", "kwargs": {"in_features": 768, "widths": [], "num_classes": 5}}
    path = study(sure, model=model, weights=None)
    done = run_efface(sure, "check", path)
    assert done.code == 0, done.err
    assert names(done.out, "warning: 5 outputs 2 classes data.kwargs.classes")
    assert run_efface(sure, "all", path).code == 0
    assert "5 outputs" in (sure / "run" / "report" / "report.html").read_text()


@pytest.mark.long
def test_one_class_only_is_refused_before_any_work(sure):
    for split in ("train", "val"):
        shutil.rmtree(sure / "set" / split / "dark")
    for word in ("check", "all"):
        done = run_efface(sure, word, study(sure))
        assert done.code == 1
        assert names(done.err, "data: 'train' one class (bright) data.kwargs.classes")
    done = run_efface(sure, "check", study(sure, kwargs={"classes": [1]}))
    assert done.code == 0, done.err


@pytest.mark.long
def test_what_the_tree_leaves_out_is_said_by_check_and_on_the_page(sure):
    (sure / "set" / "val").rename(sure / "set" / "Val")
    (sure / "set" / "Val" / "dark" / "notes.txt").touch()
    path = study(sure)
    done = run_efface(sure, "check", path)
    assert done.code == 0, done.err
    assert names(done.out, "data: 'Val' split 'test'")
    assert names(done.out, "data: 1 files .txt")
    assert run_efface(sure, "all", path).code == 0
    assert "1 .txt" in (sure / "run" / "report" / "report.html").read_text()


@pytest.mark.long
def test_photographs_that_nothing_normalises_for_a_network_from_elsewhere_are_told(sure):
    path = study(sure)
    done = run_efface(sure, "check", path)
    assert names(done.out, "warning: normalises 0 to 1 mean: std:")
    assert run_efface(sure, "all", path).code == 0
    page = (sure / "run" / "report" / "report.html").read_text()
    assert page.lower().index("nothing normalises") < page.index('<p class="lead">'), "above every number"
    own = study(sure, weights=None, fit={"epochs": 1, "optimizer": {"call": "torch.optim.SGD", "kwargs": {"lr": 0.1}}})
    settled = study(sure, mean=[0, 0, 0], std=[1, 1, 1])
    for each in (settled, own):
        done = run_efface(sure, "check", each)
        assert done.code == 0, done.err
        assert "normalises" not in done.out


@pytest.mark.long
def test_images_of_another_size_than_that_of_the_weights_are_told(sure):
    (sure / "sized.py").write_text(
        "from efface.models.loaded import state_image_size\nfrom efface.models.small import mlp\n\n\n"
        "def network():\n    made = mlp(in_features=768, widths=[], num_classes=2)\n"
        "    state_image_size(made, (60, 64))\n    return made\n"
    )
    path = study(sure, model={"call": "sized.network"})
    done = run_efface(sure, "check", path)
    assert names(done.out, "warning: 60 x 64 pixels test images have"), done.out + done.err
    assert run_efface(sure, "all", path).code == 0
    page = (sure / "run" / "report" / "report.html").read_text()
    assert page.index("60 x 64") < page.index('<p class="lead">'), "above every number"


def test_check_and_the_page_tell_of_class_names_in_another_order(sure):
    own = sorted(folder.name for folder in next(sure.glob("**/val")).iterdir())
    (sure / "named.py").write_text(
        "from efface.models.loaded import state_class_names\nfrom efface.models.small import mlp\n\n\n"
        f"def network():\n    made = mlp(in_features=768, widths=[], num_classes=2)\n"
        f"    state_class_names(made, {own[::-1]!r})\n    return made\n"
    )
    path = study(sure, model={"call": "named.network"})
    done = run_efface(sure, "check", path)
    assert names(done.out, f"warning: 2 of 2 classes {own[0]} is 0, there 1"), done.out + done.err


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(3, 1, 4, 4, dtype=torch.uint8), "test largest 3 black 255"),
        (torch.eye(4, dtype=torch.uint8).expand(3, 1, 4, 4), "test largest 1 black 255"),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), "test no images"),
    ],
)
def test_black_images_and_none_are_refused_with_their_split(images, said):
    given = {"test": Split(images, torch.zeros(len(images), dtype=torch.int64))}
    with pytest.raises(ValueError, match=words(said)):
        checked_data(Call(call="own.data"), given)


SEQUENCE = """
from torch import nn


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 14 * 14, 10)).eval()
"""


@pytest.mark.long
def test_what_the_study_says_of_the_images_is_a_part_of_what_maps_are_made_from(tmp_path):
    method = {"name": "gradient", "method": "gradient"}
    write_study(tmp_path, {"net": SEQUENCE}, metrics=["morf"], fit=None, attribution_methods=[method], std=[0.5] * 3)
    maps = tmp_path / "run" / "maps" / "gradient-test.h5"
    contents = []
    for mean in ([0.5] * 3, [0.1] * 3):
        found = run_efface(tmp_path, "all", "study.yml", f"mean={mean}")
        assert found.code == 0, found.err
        contents.append(maps.read_bytes())
    assert contents[0] != contents[1]
    assert len(list((tmp_path / "run" / "models").glob("logits-*.npz"))) == 2


CATS = ("cat", "dog", "Ant bear")


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (("dog", "Cat", "ant-bear"), "2 of 3 classes cat is 0, there 1 {cat: 1, dog: 0, Ant bear: 2}"),
        (("tench", "domestic cat, cat", "dog"), "2 of 3 classes cat is 0, there 1, dog is 1, there 2 {cat: 1, dog: 2}"),
        (("house cat, cat", "dog", "ant_bear", "cat"), ""),  # one of the two outputs of that name
        (("cat", "dog", "ant bear"), ""),
        (("x", "y", "z"), ""),
        ((), ""),
    ],
)
def test_classes_that_the_network_numbers_otherwise_are_told(outputs, said):
    found = other_numbers(outputs, CATS)
    assert len(found) == bool(said)
    assert all(names(line, said) for line in found)
