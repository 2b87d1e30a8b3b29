"""Feeds: the resident and the streamed one give the same bits; the reading thread always ends."""

import threading
import time

import pytest
import torch

from efface.erase.batches import resident, streamed

CPU = torch.device("cpu")
IMAGES = torch.arange(11 * 3 * 2 * 2, dtype=torch.int64).remainder(256).byte().reshape(11, 3, 2, 2)
MAPS = torch.arange(11.0)[:, None, None].expand(11, 2, 2)


def gather(rows):
    return IMAGES[rows], MAPS[rows]


def prepare(images, maps, rows, epoch):
    """Depends on everything it is given, row by row."""
    return (images + maps[:, None].byte() * 3 + rows[:, None, None, None].byte() * 5 + epoch * 7).byte()


def expected(rows, epoch):
    return prepare(*gather(rows), rows, epoch)


def threads():
    return [each for each in threading.enumerate() if each.name == "efface-gather"]


def wait_until(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("redrawn", [False, True])
@pytest.mark.parametrize("size", [1, 4, 11, 100])
@pytest.mark.parametrize("block", [1, 3, 1024])
def test_resident_and_streamed_give_the_prepared_rows_bit_for_bit(redrawn, size, block):
    both = resident(11, gather, prepare, block=block, redrawn=redrawn), streamed(gather, prepare, CPU, redrawn=redrawn)
    rows = torch.tensor([3, 10, 0, 7, 7, 1, 9])
    for epoch in (0, 1, 5, 1):
        for each in both:
            batches = list(each(rows, size, epoch))
            assert [len(batch) for batch in batches] == [len(part) for part in rows.split(size)]
            assert torch.equal(torch.cat(batches), expected(rows, epoch if redrawn else 0))


def test_without_maps_both_hand_over_none():
    def bare(images, maps, rows, epoch):
        assert maps is None
        return images

    both = (
        resident(11, lambda rows: (IMAGES[rows], None), bare),
        streamed(lambda rows: (IMAGES[rows], None), bare, CPU),
    )
    for each in both:
        assert torch.equal(torch.cat(list(each(torch.arange(11), 4, 0))), IMAGES)


@pytest.mark.parametrize(("redrawn", "times"), [(False, 1), (True, 3)])
def test_resident_prepares_once_or_once_an_epoch(redrawn, times):
    seen = []

    def counting(images, maps, rows, epoch):
        seen.extend(rows.tolist())
        return prepare(images, maps, rows, epoch)

    feed = resident(11, gather, counting, redrawn=redrawn)
    for epoch in range(3):
        for rows in (torch.arange(8), torch.arange(8, 11)):  # training, then validation rows
            list(feed(rows, 4, epoch))
    assert seen == list(range(11)) * times


def test_streamed_reads_three_batches_ahead_and_no_more():
    read = []

    def counting(rows):
        read.append(rows)
        return gather(rows)

    batches = streamed(counting, prepare, CPU)(torch.arange(11), 1, 0)
    next(batches)
    wait_until(lambda: len(read) == 4)  # the one in use, two that wait, one that waits for room
    time.sleep(0.05)
    assert len(read) == 4
    batches.close()


def test_reader_ends_when_the_consumer_stops_early():
    batches = streamed(gather, prepare, CPU)(torch.arange(11), 1, 0)
    next(batches)
    assert len(threads()) == 1
    batches.close()
    assert threads() == []


def test_reader_ends_when_the_consumer_raises():
    def train():
        for _ in streamed(gather, prepare, CPU)(torch.arange(11), 1, 0):
            raise KeyError("consumer")

    with pytest.raises(KeyError, match="consumer"):
        train()
    assert threads() == []


def test_reader_ends_when_preparing_raises():
    def failing(images, maps, rows, epoch):
        raise ValueError("prepare")

    with pytest.raises(ValueError, match="prepare"):
        next(streamed(gather, failing, CPU)(torch.arange(11), 1, 0))
    assert threads() == []


def test_reader_ends_after_the_last_batch():
    assert len(list(streamed(gather, prepare, CPU)(torch.arange(11), 2, 0))) == 6
    wait_until(lambda: threads() == [])


@pytest.mark.parametrize("kind", [OSError, SystemExit])
@pytest.mark.parametrize("at", [0, 3])
def test_an_error_of_the_reader_reaches_the_caller_after_the_batches_before_it(kind, at):
    raised = kind("disk")

    def failing(rows):
        if rows[0] == at:
            raise raised
        return gather(rows)

    batches = streamed(failing, prepare, CPU)(torch.arange(11), 1, 0)
    for row in range(at):
        assert torch.equal(next(batches), expected(torch.tensor([row]), 0))
    with pytest.raises(kind) as caught:
        next(batches)
    assert caught.value is raised
    wait_until(lambda: threads() == [])


def test_a_reader_that_fails_after_the_consumer_left_troubles_nobody():
    go = threading.Event()

    def failing(rows):
        if rows[0] == 1:
            go.wait(5)
            raise OSError("late")
        return gather(rows)

    batches = streamed(failing, prepare, CPU)(torch.arange(11), 1, 0)
    next(batches)
    threading.Timer(0.05, go.set).start()
    batches.close()
    assert threads() == []
