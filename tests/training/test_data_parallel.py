"""A training shared by several processes: against the same training in one process, and when a process is lost."""

import time
from dataclasses import replace

import pytest
import torch

from efface.execute.process_group import Member
from efface.training.data_parallel import parts_of, places_of
from efface.training.loop import TrainingSettings
from small.messages import words
from small.shared_training import HOME, Training, each_shared, shared, trained

pytestmark = pytest.mark.filterwarnings("error")


def settings(**changes):
    momentum = {"call": "torch.optim.SGD", "kwargs": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2}}
    return TrainingSettings(**{"epochs": 3, "batch_size": 16, "optimizer": momentum} | changes)


def member(number, count):
    return Member(number, count, None, lambda _: None)


# The parts of a batch


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [7, 8, 9, 16])
@pytest.mark.parametrize("images", [1, 2, 3, 16, 17, 36, 40])
def test_the_parts_of_all_processes_are_each_batch_in_order_and_their_shares_add_up_to_1(images, size, count):
    of_each = [parts_of(images, size, member(number, count)) for number in range(count)]
    assert {len(parts) for parts in of_each} == {-(-images // size)}
    for start, batch in zip(range(0, images, size), zip(*of_each, strict=True), strict=True):
        places = [place for part in batch if part.share for place in part.places]
        assert places == list(range(start, min(start + size, images)))
        assert sum(part.share for part in batch) == pytest.approx(1)
        assert all(part.share == 0 or part.share == len(part.places) / len(places) for part in batch)
        assert max(len(part.places) for part in batch) - min(len(part.places) for part in batch) <= 1
        assert all(set(part.places) <= set(places) for part in batch)  # a stand-in is an image of the batch
    for parts in of_each:  # a feed cuts a process's images into equal pieces, and the last may be smaller
        sizes = [len(piece) for piece in places_of(parts).split(parts[0].size)]
        assert sizes == [part.size for part in parts]


def test_one_process_has_the_whole_batch():
    (first, last) = parts_of(20, 16, None)
    outputs = torch.randn(16, 4)
    assert first.gathered(outputs) is outputs
    assert first.own(outputs) is outputs
    assert first.is_whole
    assert places_of([first, last]).equal(torch.arange(20))


def test_the_number_of_devices_is_no_part_of_a_key():
    assert settings(devices=2).identity() == settings().identity() == settings(devices="auto").identity()


@pytest.mark.parametrize(
    ("devices", "message"),
    [(17, words("devices 17 16 images lower devices")), (0, "devices"), (1.5, "devices"), ("many", "devices")],
)
def test_wrong_devices_are_refused_as_the_study_is_read(devices, message):
    with pytest.raises(ValueError, match=message):
        settings(devices=devices)


def test_more_devices_than_there_are_are_refused_before_anything_starts():
    with pytest.raises(ValueError, match=words("fit.devices 999 processors lower it")):
        shared(Training("plain", settings(devices=999, batch_size=1000)))


def test_a_training_that_no_other_process_can_repeat_is_refused():
    with pytest.raises(ValueError, match=words("fit.devices no task of a stage devices to 1")):
        trained(Training("plain", settings(devices=2)))


def test_auto_is_one_device_on_processors():
    alone, auto = (trained(Training("plain", settings(epochs=1, devices=devices))) for devices in (1, "auto"))
    assert alone.losses == auto.losses
    assert auto.devices == 1


# The same numbers as one device

ONE_CYCLE = {"call": "torch.optim.lr_scheduler.OneCycleLR", "kwargs": {"max_lr": 0.1}}
JITTER = {"call": "colour_jitter", "kwargs": {"brightness": 0.3, "contrast": 0.3}}
MATCHING = {"call": "score_matching", "weight": 1e-4, "kwargs": {"sigma": 0.1}}
PGD = {"call": "pgd", "kwargs": {"norm": "linf", "eps": 0.05, "steps": 2}}
SAME = {
    "two devices, every draw": (
        2, Training("plain", settings(crop=2, flip=True, augment=[JITTER], schedule=ONE_CYCLE, schedule_each="step")),
        1e-9,
    ),
    "three devices, uneven parts": (3, Training("plain", settings()), 1e-9),
    "a last batch smaller than the devices": (3, Training("normed", settings(), images=34), 1e-9),
    "fewer images than devices": (3, Training("normed", settings(), images=2), 1e-9),
    "BatchNorm, and a parameter that is not used": (2, Training("normed", settings()), 1e-9),
    "one image a device": (3, Training("normed", settings(batch_size=3, epochs=2)), 1e-9),
    "a loss that is no mean over images": (3, Training("plain", settings(loss=f"{HOME}.batch_loss")), 1e-9),
    "Adam, by epoch, the best epoch": (
        2, Training("normed", settings(
            epochs=4, optimizer="torch.optim.AdamW", keep="best",
            schedule={"call": "torch.optim.lr_scheduler.MultiStepLR", "kwargs": {"milestones": [1, 3]}},
        )), 1e-8,
    ),
    "an attack": (2, Training("normed", settings(attack=PGD, channels_last=True)), 1e-6),
    "regularisers": (
        3, Training("normed", settings(regularizers=[{"call": "gradient_norm", "weight": 0.1}, MATCHING])), 1e-4,
    ),
    "bf16": (2, Training("single", settings(precision="bf16")), 2e-2),
    "a stop by accuracy": (
        2, Training(
            "plain", settings(epochs=40, stop={"accuracy": 0.5}, optimizer="torch.optim.Adam"), validation=False
        ), 1e-8,
    ),
}  # fmt: skip


def curves(result):
    return {"losses": result.losses, "validation": result.validation} | dict(result.terms)


def alike(one, other, tolerance):
    assert one.epoch == other.epoch
    states = one.network.state_dict(), other.network.state_dict()
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=tolerance, atol=tolerance, msg=name)
    assert list(curves(one)) == list(curves(other))
    for name, values in curves(one).items():
        assert curves(other)[name] == pytest.approx(values, rel=10 * tolerance, abs=10 * tolerance), name
    assert not any(module.training for module in other.network.modules())


@pytest.fixture(scope="module")
def by_several():
    """What several devices give, by the name of the training. A group of processes trains all that have its size."""
    found = {}
    for size in (2, 3):
        tasks = {name: task for name, (count, task, _) in SAME.items() if count == size}
        shared_by = [
            replace(task, settings=task.settings.model_copy(update={"devices": size})) for task in tasks.values()
        ]
        found |= dict(zip(tasks, each_shared(shared_by, size), strict=True))
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", SAME)
def test_several_devices_train_the_network_of_one(name, by_several):
    _, task, tolerance = SAME[name]
    alike(trained(task), by_several[name], tolerance)


@pytest.mark.long
def test_the_command_hears_every_epoch_and_scalar_once():
    heard, told, epochs = [], [], []
    alone = trained(Training("plain", settings()), log=lambda *each: told.append(each), advance=epochs.append)
    many = shared(Training("plain", settings(devices=2)), log=lambda *each: heard.append(each), advance=epochs.append)
    assert epochs == [1] * 6
    assert [each[::2] for each in heard] == [each[::2] for each in told]
    assert [each[1] for each in heard] == pytest.approx([each[1] for each in told], rel=1e-6)
    assert (alone.devices, many.devices) == (1, 2)
    alike(alone, many, 1e-9)


@pytest.mark.long
def test_dropout_draws_differ_between_devices_and_not_between_trainings():
    one, again = (shared(Training("dropping", settings(devices=2))) for _ in range(2))
    assert one.losses == again.losses
    assert one.losses != trained(Training("dropping", settings())).losses


# Faults


@pytest.mark.long
@pytest.mark.parametrize("later", [1, 3])
def test_a_killed_process_is_one_error_that_names_it_and_the_training_goes_on_with_other_devices(
    tmp_path, later, monkeypatch
):
    monkeypatch.setattr("efface.training.several.processors", lambda: 3)
    flag, checkpoint = tmp_path / "kill", tmp_path / "kept.pt"
    flag.touch()

    def task(devices, checkpoint=None):
        killed = {"call": f"{HOME}.killed", "kwargs": {"flag": str(flag)}}
        return Training("normed", settings(augment=[killed], devices=devices), checkpoint=checkpoint)

    started = time.monotonic()
    with pytest.raises(ValueError, match=words("fit.devices process 2 of 2 SIGKILL same command again")):
        shared(task(2, checkpoint))
    assert time.monotonic() - started < 60  # it does not wait for the one that is gone
    assert not flag.exists()
    assert checkpoint.exists()
    alike(trained(task(1)), shared(task(later, checkpoint)), 1e-9)


@pytest.mark.long
def test_an_error_of_one_process_is_the_error_of_the_training():
    with pytest.raises(ValueError, match="this image is odd") as caught:
        shared(Training("plain", settings(augment=[f"{HOME}.odd"], devices=2)))
    assert str(caught.value) == "this image is odd"
    assert "shared_training.py" in caught.value.__notes__[0]  # where it was raised


@pytest.mark.long
def test_data_that_differ_in_each_process_are_refused():
    with pytest.raises(ValueError, match=words("process 2 of 2 another training classes seed the draws")):
        shared(Training("plain", settings(devices=2), shuffled=True))


@pytest.mark.long
def test_a_lost_loss_is_one_clear_error():
    far = {"call": "torch.optim.SGD", "kwargs": {"lr": 1e30}}
    with pytest.raises(ValueError, match=words("the loss is lower the learning rate")):
        shared(Training("single", settings(optimizer=far, devices=2)))
