"""The display of a stage: on a terminal, in a log, with whatever tasks print, and the time that it tells."""

import contextlib
import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from efface.execute import advance
from efface.execute.lines import Lines
from efface.execute.task_status import Seen, TaskStatus, working_on
from efface.stages.run import display as module
from efface.stages.run.display import Display, display
from efface.stages.run.live_lines import Totals, total_line, worker_line, worker_lines
from efface.stages.run.speed import Speed, roughly
from efface.stages.run.terminal import block

COLUMNS, ROWS = 100, 12


class Screen:
    """What a terminal shows after some output: letters, ends of lines, up, and erase to the end."""

    def __init__(self, columns=COLUMNS):
        self.lines, self.row, self.column, self.columns = [""], 0, 0, columns

    def feed(self, text):
        for letters, up, command in re.findall(r"\x1b\[(\d*)(A)|(\x1b\[J|.)", text, re.DOTALL):
            if up:
                self.row -= int(letters)
            elif command == "\x1b[J":
                self.lines = [*self.lines[: self.row], self.lines[self.row][: self.column]]
            elif command == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif command == "\r":
                self.column = 0
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + command + line[self.column + 1 :]
                self.column += 1
                assert self.column <= self.columns, "a line that wraps would spoil the block"
        return self

    @property
    def shown(self):
        return [line.rstrip() for line in self.lines]


@pytest.fixture
def terminal(monkeypatch):
    """A function that puts stdout and stderr on a pseudo-terminal; it gives that, and a function with its output."""
    monkeypatch.setenv("TERM", "xterm")
    end, place = os.openpty()
    fcntl.ioctl(place, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    output = []

    def read():
        with contextlib.suppress(OSError):
            while part := os.read(end, 65536):
                output.append(part)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with os.fdopen(place, "w") as stream:

        def taken():
            monkeypatch.setattr(sys, "stdout", stream)
            monkeypatch.setattr(sys, "stderr", stream)
            return place, said

        def said(until=None):
            limit = time.monotonic() + 20
            while until is not None and not until(b"".join(output).decode()) and time.monotonic() < limit:
                time.sleep(0.02)
            time.sleep(0.1)
            return b"".join(output).decode()

        yield taken
        monkeypatch.undo()
    os.close(end)


def test_a_terminal_shows_one_block_and_then_one_line(tmp_path, terminal):
    _, said = terminal()
    with (
        display(20.0, "extract", "maps", tasks=2, folders=[tmp_path]) as live,
        working_on(tmp_path, "mine, test maps", 10.0, "maps"),
    ):
        screen = Screen().feed(said(lambda text: "mine, test maps" in text)).shown
        assert screen[0] == "", "the cursor's line is empty"
        assert screen[1].startswith("extract: 0 %, 0 done, 1 running, 1 left")
        assert screen[2].startswith("  mine, test maps: 0/10 maps, for ")
        assert len(screen) == 3
        live.finished(10.0, failed=False)
        live.finished(10.0, failed=True)
    screen = Screen().feed(said(lambda text: "1 of 2 done" in text)).shown
    assert re.fullmatch(r"extract: 1 of 2 done, 1 failed, in [\d.]+ s", screen[0])
    assert screen[1:] == [""], "nothing is left of the block"


@pytest.mark.long
def test_what_tasks_print_stands_above_the_block(tmp_path, terminal):
    place, said = terminal()
    with display(20.0, "extract", "maps", tasks=2, folders=[tmp_path]):
        print("one\ntwo")
        print("three ", end="")
        print("four", file=sys.stdout)
        os.write(place, b"from a library\n")  # beside Python's streams, as code in C and other processes write
        said(lambda text: "from a library" in text)
        time.sleep(2 * module.OFTEN)
        screen = Screen().feed(said()).shown
        assert screen[:4] == ["one", "two", "three four", "from a library"]
        assert screen[-1].startswith("extract: 0 %")
        print("without an end", end="")
    screen = Screen().feed(said(lambda text: "without" in text)).shown
    assert screen[4] == "without an end"
    assert not isinstance(sys.stdout, Lines)


def test_a_ctrl_c_leaves_a_clean_terminal(tmp_path, terminal):
    _, said = terminal()
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyboardInterrupt), display(20.0, "extract", "maps", tasks=2, folders=[tmp_path]):
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr) == before
    screen = Screen().feed(said(lambda text: "0 of 2 done" in text)).shown
    assert len(screen) == 2
    assert not [each for each in threading.enumerate() if each.name == "efface-display"]
    assert list(tmp_path.iterdir()) == []


WORKERS = """
import sys
from pathlib import Path
from efface.execute import processes
from efface.stages.run.display import display
from small import tasks
if __name__ == "__main__":
    with display(4.0, "measure", "passes", tasks=4, folders=[Path(sys.argv[1])]) as live:
        for _ in processes(tasks.prints, range(4), workers=2, progress=live.update):
            live.finished(1.0, failed=False)
"""


@pytest.mark.long
def test_what_workers_print_stands_above_the_block_in_whole_lines(tmp_path, terminal):
    place, said = terminal()
    (tmp_path / "workers.py").write_text(WORKERS)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    command = [sys.executable, str(tmp_path / "workers.py"), str(tmp_path)]
    subprocess.run(command, stdout=place, stderr=place, env=os.environ | {"PYTHONPATH": path}, check=True)
    screen = Screen().feed(said(lambda text: "4 of 4" in text)).shown
    assert sorted(screen[:8:2]) == [f"line {each}" for each in range(4)]
    assert [line.replace("line", "second") for line in screen[:8:2]] == screen[1:8:2]
    assert screen[8].startswith("measure: 4 of 4 done, in ")
    assert screen[9:] == [""]


@pytest.mark.long
@pytest.mark.parametrize("how", ["dumb", "no terminal"])
def test_elsewhere_there_are_plain_lines(tmp_path, terminal, monkeypatch, how):
    _, said = terminal()
    if how == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    else:
        monkeypatch.setattr(sys, "stderr", io.StringIO())
    with display(20.0, "extract", "maps", tasks=2, folders=[tmp_path]):
        time.sleep(1.5 * module.OFTEN)
    text = said(lambda text: "0 of 2" in text).replace("\r\n", "\n") if how == "dumb" else sys.stderr.getvalue()
    assert re.fullmatch(r"extract: 0 of 2 done, in [\d.]+ s\n", text)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_log_has_a_line_at_most_every_ten_seconds(tmp_path):
    clock, log = Clock(), io.StringIO()
    shown = module.Shown(Display(600.0, "measure", "passes", 6, [tmp_path], clock), log, 0.0)
    for _ in range(1200):
        clock.now += 0.5
        shown.refresh()
    lines = log.getvalue().splitlines()
    assert 10 <= len(lines) <= 60
    assert all(line.isprintable() and line.startswith("measure: 0 %, 0 done, 6 left") for line in lines)


@pytest.mark.parametrize("columns", [1, 2, 10, 30, 79])
def test_no_line_is_wider_than_the_terminal(columns):
    seen = Seen(
        TaskStatus("mittlere ä 図図図図図図図図図図図図図図, roar", "passes", 100.0, epoch=3, epochs=9), "w", 0.0, False
    )
    drawn = block([worker_line(seen, columns), "\x1b[2Jevil\nname", "short"], columns)
    for line in drawn.replace("\r", "").split("\n")[1:]:
        wide = sum(1 + (letter == "図") for letter in re.sub(r"\x1b\[\d*[AJ]", "", line))
        assert wide <= columns - 1
    assert "\x1b[2J" not in drawn
    if columns == 79:
        assert "epoch 3/9" in drawn, "the name is cut, not how far it is"


def test_a_new_size_needs_no_memory_of_the_old_one():
    screen = Screen(columns=200)
    for drawn in (block([f"line {each}" for each in range(9)], 100), block(["a", "b"], 20)):
        screen.feed(drawn.replace("\n", "\r\n"))  # as a terminal's driver does
    assert screen.shown == ["", "a", "b"]


def test_more_workers_than_fit_are_counted():
    workers = [Seen(TaskStatus(f"task {each}", "maps", 10.0), str(each), 0.0, False) for each in range(9)]
    assert len(worker_lines(workers, 9)) == 9
    lines = worker_lines(workers, 4)
    assert len(lines) == 4
    assert lines[-1].strip() == "and 6 more"
    assert worker_lines(workers, 0) == []


def test_at_a_constant_speed_the_time_left_is_exact():
    speed = Speed(0.0, memory=60.0, share=0.5)
    assert speed.seconds_for(10.0) is None
    for second in range(1, 1000):
        speed.add(float(second), 4.0)
        assert speed.each_second == pytest.approx(4.0)
        assert speed.seconds_for(4.0 * (1000 - second)) == pytest.approx(1000 - second)


def test_tasks_that_tell_nothing_until_their_end_do_not_let_the_time_left_jump():
    """Hundred tasks of ten minutes each, on one worker; the true time left is known."""
    speed, told = Speed(0.0, memory=60.0, share=0.5), []
    for second in range(10, 60_000, 10):
        speed.add(float(second), 1.0 if second % 600 == 0 else 0.0)
        if second > 20 * 600:
            told.append(speed.seconds_for(100.0 - second // 600) / (60_000 - second // 600 * 600))
    assert 0.85 < min(told) <= max(told) < 1.15


def test_what_was_there_is_no_work(tmp_path):
    """Half was there before, a task of 20 resumes at 10, and 1 is done in each second."""
    clock = Clock()
    live = Display(100.0, "measure", "passes", 5, [tmp_path], clock)
    live.already(50.0)
    totals, _ = live.look()
    assert (totals.done, totals.left_seconds) == (50.0, -1.0)
    status = TaskStatus("resumed", "passes", 20.0, done=10.0, found=10.0)
    live.statuses.look = lambda: [Seen(status, "worker", 0.0, False)]
    for second in range(1, 11):
        clock.now += 1.0
        status.done += 1.0
        status.images += 3.0
        totals, _ = live.look()
        assert totals.done == 60.0 + second
    assert totals.left_seconds == pytest.approx(100.0 - 70.0)
    assert totals.images_per_second == pytest.approx(3.0)


def test_a_task_counts_once_whether_it_was_ticked_or_reported(tmp_path):
    live = Display(30.0, "measure", "passes", 3, [tmp_path], Clock())
    live.update(10.0)
    live.finished(10.0, failed=False)
    assert live.look()[0].done == 10.0
    live.finished(10.0, failed=True)  # it ended before it told all its progress
    assert live.look()[0].done == 20.0
    with working_on(tmp_path, "third", 10.0, "passes"):
        advance(1.0)
        live.update(1.0)
        assert live.look()[0].running == 1
        assert 20.0 <= live.look()[0].done <= 21.0


def test_the_line_of_a_stage_says_what_is_done_running_left_how_fast_and_where():
    totals = Totals("measure", "passes", 1000.0, 999.0, 10, 5, 1, 3, 1234.5, 300.0, 60.0, "runs/x")
    assert total_line(totals) == (
        "measure: 99 %, 4 done, 1 failed, 3 running, 2 left, 1,234 images/s, about 5 min to go, runs/x"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.0, "5 s"), (44.0, "45 s"), (300.0, "5 min"), (11_120.0, "3 h 5 min"), (200_000.0, "2 days 7 h")],
)
def test_estimated_times_are_round(seconds, text):
    assert roughly(seconds) == text


def test_a_display_of_a_stage_that_ends_soon_shows_nothing(capsys):
    with display(3.0, "try", "methods", delay=3.0) as live:
        live.update()
    assert capsys.readouterr() == ("", "")
