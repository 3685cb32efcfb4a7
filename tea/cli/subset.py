"""`tea subset`: a part of a workflow as a workflow of its own."""

from __future__ import annotations

import click

HELP = """Print the smallest workflow that runs WORKFLOW from one node up to, and not including, another.

\b
  tea subset workflow.yaml --entry-point branch_c --exit-point merge > branch_c.yaml
  tea run branch_c.yaml --input '{"value": 3}'

This is what lies in a job directory as `workflow.yaml`.
"""


@click.command(help=HELP, short_help="The smallest workflow that runs a part of another one.")
@click.argument("workflow", metavar="WORKFLOW")
@click.option("--entry-point", metavar="NODE", required=True, help="The node to begin at.")
@click.option("--exit-point", metavar="NODE", required=True, help="The node to end before; `__end__` for the end.")
def subset(workflow: str, entry_point: str, exit_point: str) -> int:
    from tea.dialect import load_file

    loaded = load_file(workflow)
    click.echo(loaded.dump(loaded.subset(entry_point, exit_point)), nl=False)
    return 0
