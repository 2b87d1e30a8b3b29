"""Training: against a plain loop written out here, and against itself after an interruption."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efface.erase.batches import resident
from efface.erase.masking import to_float
from efface.plug.call import Call
from efface.training.attack import pgd as attacked_by_pgd
from efface.training.batch import crop
from efface.training.loop import TrainingRows, TrainingSettings, predict
from efface.training.loop import train as train_network
from efface.training.told import Told
from small.batches import stored_images
from small.messages import words
from small.tiers import first_short

CPU = torch.device("cpu")
N, TRAIN, VALID = 44, torch.arange(36), torch.arange(36, 44)
ONE_CYCLE = {"call": "torch.optim.lr_scheduler.OneCycleLR", "kwargs": {"max_lr": 0.02}}


def learnable_images(border=0):
    noise = stored_images(N, 8 + 2 * border, seed=3)
    noise[:, 0] = noise[:, 0] // 2 + (64 * (targets() % 2))[:, None, None].byte()  # something to be learnt
    return noise


def targets():
    return torch.arange(N) % 4


def feed_of(stored):
    return resident(N, lambda rows: (stored[rows], None), lambda found, maps, rows, epoch: found)


def settings(**changes):
    return TrainingSettings(**{"epochs": 4, "batch_size": 16} | changes)


def train(build, choices, *, feed=None, rows=None, seed=1, **extras):
    feed = feed or feed_of(learnable_images(choices.crop))
    return train_network(
        build, feed, rows or TrainingRows(TRAIN, VALID), targets(), choices, seed=seed, device=CPU, **extras
    )


def same(one, other):
    states = one.network.state_dict(), other.network.state_dict()
    weights = all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    return weights and (one.losses, one.validation, one.epoch) == (other.losses, other.validation, other.epoch)


class Killed(Exception):  # noqa: N818  stands for kill -9
    pass


def kill_after(epochs):
    done = []

    def advance(epoch):
        done.append(epoch)
        if len(done) == epochs:
            raise Killed

    return advance


# Against a plain loop


def linear(*, zero=True):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    if zero:
        nn.init.zeros_(network[1].weight)
        nn.init.zeros_(network[1].bias)
    return network


class Scale:
    """A schedule like any other, that notes how it was made and how often it stepped."""

    made: list = []  # noqa: RUF012  the tests read it

    def __init__(self, optimizer, total_steps):
        self.total_steps, self.steps = total_steps, 0
        Scale.made.append(self)

    def step(self):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}


PRESET = {"squared": {"paper": {"weight": 1.0}}}  # a misspelt PRESETS


def squared(outputs, expected, *, weight=1.0):
    return weight * (outputs - F.one_hot(expected, 4)).square().mean()


class Squared(nn.Module):
    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = weight

    def forward(self, outputs, expected):
        return squared(outputs, expected, weight=self.weight)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "each"),
    [
        (partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1), None, "epoch"),
        (
            partial(torch.optim.AdamW, lr=0.01),
            partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1, 3], gamma=0.1),
            "epoch",
        ),
        (
            partial(torch.optim.RMSprop, lr=0.01),
            partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=5),
            "step",
        ),
    ],
)
def test_weights_are_those_of_a_plain_loop(optimizer, schedule, each):
    network = linear()
    rule = optimizer(network.parameters())
    plan = schedule(rule) if schedule else None
    # 34: the classes are not balanced, so no gradient is rounding alone
    inputs, losses = to_float(learnable_images()[:34]), []
    for _ in range(5):
        loss = F.cross_entropy(network(inputs), targets()[:34])
        losses.append(loss.item())
        rule.zero_grad()
        loss.backward()
        rule.step()
        if plan:
            plan.step()

    def call(made):
        given = {name: value for name, value in made.keywords.items() if name != "total_steps"}
        return {"call": f"{made.func.__module__}.{made.func.__name__}", "kwargs": given}

    choices = settings(
        epochs=5,
        batch_size=100,  # one step an epoch, so that the order of the images does not matter
        optimizer=call(optimizer),
        schedule=call(schedule) if schedule else None,
        schedule_each=each,
    )
    found = train(linear, choices, rows=TrainingRows(torch.arange(34)))
    torch.testing.assert_close(found.network.state_dict(), network.state_dict(), rtol=1e-3, atol=1e-4)
    assert found.losses == pytest.approx(losses, rel=1e-4)
    assert found.epoch == 4
    assert not found.network.training


def test_label_smoothing_is_the_mixture_of_the_two_losses():
    frozen = {"call": "torch.optim.SGD", "kwargs": {"lr": 0.0}}
    loss = {"call": "torch.nn.CrossEntropyLoss", "kwargs": {"label_smoothing": 0.2}}
    found = train(partial(linear, zero=False), settings(epochs=1, batch_size=36, optimizer=frozen, loss=loss))
    with torch.inference_mode():
        log = found.network(to_float(learnable_images()[:36])).log_softmax(1)
    expected = -0.8 * log.gather(1, targets()[:36, None]).mean() - 0.2 * log.mean()
    assert found.losses[0] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("by_class", "by_function", "kwargs"),
    [
        ("torch.nn.CrossEntropyLoss", "torch.nn.functional.cross_entropy", {"label_smoothing": 0.1}),
        ("test_fit.Squared", "test_fit.squared", {"weight": 2.0}),
    ],
)
def test_loss_class_and_loss_function_train_alike(tiny, by_class, by_function, kwargs):
    one, other = (train(tiny, settings(loss={"call": path, "kwargs": kwargs})) for path in (by_class, by_function))
    assert same(one, other)
    assert not same(one, train(tiny, settings(loss=by_function)))


@pytest.mark.parametrize(("count", "steps"), [(32, 2), (33, 2), (36, 3), (17, 1), (1, 1)])
@pytest.mark.parametrize("each", ["epoch", "step"])
def test_schedule_is_told_how_often_it_will_step(count, steps, each):
    Scale.made.clear()
    train(linear, settings(schedule="test_fit.Scale", schedule_each=each), rows=TrainingRows(torch.arange(count)))
    (schedule,) = Scale.made
    assert schedule.total_steps == schedule.steps == (4 * steps if each == "step" else 4)


def test_a_single_image_left_over_does_not_stop_batch_norm(tiny):
    assert len(train(tiny, settings(epochs=2), rows=TrainingRows(torch.arange(33))).losses) == 2


def test_bf16_and_channels_last_are_near_fp32(tiny):
    exact = train(tiny, settings(epochs=6))
    for changes in ({"channels_last": True}, {"precision": "bf16"}, {"precision": "bf16", "channels_last": True}):
        found = train(tiny, settings(epochs=6, **changes))
        assert found.losses == pytest.approx(exact.losses, abs=0.03)
        assert all(value.dtype != torch.bfloat16 for value in found.network.state_dict().values())
    assert exact.losses[-1] < exact.losses[0]


# Resume


RESUMED = [
    {"schedule": ONE_CYCLE, "schedule_each": "step", "keep": "best", "crop": 2, "flip": True},
    {"optimizer": {"call": "torch.optim.SGD", "kwargs": {"lr": 0.1, "momentum": 0.9}}, "keep": "last"},
    {
        "optimizer": "torch.optim.AdamW",
        "schedule": {"call": "torch.optim.lr_scheduler.MultiStepLR", "kwargs": {"milestones": [1, 2]}},
        "keep": "best",
        "precision": "bf16",
        "channels_last": True,
    },
]


@pytest.mark.parametrize("changes", RESUMED, ids=["onecycle", "sgd", "bf16"])
@pytest.mark.parametrize("epochs", first_short(1, [2, 1, 3, 4]))
def test_resumed_after_any_epoch_ends_at_the_same_bits(tmp_path, tiny, changes, epochs):
    choices, path = settings(**changes), tmp_path / "deep" / "state.pt"
    whole = train(tiny, choices)
    with pytest.raises(Killed):
        train(tiny, choices, checkpoint=path, fingerprint="f", advance=kill_after(epochs))
    torch.rand(5)  # whatever happened in between
    seen = []
    resumed = train(tiny, choices, checkpoint=path, fingerprint="f", advance=seen.append)
    assert same(resumed, whole)
    assert len(seen) == 4 - epochs


def test_killed_within_an_epoch_goes_on_from_the_last_whole_one(tmp_path, tiny):
    choices, path, stored = settings(**RESUMED[0]), tmp_path / "state.pt", learnable_images(2)
    whole = train(tiny, choices)

    def dying(rows, size, epoch):
        for number, batch in enumerate(feed_of(stored)(rows, size, epoch)):
            if (epoch, number) == (2, 1):
                raise Killed
            yield batch

    with pytest.raises(Killed):
        train(tiny, choices, feed=dying, checkpoint=path)
    assert torch.load(path, weights_only=True)["epoch"] == 2
    assert same(train(tiny, choices, checkpoint=path), whole)


def test_interrupted_twice_and_without_an_interruption_are_the_same(tmp_path, tiny):
    choices, path = settings(**RESUMED[0]), tmp_path / "state.pt"
    for _ in range(3):
        with pytest.raises(Killed):
            train(tiny, choices, checkpoint=path, advance=kill_after(1))
    assert same(train(tiny, choices, checkpoint=path), train(tiny, choices))


def test_a_foreign_checkpoint_is_ignored(tmp_path, tiny):
    path = tmp_path / "state.pt"
    train(tiny, settings(), checkpoint=path, fingerprint="one", seed=1)
    found = train(tiny, settings(), checkpoint=path, fingerprint="other", seed=2)
    assert same(found, train(tiny, settings(), seed=2))
    assert not same(found, train(tiny, settings(), seed=1))


@pytest.mark.parametrize("damage", ["empty", "garbage", "short", "other pickle", "other network"])
def test_a_damaged_checkpoint_is_one_clear_error(tmp_path, tiny, damage):
    path = tmp_path / "state.pt"
    build = partial(tiny, classes=5) if damage == "other network" else tiny
    with pytest.raises(Killed):
        train(build, settings(), checkpoint=path, advance=kill_after(1))
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(b"not a checkpoint" * 100)
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-2000])
    elif damage == "other pickle":
        torch.save({"epoch": torch.ones(3)}, path)
    with pytest.raises(ValueError, match=words("state.pt delete")) as caught:
        train(tiny, settings(), checkpoint=path)
    assert "\n" not in str(caught.value)


# Seeds


def test_the_callers_generators_are_neither_read_nor_moved(tiny):
    first = train(tiny, settings(crop=2, flip=True))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert same(train(tiny, settings(crop=2, flip=True)), first)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_the_callers_generator_is_kept_after_an_exception_too(tiny):
    before = torch.get_rng_state()
    with pytest.raises(Killed):
        train(tiny, settings(), advance=kill_after(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_differ(tiny):
    assert not same(train(tiny, settings(), seed=1), train(tiny, settings(), seed=2))


# Crops and flips


@pytest.mark.parametrize("width", [0, 1, 3])
@pytest.mark.parametrize("shape", [(8, 8), (5, 7)])
def test_crop_is_the_loop_over_images(width, shape):
    generator = torch.Generator().manual_seed(width)
    h, w = shape
    padded = torch.randint(0, 256, (20, 2, h + 2 * width, w + 2 * width), generator=generator, dtype=torch.uint8)
    shifts = torch.randint(0, 2 * width + 1, (20, 2), generator=generator)
    flips = torch.rand(20, generator=generator) < 0.5
    expected = []
    for image, (down, across), flip in zip(padded.numpy(), shifts.tolist(), flips.tolist(), strict=True):
        window = image[:, down : down + h, across : across + w]
        expected.append(window[:, :, ::-1] if flip else window)
    assert np.array_equal(crop(padded, shifts, flips, width).numpy(), np.stack(expected))
    middle = padded[..., width : width + h, width : width + w]
    assert torch.equal(crop(padded, None, None, width), middle)
    assert torch.equal(crop(padded, torch.full((20, 2), width), torch.zeros(20, dtype=torch.bool), width), middle)


class Spy(nn.Module):
    """Notes the images of each pass and whether it was a training pass."""

    def __init__(self, notes):
        super().__init__()
        self.notes, self.fc = notes, nn.Linear(3, 4)

    def forward(self, inputs):
        self.notes.append((self.training, (inputs * 255).round().byte()))
        return self.fc(inputs.mean((2, 3)))


def windows(image, border):
    """Every window that a crop may cut, mirrored or not, as bytes."""
    offsets = range(2 * border + 1)
    cut = [image[:, i : i + 8, j : j + 8] for i in offsets for j in offsets]
    return {each.numpy().tobytes() for window in cut for each in (window, window.flip(2))}


def test_each_epoch_sees_every_row_once_in_new_order_windows_and_flips():
    stored, notes = learnable_images(1), []
    train(lambda: Spy(notes), settings(crop=1, flip=True, batch_size=36, epochs=3), rows=TrainingRows(TRAIN))
    possible = [windows(image, 1) for image in stored[:36]]
    orders = []
    for training, seen in notes:
        assert training
        order = [next(row for row in range(36) if image.numpy().tobytes() in possible[row]) for image in seen]
        assert sorted(order) == list(range(36))
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]
    pixels = {image.numpy().tobytes() for _, seen in notes for image in seen}
    assert len(pixels) > 36 * 2  # windows and flips change from epoch to epoch


def test_without_crop_and_flip_an_image_is_seen_as_it_is_with_its_target():
    stored, notes = learnable_images(), []

    class Check(Spy):
        pass

    train(lambda: Check(notes), settings(epochs=2), rows=TrainingRows(TRAIN, VALID))
    passes = [torch.cat([seen for training, seen in notes if training is wanted]) for wanted in (True, False)]
    rows_seen = sorted(image.numpy().tobytes() for image in passes[0])
    assert rows_seen == sorted(image.numpy().tobytes() for image in stored[TRAIN].repeat(2, 1, 1, 1))
    assert torch.equal(passes[1], stored[VALID].repeat(2, 1, 1, 1))


def test_validation_images_are_the_middle_unmirrored():
    notes = []
    train(lambda: Spy(notes), settings(epochs=1, crop=2, flip=True))
    seen = torch.cat([each for training, each in notes if not training])
    assert torch.equal(seen, learnable_images(2)[VALID][..., 2:-2, 2:-2])


# Augmentations


def marked(images, seeds, *, notes="notes"):
    """Changes nothing, but notes each image with its seed."""
    NOTES.setdefault(notes, []).append(
        [(row.numpy().tobytes(), int(seed)) for row, seed in zip(images, seeds, strict=True)]
    )
    return images


def inverted(images, _seeds):
    return 1 - images


def halved(images, _seeds):
    return images / 2


def outside(images, _seeds, *, by=0.1):
    return images + by


def in_half_precision(images, _seeds):
    return images.half()


def cut_off(images, _seeds):
    return images[:, :, 1:]


def nothing(_images, _seeds):
    return None


NOTES: dict = {}
JITTER = {
    "call": "efface.training.augment.colour_jitter",
    "kwargs": {"brightness": 0.25, "contrast": 0.25, "saturation": 0.25},
}
ROBUSTNESS = {
    "crop": 2,
    "flip": True,
    "augment": [JITTER, {"call": "efface.training.augment.rotation", "kwargs": {"degrees": 2.0}}],
}


def test_augmentations_work_one_after_the_other_on_training_images_alone():
    notes, stored = [], learnable_images()
    choices = settings(epochs=1, batch_size=36, augment=["test_fit.inverted", "test_fit.halved"])
    train(lambda: Spy(notes), choices)
    (training,), (validation,) = ([seen for mode, seen in notes if mode is wanted] for wanted in (True, False))
    expected = ((1 - to_float(stored[TRAIN])) / 2 * 255).round().byte()
    assert sorted(each.numpy().tobytes() for each in training) == sorted(each.numpy().tobytes() for each in expected)
    assert torch.equal(validation, stored[VALID])


def test_augmentations_come_after_crop_and_flip_and_before_the_attack():
    NOTES.clear()
    notes = []
    here = {"call": "test_fit.marked", "kwargs": {"notes": "order"}}
    choices = settings(
        epochs=1, crop=1, flip=True, batch_size=36, augment=[here, "test_fit.halved"], attack=pgd(eps=0.0)
    )
    train(lambda: Spy(notes), choices, rows=TrainingRows(TRAIN))
    possible = [windows(image, 1) for image in learnable_images(1)[:36]]
    (seen,) = NOTES["order"]
    bytes_of = [(torch.frombuffer(bytearray(each), dtype=torch.float32) * 255).round().byte() for each, _ in seen]
    assert all(any(each.numpy().tobytes() in some for some in possible) for each in bytes_of)
    halves = [(each.float() / 2).round() for each in bytes_of]
    found = notes[-1][1].flatten(1).float()
    assert max(float((one - other).abs().max()) for one, other in zip(found, halves, strict=True)) <= 1


@pytest.mark.parametrize("size", [7, 16, 36])
def test_an_images_seeds_are_of_seed_epoch_and_row_whatever_the_batch_size(size):
    def seeds_of(batch_size):
        NOTES.clear()
        named = [{"call": "test_fit.marked", "kwargs": {"notes": each}} for each in ("first", "second")]
        train(linear, settings(epochs=2, batch_size=batch_size, augment=named), rows=TrainingRows(TRAIN[:35]))
        return {name: [pair for batch in batches for pair in batch] for name, batches in NOTES.items()}

    found, whole = seeds_of(size), seeds_of(35)
    for name in ("first", "second"):
        for epoch in range(2):
            part = slice(epoch * 35, (epoch + 1) * 35)
            assert sorted(found[name][part]) == sorted(whole[name][part])
    every = [seed for pairs in found.values() for _, seed in pairs]
    assert len(set(every)) == len(every) == 4 * 35  # another for each image, epoch and augmentation


@pytest.mark.parametrize(
    "changes",
    [{"keep": "best"}, {"attack": {"call": "efface.training.attack.pgd", "kwargs": {"norm": "l2", "eps": 0.1}}}],
)
def test_with_augmentations_resumed_is_the_same_as_straight_through(tmp_path, tiny, changes):
    choices, path = settings(epochs=3, **ROBUSTNESS, **changes), tmp_path / "state.pt"
    whole = train(tiny, choices)
    with pytest.raises(Killed):
        train(tiny, choices, checkpoint=path, advance=kill_after(1))
    assert same(train(tiny, choices, checkpoint=path), whole)
    assert not same(train(tiny, settings(epochs=3, crop=2, flip=True, **changes)), whole)


def test_augmentations_that_change_nothing_leave_every_bit(tiny):
    still = {"call": "efface.training.augment.rotation", "kwargs": {"degrees": 0.0}}
    choices = {"crop": 2, "flip": True, "precision": "bf16", "channels_last": True}
    found = train(tiny, settings(augment=["efface.training.augment.colour_jitter", still], **choices))
    assert same(found, train(tiny, settings(**choices)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut_off", "(16, 3, 7, 8) (16, 3, 8, 8)"),
        ("nothing", "NoneType"),
        ("outside", "torch.float32 1.1 [0, 1]"),
        ("in_half_precision", "torch.float16 0 1 torch.float32"),
    ],
)
def test_an_augmentation_that_gives_no_such_images_is_one_clear_error(tiny, name, message):
    with pytest.raises(ValueError, match=words(f"fit.augment test_fit.{name} {message}")):
        train(tiny, settings(augment=[f"test_fit.{name}"]))


def test_numbers_that_are_none_are_found_in_the_first_step(tiny):
    bad = {"call": "test_fit.outside", "kwargs": {"by": float("nan")}}
    with pytest.raises(ValueError, match=words("fit.augment test_fit.outside torch.float32 nan")):
        train(tiny, settings(augment=[bad]))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("efface.training.augment.rotation", "degrees"),
        ("efface.training.augment.rotate", "rotate rotation"),
        (JITTER | {"kwargs": {"hue": 0.1}}, "hue"),
        (JITTER | {"kwargs": {"contrast": -0.1}}, "contrast -0.1"),
        (
            {"call": "efface.training.augment.random_resized_crop", "kwargs": {"scale": [0.5, 2.0]}},
            "scale [0.5, 2.0]",
        ),
        ({"call": "efface.training.augment.rotation", "kwargs": {"degrees": 200.0}}, "degrees 200.0"),
        ("test_fit.targets", "called"),
    ],
)
def test_a_wrong_augmentation_is_refused_as_the_study_is_read(entry, message):
    with pytest.raises(ValueError, match=words(message)):
        settings(augment=[entry])


# When it stops

FAST = {"call": "torch.optim.Adam", "kwargs": {"lr": 0.02}}


def test_a_training_stops_after_the_first_epoch_below_a_loss_and_keeps_its_weights():
    whole = train(linear, settings(epochs=12, optimizer=FAST))
    limit = (whole.losses[5] + whole.losses[6]) / 2
    last = next(epoch for epoch, loss in enumerate(whole.losses) if loss < limit)
    assert 0 < last < 11
    found = train(linear, settings(epochs=12, optimizer=FAST, stop={"loss": limit}))
    assert found.losses == whole.losses[: last + 1]
    assert (found.epoch, len(found.validation)) == (last, last + 1)
    assert same(found, train(linear, settings(epochs=last + 1, optimizer=FAST)))


@pytest.mark.long
def test_a_training_stops_after_the_first_epoch_of_an_accuracy():
    """Of plain gradient descent on all images at once, an epoch's accuracy is that of the network before it."""
    choices = {"epochs": 40, "batch_size": 36, "optimizer": {"call": "torch.optim.SGD", "kwargs": {"lr": 0.1}}}
    right, inputs = [], to_float(learnable_images()[TRAIN])
    for epochs in range(1, 41):
        before = train(linear, settings(**choices | {"epochs": epochs})).network
        right.append(int((predict(before, [learnable_images()[TRAIN]]).argmax(1) == targets()[TRAIN]).sum()))
    assert len(inputs) == 36
    for wanted in sorted({*right})[-4:-1]:
        found = train(linear, settings(**choices, stop={"accuracy": wanted / 36}))
        expected = next(at for at, count in enumerate(right) if count >= wanted) + 2  # seen by the epoch after it
        assert len(found.losses) == expected < 40
        assert found.terms["training_accuracy"][-1] == pytest.approx(right[expected - 2] / 36)
        assert all(each < wanted / 36 for each in found.terms["training_accuracy"][:-1])


def test_either_of_the_two_stops_a_training_and_neither_prolongs_it():
    loose, never = {"loss": 1e9, "accuracy": 1.0}, {"loss": 1e-9, "accuracy": 1.0}
    assert len(train(linear, settings(stop=loose)).losses) == 1
    assert len(train(linear, settings(stop={"accuracy": 1e-9})).losses) == 1
    whole = train(linear, settings(stop=never))
    assert len(whole.losses) == len(whole.terms["training_accuracy"]) == 4
    assert same(whole, train(linear, settings()))


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_stopped_and_resumed_ends_at_the_same_epoch(tmp_path, keep, epochs):
    """5: killed between the last epoch and its end."""
    plan = {"optimizer": FAST, "schedule": ONE_CYCLE, "schedule_each": "step", "keep": keep, "crop": 1}
    losses = train(linear, settings(epochs=9, **plan)).losses
    assert losses[4] < min(losses[:4])
    choices, path = (
        settings(epochs=9, stop={"loss": losses[4] * 1.0001, "accuracy": 1.0}, **plan),
        tmp_path / "state.pt",
    )
    whole = train(linear, choices)
    assert len(whole.losses) == 5
    assert whole.epoch == (4 if keep == "last" else int(np.argmax(whole.validation)))
    with pytest.raises(Killed):
        train(linear, choices, checkpoint=path, advance=kill_after(epochs))
    seen = []
    resumed = train(linear, choices, checkpoint=path, advance=seen.append)
    assert same(resumed, whole)
    assert resumed.terms == whole.terms
    assert len(seen) == 5 - epochs


def test_a_schedule_counts_to_the_last_epoch_whatever_stops_the_training():
    Scale.made.clear()
    train(linear, settings(schedule="test_fit.Scale", stop={"loss": 1e9}))
    assert [(each.total_steps, each.steps) for each in Scale.made] == [(4, 1)]


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ({}, "loss accuracy"),
        ({"loss": 0.0}, "greater than 0"),
        ({"loss": float("inf")}, "finite"),
        ({"accuracy": 1.5}, "less than or equal to 1"),
        ({"accuracies": 0.9}, "accuracies"),
    ],
)
def test_a_wrong_stop_is_refused(stop, message):
    with pytest.raises(ValueError, match=words(message)):
        settings(stop=stop)


def test_augmentations_and_stop_are_in_the_identity_and_in_the_plain_training():
    jitters = [JITTER, JITTER | {"kwargs": {"contrast": 0.1}}]
    others = [{"augment": [each]} for each in jitters] + [{"augment": jitters}, {"augment": jitters[::-1]}]
    others += [{"stop": {"loss": 0.1}}, {"stop": {"accuracy": 0.1}}, {"stop": {"loss": 0.1, "accuracy": 0.1}}]
    identities = [str(settings(**each).identity()) for each in [{}, *others]]
    assert len(set(identities)) == len(identities)
    for each in others:
        made = settings(attack=pgd(), **each)
        assert made.plain() == settings(**each)
        assert TrainingSettings.model_validate(made.model_dump(mode="json")) == made


# Which epoch is kept


def test_best_keeps_the_first_epoch_of_the_highest_validation_accuracy(tiny):
    wild = {"call": "torch.optim.SGD", "kwargs": {"lr": 1.0}}  # accuracy goes up and down
    best = train(tiny, settings(epochs=7, keep="best", optimizer=wild))
    each = [train(tiny, settings(epochs=epochs, optimizer=wild)) for epochs in range(1, 8)]
    inputs = learnable_images()[VALID]
    right = [float((predict(found.network, [inputs]).argmax(1) == targets()[VALID]).float().mean()) for found in each]
    assert best.validation == pytest.approx(right)
    assert best.epoch == int(np.argmax(right)) < 6
    kept = each[best.epoch].network.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in best.network.state_dict().items())


def test_only_training_and_validation_rows_are_asked_for(tiny):
    inner, asked = feed_of(learnable_images()), {"train": [], "valid": []}

    def spying(rows, size, epoch):
        asked["valid" if len(rows) == 3 else "train"].append(sorted(rows.tolist()))
        return inner(rows, size, epoch)

    train(tiny, settings(keep="best"), feed=spying, rows=TrainingRows(torch.arange(5, 25), torch.tensor([40, 2, 31])))
    assert asked == {"train": [list(range(5, 25))] * 4, "valid": [[2, 31, 40]] * 4}


@pytest.mark.parametrize("validation", [None, torch.arange(0)])
def test_best_without_validation_rows_is_refused(tiny, validation):
    with pytest.raises(ValueError, match=words("fit.keep best data.kwargs.validation")):
        train(tiny, settings(keep="best"), rows=TrainingRows(TRAIN, validation))


# Errors and reports


def test_a_loss_that_is_no_number_is_one_clear_error(tiny):
    wild = {"call": "torch.optim.SGD", "kwargs": {"lr": 1e30}}
    with pytest.raises(ValueError, match=r"loss.*(nan|inf).*epoch \d"):
        train(tiny, settings(optimizer=wild))


def test_a_network_with_too_few_classes_is_one_clear_error(tiny):
    with pytest.raises(ValueError, match=words("3 4 model.kwargs.num_classes=4")):
        train(partial(tiny, classes=3), settings())


def test_no_training_rows_are_one_clear_error(tiny):
    with pytest.raises(ValueError, match=words("training rows")):
        train(tiny, settings(), rows=TrainingRows(torch.arange(0)))


def test_logs_and_progress_tell_every_epoch(tiny):
    told, ticks = [], []
    found = train(tiny, settings(), log=lambda *each: told.append(each), advance=ticks.append)
    assert [each for each in told if each[0] == "loss"] == [("loss", x, i + 1) for i, x in enumerate(found.losses)]
    accuracies = [("validation_accuracy", x, i + 1) for i, x in enumerate(found.validation)]
    assert [each for each in told if each[0] == "validation_accuracy"] == accuracies
    names = {"loss", "training_accuracy", "validation_accuracy", "validation_loss", "batch_loss"}
    assert {name for name, *_ in told} == names
    assert sum(ticks) == 4


def curve(told, name):
    return {step: value for each, value, step in told if each == name}


def test_a_log_is_told_the_loss_of_every_batch_and_what_the_training_does_not_keep(tiny):
    told = []
    found = train(tiny, settings(epochs=2), log=lambda *each: told.append(each))
    batches = curve(told, "batch_loss")
    assert list(batches) == [1, 2, 3, 4, 5, 6]  # 36 images in batches of 16, 16 and 4
    for epoch, loss in enumerate(found.losses):
        of_epoch = [batches[3 * epoch + at] for at in (1, 2, 3)]
        assert np.average(of_epoch, weights=[16, 16, 4]) == pytest.approx(loss, abs=1e-6)
    whole = train(tiny, settings(epochs=2, stop={"accuracy": 1.0}))  # a stop makes a training keep this curve
    assert curve(told, "training_accuracy") == dict(enumerate(whole.terms["training_accuracy"], 1))
    assert found.terms == {}
    logits = predict(found.network, [learnable_images()[VALID]])
    expected = float(F.cross_entropy(logits, targets()[VALID]))
    assert curve(told, "validation_loss")[2] == pytest.approx(expected, abs=1e-6)


def test_a_log_changes_no_weight_and_goes_on_counting_after_a_kill(tiny, tmp_path):
    path, told, after = tmp_path / "state.pt", [], []
    whole = train(tiny, settings())
    with pytest.raises(Killed):
        train(tiny, settings(), checkpoint=path, advance=kill_after(2), log=lambda *each: told.append(each))
    resumed = train(tiny, settings(), checkpoint=path, log=lambda *each: after.append(each))
    assert same(resumed, whole)
    assert [step for name, _, step in told + after if name == "batch_loss"] == list(range(1, 13))
    assert [step for name, _, step in told + after if name == "validation_loss"] == [1, 2, 3, 4]


def test_without_a_log_nothing_is_computed_for_one():
    def unwanted():
        raise AssertionError("asked for the validation loss")

    told = Told(None, 3, stops=False)
    assert not told.wants_accuracy
    told.batch(torch.tensor(1.0))
    assert told.epoch(0, {"loss": 1.0}, unwanted) == {"loss": 1.0}
    assert Told(None, 3, stops=True).wants_accuracy
    assert Told(lambda *_: None, 3, stops=False).wants_accuracy


def test_an_edited_or_other_setting_changes_the_identity():
    same_twice = settings().identity(), settings().identity()
    assert same_twice[0] == same_twice[1]
    others = [{"epochs": 5}, {"crop": 1}, {"flip": True}, {"precision": "bf16"}, {"keep": "best"}]
    others += [{"optimizer": "torch.optim.SGD"}, {"loss": "test_fit.squared"}, {"schedule": ONE_CYCLE}]
    identities = [str(settings(**each).identity()) for each in [{}, *others]]
    assert len(set(identities)) == len(identities)
    assert settings(tensorboard=True).identity() == settings().identity()


def test_predictions_are_those_of_the_network_in_eval_mode(tiny):
    network = tiny(seed=4).train()
    found = predict(network, list(learnable_images().split(7)))
    assert not network.training
    with torch.inference_mode():
        torch.testing.assert_close(found, network(to_float(learnable_images())))
    assert Call(call="torch.optim.Adam") == settings(optimizer="torch.optim.Adam").optimizer


# Regularisers and attacks


def small(activation=nn.Softplus):
    """No dropout, whose other answers a difference of two passes does not survive."""
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), activation())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4))


def term(name, **others):
    return {"call": f"efface.training.regularize.{name}"} | others


def pgd(**kwargs):
    return {"call": "efface.training.attack.pgd", "kwargs": {"norm": "linf", "eps": 0.05, "steps": 2} | kwargs}


WITH_TERMS = {
    "score_matching": {"regularizers": [term("score_matching", preset="paper")]},
    "anti_score_matching": {"regularizers": [term("anti_score_matching", preset="code")]},
    "gradient_norm": {"regularizers": [term("gradient_norm", weight=0.1)]},
    "antithetic": {
        "regularizers": [term("score_matching", weight=1e-3, kwargs={"samples": 2, "estimator": "antithetic"})],
    },
    "pgd": {"attack": pgd(start="random", restarts=2)},
    "both": {"attack": pgd(norm="l2", eps=0.3), "regularizers": [term("gradient_norm", preset="paper")] * 2},
}


@pytest.mark.parametrize("changes", WITH_TERMS.values(), ids=WITH_TERMS)
def test_with_terms_resumed_is_the_same_as_straight_through(tmp_path, changes):
    choices = settings(epochs=3, crop=1, flip=True, channels_last=True, keep="best", **changes)
    whole, path = train(small, choices), tmp_path / "state.pt"
    with pytest.raises(Killed):
        train(small, choices, checkpoint=path, advance=kill_after(1))
    resumed = train(small, choices, checkpoint=path)
    assert same(resumed, whole)
    assert resumed.terms == whole.terms
    assert all(len(values) == 3 for values in whole.terms.values())
    assert not same(whole, train(small, settings(epochs=3, crop=1, flip=True, channels_last=True, keep="best")))


def test_the_curves_of_all_terms_are_logged_and_add_up_to_the_loss():
    told = []
    choices = settings(regularizers=[term("gradient_norm", weight=0.1), term("score_matching", preset="paper")])
    found = train(small, choices, log=lambda *each: told.append(each))
    assert set(found.terms) == {
        "classification",
        "gradient_norm",
        "gradient_norm.squared_gradient",
        "score_matching",
        "score_matching.trace",
        "score_matching.squared_trace",
        "score_matching.squared_gradient",
    }
    for name, values in found.terms.items():
        assert [each for each in told if each[0] == name] == [(name, x, i + 1) for i, x in enumerate(values)]
    terms = {name: np.array(values) for name, values in found.terms.items()}
    total = terms["classification"] + 0.1 * terms["gradient_norm"] + 1e-3 * terms["score_matching"]
    assert found.losses == pytest.approx(total.tolist(), rel=1e-5)
    matched = terms["score_matching.trace"] + terms["score_matching.squared_gradient"] / 2
    matched += 1e-3 * terms["score_matching.squared_trace"]
    assert terms["score_matching"].tolist() == pytest.approx(matched.tolist(), rel=1e-4)
    assert train(small, settings()).terms == {}


def test_a_second_term_of_one_name_is_numbered_and_a_weight_of_0_only_shows_its_curve():
    twice = [term("gradient_norm", weight=0.0), term("gradient_norm", weight=0.0)]
    found = train(small, settings(regularizers=twice))
    assert found.terms["gradient_norm"] == found.terms["gradient_norm_2"]
    plain = train(small, settings())
    assert found.losses == pytest.approx(plain.losses, rel=1e-5)
    assert found.terms["classification"] == found.losses


def test_the_gradient_norm_of_a_linear_network_trains_as_a_decay_of_its_weights():
    """Of four balanced classes, half the mean squared norm is an eighth of the weights' squares."""
    network, weight = linear(), 0.8
    nn.init.constant_(network[1].weight, 0.01)
    rule = torch.optim.SGD(network.parameters(), lr=0.05)
    inputs = to_float(learnable_images()[:36])

    def constant():
        made = linear()
        nn.init.constant_(made[1].weight, 0.01)
        return made

    for _ in range(5):
        loss = F.cross_entropy(network(inputs), targets()[:36]) + weight * network[1].weight.square().sum() / 8
        rule.zero_grad()
        loss.backward()
        rule.step()
    sgd = {"call": "torch.optim.SGD", "kwargs": {"lr": 0.05}}
    choices = settings(epochs=5, batch_size=36, optimizer=sgd, regularizers=[term("gradient_norm", weight=weight)])
    found = train(constant, choices, rows=TrainingRows(TRAIN))
    torch.testing.assert_close(found.network.state_dict(), network.state_dict(), rtol=1e-4, atol=1e-6)
    assert found.losses[-1] == pytest.approx(loss.item(), rel=1e-5)


def test_an_attack_is_all_that_the_network_sees_and_it_sees_it_in_training_mode():
    notes = []
    train(lambda: Spy(notes), settings(epochs=1, batch_size=36, attack=pgd(eps=0.1, steps=4)), rows=TrainingRows(TRAIN))
    assert [training for training, _ in notes] == [False] * 4 + [True]
    clean, seen = notes[0][1].int(), notes[-1][1].int()
    assert (clean - seen).abs().max() in (25, 26)  # 0.1 of 255


def test_an_attack_with_eps_0_changes_nothing(tiny):
    one, other = train(tiny, settings(attack=pgd(eps=0.0))), train(tiny, settings())
    assert same(one, other)
    assert set(one.terms) == {"attacked_accuracy"}


def test_attacks_go_with_bf16_and_regularisers_do_not(tiny):
    assert train(tiny, settings(epochs=2, precision="bf16", attack=pgd())).losses[-1] > 0
    with pytest.raises(ValueError, match=words("precision bf16 regularizers fp32")):
        settings(precision="bf16", regularizers=[term("gradient_norm", weight=1.0)])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"weight": 1.0}, "call"),
        (term("gradient_norm"), "weight preset paper code"),
        ("efface.training.regularize.gradient_norm", "weight"),
        (term("gradient_norm", weight=-1.0), "weight -1"),
        (term("gradient_norm", weight=1.0, preset="paper"), "paper weight"),
        (term("score_matching", kwargs={"sigma": 0.1}, preset="paper"), "paper sigma"),
        (term("score_matching", preset="papers"), "papers paper code"),
        (term("score_matching", weight=1.0, kwargs={"sigmas": 0.1}), "sigmas sigma"),
        (term("score_matching", weight=1.0, kwargs={"sigma": -0.1}), "sigma -0.1"),
        (term("score_match", weight=1.0), "score_match score_matching"),
        ({"call": "test_fit.squared", "preset": "paper"}, "paper 'PRESET', PRESETS?"),
        ({"call": "test_fit.squared"}, "weight 'PRESET', PRESETS?"),
    ],
)
def test_a_wrong_regulariser_is_refused_as_the_study_is_read(entry, message):
    with pytest.raises(ValueError, match=words(message)):
        settings(regularizers=[entry])


def doubled(network, images, targets):
    return torch.cat([images, images])


def test_an_attack_that_gives_no_such_images_is_one_clear_error(tiny):
    with pytest.raises(ValueError, match=words("fit.attack test_fit.doubled (32, 3, 8, 8)")):
        train(tiny, settings(attack="test_fit.doubled"))


def test_terms_are_in_the_identity_and_without_them_it_is_what_it_was():
    identities = [str(settings(**each).identity()) for each in [{}, *WITH_TERMS.values()]]
    assert len(set(identities)) == len(identities)
    assert set(settings().identity()) == {
        "epochs", "batch_size", "optimizer", "schedule", "schedule_each", "loss", "crop", "flip", "precision",
        "channels_last", "keep",
    }  # fmt: skip
    written_out = term("score_matching", weight=1e-3, kwargs={"samples": 1, "sigma": 0.01, "stability": 1e-3})
    preset = settings(regularizers=[term("score_matching", preset="paper")])
    assert settings(regularizers=[written_out]).identity() == preset.identity()
    assert TrainingSettings.model_validate(preset.model_dump()) == preset
    for each in WITH_TERMS.values():
        assert settings(**each).plain() == settings()
        assert settings(**each).plain().identity() == settings().identity()


ADAM = {"call": "torch.optim.Adam", "kwargs": {"lr": 3e-3}}


def mlp(first):
    return nn.Sequential(first, nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 2))


class Centred(nn.Module):
    def forward(self, inputs):
        return (inputs - 0.5).flatten(1) * 4


def test_adversarial_training_makes_a_network_more_robust():
    """A few pixels tell the class by more than eps, all others by less: only a robust network has to know which."""
    generator = torch.Generator().manual_seed(5)
    classes = torch.arange(400) % 2
    noise = torch.randint(-40, 41, (400, 3, 8, 8), generator=generator)
    noise[:, 0, :3] //= 4
    tells = torch.full((3, 8, 8), 4)
    tells[0, :3] = 27
    tells *= torch.randint(0, 2, (3, 8, 8), generator=generator) * 2 - 1
    inputs = (128 + noise + tells * (2 * classes - 1)[:, None, None, None]).byte()
    feed = resident(400, lambda rows: (inputs[rows], None), lambda found, maps, rows, epoch: found)
    attack, robust = {"norm": "linf", "eps": 0.05, "steps": 5}, []
    for changes in ({}, {"attack": pgd(**attack)}):
        choices = TrainingSettings(epochs=15, batch_size=50, optimizer=ADAM, **changes)
        found = train_network(
            lambda: mlp(Centred()), feed, TrainingRows(torch.arange(300)), classes, choices, seed=0, device=CPU
        )
        unseen, truth = to_float(inputs[300:]), classes[300:]
        worst = attacked_by_pgd(found.network, unseen, truth, **attack)
        assert (found.network(unseen).argmax(1) == truth).float().mean() > 0.95
        robust.append(float((found.network(worst).argmax(1) == truth).float().mean()))
    assert robust[0] < 0.2
    assert robust[1] > 0.9
    assert found.terms["attacked_accuracy"][-1] > 0.9


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_lost_loss_names_coarse_weights_as_its_reason(kind):
    class Lost(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(192, 4, dtype=kind)

        def forward(self, x):
            return self.linear(x.flatten(1).to(kind)).float() * float("nan")

    said = "lower the learning rate" if kind is torch.float32 else "weights are bfloat16 load them as float32"
    with pytest.raises(ValueError, match=words(f"the loss is nan in epoch 1; {said}")):
        train(Lost, settings())
