"""What a method learnt, kept and read again; a class that learns, through the stages."""

import numpy as np
import pytest
import torch

from efface.learnt import learnt_digest, read_learnt, write_learnt
from small_study import STUDY, efface, files, write_study

TENSORS = {
    "images": torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2),
    "moments": torch.linspace(0, 1, 7, dtype=torch.float64),
    "count": torch.tensor(5),
    "none": torch.zeros(0, 3),
}

LEARNER = """
import torch

from efface.rows import take


class Background:
    \"\"\"The distance from the mean of some training images, weighed by the answer of the network.\"\"\"

    def __init__(self, *, images: int = 8, gain: float = 1.0):
        if images < 1:
            raise ValueError(f"images is {images}; expected at least 1")
        self.images, self.gain, self.learnt = images, gain, {}

    def learnt_from(self):
        return {"fit": "background", "images": self.images}

    def fit(self, model, data, *, seed, rows):
        generator = torch.Generator().manual_seed(seed)
        chosen = data.training[torch.randperm(len(data.training), generator=generator)[: self.images]]
        images = take(data.images, chosen).float().div(255)
        for part in images.split(rows):
            model(part)
        print("LEARNING", self.images, len(data))
        self.learnt = {"mean": images.mean(0)}

    def __call__(self, model, images, targets, *, rows=256):
        if not self.learnt:
            raise ValueError("not fitted: call fit first")
        return self.gain * (images - self.learnt["mean"].to(images)) * model(images).detach()[:, :1, None, None]
"""


def learners(**more):
    entries = [
        {"name": "one", "method": "learner.Background"},
        {"name": "two", "method": "learner.Background", "kwargs": {"gain": 2.0}},
        {"name": "few", "method": "learner.Background", "kwargs": {"images": 3}},
    ]
    return {"attribution_methods": STUDY["attribution_methods"][:1] + entries, "metrics": ["morf", "roar"]} | more


@pytest.mark.parametrize("changed", [None, "images", "moments", "count"])
def test_learnt_tensors_come_back_bit_for_bit_or_not_at_all(tmp_path, changed):
    path = tmp_path / "deep" / "x.h5"
    write_learnt(path, TENSORS)
    found = read_learnt(path)
    assert list(found) == list(TENSORS)
    for name, each in TENSORS.items():
        assert found[name].dtype == each.dtype
        assert torch.equal(found[name], each)
    if changed:
        other = TENSORS | {changed: TENSORS[changed] + 1}
        write_learnt(tmp_path / "y.h5", other)
        assert learnt_digest(tmp_path / "y.h5") != learnt_digest(path)
        raw = bytearray(path.read_bytes())
        at = raw.find(np.atleast_1d(TENSORS[changed].numpy()).tobytes())
        raw[at] ^= 1
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"x\.h5: is damaged .*; delete it"):
            read_learnt(path)


def test_a_class_learns_once_for_all_entries_that_learn_alike_and_is_not_asked_again(tmp_path):
    write_study(tmp_path, {"learner": LEARNER}, **learners())
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 0, result.err
    # A trial on the first 48 rows before the training, then each fit once: `two` shares what `one` learnt.
    assert result.out.count("LEARNING 8 48") == 1 + 1, "tried for both entries at once, then taught for both"
    assert result.out.count("LEARNING 3 48") == 1 + 1
    assert "2 of 2 methods learnt in" in result.out
    assert len(list((tmp_path / "run" / "learnt").glob("background-*.h5"))) == 2
    before = files(tmp_path / "run")
    again = efface(tmp_path, "all", "study.yml")
    assert again.code == 0
    assert "LEARNING" not in again.out
    after = files(tmp_path / "run")
    assert after | {".lock": None} == before | {".lock": None}
    # Lost, it is learnt again, and the maps made from it are still good.
    for path in (tmp_path / "run" / "learnt").iterdir():
        path.unlink()
    lost = efface(tmp_path, "all", "study.yml")
    assert "2 of 2 methods learnt" in lost.out
    assert "extracted" not in lost.out
    assert "probes to run" not in lost.out


def test_other_settings_of_the_fit_make_other_maps(tmp_path):
    write_study(tmp_path, {"learner": LEARNER}, **learners(metrics=["morf"], fractions=[0.5]))
    assert efface(tmp_path, "all", "study.yml").code == 0
    result = efface(tmp_path, "all", "study.yml", "attribution_methods.few.kwargs.images=4")
    assert "1 of 1 methods learnt" in result.out
    assert "extracted 2 of 2" in result.out or "extracted 1 of 1" in result.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("attribution_methods.few.kwargs.images=0", "attribution_methods.few: images is 0; expected at least 1"),
        ("attribution_methods.few.kwargs.image=3", "learner.Background has no setting 'image'; did you mean 'images'?"),
        ("data=learner.no_training", "learner.Background learns from training images, but learner.no_training gives"),
    ],
)
def test_what_is_wrong_with_a_class_is_said_at_once(tmp_path, change, said):
    more = """

def no_training():
    from efface.data.patches import patches
    return {"test": patches(n_train=48, n_test=24, size=16)["test"]}
"""
    write_study(tmp_path, {"learner": LEARNER + more}, fit=None, **learners(metrics=["morf"]))
    result = efface(tmp_path, "check", "study.yml", change)
    assert result.code != 0
    assert said in result.err
    assert "Traceback" not in result.err


def test_a_fit_that_fails_stops_its_own_method_alone(tmp_path):
    broken = LEARNER.replace(
        'print("LEARNING", self.images, len(data))',
        'assert self.images < 8 or not __import__("os").path.exists("run/models"), "no"',
    )
    write_study(tmp_path, {"learner": broken}, **learners(metrics=["morf"], fractions=[0.5]))
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 1
    assert "one, learning: AssertionError: no" in result.err
    maps = {path.name for path in (tmp_path / "run" / "maps").glob("*.h5")}
    assert "few-test.h5" in maps
    assert "random-test.h5" in maps
    assert "one-test.h5" not in maps
