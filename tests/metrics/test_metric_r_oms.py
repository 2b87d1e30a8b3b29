"""R-OMS: answers worked out by hand, the order that srg uses, and fills that keep or lose the answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from efface.base.types import Split
from efface.metrics import Point, metric
from efface.metrics.probes import Erasure, erased
from efface.metrics.r_oms import Answers, confidence_and_cosine
from efface.plug.call import Call
from small.cases import BLACK, IMAGES, Curved, N, case_of, known_case, values_of

MEAN = Call(call="efface.impute.channel_mean")
NOISE = Call(call="efface.impute.gaussian_noise")


def answers_of(here, fraction, imputer=BLACK, unit="pixel"):
    (probe,) = metric("r_oms").probes(Point(fraction, 0, imputer, (), unit)).values()
    return values_of(probe, here)


def test_softmax_values_by_hand():
    logits = torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.2, 0.8]]).log()
    whole = torch.tensor([[0.8, 0.2], [1.0, 0.0], [1.0, 0.0]]).clamp(min=1e-30).log()
    confidence, cosine = confidence_and_cosine(logits, whole)
    np.testing.assert_allclose(confidence, [0.8, 0.5, 0.8], atol=1e-6)
    np.testing.assert_allclose(cosine, [1, np.sqrt(0.5), 0.2 / np.hypot(0.2, 0.8)], atol=1e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_it_is_the_networks_answer_to_images_in_random_order(tmp_path, fraction):
    here = known_case(tmp_path, torch.zeros(N, 6, 5), given_network=Curved())
    found = answers_of(here, fraction)
    erasure = Erasure("random", fraction, BLACK) if 0 < fraction < 1 else Erasure("most_first", fraction, BLACK)
    with torch.no_grad():
        shown = Curved()(erased(here, erasure, torch.arange(N)))
        confidence, cosine = confidence_and_cosine(shown, Curved()(IMAGES))
    np.testing.assert_allclose(found["confidence"], confidence, atol=1e-6)
    np.testing.assert_allclose(found["cosine"], cosine, atol=1e-6)
    if fraction == 0:
        np.testing.assert_allclose(found["cosine"], 1, atol=1e-9)


def test_a_fill_that_is_the_image_changes_nothing_and_a_foreign_one_does(tmp_path):
    grey = Split(torch.full((N, 3, 6, 5), 128, dtype=torch.uint8), torch.zeros(N, dtype=torch.int64))
    here = case_of({"test": grey}, Curved())
    same, other = (answers_of(here, 0.5, fill) for fill in (MEAN, BLACK))
    np.testing.assert_allclose(same["cosine"], 1, atol=1e-9)
    assert (other["cosine"] < 0.99).any()


def test_the_whole_images_are_asked_once_in_a_run(tmp_path):
    kept, seen = {}, []

    def once(name, what, make):
        if name not in kept:
            kept[name] = make()
        return kept[name]

    class Counting(Curved):
        def forward(self, images):
            seen.append(len(images))
            return super().forward(images)

    here = known_case(tmp_path, torch.zeros(N, 6, 5), given_network=Counting(), once=once)
    for fraction in (0.2, 0.5):
        answers_of(here, fraction)
    assert sum(seen) == N * (1 + 2)
    assert list(kept) == ["whole-answers"]


def test_no_batch_size_changes_it_and_a_noisy_fill_is_averaged(tmp_path):
    here = known_case(tmp_path, torch.zeros(N, 6, 5), given_network=Curved(), max_batch=64)
    for imputer in (NOISE, Call(call="efface.metrics.sensitivity_n.uniform")):
        whole = answers_of(here, 0.6, imputer)
        for size in (1, 4):
            for name, values in answers_of(replace(here, max_batch=size), 0.6, imputer).items():
                np.testing.assert_allclose(values, whole[name], atol=1e-6)


def test_it_reads_no_map_and_stands_under_the_network():
    formula = metric("r_oms")
    assert formula.subject == "network"
    assert set(formula.direction.values()) == {"none"}
    (probe,) = formula.probes(Point(0.3, 0, BLACK, (), "pixel")).values()
    assert isinstance(probe, Answers)
    assert not probe.needs.of_method
