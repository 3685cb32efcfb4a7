"""`tea graph`: draw a workflow."""

from __future__ import annotations

import sys

import click

HELP = """Draw WORKFLOW: nodes, conditions, loops, fan-outs with their strategy, fan-ins. Runs and imports nothing.

\b
  tea graph workflow.yaml
  tea graph workflow.yaml --format svg -o workflow.svg
  tea graph workflow.yaml --format mermaid      for Markdown
  tea graph workflow.yaml --format dot | dot -Tpdf -o workflow.pdf

In the terminal, double lines begin branches, and what stands in an arrow is its condition.
"""


@click.command("graph", help=HELP, short_help="Draw a workflow: for the terminal, Mermaid, Graphviz, SVG.")
@click.argument("workflow", metavar="WORKFLOW")
@click.option(
    "--format",
    "form",
    type=click.Choice(["ascii", "mermaid", "dot", "svg"]),
    default="ascii",
    show_default=True,
    help="What to draw.",
)
@click.option("--output", "-o", metavar="FILE", help="Write it there instead of stdout.")
def command(workflow: str, form: str, output: str | None) -> int:
    text = draw(workflow, form, plain=output is None and not _draws_boxes())
    if output is None:
        click.echo(text, nl=False)
    else:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    return 0


def draw(path: str, form: str, plain: bool = False) -> str:
    """The drawing of a workflow file. Raises OSError, or WorkflowError with every mistake in it."""
    from tea.dialect import load_file
    from tea.draw import ascii_text, dot_text, mermaid_text, picture, svg_text

    drawn = picture(load_file(path))
    if form == "ascii":
        return ascii_text(drawn, plain)
    return {"mermaid": mermaid_text, "dot": dot_text, "svg": svg_text}[form](drawn)


def _draws_boxes() -> bool:
    """Whether stdout takes more than ASCII."""
    try:
        "┌║▼".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
