"""The unit `token` and the fill `drop_tokens`: a network that reads one token, and small studies of a transformer."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from efface import impute
from efface.base.types import Split
from efface.metrics import Point, metric
from efface.metrics.probes import Erasure, Perturb
from efface.metrics.probes.tokens import token_logits
from efface.metrics.shared.cells import cell_labels, over_cells
from efface.plug.call import Call
from efface.stages.check import check_run
from efface.stages.extract import extract
from efface.stages.page.gallery_data import gallery
from efface.stages.page.report_data import how_of
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.stages.train import train
from efface.stages.work.measuring import measure_missing
from efface.study.study import InvalidStudyError
from small.batches import stored_images
from small.cases import case_of, stored_maps
from small.networks import Tiny, swin
from small.studies import checked

DROP = Call(call="efface.impute.drop_tokens")
TOKEN = Call(call="efface.erase.units.token", kwargs={"token_size": [4, 4]})
FRACTIONS = tuple(number / 9 for number in range(10))


class One(VisionTransformer):
    """It reads one of 3 x 3 patches: its class token attends to place `at` alone, and takes the brightness there.

    The logits of its two classes are this brightness and 0.
    """

    def __init__(self, at=5):
        super().__init__(12, 4, embed_dim=4, depth=1, num_heads=1, num_classes=2, mlp_ratio=1)
        for weight in self.parameters():
            weight.data.zero_()
        self.patch_embed.proj.weight.data[0] = 1 / 48
        self.pos_embed.data[0, at + 1, 1] = 1
        (block,) = self.blocks
        block.norm1, block.norm2, self.norm = nn.Identity(), nn.Identity(), nn.Identity()
        block.attn.qkv.bias.data[0] = 80  # the query: 40 for the key after the division by sqrt(4)
        block.attn.qkv.weight.data[4, 1] = 1  # the key: whether this is the place
        block.attn.qkv.weight.data[8, 0] = 1  # the value: the brightness
        block.attn.proj.weight.data[0, 0] = 1
        self.head.weight.data[0, 0] = 1
        self.eval()


def bright_at_5(count=3):
    """Black images with one patch of a brightness of its own."""
    images = torch.zeros(count, 3, 12, 12, dtype=torch.uint8)
    images[:, :, 4:8, 8:] = torch.arange(1, count + 1)[:, None, None, None].to(torch.uint8) * 51
    return images


def case(folder, images, maps, network, **changes):
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    return case_of({"test": split}, network, maps={"test": stored_maps(folder, maps)}, **changes)


def curve(name, here, value, fractions=FRACTIONS, imputer=DROP):
    found = []
    for fraction in fractions:
        probes = metric(name).probes(Point(fraction, 0, imputer, (), TOKEN))
        found.append(metric(name).value({each: probe(here) for each, probe in probes.items()})[value])
    return np.stack(found, 1)


def test_curves_of_a_network_that_reads_one_token(tmp_path):
    maps = torch.zeros(3, 12, 12)
    maps[:, 4:8, 8:] = 1.0  # the true map
    maps[2] = -maps[2]  # and its opposite
    here = case(tmp_path, bright_at_5(), maps, One())
    whole = 1 / (1 + np.exp(-np.array([0.2, 0.4, 0.6])))
    falls = {name: curve(name, here, "probability") for name in ("morf", "lerf", "deletion", "insertion")}
    for name, seen in (("morf", 1), ("lerf", 9), ("deletion", 1), ("insertion", 9)):
        for row in range(3):
            first = seen if row < 2 else 10 - seen
            expected = np.where(np.arange(10) < first, whole[row], 0.5)
            np.testing.assert_allclose(falls[name][row], expected, atol=1e-6)
    np.testing.assert_allclose(curve("srg", here, "probability"), falls["lerf"] - falls["morf"], atol=1e-6)


def test_a_painted_patch_is_seen_and_a_dropped_one_is_not(tmp_path):
    maps = torch.zeros(3, 12, 12)
    maps[:, 4:8, 8:] = 1.0
    here, white = case(tmp_path, bright_at_5(), maps, One()), Call(call="efface.impute.constant", kwargs={"value": 1.0})
    (painted,) = curve("morf", here, "probability", (1 / 9,), white).T
    (dropped,) = curve("morf", here, "probability", (1 / 9,)).T
    np.testing.assert_allclose(painted, 1 / (1 + np.exp(-1)), atol=1e-6)
    np.testing.assert_allclose(dropped, 0.5, atol=1e-6)


@pytest.fixture
def noisy(tmp_path):
    torch.manual_seed(0)
    network = VisionTransformer(12, 4, embed_dim=8, depth=2, num_heads=2, num_classes=4).eval()
    maps = torch.rand(7, 12, 12, generator=torch.Generator().manual_seed(1))

    def made(**changes):
        return case(tmp_path, stored_images(7, 12, seed=2), maps, network, **changes)

    return made


def test_no_batch_size_changes_a_score(noisy):
    probe = Perturb(Erasure("most_first", 0.4, DROP, (), TOKEN))
    many = probe(noisy(max_batch=7)).values
    for size in (1, 3):
        for name, values in probe(noisy(max_batch=size)).values.items():
            np.testing.assert_allclose(values, many[name], atol=1e-6)
    rows = torch.tensor([4, 1])
    some = probe(noisy(rows=rows)).values
    np.testing.assert_allclose(some["logit"], many["logit"][rows], atol=1e-6)


def test_nothing_removed_is_the_whole_network_exactly(noisy):
    clean = Perturb(Erasure("most_first", 0.0, Call(call="efface.impute.channel_mean")))(noisy()).values
    for fraction in (0.0, 0.1):  # a tenth of nine tokens is none
        found = Perturb(Erasure("most_first", fraction, DROP, (), TOKEN))(noisy()).values
        assert all(np.array_equal(values, clean[name]) for name, values in found.items())


def test_both_orders_and_a_shuffle_drop_as_many_tokens(noisy):
    seen, here = [], noisy()
    here.network.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    for order in ("most_first", "least_first", "random"):
        token_logits(here, Erasure(order, 0.5, DROP, (), TOKEN))
    assert seen == [1 + 9 - 4] * 3


def test_progress_adds_up_to_the_cost(noisy):
    done, probe = [], Perturb(Erasure("most_first", 0.5, DROP, (), TOKEN))
    probe(noisy(advance=done.append, max_batch=3))
    assert sum(done) == probe.cost({"test": 7}, None) == 7


@pytest.mark.parametrize(
    ("unit", "why"),
    [
        ("pixel", "the unit is pixel; set unit: token"),
        (Call(call="efface.erase.units.patch", kwargs={"size": 4}), "the unit is efface.erase.units.patch"),
        (
            TOKEN.model_copy(update={"kwargs": {"token_size": [6, 6]}}),
            "makes 2 x 2 patches .* but the network has 3 x 3",
        ),
    ],
)
def test_other_units_than_the_tokens_are_refused(noisy, unit, why):
    with pytest.raises(ValueError, match=why):
        Perturb(Erasure("most_first", 0.5, DROP, (), unit))(noisy())


def test_it_is_no_fill_of_images():
    with pytest.raises(ValueError, match="makes no pixels, but 4 pixels of 1 images are to be filled"):
        impute.drop_tokens(torch.rand(1, 3, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))


# Studies


def transformer(pool: str = "token") -> nn.Module:
    return VisionTransformer(16, 4, embed_dim=8, depth=1, num_heads=2, num_classes=4, global_pool=pool)


def convolutions() -> nn.Module:
    return Tiny(3, 4)


def shifted_windows() -> nn.Module:
    network = swin()
    network.head = nn.Linear(network.head.in_features, 4)
    return network


def tree(folder, **changes):
    name = __name__
    changes["model"] = {"call": f"{name}.{changes.get('model', 'transformer')}", "kwargs": changes.pop("kwargs", {})}
    return {
        "out": str(folder / "run"),
        "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 16, "n_test": 8, "size": 16}},
        "attribution_methods": [
            {"name": "random", "method": "random"},
            {"name": "gradient", "method": "gradient"},
        ],
        "post": ["absolute", "channel_sum"],
        "unit": "token",
        "fractions": [0.25, 0.75],
        "repeats": 1,
        "executor": "serial",
    } | changes


FIT = {"epochs": 1, "batch_size": 8, "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": 0.01}}}
ALL = ("morf", "lerf", "srg", "insertion", "deletion")


def problems(folder, **changes):
    with pytest.raises(ValueError, match="metrics") as found:
        check_run(Run(checked(folder, tree(folder, **changes))))
    return str(found.value)


@pytest.mark.long
def test_a_study_drops_tokens_from_check_to_page(tmp_path):
    drop = {"imputer": "drop_tokens"}
    metrics = [{"name": name, "kwargs": drop | {"fractions": [0.5, 1.0]}} for name in ALL]
    metrics.append({"name": "degradation", "kwargs": drop | {"unit": "token", "step": 8}})
    study = checked(tmp_path, tree(tmp_path, metrics=metrics))
    assert check_run(Run(study)) > 0
    assert extract(study) == []
    assert measure_missing(planned_run(Run(study))) == []
    planned = planned_run(Run(study))
    assert {curve.metric for curve in planned.curves} == {*ALL, "degradation"}
    for found in planned.curves:
        assert np.isfinite(found.values).all() or found.score == "logit_ratio"
    how = how_of(planned, study.metrics[0])
    assert "efface.impute.drop_tokens" in how["imputer"]
    assert how["unit"] == "efface.erase.units.token(token_size=[4, 4])"
    shown = gallery(planned)
    grey = (shown.masked["gradient"] == 128).all(1).unflatten(1, (4, 4)).unflatten(3, (4, 4)).all(4).all(2)
    assert (grey.flatten(1).sum(1) == 4).all()  # a quarter of 16 patches


def test_retraining_removes_the_patches_of_the_grid(tmp_path):
    study = checked(tmp_path, tree(tmp_path, metrics=["roar"], fit=FIT))
    before = planned_run(Run(study)).plan  # the network is not trained yet
    assert train(study) == []
    assert extract(study) == []
    run = Run(study)
    assert measure_missing(planned_run(run)) == []
    for plan in (before, planned_run(run).plan):
        erasures = [task.probe.erasure for task in plan.tasks if hasattr(task.probe, "erasure")]
        parts = [erasure for erasure in erasures if 0 < erasure.fraction < 1]
        assert {erasure.unit for erasure in parts} == {TOKEN}
        assert {tuple(erasure.identity()["unit"]["kwargs"]["token_size"]) for erasure in parts} == {(4, 4)}


def test_check_says_the_patches_of_a_swin(tmp_path, capsys):
    study = checked(tmp_path, tree(tmp_path, model="shifted_windows", metrics=["morf"]))
    assert check_run(Run(study)) > 0
    assert "unit token: the network's patches have 4 x 4 pixels" in capsys.readouterr().out


def test_a_network_without_patches_has_no_token_unit(tmp_path):
    said = problems(tmp_path, model="convolutions", metrics=["morf", "roar"], fit=FIT)
    for name in ("morf", "roar"):
        assert f"metrics.{name}: unit token: Tiny begins with a convolution of 3 x 3" in said
    assert "unit: {call: patch, kwargs: {size: 16}}" in said


REFUSED = [
    (
        {"metrics": ["roar"], "fit": FIT},
        "tokens of the given network, but the probe Retrain trains a network on filled images; give this metric",
    ),
    ({"metrics": [{"name": "sensitivity_n", "kwargs": {"imputer": "drop_tokens"}}]}, "the probe Subsets reads filled"),
    ({"metrics": ["imputation_detectability"]}, "the probe Detect reads filled images"),
    (
        {"metrics": ["morf"], "unit": "pixel"},
        "metrics.morf: its fill drop_tokens drops whole tokens, but its unit is pixel; set unit: token",
    ),
    ({"metrics": ["lerf"], "unit": {"call": "patch", "kwargs": {"size": 4}}}, "patch(size=4); set unit: token"),
    (
        {"metrics": ["srg"], "model": "shifted_windows"},
        "metrics.srg: imputer drop_tokens: SwinTransformer adds its positions inside the attention",
    ),
    (
        {"metrics": ["morf"], "kwargs": {"pool": "avg"}, "fractions": [0.5, 1.0]},
        "metrics.morf: VisionTransformer needs a patch token: without any of them its logits are not finite",
    ),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[said[:40] for _, said in REFUSED])
def test_check_refuses_what_cannot_be_dropped(tmp_path, changes, said):
    assert said in problems(tmp_path, imputer="drop_tokens", **changes)


def test_measuring_refuses_it_too(tmp_path):
    study = checked(tmp_path, tree(tmp_path, imputer="drop_tokens", metrics=["morf"], unit="pixel"))
    with pytest.raises(ValueError, match="set unit: token"):
        measure_missing(planned_run(Run(study)))


def test_a_crop_needs_a_fill_of_its_border(tmp_path):
    with pytest.raises(InvalidStudyError, match=r"fills no pixels, but fit\.crop needs a fill for the border"):
        checked(tmp_path, tree(tmp_path, imputer="drop_tokens", metrics=["morf"], fit=FIT | {"crop": 1}))


def test_a_study_does_not_set_the_size_of_tokens(tmp_path):
    unit = {"call": "token", "kwargs": {"token_size": 4}}
    with pytest.raises(InvalidStudyError, match="token_size is 4, but unit token has the size of the network's own"):
        checked(tmp_path, tree(tmp_path, unit=unit, metrics=["morf"]))


@pytest.mark.parametrize("name", ["single_deletion", "shapley"])
def test_cells_whose_tokens_are_dropped(tmp_path, name):
    maps = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    here, settings = case(tmp_path, bright_at_5(), maps, One()), {"cells": 3} if name == "single_deletion" else {}
    shared, sums = metric(name, settings).probes(Point(0.0, 0, DROP, (), "pixel")).values()
    shared.check(here.network, torch.zeros(2, 3, 12, 12))
    found = np.stack([shared(here).values[f"cell_{cell}"] for cell in range(9)], 1)
    gain = (
        np.array([0.2, 0.4, 0.6]) if name == "single_deletion" else 1 / (1 + np.exp(-np.array([0.2, 0.4, 0.6]))) - 0.5
    )
    np.testing.assert_allclose(found, gain[:, None] * (np.arange(9) == 5), atol=1e-6)
    whole = maps.unflatten(1, (3, 4)).unflatten(3, (3, 4)).sum((2, 4)).flatten(1)
    np.testing.assert_allclose(over_cells(sums(here)), whole, rtol=1e-5)


def test_a_cell_is_made_of_whole_patches():
    """Three cells across of 4 x 4 patches: the middle one has two patches each way, whatever pixel 3.33 says."""
    network = VisionTransformer(16, 4, embed_dim=4, depth=1, num_heads=1, num_classes=2)
    labels = cell_labels(network, torch.zeros(1, 3, 16, 16), 3, tokens=True)
    assert labels[0].tolist() == [0] * 4 + [1] * 8 + [2] * 4
    assert torch.equal(labels[:, 0] // 3, labels[0])


def test_cells_of_a_transformer_that_needs_a_token_are_refused():
    network = VisionTransformer(
        12, 4, embed_dim=8, depth=1, num_heads=2, num_classes=4, class_token=False, global_pool="avg"
    )
    shared, _ = metric("shapley").probes(Point(0.0, 0, DROP, (), "pixel")).values()
    with pytest.raises(ValueError, match=r"empty coalition has no score with drop_tokens.*take another imputer"):
        shared.check(network, torch.zeros(2, 3, 12, 12))
