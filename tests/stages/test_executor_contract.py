"""An executor of three lines works: failures, progress and threads are the stage's business."""

import functools
import os
import pickle
import signal
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from efface import execute
from efface.execute import Attempt, Failure, processes, runs_at_once, serial, slots
from efface.plug import source
from efface.stages.work.through import work_through
from efface.study.study import InvalidStudyError, read
from small.messages import words
from small.studies import efface, write_study

OWN = {
    "own": """
import torch
from efface.execute import reporting, runs_at_once


def mine(work, tasks):
    for task in tasks:
        yield task, work(task)


def told(work, tasks, *, progress):
    with reporting(progress):
        for task in tasks:
            yield task, work(task)


@runs_at_once(lambda tasks, lanes=3: min(tasks, lanes))
def wide(work, tasks, *, lanes: int = 3):
    for task in tasks:
        yield task, work(task)


def swapped(work, tasks):
    for task in tasks:
        yield work(task), task, 1


def crossed(work, tasks):
    tasks = list(tasks)
    yield from zip(tasks, map(work, reversed(tasks)))


def fails(model, images, targets):
    if len(images) > 2:
        raise RuntimeError("boom")
    return images[:, 0]
"""
}
MINE = {"name": "mine", "method": "mine.brightness"}
RANDOM = {"name": "random", "method": "efface.methods.control.random"}


def step(task):
    execute.advance(1.0)
    if task == 3:
        raise RuntimeError("boom")
    return task, torch.get_num_threads()


def three_lines(work, tasks):
    for task in tasks:
        yield task, work(task)


def backwards(work, tasks):
    """Gives back equal tasks that are not the same objects, in another order."""
    for task in reversed(list(tasks)):
        yield pickle.loads(pickle.dumps(task)), work(task)  # noqa: S301  its own bytes


def reporting(work, tasks, *, progress):
    with execute.reporting(progress):
        for task in tasks:
            yield task, work(task)


def in_threads(work, tasks):
    with ThreadPoolExecutor(1) as pool:
        tasks = list(tasks)
        yield from zip(tasks, pool.map(work, tasks), strict=True)


@pytest.fixture
def study_with(tmp_path, monkeypatch):
    """A function that gives the small study with this executor, a function of this file."""
    monkeypatch.syspath_prepend(tmp_path)

    def made(executor, **changes):
        call = executor if isinstance(executor, str | dict) else f"{__name__}.{executor.__name__}"
        return read(write_study(tmp_path, OWN, executor=call, **changes))

    return made


def through(study, tasks=range(5), **how):
    ticks = []
    tasks = [(each, "task") for each in tasks] if how.pop("tuples", False) else list(tasks)
    found = dict(work_through(study, how.pop("work", step), tasks, ticks.append, cost=lambda _: 10.0, **how))
    return found, ticks


@pytest.mark.parametrize("executor", [three_lines, reporting, in_threads, serial])
def test_one_failing_task_loses_itself_alone(study_with, executor):
    name = "efface.execute.serial" if executor is serial else executor
    found, ticks = through(study_with(name))
    assert [task for task, outcome in found.items() if isinstance(outcome, Failure)] == [3]
    assert found[3].message == "RuntimeError: boom"
    assert "in step" in found[3].trace
    assert all(found[task] == (task, 1) for task in (0, 1, 2, 4))  # one thread each
    # what is handed on comes as it is reported, else a task counts when it is finished
    assert ticks == ([1.0] * 5 if executor in (reporting, serial) else [10.0] * 5)


def test_threads_are_the_studys_whatever_the_executor(study_with):
    before = torch.get_num_threads()
    for executor in (three_lines, "efface.execute.serial"):
        found, _ = through(study_with(executor, threads=2))
        assert found[0] == (0, 2)
        assert torch.get_num_threads() == before
    with_own = {"call": "efface.execute.serial", "kwargs": {"threads": 2}}
    assert through(study_with(with_own))[0][0] == (0, 2)
    assert study_with(with_own).torch_threads == study_with(with_own, threads=2).torch_threads == 2
    assert study_with(three_lines).torch_threads == 1
    with pytest.raises(InvalidStudyError, match=words("threads 3 executor.kwargs.threads 2")):
        study_with(with_own, threads=3)


def test_tasks_are_known_by_what_they_are_and_come_back_in_any_order(study_with):
    tasks = [("a", 1), ("b", 2)]
    work = [("b", 2), ("a", 1)]
    found = list(work_through(study_with(backwards), str, tasks, lambda _: None, cost=lambda _: 1.0))
    assert found == [(task, str(task)) for task in work]
    assert {id(task) for task, _ in found} == set(map(id, tasks))


def returns_nothing(work, tasks):
    list(map(work, tasks))


def yields_outcomes(work, tasks):
    yield from map(work, tasks)


def yields_numbers(work, tasks):
    yield from ((work(task), number) for number, task in enumerate(tasks))


def forgets_one(work, tasks):
    yield from ((task, work(task)) for task in list(tasks)[1:])


def does_one_twice(work, tasks):
    for task in [*tasks, *tasks]:
        yield task, work(task)


def forgets_outcomes(work, tasks):
    for task in tasks:
        work(task)
        yield task, None


def yields_futures(work, tasks):
    for task in tasks:
        yield task, Future()


def raises(work, tasks):
    raise KeyError("lost")
    yield


@pytest.mark.parametrize(
    ("executor", "why"),
    [
        (returns_nothing, "returned nothing; expected an iterator of (task, outcome)"),
        (yields_outcomes, "yielded a str; expected a pair (task, outcome)"),
        (yields_numbers, "yielded a str in place of a task, or a task for the second time"),
        (forgets_one, "did not return 1 of 3 tasks; it must yield each task once"),
        (does_one_twice, "yielded a tuple in place of a task, or a task for the second time"),
        (forgets_outcomes, "yielded nothing as the outcome of a task; expected what work(task) returned"),
        (yields_futures, "yielded a Future as the outcome of a task"),
        (raises, "fails: KeyError: 'lost'"),
    ],
)
def test_an_executor_that_breaks_its_contract_is_one_clear_error_that_names_it(study_with, executor, why):
    with pytest.raises(ValueError, match="executor") as error:
        through(study_with(executor), range(3), tuples=True, work=str)
    assert str(error.value).startswith(f"executor: {__name__}.{executor.__name__} {why}")


def test_what_came_back_before_the_contract_was_broken_is_kept(study_with):
    kept = []
    with pytest.raises(ValueError, match="did not return"):  # noqa: PT012  what came before it counts
        for each in work_through(study_with(forgets_one), str, [(1,), (2,)], float, cost=lambda _: 1.0):
            kept += [each]
    assert kept == [((2,), "(2,)")]


def crosses_the_last(work, tasks):
    outcomes = [work(task) for task in tasks]
    yield from zip(tasks, [*outcomes[:-2], outcomes[-1], outcomes[-2]], strict=True)


def test_an_outcome_that_comes_with_another_task_is_told(study_with):
    tasks, kept = [(1,), (2,), (3,)], []
    with pytest.raises(ValueError, match="the outcome of one task with another task"):
        kept.extend(work_through(study_with(crosses_the_last), str, tasks, float, cost=lambda _: 1.0))
    found = work_through(study_with(crosses_the_last), str, tasks, float, cost=lambda _: 1.0)
    assert next(found) == ((1,), "(1,)")


def swaps_code(work, tasks):
    for task in tasks:
        yield task, work(task)
        path = next(iter(source.READ))
        os.utime(path, (1, 1))


def test_code_that_changes_between_tasks_ends_the_command(study_with, tmp_path, monkeypatch):
    path = tmp_path / "code.py"
    path.write_text("")
    state = path.stat()
    monkeypatch.setattr(source, "READ", {path: (state.st_mtime_ns, state.st_size)})
    found = work_through(study_with(swaps_code), str, [(1,), (2,)], float, cost=lambda _: 1.0)
    assert next(found) == ((1,), "(1,)")
    with pytest.raises(ValueError, match=r"code\.py.*changed while this command ran"):
        next(found)


CLOSED = []


def held(work, tasks):
    try:
        for task in tasks:
            yield task, work(task)
    finally:
        CLOSED.append(True)


def test_an_executor_that_is_left_in_the_middle_is_closed(study_with):
    next(found := work_through(study_with(held), str, [(1,), (2,)], float, cost=lambda _: 1.0))
    found.close()
    assert CLOSED == [True]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_python_ignores_stops_any_executor_before_its_next_task(study_with):
    done = []

    class Deaf:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work(task):
        done.append(task)
        deaf = Deaf()
        del deaf
        return 1

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with execute.stoppable(), pytest.raises(KeyboardInterrupt):
            list(work_through(study_with(three_lines), work, [1, 2, 3], float, cost=float))
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [1]


def test_an_attempt_pickles_with_its_work():
    again = pickle.loads(pickle.dumps(Attempt(step, 1)))  # noqa: S301  its own bytes
    assert again == Attempt(step, 1)
    assert isinstance(again(3), Failure)


def test_a_failure_says_plainly_what_was_meant_for_the_user():
    def of(error):
        return Failure.of(error).message

    assert of(ValueError("a sentence")) == "a sentence"
    assert of(FileNotFoundError("x: gone")) == "x: gone"
    assert of(KeyError("x")) == "KeyError: 'x'"


def test_executors_answer_how_many_run_at_once():
    assert slots(serial, 9, {}) == slots(three_lines, 9, {}) == 1
    assert slots(processes, 9, {"workers": 4, "threads": 2}) == 4
    assert slots(processes, 3, {"workers": 4}) == 3
    assert slots(processes, 0, {}) == 1
    assert slots(runs_at_once(lambda tasks: 7)(functools.partial(three_lines)), 9, {}) == 7
    marked = functools.partial(three_lines)
    marked.slots = 5
    assert slots(marked, 9, {}) == 5
    marked.slot = 5
    del marked.slots
    with pytest.raises(ValueError, match=words("executor partial slot slots")):
        slots(marked, 9, {})
    marked.slots = "many"
    with pytest.raises(ValueError, match=words("executor partial slots many 1")):
        slots(marked, 9, {})


@pytest.mark.long
@pytest.mark.parametrize("executor", ["own.mine", "own.told"])
def test_a_study_with_three_lines_loses_one_method_and_keeps_the_rest(tmp_path, executor):
    methods = [RANDOM, MINE, {"name": "broken", "method": "own.fails"}]
    write_study(tmp_path, OWN, attribution_methods=methods, metrics=["morf"], executor=executor)
    found = efface(tmp_path, "check", "study.yml")
    assert found.code == 0
    assert "with 1 at once" in found.out
    found = efface(tmp_path, "all", "study.yml")
    assert found.code != 0
    assert "broken, test: RuntimeError: boom" in found.out + found.err
    assert "extracted 2 of 3 sets of maps" in found.out
    assert (tmp_path / "run" / "report" / "report.html").exists()
    assert "extract: 2 of 3 done, 1 failed, in " in found.err


@pytest.mark.parametrize(
    ("executor", "why"),
    [
        ("own.swapped", "executor: own.swapped yielded a tuple; expected a pair (task, outcome)"),
        ("own.crossed", "executor: own.crossed yielded the outcome of one task with another task"),
    ],
)
def test_check_names_an_executor_that_breaks_its_contract(tmp_path, executor, why):
    write_study(tmp_path, OWN, attribution_methods=[RANDOM, MINE], metrics=["morf"], executor=executor)
    found = efface(tmp_path, "check", "study.yml")
    assert found.code != 0
    assert why in found.err
    assert "Traceback" not in found.err


def test_check_estimates_for_as_many_as_the_executor_says(tmp_path):
    lanes = {"call": "own.wide", "kwargs": {"lanes": 2}}
    for executor, many in (("own.mine", 1), ("own.wide", 3), (lanes, 2)):
        write_study(tmp_path, OWN, attribution_methods=[RANDOM, MINE], metrics=["morf"], executor=executor)
        assert f"with {many} at once" in efface(tmp_path, "check", "study.yml", "device=cpu").out
