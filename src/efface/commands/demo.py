"""`efface demo`: the whole of efface on scikit-learn's digits, from the study that the package holds."""

from collections.abc import Sequence
from pathlib import Path

import click

from efface.commands.running import Asked, Progress, add_current_folder, answered, worked
from efface.commands.stages import overrides_argument

STUDY = Path(__file__).with_name("digits.yml")
"""The study of the demo, the same text as configs/digits.yml of the repository."""


@click.command(params=[overrides_argument()])
def demo(overrides: Sequence[str]) -> int:
    """Run everything on real digits, in a few minutes, and say where the page is.

    It needs no other file and no network. The results are written to runs/digits in the current folder, or to the
    folder of out=... After a kill, the same command goes on where it was.
    """
    add_current_folder()
    asked = Asked("all", (STUDY,), tuple(overrides))

    def work(progress: Progress) -> Sequence[str]:
        failures = worked(asked, progress)
        if not failures and progress.out is not None:
            out = progress.out
            click.echo(f"The page: {out / 'report' / 'report.html'}. Open it in a browser.")
            click.echo(f"The study: {out / 'study.yml'}. What is done: efface status {out}. Your own: efface new -h.")
        return failures

    return answered(work, "demo", (STUDY,))
