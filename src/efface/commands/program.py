"""The command `efface`: its words under headings, its help, and what it says of a wrong command line.

To add a command, write a function with click's decorators in a file of this folder, and list it in `COMMANDS`. A stage
needs only its line in `STAGES` of stages.py.
"""

import sys
from collections.abc import Iterator
from typing import Any

import click

from efface import __version__
from efface.commands.cite import cite
from efface.commands.completion import completion
from efface.commands.convert import convert
from efface.commands.demo import demo
from efface.commands.look import list_plug_ins, show_plug_in
from efface.commands.new import new
from efface.commands.schema import schema
from efface.commands.stages import STAGES, stage_command
from efface.commands.verify import verify
from efface.commands.watch import watch

COMMANDS: dict[str, tuple[str | click.Command, ...]] = {
    "Begin": (demo, new, convert),
    "Stages of a study": (
        "check",
        "train",
        "extract",
        "measure",
        "samples",
        "visualize",
        "report",
        "all",
        "status",
        watch,
    ),
    "Several studies": ("compare", "prune", verify),
    "Look up": (list_plug_ins, show_plug_in, schema, cite, completion),
}
"""The commands by the headings of the help: a word of `STAGES`, or a command. Other stages stand under the first."""


class Program(click.Group):
    """The command `efface`. A stage becomes a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the words in the order of the help."""
        return [word for words in _by_heading().values() for word in words]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command of a word."""
        return stage_command(cmd_name) if cmd_name in STAGES else _own().get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the first word. A word that is none is an error that names the nearest commands."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the words under their headings, each with its first sentence."""
        for heading, words in _by_heading().items():
            with formatter.section(heading):
                formatter.write_dl([(word, _first_sentence(self.get_command(ctx, word))) for word in words])


def _own() -> dict[str, click.Command]:
    """Return the commands that are no stages, by their words."""
    return {each.name: each for each in _commands() if isinstance(each, click.Command) and each.name}


def _commands() -> Iterator[str | click.Command]:
    for commands in COMMANDS.values():
        yield from commands


def _by_heading() -> dict[str, list[str]]:
    words = {
        heading: [each if isinstance(each, str) else str(each.name) for each in commands]
        for heading, commands in COMMANDS.items()
    }
    listed = [word for each in words.values() for word in each]
    words["Stages of a study"] += [word for word in STAGES if word not in listed]
    return words


def _first_sentence(command: click.Command | None) -> str:
    text = " ".join((command.help or "").split("\n\n")[0].split()) if command else ""
    return text.split(". ")[0].removesuffix(".")


@click.group(
    cls=Program,
    help="Does an attribution map tell the truth about an image classifier?",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="A stage runs the unfinished earlier stages first. After a kill, the same command goes on where it was. "
    "`efface COMMAND -h` says what a command takes.",
)
@click.version_option(__version__, "--version", message="efface %(version)s", help="Print the version.")
def program() -> None:
    """Run the command of the first word."""


def say_wrong_line(error: click.UsageError) -> None:
    """Print how the command is used, and in one line what is wrong with the command line."""
    context: Any = error.ctx
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(context.get_help(), file=sys.stderr)
        return
    command = context.command_path if context is not None else "efface"
    if context is not None:
        print(context.get_usage(), file=sys.stderr)
    text = " ".join(error.format_message().split()).removesuffix(".")
    end = "" if text.endswith(("?", ")")) else ";"
    print(f"{command}: {text[:1].lower()}{text[1:]}{end} {command} -h says what it takes", file=sys.stderr)
