"""`efface convert`: studies from configurations of the ROAR reference system."""

from collections.abc import Sequence
from pathlib import Path

import click

from efface.commands.running import Progress, add_current_folder, answered


@click.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="OLD.yml...",
    help="Configurations of the ROAR reference system. Files that hold parts of one run make one study.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("configs"),
    show_default=True,
    metavar="DIR",
    help="Folder of the studies.",
)
def convert(files: Sequence[Path], out: Path) -> int:
    """Turn configurations of the ROAR reference system into studies, key by key.

    Each study has a comment above each key: the old key that it comes from, and what differs. What has no counterpart
    is said. Nothing is overwritten.
    """
    add_current_folder()

    def work(_progress: Progress) -> Sequence[str]:
        from efface.stages import convert as stage

        stage.convert(files, out)
        return ()

    return answered(work, "convert")
