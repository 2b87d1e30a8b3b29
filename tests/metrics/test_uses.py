"""What a metric reads of the settings that all may have, and what its rows say of it, against what it does."""

import contextlib
import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import efface.metrics.f_fidelity
import efface.metrics.leakage
import efface.metrics.probes.erasure
import efface.metrics.saco
import efface.metrics.shared.cells
import efface.metrics.shared.groups
import efface.metrics.shared.located
import efface.metrics.shared.subsets
import efface.metrics.signal_rank
from efface.base.types import Split
from efface.metrics import Metric, Point, metric, names
from efface.metrics.probes import Block
from efface.metrics.probes.block import image_order
from efface.metrics.probes.description import KINDS, NONE, SHARED, SHUFFLED, describe, text
from efface.plug.call import Call
from efface.stages.extract import extract
from efface.stages.page.report import write_report
from efface.stages.page.report_data import how_of
from efface.stages.run.curves import planned_run
from efface.stages.run.plan import Keys, viewed
from efface.stages.run.points import point_of
from efface.stages.run.run import Run
from efface.stages.train import train
from efface.stages.trial.methods import preflight
from efface.stages.work import measuring
from efface.stages.work.measuring import Measure, measure_missing, result_row
from efface.stages.work.sampling import make_samples
from efface.study.metric_entry import MetricEntry, MetricSettings
from small.messages import words
from small.studies import checked
from small.tiers import first_short

SIZE, CLASSES, TEST = 8, 4, 16
NETWORK = {"call": "small.networks.one_convolution", "kwargs": {"activation": "Tanh"}}
RAW, SUMMED = [], ["efface.erase.post.channel_sum"]


def split(count, seed):
    """The first three classes are brighter in a channel of their own; a mask of a square."""
    images = torch.randint(0, 128, (count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(seed)).byte()
    targets = torch.arange(count) % CLASSES
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    masks[:, 2:5, 1:4] = True
    for number in range(CLASSES - 1):
        images[targets == number, number] += 100
    return Split(images, targets, masks=masks)


def brighter():
    return {"train": split(32, 1), "test": split(TEST, 2)}


def gradient_study(folder, metrics, **changes):
    tree = {
        "out": str(folder / "run"),
        "data": f"{__name__}.brighter",
        "model": NETWORK,
        "fit": {
            "epochs": 12,
            "batch_size": 8,
            "crop": 1,
            "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": 2e-2}},
        },
        "second_network": {"model": NETWORK},
        "attribution_methods": [{"name": "gradient", "method": "efface.methods.gradient.gradient"}],
        "post": SUMMED,
        "metrics": metrics,
        "fractions": [0.5],
        "repeats": 1,
        "executor": "efface.execute.serial",
    }
    return checked(folder, tree | changes)


OWN = {
    "gan_test": {"count": 4, "steps": 2},
    "f_fidelity": {"samples": 2, "epochs": 1},
    "imputation_detectability": {"epochs": 1, "width": 2, "layers": 1},
    "sensitivity_n": {"samples": 5},
    "faithfulness_correlation": {"samples": 5},
    "shapley": {"grid": 2},
    "idsds": {"epochs": 1, "batch_size": 16},
    "infidelity": {"samples": 3, "size": 3},
    "magnitude_aligned": {"steps": 4},
    "monotonicity": {"steps": 4},
    "saco": {"groups": 4},
    "degradation": {"size": 2, "step": 4},
    "grid_pointing_game": {"mosaics": 2},
    "di_full": {"mosaics": 2},
    "leakage": {"top": 0.3},
    "max_sensitivity": {"samples": 1},
    "local_lipschitz": {"samples": 1},
    "robust_accuracy": {"steps": 1, "eps": [0.5]},
    "adversarial_distance": {"steps": 2},
    "density_ratio": {"samples": 1, "levels": [0.5]},
    "data_randomisation": {"epochs": 1},
}
VARIANTS = {
    "infidelity_noise": ("infidelity", {"perturbation": "noise", "samples": 3}),
    "faithfulness_grid": ("faithfulness_correlation", {"grid": 4, "samples": 5}),
    "detectability_method": ("imputation_detectability", {"masks": "method", "epochs": 1, "width": 2, "layers": 1}),
}
ENTRIES = {name: (name, OWN.get(name, {})) for name in names()} | VARIANTS


def entry(name, **shared):
    of, own = ENTRIES[name]
    return MetricEntry(name=name, metric=f"efface.metrics.{of}.{of}", kwargs=own | shared)


# What the review found to be ignored, by hand.
RANKED = {
    *("deletion", "detectability_method", "diffid", "diffroar", "f_fidelity", "insertion", "kar", "lerf", "morf"),
    *("pixel_perturb", "road", "roar", "sensitivity_n", "srg"),
}
READS = {name: {"imputer", "unit", "groups", "post", "fractions"} for name in RANKED} | {
    "adversarial_distance": set(),
    "completeness": {"imputer"},
    "complexity": {"unit", "post"},
    "convergence": {"fractions"},
    "data_randomisation": {"imputer"},
    "degradation": {"imputer", "unit", "groups", "post"},
    "density_ratio": set(),
    "di_full": {"post"},
    "efficient_randomisation": {"post"},
    "emd": {"post"},
    "faithfulness_correlation": {"imputer", "unit", "groups", "post"},
    "faithfulness_grid": {"imputer", "post"},
    "gan_test": set(),
    "grid_pointing_game": {"post"},
    "idsds": {"imputer", "post"},
    "imputation_detectability": {"imputer", "unit", "groups", "fractions"},
    "infidelity": {"imputer", "post"},
    "infidelity_noise": {"post"},
    "leakage": {"post"},
    "local_lipschitz": set(),
    "magnitude_aligned": {"imputer", "unit", "groups", "post"},
    "mask_leak": {"unit", "groups", "post", "fractions"},
    "max_sensitivity": set(),
    "monotonicity": {"imputer", "unit", "groups", "post"},
    "pointing_game": {"post"},
    "precision": {"post"},
    "r_oms": {"imputer", "unit", "groups", "fractions"},
    "random_logit": set(),
    "randomisation": {"fractions"},
    "relevance_mass": {"post"},
    "relevance_rank": {"post"},
    "robust_accuracy": set(),
    "saco": {"imputer", "unit", "groups", "post"},
    "shapley": {"imputer", "post"},
    "signal_rank": set(),
    "single_deletion": {"imputer", "post"},
    "sparseness": {"unit", "post"},
}
PATCH = {"call": "efface.erase.units.patch", "kwargs": {"size": 2}}
GIVEN = {
    "imputer": "efface.impute.image_mean",
    "unit": "feature",
    "groups": PATCH,
    "post": ["efface.erase.post.absolute"],
    "fractions": [0.5],
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_metric_refuses_a_setting_of_its_own_that_it_does_not_read(name):
    assert entry(name).formula.uses == READS[name]
    for setting, value in GIVEN.items():
        key = "unit" if setting == "groups" else setting
        if setting in READS[name]:
            entry(name, **{key: value})
            continue
        with pytest.raises(ValueError, match=rf"kwargs\.{key}.+(drop|pixel|instead)") as refused:
            entry(name, **{key: value})
        assert key == "fractions" or f"the metric 'efface.metrics.{ENTRIES[name][0]}." in str(refused.value)


FILLS = Call(call="efface.impute.constant"), Call(call="efface.impute.channel_mean")


def apart(formula, one, other, name):
    """Whether its probes with one value of a setting are others than with another."""
    found = []
    for at in (0.0, 0.5, 1.0):  # nothing, some and all of an axis of fractions; a whole number of any other
        point = Point(at, 0, FILLS[0], (), "pixel")
        with contextlib.suppress(ValueError):  # a point that the metric does not take
            made = [formula.probes(dataclasses.replace(point, **{name: value})) for value in (one, other)]
            found.append([{each: probe.identity() for each, probe in probes.items()} for probes in made])
    return any(first != second for first, second in found)


@pytest.mark.parametrize("name", ENTRIES)
def test_what_a_metric_says_that_it_uses_is_what_changes_its_probes(name):
    formula = entry(name).formula
    patch = Call.model_validate(PATCH)
    groups = apart(formula, "pixel", patch, "unit") and apart(formula, "feature", patch, "unit")
    changed = {
        "imputer": apart(formula, *FILLS, "imputer"),
        "post": apart(formula, (), (Call(call="efface.erase.post.absolute"),), "post"),
        "unit": groups or apart(formula, "pixel", "feature", "unit"),
        "groups": groups,
        "fractions": bool(formula.axis) and not formula.point_settings,
    }
    assert formula.uses == {setting for setting, other in changed.items() if other}


def test_a_metric_that_says_nothing_of_its_settings_is_taken_to_use_them_all():
    plain = Metric(lambda point: {}, lambda scores: {}, {}, "images", "Nothing.")
    assert plain.uses == {"imputer", "unit", "groups", "post", "fractions"}


@pytest.mark.parametrize("name", names())
def test_no_paper_fixes_what_its_metric_does_not_read(name):
    formula = metric(name)
    fixed = MetricSettings.model_validate(dict(formula.defaults))
    used = {each for each in ("imputer", "unit", "post", "fractions") if getattr(fixed, each) is not None}
    assert used <= formula.uses
    assert not isinstance(fixed.unit, Call) or "groups" in formula.uses


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("degradation", {"fractions": [0.0, 1.0]}, "fraction patches step"),
        ("robust_accuracy", {"fractions": [0.5]}, "fraction eps"),
        ("density_ratio", {"fractions": [0.5]}, "fraction levels"),
        ("faithfulness_grid", {"unit": "pixel"}, "grid 4 samples 5"),
        (
            "sparseness",
            {"unit": "superpixel"},
            "efface.erase.units.superpixel",
        ),
    ],
)
def test_the_refusal_names_the_remedy(name, settings, said):
    with pytest.raises(ValueError, match=words(said)):
        entry(name, **settings)


# Through a study


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    entries = [entry(name).model_dump() for name in ENTRIES]
    made = gradient_study(tmp_path_factory.mktemp("reads"), entries)
    train(made)
    assert extract(made) == []
    found = Run(made)
    gan = next(each for each in made.metrics if each.name == "gan_test")
    assert make_samples(found, [each.needs.samples for each in probes(found, gan).values()]) == []
    return found


def where(each):
    """A point of its axis that is neither end."""
    return {"": 0.0, "patches removed": 4.0}.get(each.formula.axis, 0.5)


def probes(run, each, **changes):
    point = point_of(run, each, viewed(run, each, frozenset())[0], where(each))
    return each.formula.probes(dataclasses.replace(point, **changes))


def scored(run, each, probe):
    return Measure(run.study)(Keys(run).task(viewed(run, each, frozenset())[0], probe))[0].values


def numbers(run, each, kept, **changes):
    """All values of its probes, one after another; a probe is asked once."""
    found = []
    for probe in probes(run, each, **changes).values():
        if probe not in kept:
            kept[probe] = scored(run, each, probe)
        found += [np.asarray(values, float) for _, values in sorted(kept[probe].items())]
    return np.concatenate([values.ravel() for values in found])


FILL = {number: Call(call="efface.impute.constant", kwargs={"value": number}) for number in (0.0, 1.0)}
POST = {name: Call(call=f"efface.erase.post.{name}") for name in ("absolute", "channel_sum")}
OTHERS = {
    "imputer": [{"imputer": fill} for fill in FILL.values()],
    "post": [{"post": (POST["channel_sum"],)}, {"post": (POST["absolute"], POST["channel_sum"])}],
    "unit": [{"unit": "pixel"}, {"unit": "feature"}, {"unit": Call.model_validate(PATCH)}],
}


@pytest.mark.long
@pytest.mark.parametrize("name", first_short(12, ENTRIES))
def test_a_setting_that_is_read_changes_numbers_and_no_other_does(run, name):
    each = next(each for each in run.study.metrics if each.name == name)
    kept = {}
    for setting, others in OTHERS.items():
        first, *more = (numbers(run, each, kept, **other) for other in others)
        same = [np.array_equal(first, found, equal_nan=True) for found in more]
        assert all(same) == (setting not in READS[name]), setting
        if setting == "unit":  # pixels are no patches, where patches are taken as units
            assert same[-1] == ("groups" not in READS[name])


IN_BLOCKS = {
    *("completeness", "degradation", "deletion", "diffid", "efficient_randomisation"),
    *(
        "faithfulness_correlation",
        "faithfulness_grid",
        "infidelity",
        "infidelity_noise",
        "insertion",
        "leakage",
        "lerf",
    ),
    *("local_lipschitz", "max_sensitivity", "monotonicity", "morf", "pixel_perturb", "pointing_game"),
    *("random_logit", "randomisation", "relevance_mass", "relevance_rank", "road", "sensitivity_n", "signal_rank"),
    *("emd", "magnitude_aligned", "precision", "saco", "shapley", "single_deletion", "srg"),
}
"""Metrics of which a study in rounds measures blocks of images."""


@pytest.mark.parametrize("name", first_short(12, ENTRIES))
def test_blocks_together_give_the_values_of_all_images(run, name):
    each = next(each for each in run.study.metrics if each.name == name)
    found = probes(run, each).values()
    judged = next(iter(each.formula.direction.values())) != "none" and each.formula.subject == "maps"
    assert (each.formula.sample == "images" and judged and all(probe.needs.blocks for probe in found)) == (
        name in IN_BLOCKS
    )
    order = image_order(run.study.seed, TEST)
    assert sorted(order.tolist()) == list(range(TEST))
    for probe in (probe for probe in found if probe.needs.blocks):
        whole = scored(run, each, probe)
        blocks = [scored(run, each, Block(probe, *ends)) for ends in ((0, 3), (3, 9), (9, TEST))]
        assert {len(values) for values in blocks[1].values()} == {6}
        for value in whole:
            joined = np.concatenate([block[value] for block in blocks]).astype(float)
            np.testing.assert_allclose(joined, whole[value][order].astype(float), rtol=1e-4, atol=1e-5, err_msg=value)


def test_studies_md_lists_the_metrics_that_need_all_images_together():
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    listed = re.search(r"metrics whose probes need all images together:(.*?)\.\n", text, re.DOTALL)
    assert listed is not None
    formulas = {name: metric(of) for name, (of, _) in ENTRIES.items()}
    judged = {
        name
        for name, each in formulas.items()
        if each.sample == "images" and each.subject == "maps" and next(iter(each.direction.values())) != "none"
    }
    assert set(re.findall(r"`(\w+)`", listed[1])) == judged - IN_BLOCKS


RANKING = (efface.metrics.probes.erasure, efface.metrics.shared.groups, efface.metrics.f_fidelity)
SHARING = (efface.metrics.shared.located, efface.metrics.leakage, efface.metrics.signal_rank)
ERASING = (
    efface.metrics.shared.subsets,
    efface.metrics.f_fidelity,
    efface.metrics.saco,
    efface.metrics.shared.cells,
)


@pytest.fixture
def seen(monkeypatch):
    """While probes run: whether a map is ranked, how many values share_of_top takes, how many places of an image go."""
    found = {"ranked": False, "shared": set(), "gone": set()}

    def watch(module, name, note):
        plain = getattr(module, name)

        def watched(*given, **named):
            result = plain(*given, **named)
            note(given, result)
            return result

        monkeypatch.setattr(module, name, watched)

    for module in RANKING:
        watch(module, "ranks_of", lambda _given, _result: found.update(ranked=True))
    for module in SHARING:
        watch(module, "share_of_top", lambda given, _: found["shared"].update(given[2].tolist()))
    for module in ERASING:
        watch(module, "erase", lambda given, _: found["gone"].update(given[1].flatten(1).sum(1).tolist()))
    watch(
        efface.metrics.probes.erasure, "removed", lambda _, gone: found["gone"].update(gone.flatten(1).sum(1).tolist())
    )
    monkeypatch.setattr(measuring, "RANKS", {})  # what other tests ranked
    return found


SIDES = {"floor": math.floor, "min": min, "max": max, "fraction": 0.5, "units": SIZE**2}
COUNTED = dict.fromkeys((*RANKED, "mask_leak", "imputation_detectability", "r_oms"), (SIDES, 1, "gone")) | {
    "degradation": (SIDES | {"patches": 4, "units": 16}, 4, "gone"),
    "f_fidelity": (SIDES | {"side": 32}, 1, "gone"),
    "faithfulness_correlation": (SIDES | {"fraction": 0.2}, 1, "gone"),
    "faithfulness_grid": (SIDES | {"fraction": 0.2, "units": 16}, 4, "gone"),
    "leakage": (SIDES, 1, "shared"),
}
"""What the count's formula is about, how many pixels a unit has, and where its number is seen."""
TOP = dict.fromkeys(("precision", "relevance_rank"), ("as many as the object has", {9})) | {
    "signal_rank": ("the first, and the last", {1})
}


@pytest.mark.parametrize("name", first_short(5, ENTRIES))
def test_a_row_says_what_the_metric_does(run, name, seen):
    each = next(each for each in run.study.metrics if each.name == name)
    view, found = viewed(run, each, frozenset())[0], {kind: set() for kind in KINDS}
    for probe in probes(run, each).values():
        scored(run, each, probe)
        row, words = result_row(run, Keys(run).task(view, probe), {}), dataclasses.asdict(describe(probe))
        assert {kind: row[kind] for kind in KINDS} == words
        assert all(words[kind] != NONE for kind in ("unit", "imputer") if kind in row["probe"])
        for kind, word in words.items():
            found[kind] |= {word} - {NONE}
    told = {kind: ", ".join(words) or NONE for kind, words in found.items()}
    assert {kind: how_of(planned_run(run), each)[kind] for kind in KINDS} == told
    point = point_of(run, each, view, where(each))
    assert told["imputer"] == (text(point.imputer) if "imputer" in READS[name] else NONE)
    assert "unit" not in READS[name] or told["unit"] == text(point.unit)
    assert (told["ties"] == SHUFFLED) == seen["ranked"]
    assert told["ties"] == SHARED or not seen["shared"]
    if name in COUNTED:
        about, size, seen_as = COUNTED[name]
        assert seen[seen_as] == {eval(told["count"], about) * size}  # noqa: S307  the words are a formula
    assert name not in TOP or (told["count"], seen["shared"]) == TOP[name]


@pytest.mark.long
def test_words_are_those_of_the_settings(run):
    by = {each.name: each for each in run.study.metrics}
    told = {name: how_of(planned_run(run), each) for name, each in by.items()}
    assert told["faithfulness_grid"]["unit"] == "cell of 4 x 4"
    assert told["infidelity"]["unit"] == "square of 3 x 3 pixels"
    assert told["infidelity_noise"] == {
        "unit": "feature",
        "imputer": NONE,
        "ties": NONE,
        "count": NONE,
        "explain": "predicted",
    }
    assert told["mask_leak"]["imputer"] == NONE
    assert told["degradation"]["unit"] == "efface.erase.units.patch(size=2)"
    assert {told[name]["ties"] for name in ("sensitivity_n", "faithfulness_correlation", "relevance_mass")} == {NONE}
    assert {told[name]["unit"] for name in ("pointing_game", "relevance_rank", "leakage")} == {"pixel"}
    assert all(told[name]["unit"] == NONE for name in ("max_sensitivity", "gan_test", "robust_accuracy"))


# Check asks each metric by what it reads


@pytest.mark.long
def test_metrics_of_raw_maps_ask_no_post(tmp_path):
    raw = ["completeness", "max_sensitivity", "random_logit"]
    made = gradient_study(
        tmp_path, [*raw, {"name": "imputation_detectability", "kwargs": {"epochs": 1, "width": 2}}], post=RAW
    )
    train(made)
    preflight(planned_run(Run(made)))
    assert extract(made) == []
    assert measure_missing(planned_run(Run(made))) == []  # the look for degenerate maps among them
    write_report(planned_run(Run(made)))
    assert (tmp_path / "run" / "report" / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "changes", "refused"),
    [
        ("infidelity", {"unit": "superpixel", "post": RAW}, False),
        ("imputation_detectability", {"post": RAW}, False),
        ("detectability_method", {"post": RAW}, True),
        ("efficient_randomisation", {"post": RAW}, False),
        ("pointing_game", {"unit": "feature", "post": ["efface.erase.post.absolute"]}, True),
        ("relevance_mass", {"unit": "feature", "post": ["efface.erase.post.absolute"]}, True),
        ("leakage", {"unit": "feature", "post": ["efface.erase.post.absolute"]}, True),
        (
            "grid_pointing_game",
            {"unit": "feature", "post": ["efface.erase.post.absolute"]},
            False,
        ),  # has a post of its own
        ("morf", {"unit": "feature", "post": ["efface.erase.post.absolute"]}, False),
        ("morf", {"post": RAW}, True),
    ],
)
def test_posts_are_refused_where_the_metric_cannot_take_what_they_leave(tmp_path, name, changes, refused):
    run = Run(gradient_study(tmp_path, [entry(name).model_dump()], **changes))
    if not refused:
        preflight(planned_run(run))
        return
    with pytest.raises(ValueError, match=words(f"metrics.{name} gradient 3 channels post")):
        preflight(planned_run(run))


@pytest.mark.parametrize(("name", "warned"), [("randomisation", False), ("completeness", False), ("morf", True)])
def test_lost_channels_are_told_of_metrics_that_rank_channels(tmp_path, capsys, name, warned):
    preflight(planned_run(Run(gradient_study(tmp_path, [name], unit="feature"))))
    assert ("unit 'feature' ranks channels" in capsys.readouterr().out) == warned


def test_a_fill_that_no_metric_reads_refuses_none(tmp_path):
    uneven = {"call": "efface.impute.blur", "kwargs": {"kernel": 4}}
    preflight(planned_run(Run(gradient_study(tmp_path, ["max_sensitivity", "sparseness"], imputer=uneven))))
    with pytest.raises(ValueError, match=words("kernel 4")):
        preflight(planned_run(Run(gradient_study(tmp_path, ["morf"], imputer=uneven))))
