"""The pictures that a page keeps as data: all of them come back, and none that efface did not write."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from efface.report import gallery as report_gallery
from efface.report import page
from efface.report.gallery import Gallery
from efface.report.pictured import NAME, kept_pictures, read_pictured
from small.reports import curve_of, facts_of

SHAPES = {
    "small": (3, 8, 8),
    "photographs": (3, 240, 240),
    "vectors": (1, 1, 12),
    "pixels of many channels": (12, 1, 1),
    "sequences of channels": (3, 1, 12),
}


def gallery(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, *shape)).astype(np.uint8)
    maps = {name: rng.normal(size=(2, *shape[1:])).astype(np.float32) for name in ("random", "a/b")}
    erased = {at: {name: np.where(of[:, None] > at, 0, images) for name, of in maps.items()} for at in (0.3, 0.9)}
    return Gallery(images, ("1", "2"), maps, erased[0.3], 0.3, further={0.9: erased[0.9]}, rows=(4, 7))


def written(folder, shown):
    values = np.random.default_rng(0).random((2, 60, 3))
    curves = [curve_of(of, name, control=name == "random") for of, name in zip(values, ("random", "a/b"), strict=True)]
    return page.write(folder, curves, shown, facts_of(), references=["random"]).read_text()


def pictures_of(text):
    return text[text.index('<section id="gallery">') : text.index('<section id="study">')]


@pytest.mark.long
@pytest.mark.parametrize("kind", SHAPES)
def test_a_page_of_kept_pictures_shows_what_the_first_page_showed(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(report_gallery, "BUDGET", 400_000)
    shown = gallery(SHAPES[kind])
    before = written(tmp_path, shown)
    kept = read_pictured(tmp_path)
    assert kept == kept_pictures(tmp_path, shown)
    assert pictures_of(written(tmp_path, kept)) == pictures_of(before)
    assert ("data-full=" in pictures_of(before)) == (kind == "photographs")


@pytest.mark.long
def test_equal_pictures_share_a_file_and_the_page_says_so(tmp_path):
    own = gallery(SHAPES["photographs"])
    both = dict.fromkeys(own.maps, own.maps["random"])
    same = dict.fromkeys(own.masked, own.masked["random"])
    shared = replace(own, maps=both, masked=same, further={0.9: dict.fromkeys(same, own.further[0.9]["random"])})
    says = "Methods with equal pictures share a file."
    assert says not in written(tmp_path / "own", own)
    assert says in written(tmp_path / "shared", shared)
    files = {each.name for each in (tmp_path / "shared/images").iterdir()}
    assert {name.removesuffix(".png").split("-")[1] for name in files} == {"image", "random"}, (
        "no file of a/b, which has the same pictures"
    )
    kept = read_pictured(tmp_path / "shared")
    assert [kept.full[kept.addresses.index(tile.masked)] for tile in kept.tiles["a/b"]] == [
        f"images/{row}-random-without-30-percent.png" for row in own.numbers
    ]


def test_full_sizes_that_are_gone_are_not_linked(tmp_path):
    before = kept_pictures(tmp_path, gallery(SHAPES["photographs"]))
    assert set(before.full) == {each.relative_to(tmp_path).as_posix() for each in tmp_path.glob("images/*")}
    (tmp_path / "images/4-image.png").unlink()
    after = read_pictured(tmp_path)
    assert before.whole.items() - after.whole.items() == {(before.images[0], "images/4-image.png")}
    assert 'src="data:' in written(tmp_path, after)


def test_without_a_picture_that_was_not_embedded_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(report_gallery, "BUDGET", 0)
    assert kept_pictures(tmp_path, gallery(SHAPES["photographs"])).outside
    assert read_pictured(tmp_path) is not None
    shutil.rmtree(tmp_path / "images")
    assert read_pictured(tmp_path) is None


@pytest.mark.parametrize("address", ["javascript:alert(1)", "https://example.org/a.png", "images/../../a.png", "", 3])
@pytest.mark.parametrize("place", ["images", "vectors", "tiles", "full"])
def test_addresses_that_efface_does_not_write_are_never_shown(place, address, tmp_path):
    kept_pictures(tmp_path, gallery(SHAPES["vectors" if place == "vectors" else "photographs"]))
    tree = json.loads((tmp_path / NAME).read_text())
    if place == "tiles":
        tree["tiles"]["a/b"][0][0] = address
    else:
        tree[place]["a/b" if place == "vectors" else 0] = address
    (tmp_path / NAME).write_text(json.dumps(tree))
    kept = read_pictured(tmp_path)
    assert kept is None or (place == "full" and address not in kept.whole.values())
