"""`efface verify`: published numbers, computed again."""

from collections.abc import Sequence
from pathlib import Path

import click

from efface.commands.running import Progress, add_current_folder, answered
from efface.commands.stages import as_json

LEADERBOARD = "leaderboard"
"""Word for the leaderboard of the repository."""


@click.command("verify", params=[as_json()])
@click.argument("folder", metavar="FOLDER", help="A folder of published studies, or `leaderboard`.")
@click.option("--rows", type=click.IntRange(min=1), default=20, show_default=True, help="How many numbers to compute.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed that chooses them.")
def verify(folder: str, rows: int, seed: int, as_json: bool) -> int:  # noqa: FBT001  click passes it by its name
    """Compute a random sample of published numbers again, and compare them.

    A number of a network that is not trained again must agree within 0.0001. A number for which networks are trained
    must lie within the published interval. Studies whose data or weights are not here are left out and counted.
    """
    add_current_folder()

    def work(progress: Progress) -> Sequence[str]:
        from efface.stages import verify as stage

        path = Path(folder)
        if folder == LEADERBOARD and not path.is_dir() and (beside := Path("docs") / LEADERBOARD).is_dir():
            path = beside
        stage.verify(path, rows=rows, seed=seed, facts=progress.facts)
        return ()

    return answered(work, "verify", (), as_json=as_json)
