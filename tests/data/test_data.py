import pickle
import tarfile
import urllib.error
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare, f_oneway
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100, ImageFolder, cifar
from torchvision.transforms import functional as F

from efface.data import folder
from efface.data.cifar import cifar10, cifar100
from efface.data.digits import digits
from efface.data.folder import image_folder
from efface.data.patches import OUTLINES, TEXTURES, patches
from efface.data.subset import balanced, stratified
from efface.plug.call import Call
from efface.store import arrays
from small.messages import words


def same(a, b):
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in ("images", "targets"))


# Subsets


@pytest.mark.parametrize("limit", [3, 4, 7, 30, 38, 60])
def test_balanced_is_as_even_as_the_classes_allow_and_nested(limit):
    targets = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    rows = balanced(targets, limit, 0, setting="limit", least=3)
    counts = targets[rows].bincount(minlength=3)
    assert counts.sum() == limit
    sizes = torch.tensor([40, 15, 5])
    assert all(counts[i] >= counts.max() - 1 or counts[i] == sizes[i] for i in range(3))
    assert set(rows.tolist()) >= set(balanced(targets, 3, 0, setting="limit", least=3).tolist())
    assert rows.tolist() == sorted(set(rows.tolist()))


@pytest.mark.parametrize("part", [0.1, 0.125, 0.5, 0.9])
def test_stratified_gives_every_class_its_share_to_one_row(part):
    targets = torch.cat([torch.full((size,), i) for i, size in enumerate((100, 37, 8))])
    rows = stratified(targets, part, 0)
    assert len(rows) == round(part * len(targets))
    assert all(abs((targets[rows] == i).sum() - part * size) <= 1 for i, size in enumerate((100, 37, 8)))


def test_subsets_depend_on_the_seed_alone_and_touch_no_global_generator():
    targets = torch.arange(1000) % 10
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  the global generator is what is watched
    draws = [balanced(targets, 100, seed, setting="limit") for seed in (0, 0, 1)]
    patches(n_train=8, n_test=4, limit=4, validation=0.5)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_subset_is_a_fair_draw():
    targets = torch.arange(40) % 2
    counts = sum(balanced(targets, 10, seed, setting="limit").bincount(minlength=40) for seed in range(400))
    assert chisquare(counts.numpy()).pvalue > 0.001


@pytest.mark.parametrize("limit", [-1, 0, 9, 1298])
def test_limit_out_of_range_names_the_range(limit):
    with pytest.raises(ValueError, match=words(f"limit {limit} 10 1297")):
        digits(limit=limit)


def test_test_limit_may_be_below_the_number_of_classes_but_not_above_what_there_is():
    assert digits(test_limit=3)["test"].targets.unique().numel() == 3
    with pytest.raises(ValueError, match=words("test_limit 501 1 500")):
        digits(test_limit=501)


@pytest.mark.parametrize("part", [-0.1, 0.0001, 1.0, 2.0])
def test_validation_out_of_range(part):
    with pytest.raises(ValueError, match=words("validation 1297")):
        digits(validation=part)


# Digits


def test_digits_are_scikit_learns_scaled_to_eight_bits():
    known = load_digits()
    every = {tuple(image): target for image, target in zip(known.data, known.target, strict=True)}
    made = digits()
    assert [len(made[name]) for name in ("train", "test")] == [1297, 500]
    for split in made.values():
        counts = (split.images.flatten(1).double() * 16 / 255).round()
        assert torch.equal((counts * 255 / 16).round().to(torch.uint8), split.images.flatten(1))
        assert all(every[tuple(image)] == target for image, target in zip(counts.tolist(), split.targets, strict=True))
        shares = split.targets.bincount() / len(split)
        assert torch.allclose(shares, torch.tensor(np.bincount(known.target) / 1797).float(), atol=0.0025)
    assert made["train"].shape == (1, 8, 8)
    assert made["train"].classes == tuple("0123456789")


def test_digits_limit_validation_and_seed():
    a, b, other = (digits(limit=400, test_limit=100, validation=0.125, seed=seed) for seed in (0, 0, 1))
    train = a["train"]
    assert train.targets.bincount().tolist() == [40] * 10
    assert train.targets[train.validation].bincount().tolist() == [5] * 10
    assert len(train.training) == 350
    assert a["test"].targets.bincount().tolist() == [10] * 10
    assert same(train, b["train"])
    assert torch.equal(train.validation, b["train"].validation)
    assert not same(train, other["train"])
    assert same(digits(seed=0)["test"], digits(seed=1)["test"])


# Patches


def stencil(mask):
    y, x = mask.nonzero(as_tuple=True)
    return mask[y.min() : y.max() + 1, x.min() : x.max() + 1]


def test_patches_the_outline_is_one_disc_wherever_it_lies():
    split = patches(n_train=400, n_test=4)["train"]
    outlines = [stencil(mask) for mask in split.masks]
    assert all(torch.equal(outline, outlines[0]) for outline in outlines)
    assert outlines[0].shape == (17, 17)
    assert 0.15 <= split.masks.float().mean() <= 0.25
    assert split.classes == TEXTURES


def test_patches_the_place_says_nothing_of_the_class_and_covers_the_image():
    split = patches(n_train=2000, n_test=4)["train"]
    grid = torch.arange(32.0)
    for axis in (1, 2):
        centres = (split.masks.float().sum(3 - axis) * grid).sum(1) / split.masks.sum((1, 2))
        assert f_oneway(*(centres[split.targets == i].numpy() for i in range(4))).pvalue > 0.001
        assert chisquare(centres.round().long().bincount()[10:22].numpy()).pvalue > 0.001


def test_patches_a_classifier_of_the_mask_is_at_chance_and_perfect_where_leaky():
    for leaky, low, high in ((False, 0.2, 0.3), (True, 1.0, 1.0)):
        train, test = patches(n_train=1000, n_test=1000, leaky=leaky).values()
        known = [(stencil(mask), target) for mask, target in zip(train.masks[:200], train.targets, strict=False)]
        guesses = [next(t for outline, t in known if torch.equal(outline, stencil(mask))) for mask in test.masks]
        assert low <= (torch.stack(guesses) == test.targets).float().mean() <= high


def test_patches_leaky_outlines_have_one_area_and_one_texture():
    split = patches(n_train=400, n_test=4, leaky=True)["train"]
    assert split.masks.sum((1, 2)).unique().numel() == 1
    assert len({tuple(stencil(mask).flatten().tolist()) for mask in split.masks[:4]}) == 4
    assert split.classes == OUTLINES


def test_patches_brightness_colour_and_contrast_say_nothing_of_the_class_nor_of_the_disc():
    split = patches(n_train=2000, n_test=4)["train"]
    images, inside = split.images.double(), split.masks[:, None]
    area = inside.sum((2, 3))
    mean = (images * inside).sum((2, 3)) / area
    spread = (((images - mean[:, :, None, None]) ** 2 * inside).sum((2, 3)) / area).sqrt()
    for statistic in (mean, spread):
        for channel in range(3):
            groups = [statistic[split.targets == i, channel].numpy() for i in range(4)]
            assert max(g.mean() for g in groups) - min(g.mean() for g in groups) < 2.5  # of 255
    outside = (images * ~inside).sum((2, 3)) / (~inside).sum((2, 3))
    assert (mean.mean() - outside.mean()).abs() < 1.0


def test_patches_only_the_classs_own_direction_is_coherent_and_only_in_the_disc():
    split = patches(n_train=800, n_test=4)["train"]
    images = split.images.double().mean(1)
    images = images - torch.nn.functional.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
    shifts = ((0, 1), (1, 0), (1, 1), (1, -1))
    for where, expected in ((split.masks, torch.eye(4, dtype=torch.bool)), (~split.masks, torch.zeros(4, 4).bool())):
        agree = torch.zeros(4, 4)
        for kind in range(4):
            of_class = split.targets == kind
            for i, shift in enumerate(shifts):
                both = (where & where.roll(shift, (1, 2)))[of_class]
                both[:, :1], both[:, :, :1], both[:, :, -1:] = False, False, False
                pairs = (images * images.roll(shift, (1, 2)))[of_class][both]
                agree[kind, i] = (pairs > 0).double().mean()
        assert ((agree > 0.65) == expected).all(), agree


def test_patches_image_i_depends_on_seed_split_and_i_alone():
    few, many, other = (patches(n_train=n, n_test=10, seed=seed)["train"] for n, seed in ((20, 3), (50, 3), (20, 4)))
    assert torch.equal(few.images, many.images[:20])
    assert torch.equal(few.masks, many.masks[:20])
    assert (few.images != other.images).flatten(1).any(1).all()
    assert (few.images[:10] != patches(n_train=20, n_test=10, seed=3)["test"].images).flatten(1).any(1).all()
    assert few.images.unique().numel() > 100


def test_patches_limit_keeps_images_and_masks_together():
    every, some = patches(n_train=100, n_test=8)["train"], patches(n_train=100, n_test=8, limit=20)["train"]
    assert some.targets.bincount().tolist() == [5] * 4
    for image, mask in zip(some.images, some.masks, strict=True):
        (row,) = (every.images == image).flatten(1).all(1).nonzero().flatten()
        assert torch.equal(mask, every.masks[row])


@pytest.mark.parametrize(("setting", "value"), [("size", 15), ("n_train", 3), ("n_test", 0)])
def test_patches_settings_out_of_range(setting, value):
    with pytest.raises(ValueError, match=words(f"{setting} {value}")):
        patches(**{setting: value})


# CIFAR


def published(root, kind, monkeypatch):
    """A tiny archive in the published format; torchvision's sums are set to those of these files."""
    classes = 10 if kind is CIFAR10 else 100
    home = root / kind.base_folder
    home.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (3 * classes, 3072), np.uint8)
    labels = [i % classes for i in range(len(images))]
    names = [f"data_batch_{i}" for i in range(1, 6)] if kind is CIFAR10 else ["train"]
    cuts = np.array_split(np.arange(2 * classes), len(names))
    batches = dict(zip(names, cuts, strict=True))
    batches["test_batch" if kind is CIFAR10 else "test"] = np.arange(2 * classes, 3 * classes)
    key = "labels" if kind is CIFAR10 else "fine_labels"
    for name, rows in batches.items():
        batch = {"data": images[rows], key: [labels[i] for i in rows]}
        (home / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {kind.meta["key"]: [f"class{i}" for i in range(classes)]}
    (home / kind.meta["filename"]).write_bytes(pickle.dumps(meta, protocol=2))
    sums = {path.name: cifar.check_integrity.__globals__["calculate_md5"](path) for path in home.iterdir()}
    monkeypatch.setattr(kind, "train_list", [[name, sums[name]] for name in names])
    monkeypatch.setattr(kind, "test_list", [[name, sums[name]] for name in batches if name not in names])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums[kind.meta["filename"]]})
    return torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.tensor(labels)


@pytest.mark.parametrize(("function", "kind"), [(cifar10, CIFAR10), (cifar100, CIFAR100)])
def test_cifar_reads_the_published_format(function, kind, tmp_path, monkeypatch):
    images, targets = published(tmp_path, kind, monkeypatch)
    made = function(root=str(tmp_path), validation=0.5)
    cut = len(made["train"])
    assert torch.equal(made["train"].images, images[:cut])
    assert torch.equal(made["test"].images, images[cut:])
    assert torch.equal(made["train"].targets, targets[:cut])
    assert made["test"].classes == tuple(f"class{i}" for i in range(cut // 2))
    assert made["train"].images.is_contiguous()
    assert made["train"].targets[made["train"].validation].bincount().tolist() == [1] * (cut // 2)
    assert len(function(root=str(tmp_path), limit=cut // 2, test_limit=3)["test"]) == 3


def test_cifar_archive_in_the_root_is_checked_and_unpacked(tmp_path, monkeypatch):
    published(tmp_path / "made", CIFAR10, monkeypatch)
    archive = tmp_path / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", cifar.check_integrity.__globals__["calculate_md5"](archive))
    assert len(cifar10(root=str(tmp_path))["train"]) == 20


def test_cifar_without_network_or_files_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(cifar, "download_and_extract_archive", refuse)
    with pytest.raises(FileNotFoundError, match=words("CIFAR10 route cifar-10-python https network efface demo")):
        cifar10(root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=words("cifar-100-python CIFAR100 download efface demo")):
        cifar100(root=str(tmp_path), download=False)


def test_cifar_damaged_file_is_not_read(tmp_path, monkeypatch):
    published(tmp_path, CIFAR10, monkeypatch)
    with (tmp_path / CIFAR10.base_folder / "data_batch_3").open("r+b") as file:
        file.write(b"x")
    with pytest.raises(FileNotFoundError, match=words("CIFAR10")):
        cifar10(root=str(tmp_path), download=False)


# Sizes


@pytest.mark.parametrize("way", ["bilinear", "bicubic"])
def test_a_set_is_resized_as_pillow_does(way, tmp_path, monkeypatch):
    """To the rounding of Pillow, which rounds after each of the two directions."""
    images, _ = published(tmp_path, CIFAR10, monkeypatch)
    for size in (8, 32, 45):
        made = cifar10(root=str(tmp_path), size=size, interpolation=way, limit=10, validation=0.2, seed=3)
        same_rows = cifar10(root=str(tmp_path), limit=10, validation=0.2, seed=3)
        assert torch.equal(made["train"].validation, same_rows["train"].validation)
        for name, split in made.items():
            assert split.shape == (3, size, size)
            for image, given in zip(split.images, same_rows[name].images, strict=True):
                known = F.to_pil_image(given).resize((size, size), Image.Resampling[way.upper()])
                assert (image.int() - F.pil_to_tensor(known).int()).abs().max() <= 1
    assert torch.equal(cifar10(root=str(tmp_path), size=32)["test"].images, images[20:])
    with pytest.raises(ValueError, match=words("size 0")):
        cifar10(root=str(tmp_path), size=0)


# Folders


def tree(root, *, splits=("train", "val"), classes=("ant", "bee"), each=4, shape=(40, 30, 3), suffix="png"):
    """Images of random pixels, root/<split>/<class>/<i>.png."""
    random = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(root / split / name / f"{i}.{suffix}")
    return root


def every_row(split):
    return split.images.take(torch.arange(len(split)))


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, in any order; torchvision opens those that it reads itself."""
    names, decode = [], Image.open

    def noting(file):
        if isinstance(file, str):
            names.append(Path(file))
        return decode(file)

    monkeypatch.setattr(Image, "open", noting)
    return names


def test_folder_is_image_folder_resized_and_cropped_as_torchvision_does(tmp_path):
    root = tree(tmp_path / "set", shape=(50, 40, 3), suffix="jpg")
    made = image_folder(root=str(root), size=24, resize=28)
    for name, split in (("train", made["train"]), ("val", made["test"])):
        known = ImageFolder(root / name)
        images = torch.stack([F.pil_to_tensor(F.center_crop(F.resize(image, 28), 24)) for image, _ in known])
        assert torch.equal(every_row(split), images)
        assert split.targets.tolist() == known.targets
        assert split.classes == tuple(known.classes)


def test_folder_squeezed_images_are_whole_and_have_packs_of_their_own(tmp_path, decoded):
    root = tree(tmp_path / "set", shape=(50, 40, 3))
    cropped = image_folder(root=str(root), size=24, resize=28)
    before = {each: each.stat().st_mtime_ns for each in (tmp_path / "set.packed").iterdir()}
    made = image_folder(root=str(root), size=24, resize="squeeze")
    for name, split in (("train", made["train"]), ("val", made["test"])):
        known = [
            F.pil_to_tensor(image.resize((24, 24), Image.Resampling.BILINEAR)) for image, _ in ImageFolder(root / name)
        ]
        assert torch.equal(every_row(split), torch.stack(known))
    decoded.clear()
    assert torch.equal(every_row(image_folder(root=str(root), size=24, resize=28)["test"]), every_row(cropped["test"]))
    image_folder(root=str(root), size=24, resize="squeeze")
    assert not decoded
    assert {each: each.stat().st_mtime_ns for each in before} == before
    assert len(list((tmp_path / "set.packed").iterdir())) == 4
    image_folder(root=str(root), size=50, resize="squeeze")  # any size: nothing is too small


def test_folder_bicubic_images_are_pillows_and_have_packs_of_their_own(tmp_path):
    root = tree(tmp_path / "set", shape=(50, 40, 3))
    for way in ("bilinear", "bicubic"):
        made = image_folder(root=str(root), size=24, resize="squeeze", interpolation=way)
        known = [
            F.pil_to_tensor(image.resize((24, 24), Image.Resampling[way.upper()]))
            for image, _ in ImageFolder(root / "val")
        ]
        assert torch.equal(every_row(made["test"]), torch.stack(known))
    assert len(list((tmp_path / "set.packed").iterdir())) == 4


def test_folder_takes_one_word_for_resize(tmp_path):
    Call(call="efface.data.folder.image_folder", kwargs={"root": "x", "resize": "squeeze"}).check(())
    with pytest.raises(ValueError, match=words("resize squeze squeeze")):
        Call(call="efface.data.imagenet10.imagenet10", kwargs={"root": "x", "resize": "squeze"}).check(())


def test_folder_small_images_pass_bit_exactly(tmp_path):
    root = tree(tmp_path / "set", shape=(32, 32, 3))
    rows = every_row(image_folder(root=str(root), size=32, resize=None)["test"])
    assert torch.equal(rows, torch.stack([F.pil_to_tensor(image) for image, _ in ImageFolder(root / "val")]))


def test_folder_packs_once_and_again_when_a_file_changes(tmp_path, decoded):
    root = tree(tmp_path / "set")
    settings = {"root": str(root), "size": 16, "resize": 20}
    first = every_row(image_folder(**settings)["train"])
    assert len(decoded) == 16
    decoded.clear()
    assert torch.equal(every_row(image_folder(**settings)["train"]), first)
    assert not decoded
    Image.new("RGB", (30, 40), "red").save(root / "train" / "bee" / "1.png")
    again = every_row(image_folder(**settings)["train"])
    assert {path.parent.parent.name for path in decoded} == {"train"}
    assert (again != first).flatten(1).any(1).nonzero().flatten().tolist() == [5]
    decoded.clear()
    image_folder(**settings | {"size": 18})
    assert len(decoded) == 16


def test_folder_limit_decodes_only_the_chosen(tmp_path, decoded):
    root = tree(tmp_path / "set", each=10)
    made = image_folder(root=str(root), size=16, resize=20, limit=6, test_limit=2, validation=0.34)
    assert len(decoded) == 8
    assert made["train"].targets.bincount().tolist() == [3, 3]
    assert made["train"].targets[made["train"].validation].tolist() == [0, 1]
    decoded.clear()
    every = every_row(image_folder(root=str(root), size=16, resize=20)["train"])
    assert len(decoded) == 40
    assert all((every == image).flatten(1).all(1).sum() == 1 for image in every_row(made["train"]))


def test_folder_without_a_limit_the_seed_packs_nothing_anew(tmp_path, decoded):
    root = tree(tmp_path / "set")
    for seed in (0, 1):
        image_folder(root=str(root), size=16, resize=20, validation=0.5, seed=seed)
    assert len(decoded) == 16


@pytest.mark.parametrize("rows", ["changed", "cut"])
def test_folder_damaged_rows_are_found(rows, tmp_path):
    root = tree(tmp_path / "set")
    settings = {"root": str(root), "size": 16, "resize": 20, "pack": str(tmp_path / "packed")}
    path = image_folder(**settings)["test"].images.path
    if rows == "changed":
        with h5py.File(path, "r+") as file:
            file["images"][3, 0, 0, 0] ^= 1
    else:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
    with pytest.raises(ValueError, match=words(f"{path} delete")):
        image_folder(**settings)


def test_folder_a_killed_packing_leaves_nothing_that_counts(tmp_path, monkeypatch):
    root = tree(tmp_path / "set")
    settings = {"root": str(root), "size": 16, "resize": 20}
    pack = arrays.pack

    def killed(path, name, shape, blocks, attributes):
        def some():
            yield next(blocks)[:3]
            raise KeyboardInterrupt

        return pack(path, name, shape, some(), attributes)

    monkeypatch.setattr(arrays, "pack", killed)
    with pytest.raises(KeyboardInterrupt):
        image_folder(**settings)
    monkeypatch.setattr(arrays, "pack", pack)
    assert every_row(image_folder(**settings)["train"]).flatten(1).any(1).all()


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA", "CMYK"])
def test_folder_every_colour_mode_becomes_rgb(mode, tmp_path):
    root = tree(tmp_path / "set", splits=["."])
    (root / "ant" / "0.png").unlink()
    path = root / "ant" / ("0.tif" if mode == "CMYK" else "0.png")
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGB").convert(mode)
    image.save(path)
    rows = every_row(image_folder(root=str(root), size=16, resize=None)["test"])
    assert torch.equal(rows[0], F.pil_to_tensor(F.center_crop(image.convert("RGB"), 16)))


def test_folder_sixteen_bits_of_grey_keep_their_eight_highest(tmp_path):
    root = tree(tmp_path / "set", splits=["."], shape=(32, 32, 3))
    grey = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    Image.fromarray(grey).save(root / "ant" / "0.png")
    rows = every_row(image_folder(root=str(root), size=32, resize=None)["test"])
    assert (rows[0].numpy() == grey // 256).all()


def test_folder_which_splits_there_are(tmp_path):
    both = tree(tmp_path / "both", splits=["train", "val", "test"])
    small = {"size": 16, "resize": 20}
    with pytest.raises(ValueError, match=words("val test")):
        image_folder(root=str(both), **small)
    assert set(image_folder(root=str(both), test="test", **small)) == {"train", "test"}
    assert set(image_folder(root=str(both / "val"), **small)) == {"test"}
    with pytest.raises(FileNotFoundError, match=words("both/trian train")):
        image_folder(root=str(both), train="trian", **small)
    with pytest.raises(FileNotFoundError, match=words("val test")):
        image_folder(root=str(tree(tmp_path / "one", splits=["train"])), **small)


def test_folder_trees_that_cannot_be_read(tmp_path):
    small = {"size": 16, "resize": 20}
    with pytest.raises(FileNotFoundError, match=words("nowhere")):
        image_folder(root=str(tmp_path / "nowhere"), **small)
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match=words("bare folders")):
        image_folder(root=str(tmp_path / "bare"), **small)
    root = tree(tmp_path / "set")
    (root / "val" / "cow").mkdir()
    with pytest.raises(ValueError, match=words("1 3 cow")):
        image_folder(root=str(root), **small)
    Image.new("RGB", (30, 30)).save(root / "val" / "cow" / "0.png")
    with pytest.raises(ValueError, match=words("3 2 cow")):
        image_folder(root=str(root), **small)
    with pytest.raises(ValueError, match=words("resize 10 size 16")):
        image_folder(root=str(root), size=16, resize=10)


def test_folder_names_the_image_that_cannot_be_used(tmp_path):
    root = tree(tmp_path / "set", splits=["."], shape=(40, 30, 3))
    with pytest.raises(ValueError, match=words("0.png 30x40 32x32 resize")):
        image_folder(root=str(root), size=32, resize=None)
    whole = (root / "bee" / "2.png").read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        (root / "bee" / "2.png").write_bytes(content)
        with pytest.raises(ValueError, match=words("bee/2.png readable")):
            image_folder(root=str(root), size=16, resize=20)
    (root / "bee" / "2.png").unlink()
    (root / "bee" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=words("bee/2.png readable")):
        image_folder(root=str(root), size=16, resize=20)


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    root = tree(tmp_path / "set", splits=["."])
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=words("pack folder")):
        image_folder(root=str(root), size=16, resize=20, pack=str(tmp_path / "file" / "packed"))
    monkeypatch.setattr(folder.os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=words("set.packed/ permission pack")):
        image_folder(root=str(root), size=16, resize=20)


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xe8"])
def test_names_that_are_no_text_are_refused_by_name(tmp_path, name):
    import os

    place = tree(tmp_path / "set") / "train" / "ant"
    (place / "0.png").rename(place / f"{os.fsdecode(name)}.png")
    with pytest.raises(ValueError, match=r"train/ant.*no UTF-8 text.*rename"):
        image_folder(root=str(tmp_path / "set"), size=16)
