"""What differences a study can show, said before it starts."""

import itertools
from collections.abc import Iterator

from efface.report.stats.looks import of_one_look
from efface.report.stats.power import POWER, shown_by_betting, shown_by_images, shown_by_repeats
from efface.report.table import ALPHA
from efface.stages.run.plan import Plan, of_maps
from efface.stages.run.points import repeats_of
from efface.stages.run.run import Run
from efface.study.metric_entry import MetricEntry

_LARGE = 5.0
"""Standard deviations between trainings. A difference that must be larger is hardly ever found."""
_MOST = 1_000


def power_said(run: Run, plan: Plan) -> Iterator[str]:
    """Yield what difference of two methods the study shows with a probability of 80 %."""
    tests = _tests(plan)
    judged = [entry for entry in of_maps(run) if next(iter(entry.direction.values())) != "none"]
    if not tests:
        return
    together = f"{tests} pair{'s' if tests > 1 else ''} of methods tested together"
    rest = f"with a probability of {round(100 * POWER)} % ({together})"
    count = len(run.data["test"])
    of_images = {_ways(plan, entry) for entry in judged if entry.formula.sample == "images"}
    for by, after in sorted(of_images):
        level = tests * of_one_look(_level(run) / tests, after) if len(after) > 1 else _level(run)
        size = (shown_by_betting if by == "betting" else shown_by_images)(count, tests, level)
        yield (
            f"with {count} test images, the study shows a difference of {'at best ' if by == 'betting' else ''}"
            f"{size:.2g} standard deviations of the images' differences {rest}"
            + (", by betting" if by == "betting" else f", in {len(after)} rounds" if len(after) > 1 else "")
        )
    retrained = {
        (repeats_of(run, entry), _ways(plan, entry)[1]) for entry in judged if entry.formula.sample == "repeats"
    }
    for repeats, after in sorted(retrained):
        if (size := shown_by_repeats(repeats, _methods(plan, run), tests, _level(run) / len(after))) < float("inf"):
            yield (
                f"with {repeats} repeats, the study shows a difference of {size:.2g} standard deviations between "
                f"trainings {rest}"
            )


def powerless(run: Run, plan: Plan) -> Iterator[str]:
    """Yield a warning for each retrained metric whose repeats can show no difference, or only a very large one."""
    tests = max(1, _tests(plan))
    for entry in of_maps(run):
        if entry.formula.sample != "repeats":
            continue
        repeats, methods = repeats_of(run, entry), len({curve.view.name for curve in plan.of(entry)})
        level = _level(run) / len(_ways(plan, entry)[1])
        size = shown_by_repeats(repeats, methods, tests, level)
        if methods < 2 or size <= _LARGE:
            continue
        enough = next(
            (n for n in range(repeats + 1, _MOST) if shown_by_repeats(n, methods, tests, level) <= _LARGE), _MOST
        )
        what = f"{repeats} repeats show a difference only from {size:.2g} standard deviations between trainings on"
        if size == float("inf"):
            what = f"{repeats} repeats have no test, so there will be no verdict"
        yield f"metrics.{entry.name}: {what}; take {enough} repeats or more, or fewer methods and metrics"


def _ways(plan: Plan, entry: MetricEntry) -> tuple[str, tuple[int, ...]]:
    """Return how a metric is tested, and after how many images or repeats its level is spent: (0,) if at once."""
    curve = next(iter(plan.of(entry)), None)
    looks = None if curve is None else curve.looks
    if looks is None:
        return "fixed", (0,)
    if looks.by == "betting" and next(iter(entry.direction)) in entry.formula.ranges:
        return "betting", (0,)
    return "spending", looks.after


def _level(run: Run) -> float:
    return ALPHA if run.study.decide is None else run.study.decide.level


def _tests(plan: Plan) -> int:
    """Return the number of pairs of methods that are tested together, on the first score of each metric."""
    count = 0
    for _, curves in itertools.groupby(plan.curves, key=lambda curve: curve.entry.name):
        rows = [curve for curve in curves if curve.entry.formula.subject == "maps" and not curve.view.is_further]
        count += len(rows) * (len(rows) - 1) // 2
    return count


def _methods(plan: Plan, run: Run) -> int:
    retrained = [entry.name for entry in of_maps(run) if entry.formula.sample == "repeats"]
    return len(
        {curve.view.name for curve in plan.curves if curve.entry.name in retrained and not curve.view.is_further}
    )
