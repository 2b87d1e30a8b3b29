"""State of a worker process: its loaded run, and the log of failures."""

import time
from collections.abc import Iterable

from efface.execute import Failure
from efface.plug.in_python import for_maker
from efface.stages.run.run import Run
from efface.study.study import Study

_RUNS: dict[str, Run] = {}


def current_run(study: Study) -> Run:
    """Return this process's run of the study. Data and network are loaded once for all tasks."""
    text = study.model_dump_json()
    if text not in _RUNS:
        _RUNS.clear()
        _RUNS[text] = Run(study)
    return _RUNS[text]


def keep_failure(run: Run, what: str, failure: Failure, keys: Iterable[str] = ()) -> None:
    """Append the trace of a failure to failures.log, and keep its reason for the results that it leaves open.

    keys: of the results.
    """
    run.results.fail(keys, for_maker(failure.reason, run.study.model.call))
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "failures.log").open("a") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {what}\n{failure.trace}\n")
