"""The command line: each command is a thin face over the rooms below, loaded when it is called.

`main` is the entry point of the `tea` program. Importing this package costs little more than importing click.
"""

from tea.cli.main import main

__all__ = ["main"]
