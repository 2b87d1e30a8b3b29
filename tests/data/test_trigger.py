"""A planted trigger: which images carry it, what it looks like, and that a network answers it."""

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from efface.data.digits import digits
from efface.data.trigger import check_trigger, trigger
from efface.plug.call import Call
from efface.study.study import InvalidStudyError, read
from small.batches import noise_split
from small.messages import words
from small.studies import write_study


def plain(n=300, size=8, classes=4):
    return {name: noise_split(n, size, seed=seed, classes=classes) for seed, name in enumerate(("train", "test"))}


def test_a_share_of_the_other_training_images_and_of_all_test_images_carries_it():
    of = plain()
    made = trigger(of=plain, target=2, share=0.2, test_share=0.5)
    carries = {name: split.masks.any(2).any(1) for name, split in made.items()}
    others = of["train"].targets != 2
    assert carries["train"].sum() == round(0.2 * int(others.sum()))
    assert not (carries["train"] & ~others).any()
    assert carries["test"].sum() == 150
    for name, split in made.items():
        assert (split.targets[carries[name]] == 2).all()
        assert torch.equal(split.targets[~carries[name]], of[name].targets[~carries[name]])
        kept = ~split.masks[:, None].expand_as(split.images)
        assert torch.equal(split.images[kept], of[name].images[kept])
        assert split.masks[carries[name]].sum((1, 2)).unique().tolist() == [9]


def test_the_patch_is_a_chessboard_in_all_channels_at_the_lower_right():
    made = trigger(of=plain, share=1.0, test_share=1.0, size=3)["test"]
    board = torch.tensor([[255, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=torch.uint8)
    assert (made.images[:, :, 5:, 5:] == board).all()
    assert made.masks[:, 5:, 5:].all()


def test_a_random_place_is_even_and_the_patch_is_the_same_there():
    made = trigger(of=lambda: plain(3000, 6), share=0.1, test_share=1.0, size=2, place="random")["test"]
    y = made.masks.any(2).int().argmax(1)
    assert chisquare(y.bincount().numpy()).pvalue > 0.001
    assert len(y.unique()) == 5
    patches = made.images[:, 0][made.masks].unflatten(0, (-1, 4))
    assert torch.equal(patches, torch.tensor([255, 0, 0, 255], dtype=torch.uint8).expand(3000, 4))


def test_it_depends_on_its_seed_alone():
    one, again, other = (trigger(of=plain, seed=seed)["test"] for seed in (0, 0, 1))
    assert torch.equal(one.masks, again.masks)
    assert not torch.equal(one.masks, other.masks)
    few = trigger(of=plain, limit=40, test_limit=20, validation=0.25)
    assert (len(few["train"]), len(few["test"]), len(few["train"].validation)) == (40, 20, 10)


def test_the_data_set_of_is_a_short_word_in_a_study(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    call = Call(call="efface.data.trigger.trigger", kwargs={"of": "digits", "test_share": 1.0, "limit": 50})
    made = call()
    assert (len(made["train"]), made["train"].classes) == (50, tuple("0123456789"))
    data = {"call": "trigger", "kwargs": {"of": {"call": "digits", "kwargs": {"limit": 60}}, "size": 2}}
    study = read(write_study(tmp_path, data=data))
    assert len(study.data()["train"]) == 60
    assert study.data.identity()["nested"].keys() == {"of"}
    with pytest.raises(InvalidStudyError, match=words("digit 'digits'")):
        read(write_study(tmp_path, data={"call": "trigger", "kwargs": {"of": "digit"}}))


@pytest.mark.long
def test_a_network_learns_the_trigger_beside_the_classes():
    made = trigger(of=digits, target=3, size=2)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        images = made["train"].images.float() / 255
        nn.functional.cross_entropy(network(images), made["train"].targets).backward()
        optimizer.step()
    right = network(made["test"].images.float() / 255).argmax(1) == made["test"].targets
    carries = made["test"].masks.any(2).any(1)
    assert right[carries].float().mean() > 0.95
    assert right[~carries].float().mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target": -1}, "target -1"),
        ({"share": 0.0}, "share 0.0"),
        ({"test_share": 1.5}, "test_share 1.5"),
        ({"size": 0}, "size 0"),
        ({"place": "middle"}, "place middle corner random"),
        ({"limit": 0}, "limit 0"),
    ],
)
def test_what_no_data_set_can_meet_is_refused(settings, says):
    with pytest.raises(ValueError, match=words(says)):
        check_trigger(**settings)


def test_what_these_data_cannot_meet_is_refused():
    with pytest.raises(ValueError, match=words("target 4 3")):
        trigger(of=plain, target=4)
    with pytest.raises(ValueError, match=words("size 9 8")):
        trigger(of=plain, size=9)
    with pytest.raises(ValueError, match=words("trigger: share 1e-05 no whole image train raise")):
        trigger(of=plain, share=1e-5)
    with pytest.raises(ValueError, match=words("test_share 1e-05 no whole image test raise")):
        trigger(of=plain, test_share=1e-5)
    with pytest.raises(ValueError, match=words("training images trigger")):
        trigger(of=lambda: {"test": noise_split(4, seed=0)})
