"""Image sets of the datasets library, offline: trees and saved sets give the images that `image_folder` gives."""

import builtins

import numpy as np
import pytest
import torch
from PIL import Image

from efface.data.folder import image_folder
from efface.data.huggingface import load
from efface.plug import words as short_words
from efface.plug.call import Call
from small.elsewhere import datasets
from small.messages import words
from test_data import every_row, tree

SMALL = {"size": 16, "resize": 20}


def classes(*names):
    return datasets.ClassLabel(names=list(names or ("ant", "bee")))


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    datasets.disable_progress_bars()


def pictures(count, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (count, 24, 20, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in values]


def table(count=4, label=classes, labels=None, seed=0, **more):
    """A table of pictures whose classes take turns."""
    columns = {"image": pictures(count, seed), "label": labels or [row % 2 for row in range(count)]} | more
    features = {"image": datasets.Image(), "label": label()} | {name: datasets.Value("string") for name in more}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def saved(folder, **splits):
    datasets.DatasetDict(splits).save_to_disk(folder)
    return str(folder)


@pytest.fixture
def both(tmp_path):
    """A saved set of 8 training and 4 test pictures, 2 classes."""
    return saved(tmp_path / "set", train=table(8), test=table(4, seed=1))


def same(made, known):
    assert set(made) == set(known)
    for name, split in made.items():
        assert torch.equal(every_row(split), every_row(known[name]))
        assert split.targets.tolist() == known[name].targets.tolist()
        assert split.classes == known[name].classes


@pytest.mark.parametrize("resize", [20, None, "squeeze"])
@pytest.mark.parametrize("kind", ["tree", "saved"])
def test_a_tree_and_a_saved_set_give_the_images_of_image_folder(kind, resize, tmp_path):
    root = tree(tmp_path / "tree", shape=(24, 20, 3), splits=("train", "test"))
    known = image_folder(root=str(root), size=16, resize=resize, pack=str(tmp_path / "known"))
    name = str(root)
    if kind == "saved":
        name = str(tmp_path / "saved")
        datasets.load_dataset(str(root), cache_dir=str(tmp_path / "cache")).save_to_disk(name)
    same(load(name, size=16, resize=resize, cache=str(tmp_path / "cache")), known)


def test_limits_validation_and_numbers_are_those_of_image_folder(tmp_path):
    root = tree(tmp_path / "tree", shape=(24, 20, 3), each=6, splits=("train", "test"))
    settings = SMALL | {"limit": 6, "test_limit": 4, "validation": 0.34, "seed": 3, "classes": [4, 1]}
    made = load(str(root), cache=str(tmp_path / "cache"), pack=str(tmp_path / "packs"), **settings)
    known = image_folder(root=str(root), **settings)
    same(made, known)
    assert made["train"].validation.tolist() == known["train"].validation.tolist()


def test_orientation_and_transparency_are_those_of_files(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
        pictures(1)[0].save(tmp_path / "tree" / split / "ant" / "0.jpg", exif=exif)
        clear = pictures(1, seed=2)[0].convert("RGBA")
        clear.putalpha(Image.fromarray(np.arange(480, dtype=np.uint8).reshape(24, 20)))
        clear.save(tmp_path / "tree" / split / "bee" / "0.png")
    name = str(tmp_path / "saved")
    datasets.load_dataset(str(tmp_path / "tree"), cache_dir=str(tmp_path / "cache")).save_to_disk(name)
    same(load(name, **SMALL), image_folder(root=str(tmp_path / "tree"), **SMALL))


def test_grey_of_16_bits_needs_its_white(tmp_path):
    grey = np.arange(480, dtype=np.uint16).reshape(24, 20) * 4
    made = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(grey)] * 2, "label": [0, 1]},
        features=datasets.Features({"image": datasets.Image(), "label": classes()}),
    )
    name = saved(tmp_path / "set", train=made, test=made)
    with pytest.raises(ValueError, match=words("train, row 0 1916 white")):
        load(name, size=20, resize=None)
    rows = every_row(load(name, size=20, resize=None, white=4095)["test"])
    assert (rows[0, 0].numpy() == (grey // 16)[2:22]).all()


def test_packed_images_are_used_again_until_the_set_or_the_choice_changes(both, tmp_path, monkeypatch):
    opened = []
    decode = Image.open
    monkeypatch.setattr(Image, "open", lambda file: (opened.append(file), decode(file))[1])
    first = load(both, **SMALL)
    assert len(opened) == 12
    opened.clear()
    same(load(both, **SMALL), first)
    assert not opened
    load(both, **SMALL, test_limit=2)
    load(both, **SMALL, interpolation="bicubic")
    assert len(opened) == 2 + 12
    before = every_row(load(both, **SMALL)["test"])
    saved(tmp_path / "set", train=table(8), test=table(4, seed=9))
    assert not torch.equal(every_row(load(both, **SMALL)["test"]), before)


def test_a_picture_of_a_tree_that_changes_is_packed_again(tmp_path):
    root = tree(tmp_path / "tree", shape=(24, 20, 3), splits=("train", "test"))
    before = every_row(load(str(root), **SMALL, cache=str(tmp_path / "cache"))["test"]).clone()
    Image.new("RGB", (20, 24), "red").save(root / "test" / "bee" / "1.png")
    after = every_row(load(str(root), **SMALL, cache=str(tmp_path / "cache"))["test"])
    assert (after != before).flatten(1).any(1).nonzero().flatten().tolist() == [5]


def test_parts_of_a_split_are_its_rows(tmp_path):
    datasets.Dataset.save_to_disk(table(10), tmp_path / "set")
    every = every_row(load(str(tmp_path / "set"), **SMALL, test="train")["test"])
    made = load(str(tmp_path / "set"), **SMALL, train="train[:60%]", test="train[60%:]")
    assert torch.equal(every_row(made["train"]), every[:6])
    assert torch.equal(every_row(made["test"]), every[6:])
    made = load(str(tmp_path / "set"), **SMALL, train="train[:2]+train[8:]", test="train[3:5]")
    assert torch.equal(every_row(made["train"]), every[[0, 1, 8, 9]])
    assert torch.equal(every_row(made["test"]), every[3:5])
    with pytest.raises(ValueError, match=words("(train[:60%]) (train[50%:]) common")):
        load(str(tmp_path / "set"), **SMALL, train="train[:60%]", test="train[50%:]")
    with pytest.raises(ValueError, match=words("no split train[::2] train[:80%]")):
        load(str(tmp_path / "set"), **SMALL, train="train[::2]", test="train[1::2]")


def test_a_training_part_without_one_of_the_classes_is_refused(tmp_path):
    datasets.Dataset.save_to_disk(table(4, labels=[0, 0, 1, 1]), tmp_path / "set")
    with pytest.raises(ValueError, match=words("train[:50%] 1 classes train[50%:] (bee) sorted")):
        load(str(tmp_path / "set"), **SMALL, train="train[:50%]", test="train[50%:]")


def test_a_training_split_may_be_left_out(both):
    assert set(load(both, **SMALL, train=False)) == {"test"}
    assert set(load(both, **SMALL, train=False, test="train")) == {"test"}


def test_columns_of_numbers_or_texts_are_classes_if_they_are_named(tmp_path):
    texts, numbers = lambda: datasets.Value("string"), lambda: datasets.Value("int64")
    name = saved(
        tmp_path / "texts",
        train=table(4, label=texts, labels=["wasp", "bee", "bee", "wasp"]),
        test=table(2, label=texts, labels=["bee", "ant"], seed=1),
    )
    with pytest.raises(ValueError, match=words("texts no column classes (string) label names")):
        load(name, **SMALL)
    with pytest.raises(ValueError, match=words("train test (ant)")):
        load(name, **SMALL, label="label")
    made = load(name, **SMALL, label="label", train="test", test="test[:0]+train[1:3]")
    assert made["train"].classes == ("ant", "bee")
    name = saved(tmp_path / "numbers", train=table(4, label=numbers), test=table(2, seed=1))
    with pytest.raises(ValueError, match=words("ClassLabel int64 same")):
        load(name, **SMALL, label="label")
    made = load(name, **SMALL, label="label", train="train[:2]", test="train[2:]")
    assert made["test"].classes == ("0", "1")
    assert made["test"].targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("splits", "settings", "said"),
    [
        ({"train": {}}, {}, "only the split train (4) both train[:80%] test: train"),
        ({"train": {}, "test": {"labels": [-1] * 4}}, {}, "test 4 of 4 rows no class -1 validation"),
        ({"train": {}, "test": {"labels": [0, None, 1, 1]}}, {}, "test 1 of 4 rows no class"),
        ({"train": {}, "test": {}, "validation": {}}, {}, "2 splits test (4) validation (4) set test"),
        ({"train": {}, "extra": {}}, {}, "0 splits train (4) extra (4) set test"),
        ({"train": {}, "test": {}}, {"test": "tset"}, "no split tset train (4) test (4)"),
        ({"train": {}, "test": {}}, {"image": "picture"}, "column picture missing image (Image) image"),
        ({"train": {}, "test": {}}, {"label": "image"}, "column image Image ClassLabel label"),
        (
            {"train": {"label": lambda: datasets.List(classes()), "labels": [[0]] * 4}, "test": {}},
            {},
            "label several (multi-label)",
        ),
        (
            {"train": {"label": lambda: datasets.Value("float32"), "labels": [0.5] * 4}, "test": {}},
            {},
            "label (float32)",
        ),
        (
            {"train": {}, "test": {"label": lambda: classes("bee", "ant")}},
            {},
            "test train another order",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_sets_that_cannot_be_used_are_refused_in_a_sentence(splits, settings, said, tmp_path):
    name = saved(tmp_path / "set", **{split: table(4, **how) for split, how in splits.items()})
    with pytest.raises(ValueError, match=words(said)) as raised:
        load(name, **SMALL, **settings)
    assert "\n" not in str(raised.value)


def test_texts_of_whole_numbers_are_numbered_by_their_value_and_truth_is_1(tmp_path):
    texts = lambda: datasets.Value("string")  # noqa: E731
    truth = lambda: datasets.Value("bool")  # noqa: E731
    numbers = [str(each) for each in (10, 2, 0, 9)]
    made = load(
        saved(tmp_path / "texts", test=table(4, texts, numbers)), label="label", train=None, test="test", **SMALL
    )
    assert made["test"].classes == ("0", "2", "9", "10")
    assert made["test"].targets.tolist() == [3, 1, 0, 2]
    mixed = load(
        saved(tmp_path / "mixed", test=table(4, texts, ["b10", "b2", "a", "9"])),
        label="label", train=None, test="test", **SMALL,
    )  # fmt: skip
    assert mixed["test"].classes == ("9", "a", "b10", "b2")
    told = load(
        saved(tmp_path / "truth", test=table(4, truth, [True, False, False, True])),
        label="label", train=None, test="test", **SMALL,
    )  # fmt: skip
    assert told["test"].targets.tolist() == [1, 0, 0, 1]


def test_several_columns_of_a_kind_are_listed(tmp_path):
    made = table(4)
    masks = made.select_columns(["image"]).rename_column("image", "mask")
    coarse = datasets.Dataset.from_dict({"coarse": [0] * 4}, features=datasets.Features({"coarse": classes()}))
    second = datasets.concatenate_datasets([masks, made, coarse], axis=1)
    name = saved(tmp_path / "set", train=second, test=second)
    with pytest.raises(ValueError, match=words("2 columns pictures (mask, image) set image")):
        load(name, **SMALL)
    with pytest.raises(ValueError, match=words("2 columns classes (label, coarse) set label")):
        load(name, **SMALL, image="image")
    made = load(name, **SMALL, image="image", label="coarse")
    assert made["test"].targets.tolist() == [0] * 4


def test_folders_that_are_no_sets_are_refused(tmp_path, both):
    with pytest.raises(FileNotFoundError, match=words("no such folder name")):
        load(str(tmp_path / "nowhere"), **SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=words("datasets cannot read save_to_disk")):
        load(str(tmp_path / "empty"), **SMALL, cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=words("no revision main leave")):
        load(both, **SMALL, revision="main")
    with pytest.raises(ValueError, match=words("no config plain leave")):
        load(both, **SMALL, config="plain")


def test_a_name_of_the_hub_is_asked_for_with_its_settings(tmp_path, monkeypatch):
    asked = []

    def known(name, config, *, revision, cache_dir):
        asked.append((name, config, revision, cache_dir))
        return datasets.DatasetDict(train=table(4), test=table(2, seed=1))

    monkeypatch.setattr("datasets.load_dataset", known)
    monkeypatch.chdir(tmp_path)
    made = load("somebody/pictures", config="plain", revision="v1", cache="there", **SMALL)
    assert asked == [("somebody/pictures", "plain", "v1", "there")]
    assert len(made["train"]) == 4
    assert {each.suffix for each in (tmp_path / "data" / "somebody--pictures.packed").iterdir()} == {".h5"}

    def offline(*_args, **_kwargs):
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(ValueError, match=words("somebody/pictures reach the Hub and more) save_to_disk")):
        load("somebody/pictures", **SMALL)


def test_pictures_in_files_that_are_gone_are_named(tmp_path, monkeypatch):
    root = tree(tmp_path / "tree", shape=(24, 20, 3), splits=("train", "test"))
    made = datasets.load_dataset(str(root), cache_dir=str(tmp_path / "cache"))
    (root / "test" / "bee" / "1.png").unlink()
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: made)
    with pytest.raises(FileNotFoundError, match=words("test, row 5 bee/1.png save_to_disk")):
        load("any", **SMALL, pack=str(tmp_path / "packs"))


def test_without_the_package_the_entry_says_which_command_installs_it(monkeypatch):
    before = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return before(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ValueError, match=words("datasets pip install 'efface[huggingface]'")):
        load("any")


def test_the_short_word_names_it_and_a_study_checks_its_settings():
    assert short_words.expand("data", "huggingface") == "efface.data.huggingface.load"
    call = "efface.data.huggingface.load"
    Call(call=call, kwargs={"name": "x", "train": False, "resize": "squeeze", "interpolation": "bicubic"}).check(())
    for setting, value in (("size", 0), ("limit", 0), ("validation", 1.5), ("train", True), ("interpolation", "cubic")):
        with pytest.raises(ValueError, match=words(setting)):
            Call(call=call, kwargs={"name": "x", setting: value}).check(())
