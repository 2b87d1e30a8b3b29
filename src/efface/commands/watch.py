"""`efface watch`: what another command is doing, from a second terminal."""

from collections.abc import Sequence
from pathlib import Path

import click

from efface.commands.running import Progress, add_current_folder, answered
from efface.commands.stages import overrides_argument, study_argument


def _watch(study: Path, overrides: Sequence[str], every: float, once: bool) -> int:  # noqa: FBT001  click's own
    def work(_progress: Progress) -> Sequence[str]:
        from efface.stages import watch as stage

        folder = study
        if not study.is_dir():
            from efface.study.study import read

            add_current_folder()
            folder = read(study, overrides).out
        stage.watch(folder, every=every, once=once)
        return ()

    return answered(work, "watch", (study,))


_EVERY = click.Option(
    ["--every"],
    type=click.FloatRange(0.0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two looks.",
)
watch = click.Command(
    "watch",
    params=[
        study_argument("A YAML file, such as configs/digits.yml, or the folder of a run."),
        overrides_argument(),
        _EVERY,
        click.Option(["--once"], is_flag=True, help="Look once, and end."),
    ],
    callback=_watch,
    help="Say what is done, at work and left, until nothing is left.\n\nIt reads files alone, so it may run beside the "
    "command that works, also on another machine that sees the folder. A Ctrl-C ends it, and changes nothing.",
)
