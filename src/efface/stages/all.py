"""Stage all: train, extract, measure and report. Measuring needs every stage before it, so `all` is `measure`."""

from efface.stages.measure import measure as all  # noqa: A004  the word of the command line

__all__ = ["all"]
