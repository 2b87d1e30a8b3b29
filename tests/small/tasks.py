"""Tasks that other processes import."""

import os
import signal
import time
from pathlib import Path

import torch

from efface import execute
from efface.execute import task_status


def same(task):
    return task


def threads(task):
    return torch.get_num_threads(), str(Path.cwd())


def process(task):
    time.sleep(0.1)
    return os.getpid()


def fails_at_one(task):
    if task == 1:
        raise ZeroDivisionError("one")
    return task


def dies_at_one(task):
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def dies_once(task):
    """task: a folder and a number. The process that begins number 1 first is killed."""
    folder, number = task
    mark = Path(folder) / "died"
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def told(task):
    """task: a file, in which the process number is written; and how long the task takes, in seconds."""
    path, seconds = task
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        execute.advance(0.0)
        time.sleep(0.01)
    return "finished"


def signalled(task):
    """task: a file, and a signal that the process gets when it does the task for the first time; 0 for none."""
    path, number = task
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), number)
        time.sleep(30 if number else 0)
    return "finished"


def prints(task):
    print(f"line {task}\nsecond {task}")
    time.sleep(1)
    return task


def half_done(folder):
    """Reports half of its work, and ends when somebody has seen that."""
    with task_status.working_on(Path(folder), "half", 100.0, "passes"):
        execute.advance(20.0)
        time.sleep(task_status.EVERY)
        execute.advance(30.0)
        until = time.monotonic() + 60
        while not (Path(folder) / "seen").exists() and time.monotonic() < until:
            time.sleep(0.02)
    return (Path(folder) / "seen").exists()
