"""Which folders of a tree are splits and classes, what is left out, and the network's number of each class."""

import json
import shutil

import pytest
import torch

from efface.data.folder import image_folder
from efface.data.imagenet10 import imagenet10
from efface.data.numbering import imagenet_ids, numbers
from efface.plug.call import Call
from small.messages import words
from test_data import tree

SMALL = {"size": 16, "resize": 20}


def made(root, **settings):
    return image_folder(root=str(root), **SMALL, **settings)


@pytest.fixture
def whole(tmp_path):
    """A tree of two splits, two classes and four images of each."""
    return tree(tmp_path / "set")


@pytest.mark.parametrize(
    ("root", "said", "unsaid"),
    [
        (
            "imagenet/val",
            "imagenet/val no such folder image-net.org validation images ILSVRC2012 root efface demo",
            "train",
        ),
        ("ILSVRC2012", "ILSVRC2012 image-net.org ILSVRC2012/train ILSVRC2012/val root efface demo", "validation"),
        ("photographs", "photographs no such folder folder of photographs for each class root", "net.org"),
    ],
)
def test_a_missing_tree_says_which_photographs_and_how_to_get_them(root, said, unsaid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=words(said)) as error:
        made(f"data/{root}")
    assert unsaid not in str(error.value)


def test_hidden_folders_are_no_classes_and_hold_no_images(whole):
    for folder in (".ipynb_checkpoints", "__MACOSX", "ant/.thumbnails"):
        (whole / "val" / folder).mkdir()
        shutil.copy(whole / "val" / "ant" / "0.png", whole / "val" / folder / "copy.png")
    shutil.copy(whole / "val" / "ant" / "0.png", whole / "val" / "ant" / "._0.png")
    test = made(whole)["test"]
    assert test.classes == ("ant", "bee")
    assert len(test) == 8
    (said,) = test.notes
    assert ".ipynb_checkpoints" in said
    assert "4 hidden" in said


@pytest.mark.parametrize("names", [("Train", "Test"), ("TRAIN", "Val"), ("train", "VAL")])
def test_splits_are_found_in_any_case_and_said(names, tmp_path):
    found = made(tree(tmp_path / "set", splits=names))
    assert {name: len(split) for name, split in found.items()} == {"train": 8, "test": 8}
    said = " ".join(found["test"].notes)
    assert all(f"'{name}' is taken for the split" in said for name in names if name != name.lower())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("training", "validation"), "'training' train:"),
        (("train", "valid"), "'valid' test:"),
        (("train", "Train", "val"), "Train and train"),
        (("train", "test", "validation"), "test and validation"),
        (("Testing",), "'Testing' test:"),
    ],
)
def test_other_names_of_splits_must_be_named(names, said, tmp_path):
    root = tree(tmp_path / "set", splits=names)
    with pytest.raises(ValueError, match=words(said)):
        made(root)


def test_named_splits_may_have_any_name(tmp_path):
    root = tree(tmp_path / "set", splits=["training", "validation", "test"])
    assert len(made(root, train="training", test="validation")["train"]) == 8
    assert set(made(root / "test")) == {"test"}


def test_a_class_may_be_called_train(tmp_path):
    root = tree(tmp_path / "set", splits=["."], classes=("bus", "train"))
    assert made(root)["test"].classes == ("bus", "train")
    both = tree(tmp_path / "both", classes=("bus", "train"))
    assert made(both)["train"].classes == ("bus", "train")


def test_a_folder_of_splits_is_no_class(tmp_path):
    root = tree(tmp_path / "set" / "one").parent
    tree(root / "two")
    with pytest.raises(ValueError, match=words("set/one train val splits root")):
        made(root)


def test_flat_splits_without_classes_are_no_classes(tmp_path):
    root = tree(tmp_path / "set", splits=["."], classes=("train", "test"))
    with pytest.raises(FileNotFoundError, match=words("folders class")):
        made(root)


def test_one_class_may_have_the_networks_number(tmp_path):
    split = made(tree(tmp_path / "set", classes=("ant",)), classes={"ant": 3})["test"]
    assert split.targets.tolist() == [3] * 4
    assert split.classes == ("0", "1", "2", "ant")


def test_what_is_left_out_is_counted(whole):
    for name in ("notes.txt", "Thumbs.db", "clip.gif"):
        (whole / "val" / "bee" / name).touch()
    shutil.copy(whole / "val" / "ant" / "0.png", whole / "val" / "stray.png")
    notes = made(whole)["test"].notes
    assert any("3 files" in said and ".gif" in said for said in notes)
    assert any("1 images lie beside" in said for said in notes)
    assert made(whole)["train"].notes == ()


def test_an_empty_class_says_what_it_holds(whole):
    for image in (whole / "val" / "bee").iterdir():
        image.rename(image.with_suffix(".gif"))
    with pytest.raises(ValueError, match=words("bee 4 .gif .png")):
        made(whole)


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "../bee", "deep"])
def test_links_that_lead_back_are_left_out(target, whole):
    ant = whole / "val" / "ant"
    (ant / "deep").mkdir()
    shutil.copy(ant / "0.png", ant / "deep" / "4.png")
    (ant / "again").symlink_to(target, target_is_directory=True)
    (ant / "deep" / "loop").symlink_to("..", target_is_directory=True)
    (ant / "self").symlink_to("self")
    (whole / "val" / "zoo").symlink_to("..", target_is_directory=True)  # in the place of a class
    test = made(whole)["test"]
    assert len(test) == 9
    assert test.targets.max() == 1
    assert any("3 links lead back" in said and "ant" in said for said in test.notes)


def test_links_that_lead_elsewhere_are_followed(whole, tmp_path):
    (whole / "val" / "ant").rename(tmp_path / "ants")
    (whole / "val" / "ant").symlink_to(tmp_path / "ants", target_is_directory=True)
    tree(tmp_path / "more", splits=["."], classes=("x",))
    (tmp_path / "ants" / "more").symlink_to(tmp_path / "more" / "x", target_is_directory=True)
    test = made(whole)["test"]
    assert test.targets.tolist() == [0] * 8 + [1] * 4
    assert test.notes == ()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("size", 0), ("size", -3), ("limit", 0), ("test_limit", -1), ("validation", 1.5), ("white", 0)],
)
@pytest.mark.parametrize("call", ["folder.image_folder", "imagenet10.imagenet10"])
def test_settings_that_cannot_be_are_refused_when_the_study_is_read(setting, value, call):
    with pytest.raises(ValueError, match=words(f"{setting}: {value} expected")):
        Call(call=f"efface.data.{call}", kwargs={"root": "x", setting: value}).check(())


@pytest.mark.parametrize(
    "call", ["cifar.cifar10", "cifar.cifar100", "vision.mnist", "vision.svhn", "vision.fashion_mnist"]
)
def test_published_data_refuse_a_size_below_1_when_the_study_is_read(call):
    with pytest.raises(ValueError, match=words("size: 0 expected")):
        Call(call=f"efface.data.{call}", kwargs={"size": 0}).check(())


@pytest.mark.parametrize(
    ("call", "setting", "value"),
    [("digits.digits", "limit", 0), ("patches.patches", "size", 4), ("patches.patches", "n_test", 3)],
)
def test_drawn_data_refuse_what_cannot_be_when_the_study_is_read(call, setting, value):
    with pytest.raises(ValueError, match=words(f"{setting}: {value} expected")):
        Call(call=f"efface.data.{call}", kwargs={setting: value}).check(())


# The network's numbers

NUMERIC = sorted(str(i) for i in range(12))  # 0, 1, 10, 11, 2, ...


def test_the_networks_numbers_come_from_a_list_names_a_mapping_or_a_file(tmp_path):
    right = tuple(map(int, NUMERIC))
    names = [str(i) for i in range(12)]
    files = {
        "lines.txt": "\n".join(names) + "\n",
        "words.txt": "\n".join(f"{name} the {name}th" for name in names),
        "list.json": json.dumps(names),
        "by_name.json": json.dumps({name: int(name) for name in names}),
        "by_number.json": json.dumps({name: [f"n{name}", name] for name in names}),
        "numbers.json": json.dumps([int(name) for name in NUMERIC]),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    given = [list(right), names, {name: int(name) for name in names}, *(str(tmp_path / name) for name in files)]
    for classes in given:
        assert numbers(classes, NUMERIC) == right, classes
    assert numbers(None, NUMERIC) == tuple(range(12))


def test_imagenets_ids_are_known():
    ids = imagenet_ids()
    assert len({*ids}) == 1000
    assert ids == sorted(ids)
    known = {"n01440764": 0, "n02102040": 217, "n02979186": 482, "n03000684": 491, "n03888257": 701, "n15075141": 999}
    assert numbers("imagenet", list(known)) == tuple(known.values())


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ([0, 1], "2 numbers 3 a b c"),
        ([0, 0, 1], "a and b 0"),
        ([0, 1, -1], "c -1"),
        (["a", "b", "d"], "1 3 (c)"),
        ({"a": 0, "b": 1}, "1 3 (c)"),
        ("imagenet", "imagenet 3 3 (a, b, c)"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(classes, said):
    with pytest.raises(ValueError, match=words(said)):
        numbers(classes, ["a", "b", "c"])


def test_a_file_of_numbers_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=words("nowhere.txt imagenet")):
        numbers(str(tmp_path / "nowhere.txt"), ["a"])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=words("broken.json JSON")):
        numbers(str(tmp_path / "broken.json"), ["a"])
    (tmp_path / "text.json").write_text('"a"')
    with pytest.raises(ValueError, match=words("text.json str list")):
        numbers(str(tmp_path / "text.json"), ["a"])


def test_numbers_change_the_targets_and_no_image(whole):
    plain, own = made(whole)["test"], made(whole, classes=[7, 2])["test"]
    assert own.targets.tolist() == [{0: 7, 1: 2}[each] for each in plain.targets.tolist()]
    assert own.classes == ("0", "1", "bee", "3", "4", "5", "6", "ant")
    every = torch.arange(len(plain))
    assert torch.equal(own.images.take(every), plain.images.take(every))


@pytest.mark.parametrize("classes", ["imagenet", [3, 1], ["a", "b"], {"a": 1}])
def test_a_study_takes_every_form_of_numbers(classes):
    Call(call="efface.data.folder.image_folder", kwargs={"root": "x", "classes": classes}).check(())


def test_imagenet10_takes_numbers_of_its_ten_classes(tmp_path):
    root = tree(tmp_path / "set", classes=("n1", "n2"))
    folders = {"dog": ["n2"], "bird": ["n1"]}
    found = imagenet10(root=str(root), folders=folders, size=16, resize=20, classes={"dog": 5, "bird": 0})
    assert found["test"].targets.tolist() == [0] * 4 + [5] * 4
