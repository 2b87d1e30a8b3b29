"""`efface completion SHELL`: the script that lets a shell complete the words of efface."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


HELP = """Print the script that lets a shell complete commands, study files, metrics and names.

Add one line to the start file of your shell:

\b
bash, in ~/.bashrc:                   eval "$(efface completion bash)"
zsh, in ~/.zshrc, after compinit:     eval "$(efface completion zsh)"
fish, in ~/.config/fish/config.fish:  efface completion fish | source
"""


@click.command(help=HELP)
@click.argument("shell", type=click.Choice(SHELLS), help="Your shell.")
def completion(shell: str) -> int:
    """Print the script of a shell."""
    made = get_completion_class(shell)
    assert made is not None  # click has these three
    program = click.get_current_context().find_root().command
    script = made(program, {}, "efface", "_EFFACE_COMPLETE").source()
    click.echo(script.replace('string split ","', 'string split -m 1 ","'))  # fish: a list of names has commas
    return 0
