"""The two tiers of tests: what `task test` runs, and what only `task test-long` adds."""

import pytest

LONG = pytest.mark.long


def first_short(count: int, values):
    """Values of a parametrisation: the first `count` are in both tiers, the rest in the longer one alone.

    values: any iterable. A tuple in it stays one parameter set, as pytest.mark.parametrize takes it.
    """
    listed = list(values)
    return listed[:count] + [_long(each) for each in listed[count:]]


def _long(each):
    return pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=LONG)
