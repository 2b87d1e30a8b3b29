"""Golden outputs of erasing: ranks, what is removed, fills of borders, units, feeds, the erased images of a split."""

import math

import torch

from efface.erase.batches import resident, streamed
from efface.erase.masking import erase, erase_stored, pad, to_float, to_stored
from efface.erase.ranking import count, for_unit, rank, removed
from efface.erase.units import group_means, patch, spread
from efface.metrics.probes import Erasure, Perturb, Retrain, erased, erased_batches, image_mean
from efface.metrics.probes.degeneracy import Degeneracy
from efface.plug.call import Call
from efface.store.arrays import pack
from numerics import inputs
from numerics.table import golden

MEAN = Call(call="efface.impute.channel_mean")
NOISE = Call(call="efface.impute.gaussian_noise")
BLUR = Call(call="efface.impute.blur", kwargs={"sigma": 1.0})
PATCH = Call(call="efface.erase.units.patch", kwargs={"size": [3, 2]})
SUPERPIXEL = Call(call="efface.erase.units.superpixel", kwargs={"segments": 9, "compactness": 8.0})
SUM = (Call(call="efface.erase.post.absolute"), Call(call="efface.erase.post.channel_sum"))
FRACTIONS = (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.99, 1.0)


@golden("erase")
def _erase():
    return _ranks() | _masks() | _groups() | _fills() | _feeds() | splits() | scores()


def _ranks():
    maps, seeds = inputs.maps(5), inputs.seeds(5)
    broken = maps[:3].clone()
    broken[0, 2], broken[1, 0, :1] = math.nan, math.nan  # the first has no other ties
    broken[2, 1, 1] = -math.inf
    return {
        "rank": rank(maps, seeds),
        "rank_of_nan": rank(broken, seeds[:3]),
        "rank_of_one": rank(maps[1:2], seeds[1:2]),
        "rank_of_channels": rank(inputs.maps(3, channels=3), seeds[:3]),
        "rank_of_zeros": rank(torch.zeros(2, 3, 3), seeds[:2]),
        "rank_of_few": rank(torch.tensor([[0.5, -1.0, 0.5, 2.0, -0.0, 0.0]]), seeds[:1]),
    }


def _masks():
    ten = torch.arange(10).flip(0).reshape(1, 2, 5)
    other = torch.stack([ten[0], ten[0].flip(0)])
    found = {"count": [count(each, units) for units in (7, 10, 1000) for each in (*FRACTIONS, 0.2, 0.6, 0.7999)]}
    found["count_of_100"] = [count(each / 100, 100) for each in range(101)]  # 0.29 * 100 is less than 29
    for order in ("most_first", "least_first"):
        found[f"removed_{order}"] = torch.stack([removed(other, each, order) for each in FRACTIONS])
    groups = torch.tensor([[[0, 0, 1], [2, 3, 3]], [[1, 1, 0], [0, 0, 0]]])  # the second has fewer units
    for order in ("most_first", "least_first"):
        found[f"grouped_{order}"] = torch.stack([removed(groups, each, order, grouped=True) for each in FRACTIONS])
    return found


def _groups():
    maps = inputs.maps(3)
    labels = patch(inputs.images(3), size=(3, 3)).clone()
    labels[2] = labels[2].clamp(max=4)
    means = group_means(maps, labels)
    return {
        "group_means": means,
        "spread": spread(means, labels),
        "spread_ranks": spread(rank(means, inputs.seeds(3)), labels),
        "for_pixel": for_unit(inputs.maps(2, channels=1), "pixel", 3),
        "for_feature": for_unit(maps, "feature", 3),
    }


def _fills():
    stored, mask = inputs.stored(3, 4), inputs.maps(3) > 0.3
    images = to_float(stored)
    wide = inputs.maps(3, seed=6, channels=3) > 0.3

    def fill(shown, gone):
        return shown.flip(3) * 0.7 + 0.003

    return {
        "erased": erase(images, mask, fill),
        "erased_channels": erase(images, wide, fill),
        "erased_stored": erase_stored(stored, images, mask, fill),
        "erased_stored_channels": erase_stored(stored, images, wide, fill),
        "untouched": erase_stored(stored, images, torch.zeros_like(mask), fill),
        "one_colour": erase_stored(stored, images, mask, lambda shown, _: torch.full((3, 1, 1), 0.7).expand_as(shown)),
        "padded": pad(images, 2, lambda shown, gone: fill(shown, gone) + gone[:, None] * 0.1),
        "to_stored": to_stored(torch.tensor([-0.2, 0.0, 0.5, 1.5 / 255, 2.5 / 255, 0.999, 1.2])[None, None, None]),
        "to_float": to_float(torch.arange(0, 256, 15, dtype=torch.uint8)[None, None, None]),
        "image_mean": image_mean(inputs.data()["train"]),
    }


def _feeds():
    images, marks = inputs.stored(7, 5), torch.arange(7)

    def gather(rows):
        return images[rows], marks[rows]

    def prepare(shown, beside, rows, epoch):
        return (shown + (10 * beside + epoch + rows)[:, None, None, None]).to(torch.uint8)

    order, found = torch.tensor([6, 0, 3, 3, 5]), {}
    for redrawn in (False, True):
        kept = resident(7, gather, prepare, block=3, redrawn=redrawn)
        read = streamed(gather, prepare, inputs.CPU, redrawn=redrawn)
        for epoch in (0, 2):
            found[f"resident_{redrawn}_{epoch}"] = torch.cat(list(kept(order, 2, epoch)))
            found[f"streamed_{redrawn}_{epoch}"] = torch.cat(list(read(order, 2, epoch)))
    return found


def splits():
    single = inputs.case({"train": inputs.maps(21), "test": inputs.maps(6)})
    coloured = inputs.case({"train": inputs.maps(21, channels=3), "test": inputs.maps(6, channels=3)})
    drawn = inputs.case({"train": inputs.seeds(21), "test": inputs.seeds(6, "test")})
    found = {}
    for order in ("most_first", "least_first", "random"):
        for name, case, post, unit in (
            ("pixel", coloured, SUM, "pixel"),
            ("feature", coloured, (), "feature"),
            ("patch", single, (), PATCH),
            ("superpixel", single, (), SUPERPIXEL),
            ("drawn", drawn, (), "pixel"),
        ):
            erasure = Erasure(order, 0.3, NOISE if name == "patch" else MEAN, post, unit)
            found[f"{order}_{name}"] = erased(case, erasure, torch.tensor([4, 0, 1, 5, 2]))
    rows = torch.tensor([3, 20, 0])
    for name, case, epoch in (("single", single, 0), ("drawn", drawn, 1)):
        feed = erased_batches(case, "train", Erasure("most_first", 0.5, BLUR), width=1, whole=True, first_draw=2)
        found[f"train_{name}"] = torch.cat(list(feed(rows, 2, epoch)))
    for fraction in (0.0, 1.0):
        found[f"at_{fraction:g}"] = erased(single, Erasure("most_first", fraction, BLUR), torch.tensor([1, 0]))
    found["mask"] = erased(single, Erasure("least_first", 0.4, MEAN, shown="mask"), torch.arange(3))
    return found | from_a_file(single)


def from_a_file(case):
    images = case.data["test"].images
    path = inputs.folder() / "images.h5"
    held = pack(path, "images", tuple(images.shape), [images.numpy(force=True)], {})
    splits = case.data | {"test": type(case.data["test"])(held, case.data["test"].targets)}
    other = inputs.case({"test": inputs.maps(6)}, data=splits)
    return {"from_a_file": erased(other, Erasure("most_first", 0.3, MEAN, (), PATCH), torch.tensor([5, 1, 2]))}


def scores():
    case = inputs.case({"train": inputs.maps(21), "test": inputs.maps(6)})
    found = {}
    for name, probe in (
        ("clean", Perturb(Erasure("most_first", 0.0, MEAN))),
        ("perturb", Perturb(Erasure("most_first", 0.3, MEAN))),
        ("retrain", Retrain(Erasure("least_first", 0.3, MEAN), 1)),
        ("degeneracy", Degeneracy((), "pixel")),
    ):
        found |= {f"{name}_{each}": value for each, value in probe(case).values.items()}
    del found["degeneracy_constant_of_all"]  # came later, and the others stayed as they were
    return found
