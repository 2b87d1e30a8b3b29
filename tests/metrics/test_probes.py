"""Probes against a plain NumPy loop, and against what a spying network is shown."""

import pickle

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from efface.base import draws
from efface.base.types import Split
from efface.erase.masking import to_float
from efface.erase.ranking import count, rank, removed
from efface.impute import histogram
from efface.methods.control import random
from efface.metrics.probes import Degeneracy, Erasure, Perturb, Retrain, erased, erased_batches, image_mean
from efface.metrics.probes.erasure import fills_averaged
from efface.plug.call import Call
from efface.store.arrays import pack
from efface.store.maps import MapStore
from efface.training.loop import TrainingSettings
from small.batches import noise_split, normal_numbers, stored_images
from small.cases import case_of, stored_maps
from small.messages import words
from small.networks import Linear
from small.tiers import first_short

CPU = torch.device("cpu")
C, H, W, CLASSES = 3, 5, 4, 4
PIXELS = H * W
MEAN = Call(call="efface.impute.channel_mean")
GREY = Call(call="efface.impute.constant", kwargs={"value": [0.2, 0.4, 0.9]})
BLUR = Call(call="efface.impute.blur", kwargs={"sigma": 1.5})
SUM = (Call(call="efface.erase.post.absolute"), Call(call="efface.erase.post.channel_sum"))


def splits():
    train = noise_split(14, H, W, seed=1, validation=torch.tensor([3, 8]))
    return {"train": train, "test": noise_split(6, H, W, seed=2)}


def stores(folder, name="m", channels=None, sign=1.0):
    shape = (H, W) if channels is None else (channels, H, W)
    maps = {"train": normal_numbers(14, *shape, seed=3) * sign, "test": normal_numbers(6, *shape, seed=4) * sign}
    return {split: stored_maps(folder, rows, f"{name}-{split}") for split, rows in maps.items()}


def seed_stores(folder):
    rows = {"train": torch.arange(14), "test": torch.arange(6)}
    return {each: stored_maps(folder, draws.seeds_of(each, found), f"seeds-{each}") for each, found in rows.items()}


class Fixed(Linear):
    """A softmax classifier without a bias, its weights fixed."""

    def __init__(self):
        super().__init__(normal_numbers(CLASSES, C, H, W, seed=5))


class Spy(nn.Module):
    """Notes its first weights, and of each pass whether it trained and the 8-bit images it was shown."""

    def __init__(self, notes):
        super().__init__()
        self.notes, self.fc = notes, nn.Linear(C, CLASSES)
        notes.append(self.fc.weight.detach().clone())

    def forward(self, images):
        self.notes.append((self.training, (images * 255).round().byte().clone()))
        return self.fc(images.mean((2, 3)))


def trainable_case(maps=None, **changes):
    """A case of `splits` and `Fixed` that may train."""
    given = {
        "build": Fixed,
        "target_classes": torch.tensor([3, 3, 2, 1, 0, 0]),
        "maps": maps or {},
        "given_training": TrainingSettings(epochs=2, batch_size=4),
        "max_batch": 4,
    }
    return case_of(**{"data": splits(), "network": Fixed()} | given | changes)


def erased_by_loop(images, maps, fraction, order, fill):
    """uint8 n c h w with the chosen pixels (maps n h w) or channel values (n c h w) put to `fill`, one by one."""
    out = images.numpy().copy()
    for image, relevance in zip(out, maps.numpy(), strict=True):
        places = sorted(np.ndindex(relevance.shape), key=lambda at: -relevance[at])  # most relevant first
        chosen = places if order == "most_first" else places[::-1]
        for at in chosen[: int(np.floor(fraction * relevance.size + 1e-6))]:
            for channel in range(C) if len(at) == 2 else at[:1]:
                image[(channel, *at[-2:])] = round(float(np.float32(fill[channel]) * np.float32(255)))
    return out


def softmax_by_loop(images):
    weights = Fixed().fc.weight.detach().double().numpy()
    powers = np.exp(images.reshape(len(images), -1) / 255.0 @ weights.T)
    return powers / powers.sum(1, keepdims=True)


def same(one, other):
    values = all(np.array_equal(one.values[name], other.values[name]) for name in ("accuracy", "probability"))
    return values and one.n == other.n


# Perturb


@pytest.mark.parametrize("order", ["most_first", "least_first"])
@pytest.mark.parametrize("fraction", first_short(2, [0.3, 0.77, 0.01, 0.05, 0.99]))
@pytest.mark.parametrize("unit", ["pixel", "feature"])
@pytest.mark.parametrize("imputer", [MEAN, GREY], ids=["mean", "grey"])
def test_perturb_is_the_loop(tmp_path, order, fraction, unit, imputer):
    maps = stores(tmp_path, channels=None if unit == "pixel" else C)
    here = trainable_case(maps)
    score = Perturb(Erasure(order, fraction, imputer, (), unit))(here)
    fill = here.mean.tolist() if imputer is MEAN else GREY.kwargs["value"]
    test = splits()["test"]
    images = erased_by_loop(test.images, maps["test"].take(torch.arange(6)), fraction, order, fill)
    softmax = softmax_by_loop(images)
    np.testing.assert_allclose(
        score.values["probability"], softmax[range(6), here.target_classes], rtol=1e-4, atol=1e-6
    )
    assert np.array_equal(score.values["accuracy"], softmax.argmax(1) == test.targets.numpy())
    assert score.mean("accuracy") == pytest.approx(score.values["accuracy"].mean())
    assert score.mean("probability") == pytest.approx(score.values["probability"].mean())
    assert score.n == 6


def test_nothing_removed_is_the_clean_network():
    score = Perturb(Erasure("most_first", 0.0, BLUR))(trainable_case())
    np.testing.assert_allclose(
        score.values["probability"],
        softmax_by_loop(splits()["test"].images.numpy())[range(6), trainable_case().target_classes],
        rtol=1e-4,
        atol=1e-6,
    )


def test_everything_removed_needs_no_map_and_shows_the_fill_alone():
    score = Perturb(Erasure("least_first", 1.0, GREY))(trainable_case())
    blank = np.tile(np.array([51, 102, 230], dtype=np.uint8)[None, :, None, None], (6, 1, H, W))
    np.testing.assert_allclose(
        score.values["probability"],
        softmax_by_loop(blank)[range(6), trainable_case().target_classes],
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize(("samples", "kwargs"), [(5, {}), (2, {"samples": 2})])
def test_a_fill_that_is_averaged_is_scored_once_for_each_of_its_draws(tmp_path, samples, kwargs):
    maps, erasure = stores(tmp_path), Erasure("most_first", 0.5, Call(call="efface.impute.histogram", kwargs=kwargs))
    ticks = []
    here = trainable_case(maps, advance=ticks.append)
    score, test = Perturb(erasure)(here), splits()["test"]
    assert sum(ticks) == Perturb(erasure).cost({"test": 6}, None) == 6 * samples
    images = to_float(test.images)
    gone = removed(erasure_ranks(maps), 0.5, "most_first")
    found = []
    for sample in range(samples):
        seeds = draws.seeds_of("0 test fill", torch.arange(6))
        fill = histogram(images, gone, seeds=draws.fold(seeds, sample) if sample else seeds)
        shown = torch.where(gone[:, None], (fill * 255).round().byte(), test.images)
        found.append(softmax_by_loop(shown.numpy()))
    expected = np.mean([each[range(6), here.target_classes] for each in found], 0)
    np.testing.assert_allclose(score.values["probability"], expected, rtol=1e-4, atol=1e-6)
    right = np.mean([each.argmax(1) == test.targets.numpy() for each in found], 0)
    np.testing.assert_allclose(score.values["accuracy"], right)
    assert fills_averaged(MEAN) == fills_averaged(erasure.imputer, 0.0) == 1


def erasure_ranks(maps):
    return rank(maps["test"].take(torch.arange(6)), torch.arange(6))


def test_a_fill_that_is_averaged_needs_its_setting(monkeypatch):
    monkeypatch.setattr("efface.impute.image_mean.is_averaged", True, raising=False)
    with pytest.raises(ValueError, match=words("efface.impute.image_mean is_averaged samples")):
        fills_averaged(Call(call="efface.impute.image_mean"))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.85])
def test_MoRF_on_a_map_is_LeRF_on_its_negative(tmp_path, fraction):
    one = Perturb(Erasure("most_first", fraction, MEAN))(trainable_case(stores(tmp_path)))
    other = Perturb(Erasure("least_first", fraction, MEAN))(trainable_case(stores(tmp_path, "negative", sign=-1.0)))
    assert same(one, other)
    assert not same(one, Perturb(Erasure("least_first", fraction, MEAN))(trainable_case(stores(tmp_path, "again"))))


def test_post_is_applied_before_ranking(tmp_path):
    signed = stores(tmp_path, channels=C)
    reduced = {"test": stored_maps(tmp_path, signed["test"].take(torch.arange(6)).abs().sum(1), "reduced")}
    with_post = Perturb(Erasure("most_first", 0.4, MEAN, SUM))(trainable_case(signed))
    assert same(with_post, Perturb(Erasure("most_first", 0.4, MEAN))(trainable_case(reduced)))
    doubled = (Call(call="efface.erase.post.square"), *SUM)
    assert not same(with_post, Perturb(Erasure("most_first", 0.4, MEAN, doubled))(trainable_case(signed)))


def test_the_row_budget_changes_nothing_but_rounding(tmp_path):
    maps, probe = stores(tmp_path), Perturb(Erasure("most_first", 0.4, BLUR))
    one, other = probe(trainable_case(maps, max_batch=1)), probe(trainable_case(maps, max_batch=100))
    np.testing.assert_allclose(one.values["probability"], other.values["probability"], rtol=1e-5)
    assert np.array_equal(one.values["accuracy"], other.values["accuracy"])


def test_ranks_are_kept_for_the_next_probe_but_not_for_other_maps_seeds_or_posts(tmp_path, monkeypatch):
    maps, kept, reads = stores(tmp_path), {}, []
    take = MapStore.take
    monkeypatch.setattr(MapStore, "take", lambda self, rows: reads.append(len(rows)) or take(self, rows))
    half = Erasure("most_first", 0.5, MEAN)
    first = Perturb(half)(trainable_case(maps, cache=kept))
    Perturb(Erasure("least_first", 0.2, GREY))(trainable_case(maps, cache=kept))
    assert reads == [6]
    again = {
        "test": stored_maps(tmp_path, normal_numbers(6, H, W, seed=99), "m-test")
    }  # extracted anew, under the same name
    assert same(Perturb(half)(trainable_case(again, cache=kept)), Perturb(half)(trainable_case(again)))
    assert not same(Perturb(half)(trainable_case(again, cache=kept)), first)
    flat = {"test": stored_maps(tmp_path, torch.zeros(6, H, W), "flat")}
    scores = [
        Perturb(half)(trainable_case(flat, cache=kept, seed=seed)) for seed in (0, 1, 0)
    ]  # the seed breaks the ties
    assert same(scores[0], scores[2])
    assert not same(scores[0], scores[1])


# Retrain


def shown(probe, here):
    """What the network of a retraining was shown: first weights, training, validation and test images."""
    notes = []
    score = probe(
        trainable_case(
            here.maps, data=here.data, given_training=here.training, build=lambda: Spy(notes), seed=here.seed
        )
    )
    weights, passes = notes[0], notes[1:]
    test = sum(len(images) for _, images in passes[-2:])
    assert test == 6  # in two passes, at max_batch=4
    training = [images for trains, images in passes if trains]
    validation = [images for trains, images in passes[:-2] if not trains]
    return weights, training, validation, torch.cat([images for _, images in passes[-2:]]), score


def as_set(images):
    return sorted(image.numpy().tobytes() for image in images)


@pytest.mark.parametrize("order", ["most_first", "least_first"])
def test_retrain_shows_exactly_the_erased_images(tmp_path, order):
    maps, here = stores(tmp_path), splits()
    whole = trainable_case(maps)
    _, training, validation, test, _ = shown(Retrain(Erasure(order, 0.3, MEAN), 0), whole)
    expected = {
        name: torch.from_numpy(
            erased_by_loop(split.images, maps[name].take(torch.arange(len(split))), 0.3, order, whole.mean.tolist())
        )
        for name, split in here.items()
    }
    seen = torch.cat(training).split(12)  # two epochs of the twelve rows that do not validate
    assert len(seen) == 2
    for epoch in seen:
        assert as_set(epoch) == as_set(expected["train"][here["train"].training])
    assert not torch.equal(seen[0], seen[1])  # in another order
    assert torch.equal(torch.cat(validation), expected["train"][[3, 8, 3, 8]])
    assert torch.equal(test, expected["test"])


def test_retrain_scores_the_true_class(tmp_path):
    *_, score = shown(Retrain(Erasure("most_first", 0.5, MEAN), 0), trainable_case(stores(tmp_path)))
    assert score.n == 6
    one = Retrain(Erasure("most_first", 0.5, MEAN), 0)
    assert same(
        one(trainable_case(stores(tmp_path, "a"))),
        one(trainable_case(stores(tmp_path, "b"), target_classes=torch.zeros(6).long())),
    )


def test_the_same_repeat_starts_alike_for_every_method_and_fraction(tmp_path):
    here, other = trainable_case(stores(tmp_path)), trainable_case(stores(tmp_path, "other", sign=-1.0))
    weights = [
        shown(Retrain(Erasure(order, fraction, MEAN), repeat), each)[0]
        for order, fraction, repeat, each in [
            ("most_first", 0.1, 0, here),
            ("least_first", 0.9, 0, other),
            ("most_first", 0.1, 1, here),
        ]
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_epoch_kept_does_not_hang_on_the_test_images(tmp_path):
    choices = TrainingSettings(
        epochs=4, batch_size=4, keep="best", optimizer={"call": "torch.optim.SGD", "kwargs": {"lr": 1.0}}
    )
    states = []

    class Kept(Fixed):
        def eval(self):
            states.append(self.fc.weight.detach().clone())
            return super().eval()

    for seed in (2, 7):
        states.append(None)
        data = splits() | {"test": Split(stored_images(6, H, W, seed=seed), torch.zeros(6, dtype=torch.int64))}
        Retrain(Erasure("most_first", 0.5, MEAN), 0)(
            trainable_case(stores(tmp_path, f"{seed}"), data=data, given_training=choices, build=Kept)
        )
    assert torch.equal(states[-1], states[states.index(None, 1) - 1])


@pytest.mark.parametrize("imputer", [MEAN, GREY, BLUR], ids=["mean", "grey", "blur"])
@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_the_border_of_random_crops_is_filled_as_a_removed_pixel_is(tmp_path, imputer, fraction):
    here = trainable_case(stores(tmp_path))
    rows, width = torch.arange(14), 2
    erasure = Erasure("most_first", fraction, imputer)
    padded = torch.cat(list(erased_batches(here, "train", erasure, width=width, whole=True)(rows, 5, 0)))
    plain = torch.cat(list(erased_batches(here, "train", erasure, width=0, whole=True)(rows, 5, 0)))
    inside = padded[..., width:-width, width:-width]
    assert torch.equal(inside, plain)
    border = torch.ones(padded.shape[2:], dtype=torch.bool)
    border[width:-width, width:-width] = False
    if imputer is BLUR:
        larger = np.pad(plain.numpy() / 255.0, ((0, 0), (0, 0), (width, width), (width, width)), mode="edge")
        expected = np.stack([[gaussian_filter(c, 1.5, mode="nearest") for c in image] for image in larger]) * 255
        far = np.abs(padded.numpy() - expected)[..., border.numpy()]
        assert far.max() <= 1.01  # 8 bits: blurred before or after rounding
    else:
        fill = here.mean if imputer is MEAN else torch.tensor(GREY.kwargs["value"])
        assert torch.equal(padded[..., border], (fill * 255).round().byte()[:, None].expand(14, C, int(border.sum())))


# Rankings that are drawn anew


def test_a_resampled_ranking_changes_each_epoch_and_removes_as_many_pixels(tmp_path):
    here = trainable_case(seed_stores(tmp_path), mean=torch.zeros(C))
    feed = erased_batches(here, "train", Erasure("most_first", 0.35, MEAN), width=0, whole=True)
    rows = torch.arange(14)
    epochs = [torch.cat(list(feed(rows, 4, epoch))) for epoch in (0, 1, 2, 0)]
    whole = splits()["train"].images
    for images in epochs:
        gone = (images == 0).all(1) & (whole != 0).any(1)
        assert (gone.flatten(1).sum(1) == count(0.35, PIXELS)).all()
        assert torch.equal(torch.where(gone[:, None], whole, images), whole)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])
    assert torch.equal(epochs[0], epochs[3])


@pytest.mark.parametrize("unit", ["pixel", "feature"])
def test_a_resampled_ranking_is_drawn_once_for_the_test_images(tmp_path, unit):
    here = trainable_case(seed_stores(tmp_path))
    feed = erased_batches(here, "test", Erasure("most_first", 0.5, MEAN, (), unit), width=0, whole=False)
    one, other = (torch.cat(list(feed(torch.arange(6), 4, epoch))) for epoch in (0, 3))
    assert torch.equal(one, other)


def test_a_resampled_ranking_of_the_test_images_is_that_of_random(tmp_path):
    seeds = seed_stores(tmp_path)
    maps = {
        each: stored_maps(
            tmp_path, random(Fixed(), to_float(split.images), split.targets, seeds=found), f"random-{each}"
        )
        for each, split in splits().items()
        for found in [seeds[each].take(torch.arange(len(split)))]
    }
    for order in ("most_first", "least_first"):
        probe = Perturb(Erasure(order, 0.5, MEAN))
        assert same(probe(trainable_case(seeds)), probe(trainable_case(maps)))
    both = [shown(Retrain(Erasure("most_first", 0.5, MEAN), 0), trainable_case(each)) for each in (seeds, maps)]
    assert torch.equal(both[0][3], both[1][3])
    first, second = (torch.cat(each[1]).split(12) for each in both)
    assert torch.equal(first[0], second[0])  # the first epoch's ranking is that of random too
    assert as_set(first[1]) != as_set(second[1])


# Images in files


@pytest.mark.long
@pytest.mark.parametrize("kind", ["maps", "seeds"])
@pytest.mark.parametrize("imputer", [MEAN, BLUR], ids=["mean", "blur"])
@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_images_in_files_give_the_same_scores_bit_for_bit(tmp_path, kind, imputer, fraction):
    maps = stores(tmp_path, channels=C) if kind == "maps" else seed_stores(tmp_path)
    packed = {
        name: Split(
            pack(tmp_path / f"{name}.h5", "images", tuple(split.images.shape), [split.images.numpy()], {}),
            split.targets,
            validation=split.validation,
        )
        for name, split in splits().items()
    }
    choices = TrainingSettings(epochs=3, batch_size=5, crop=1, flip=True, keep="best")
    erasure = Erasure("most_first", fraction, imputer, SUM if kind == "maps" else ())
    for probe in (Perturb(erasure), Retrain(erasure, 1)):
        assert same(
            probe(trainable_case(maps, given_training=choices)),
            probe(trainable_case(maps, given_training=choices, data=packed)),
        )
    assert torch.equal(image_mean(packed["train"]), image_mean(splits()["train"]))
    rows = torch.tensor([5, 0])
    assert torch.equal(
        erased(trainable_case(maps), erasure, rows), erased(trainable_case(maps, data=packed), erasure, rows)
    )


# Values


def test_the_mean_is_that_of_the_training_images():
    train = splits()["train"]
    np.testing.assert_allclose(image_mean(train), train.images.double().mean((0, 2, 3)) / 255, rtol=1e-6)


def test_progress_adds_up_to_the_cost(tmp_path):
    rows = {"train": 14, "test": 6}
    early = TrainingSettings(epochs=5, batch_size=4, stop={"loss": 1e9})
    retrain = Retrain(Erasure("most_first", 0.5, MEAN), 0)
    for probe, changes in (
        (Perturb(Erasure("most_first", 0.5, MEAN)), {}),
        (retrain, {}),
        (retrain, {"given_training": early}),
    ):
        ticks = []
        here = trainable_case(stores(tmp_path), advance=ticks.append, **changes)
        probe(here)
        assert sum(ticks) == probe.cost(rows, here.training)


def test_probes_are_values():
    for make in (
        lambda: Perturb(Erasure("most_first", 0.5, GREY, SUM)),
        lambda: Retrain(Erasure("most_first", 1.0, BLUR), 2),
    ):
        assert make() == make()
        assert hash(make()) == hash(make())
        assert pickle.loads(pickle.dumps(make())) == make()  # noqa: S301


def test_an_erasure_of_more_than_all_is_refused():
    with pytest.raises(ValueError, match=r"fraction is 1\.5; expected a number from 0 to 1"):
        Erasure("most_first", 1.5, MEAN)


def test_identity_tells_apart_all_that_the_number_depends_on():
    base = {"order": "most_first", "fraction": 0.5, "imputer": MEAN, "post": (), "unit": "pixel"}
    changes = [{}, {"order": "least_first"}, {"fraction": 0.4}, {"imputer": GREY}, {"post": SUM}, {"unit": "feature"}]
    probes = [kind(Erasure(**(base | each))) for each in changes for kind in (Perturb, lambda e: Retrain(e, 0))]
    probes.append(Retrain(Erasure(**base), 1))
    assert len({str(each.identity()) for each in probes}) == len(probes)
    ends = [Perturb(Erasure(**(base | each | {"fraction": 1.0}))) for each in changes if "imputer" not in each]
    assert len({str(each.identity()) for each in ends}) == 1  # order, post and unit do not matter there
    assert not any(each.needs.maps for each in ends)


def test_the_two_orders_split_the_pixels():
    ranks = torch.stack([torch.randperm(PIXELS) for _ in range(5)]).reshape(5, H, W)
    for fraction in (0.1, 0.25, 0.5):
        most, least = removed(ranks, fraction, "most_first"), removed(ranks, 1 - fraction, "least_first")
        assert torch.equal(most, ~least)


class Narrow(Fixed):
    """A network on a device with room for two images."""

    def forward(self, images):
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return super().forward(images)


def test_scoring_goes_on_with_smaller_batches_when_memory_runs_out(tmp_path):
    probe = Perturb(Erasure("most_first", 0.5, MEAN, SUM))
    maps = stores(tmp_path)
    whole, narrow = probe(trainable_case(maps)), probe(trainable_case(maps, given_network=Narrow()))
    assert narrow.mean("accuracy") == whole.mean("accuracy")
    assert np.allclose(narrow.values["probability"], whole.values["probability"], atol=1e-6)


# Orders, units and what is shown


def halves(images, *, rows=1):
    """Groups: bands of `max_batch` rows of pixels."""
    n, _, h, w = images.shape
    return (torch.arange(h)[:, None] // rows).expand(h, w).expand(n, h, w).contiguous()


def test_a_group_goes_as_one_by_its_mean(tmp_path):
    maps = torch.zeros(6, H, W)
    maps[:, 2] = 1.0  # the third row of pixels is the most relevant one, the fourth the next
    maps[:, 3] = 0.5
    maps[:, 0, 0] = 1.9  # in a row of four: a mean of 0.475
    here = trainable_case({"test": stored_maps(tmp_path, maps, "bands")})
    unit = Call(call=f"{__name__}.halves")
    for fraction, gone in ((0.2, [2]), (0.4, [2, 3]), (0.6, [0, 2, 3]), (0.39, [2])):
        found = erased(here, Erasure("most_first", fraction, GREY, unit=unit), torch.arange(6))
        changed = (found != to_float(here.data["test"].images)).any(1).any(2)
        assert all(changed[:, row].all() == (row in gone) for row in range(H)), fraction
        kept = erased(here, Erasure("least_first", 1 - fraction, GREY, unit=unit), torch.arange(6))
        if round(fraction * H, 6).is_integer():
            same = (kept == to_float(here.data["test"].images)).all(1)
            assert all(same[:, row].all() == (row in gone) for row in range(H))


@pytest.mark.parametrize("unit", ["pixel", "feature", Call(call=f"{__name__}.halves", kwargs={"rows": 2})])
def test_a_random_order_needs_no_map_and_is_each_images_own(tmp_path, unit):
    here = trainable_case({})
    erasure = Erasure("random", 0.5, GREY, unit=unit)
    assert not erasure.needs_map
    every = erased(here, erasure, torch.arange(6))
    assert torch.equal(every[4:5], erased(here, erasure, torch.tensor([4])))
    gone = every != to_float(here.data["test"].images)
    if unit == "feature":
        assert set(gone.flatten(1).sum(1).tolist()) <= {C * PIXELS // 2, C * PIXELS // 2 - 1}
    if unit == "pixel":
        assert set(gone.any(1).flatten(1).sum(1).tolist()) == {PIXELS // 2}
    assert len({tuple(each.flatten().tolist()) for each in gone}) > 1


def test_a_mask_shows_what_is_gone_and_nothing_else(tmp_path):
    here = trainable_case(stores(tmp_path))
    found = erased(here, Erasure("most_first", 0.25, MEAN, shown="mask"), torch.arange(6))
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(found[:, :1].expand_as(found), found)
    where = erased(here, Erasure("most_first", 0.25, GREY), torch.arange(6)) == to_float(here.data["test"].images)
    assert torch.equal(found.bool().all(1), where.all(1))
    whole = erased(here, Erasure("most_first", 0.0, MEAN, shown="mask"), torch.arange(6))
    assert whole.eq(1).all()


def test_a_fill_that_draws_is_given_seeds_of_the_images(tmp_path):
    here = trainable_case(stores(tmp_path))
    erasure = Erasure("most_first", 0.5, Call(call=f"{__name__}.noisy"))
    every = erased(here, erasure, torch.arange(6))
    assert torch.equal(every[2:4], erased(here, erasure, torch.tensor([2, 3])))
    assert not torch.equal(every[2], every[3])


def noisy(images, removed, *, seeds):
    return draws.uniform(seeds, tuple(images.shape[1:]))


# Maps that no score should judge


def test_ties_are_those_of_the_units_that_are_ranked(tmp_path):
    """Maps of patches, enlarged: all pixels of a patch tie, and the patches do not."""
    patch = Call(call="efface.erase.units.patch", kwargs={"size": [1, 2]})
    small = normal_numbers(6, H, W // 2, seed=4)
    small[1] = 0.25
    small[2, 0, 0] = small[2, 0, 1]
    maps = small.repeat_interleave(2, 2)
    other = maps.flip(0)
    here = trainable_case({"test": stored_maps(tmp_path, maps, "odd")}, explain=lambda *given: other[given[-1]])
    by_pixel, by_patch = (Degeneracy((), unit)(here).values for unit in ("pixel", patch))
    assert by_pixel["tied_share"][[0, 3, 4, 5]].tolist() == [1, 1, 1, 1]
    assert by_patch["tied_share"][[0, 3, 4, 5]].tolist() == [0, 0, 0, 0]
    patches = H * (W // 2)
    assert by_patch["tied_share"][2] == pytest.approx(2 / patches)
    assert by_patch["levels"][0] == 1
    for found in (by_pixel, by_patch):
        assert found["constant_of_all"].tolist() == [False, True, False, False, False, False]
    assert Degeneracy((), patch).identity() != Degeneracy((), "pixel").identity()


def test_degenerate_maps_are_found_image_by_image(tmp_path):
    maps = normal_numbers(6, H, W, seed=4)
    maps[1] = 0.25  # constant
    maps[2] = maps[0] * 3 + 1  # the first but for scale
    maps[3] = maps[3].round()  # ties
    maps[4].flatten()[:5] = 9.0

    def explain(network, images, classes, rows):
        assert torch.equal(classes, (here.target_classes[rows] + 1) % CLASSES)
        other = maps[rows].clone()
        other[0] = -other[0]
        return other

    here = trainable_case({"test": stored_maps(tmp_path, maps, "odd")}, explain=explain)
    found = Degeneracy((), "pixel")(here).values
    assert found["constant"].tolist() == [False, True, False, False, False, False]
    assert found["constant_of_all"].tolist() == found["constant"].tolist()
    assert found["alike"].tolist() == [True, False, True, False, False, False]
    assert not found["nonfinite"].any()
    assert found["levels"][[0, 2, 5]].tolist() == [1, 1, 1]
    distinct = [len(each.unique()) for each in maps]
    np.testing.assert_allclose(found["levels"][3:5], [distinct[3] / PIXELS, distinct[4] / PIXELS])
    assert found["tied_share"][4] == pytest.approx(5 / PIXELS)
    assert found["blind"][[0, 2, 3, 4, 5]].tolist() == [0, 1, 1, 1, 1]
