"""efface COMMAND ...: the program. The commands are in `efface.commands`."""

import faulthandler
import signal
import sys
from collections.abc import Sequence

import click

from efface.commands.program import program, say_wrong_line
from efface.commands.running import STOPPED
from efface.commands.stages import STAGES

__all__ = ["STAGES", "command", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0: done. 1: a task or the stage failed. 2: the study or the command is wrong. 130: stopped by Ctrl-C. 129,
    130 or 143: a second signal ended the process at once.

    SystemExit: the command line is wrong (2), or it asks for a shell's completions (0).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stderr is sys.__stderr__ and not faulthandler.is_enabled():
        faulthandler.enable()  # a crash of the interpreter shows the place in the code that caused it
    try:
        return int(program.main(words, prog_name="efface", standalone_mode=False) or 0)
    except click.UsageError as error:
        say_wrong_line(error)
        raise SystemExit(2) from None
    except (click.Abort, KeyboardInterrupt):  # before a command begins
        print(STOPPED, file=sys.stderr)
        return 130


def command(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit status.

    A Ctrl-C while Python ends leaves no trace of errors.
    """
    try:
        status = main(arguments)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a job in the background may ignore it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    command()
