"""What a process that works for a run keeps: the run itself, and the traces of what failed."""

import time

from efface.execute import Failure
from efface.stages.run.run import Run
from efface.study.study import Study

_RUNS: dict[str, Run] = {}


def current_run(study: Study) -> Run:
    """This process's run of the study: data and network are loaded once, whatever the number of tasks."""
    text = study.model_dump_json()
    if text not in _RUNS:
        _RUNS.clear()
        _RUNS[text] = Run(study)
    return _RUNS[text]


def keep_trace(run: Run, what: str, failure: Failure) -> None:
    """The whole trace goes into a file, for whoever wrote the code that failed."""
    with (run.folder / "failures.log").open("a") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {what}\n{failure.trace}\n")
