"""What the command line makes of errors: one clear message on stderr, and an exit code.

The codes are promised: 0 done, 1 the workflow failed, 2 the input is wrong and nothing was started, 3 done but
branches failed, 130 interrupted.
"""

from __future__ import annotations

import os
import traceback

import click

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_BRANCHES = 3
EXIT_INTERRUPTED = 130


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    click.echo(f"tea: {text}", err=True)


def warn(text: str) -> None:
    """A warning, on stderr."""
    for line in text.splitlines():
        say(line if line.startswith("warning:") else f"warning: {line}")


def debugging() -> bool:
    """Whether tracebacks are wanted: TEA_DEBUG is set to something."""
    return os.environ.get("TEA_DEBUG", "") not in ("", "0")


def interrupted() -> int:
    """Ctrl-C where nothing has to be said about it."""
    say("interrupted")
    return EXIT_INTERRUPTED


def quiet_stdout() -> int:
    """The reader of stdout has gone: say nothing, also not when the interpreter closes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def exit_code_of(error: Exception) -> int:
    """Say what went wrong; the exit code for it."""
    from spool.errors import SpoolError

    if debugging():
        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, ValueError | SpoolError):
        for line in str(error).splitlines():
            say(line)
        return EXIT_INPUT
    if isinstance(error, OSError):
        say(_os_error(error))
        return EXIT_INPUT
    say(f"internal error: {type(error).__name__}: {error}")
    if not debugging():
        say("please report it, with what TEA_DEBUG=1 shows before this line")
    return EXIT_FAILED


def _os_error(error: OSError) -> str:
    """`file: what`, without the number."""
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return "the folder that tea was called in has been removed; call it from one that exists"
    if error.filename is None or error.strerror is None:
        return str(error) or type(error).__name__
    other = f" -> {error.filename2!s}" if error.filename2 is not None else ""
    return f"{error.filename!s}{other}: {error.strerror}"
