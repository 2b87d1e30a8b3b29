"""`efface schema`: the JSON schema of a study, by which an editor completes and checks keys."""

from collections.abc import Sequence

import click

from efface.commands.running import Progress, answered


@click.command()
def schema() -> int:
    """Print the JSON schema of a study, by which an editor completes and checks keys.

    Keep it beside your studies, as in `efface schema > study.schema.json`. An editor with the YAML language server
    then uses it, if the first line of a study is: # yaml-language-server: $schema=study.schema.json
    """

    def work(_progress: Progress) -> Sequence[str]:
        import json

        from efface.study.json_schema import json_schema

        click.echo(json.dumps(json_schema(), indent=1, ensure_ascii=False))
        return ()

    return answered(work, "schema")
