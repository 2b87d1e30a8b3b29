"""How many images go into one pass, and what happens when memory runs out."""

import pytest
import torch

from efface.models.memory import Onwards, with_smaller_batches
from small.messages import words


def test_smaller_batches_halve_until_they_fit():
    tried, told = [], []

    def compute(max_batch):
        tried.append(max_batch)
        if max_batch > 2:
            raise torch.OutOfMemoryError
        return max_batch

    assert with_smaller_batches(compute, 11, halved=told.append) == 2
    assert (tried, told) == ([11, 5, 2], [5, 2])


def test_smaller_batches_end_with_one_image_and_other_errors_pass():
    tried = []

    def compute(max_batch):
        tried.append(max_batch)
        raise torch.OutOfMemoryError if len(tried) < 9 else AssertionError

    with pytest.raises(torch.OutOfMemoryError, match=words("memory one image memory_gb=0 device=cpu")):
        with_smaller_batches(compute, 4)
    assert tried == [4, 2, 1]
    tried[:] = [0] * 8
    with pytest.raises(AssertionError):
        with_smaller_batches(compute, 4)


def test_work_that_starts_again_reports_no_progress_twice():
    told = []
    onwards = Onwards(told.append)
    onwards(3.0)
    onwards.restart()
    for done in (2.0, 2.0, 1.0):
        onwards(done)
    assert told == [3.0, 1.0, 1.0]
