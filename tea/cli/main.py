"""The root command `tea`, the table of its commands, and what becomes of errors.

Nothing is imported here that a command does not need: `tea --version` is a matter of milliseconds.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence

import click

from tea.cli.errors import EXIT_INPUT, exit_code_of, interrupted, quiet_stdout
from tea.cli.lazy import Entry, LazyGroup, ReaderGoneError
from tea.version import __version__

SPOOL_COMMANDS = {
    "status": Entry("tools.status:command", "How far a run is, who works on it, what failed first."),
    "list": Entry("tools.list:command", "The jobs of a run, by state."),
    "show": Entry("tools.show:command", "One job: input, attempts, result, output."),
    "logs": Entry("tools.logs:command", "What a job printed, also while it runs."),
    "explain": Entry("tools.explain:command", "Why a job waits, runs, failed or was lost, and what to do."),
    "replay": Entry("tea.cli.replay:replay", "Run a job again, apart from its record, and compare."),
    "retry": Entry("tools.retry:command", "Send failed jobs back; `tea resume` then runs them."),
    "cancel": Entry("tools.cancel:command", "End a run, or some of its jobs."),
    "pause": Entry("tools.pause:command", "Start no further jobs of a run; what runs ends."),
    "unpause": Entry("tools.unpause:command", "Let a run go on that was paused."),
    "pack": Entry("tools.pack:command", "Runs that have ended, each as one compressed file."),
    "unpack": Entry("tools.unpack:command", "The folder of a run that was packed."),
    "gc": Entry("tools.gc:command", "Remove old runs and what dead workers left."),
    "report": Entry("tools.report:command", "One HTML page about a run: timeline, failures, all jobs."),
    "doctor": Entry("tools.doctor:command", "What is wrong with a spool or its folder, and how to mend it."),
}

spool = LazyGroup(
    name="spool",
    entries=SPOOL_COMMANDS,
    help="""Look at the job directories of a run, and act on them.

    Where RUN may be given it is a name, a part of one, or a path; without it the newest run is meant. JOB is a path,
    RUN/FANOUT/JOB, or any unambiguous tail of it.

    \b
      tea spool status
      tea spool list --state failed
      tea spool show 0007
    """,
)

HOSTS_COMMANDS = {
    "check": Entry("tools.hosts_check:command", "Whether jobs could run on hosts, and what to do where not."),
    "clean": Entry("tools.hosts_clean:command", "Remove what runs have left on hosts."),
}

hosts = LazyGroup(
    name="hosts",
    entries=HOSTS_COMMANDS,
    help="""Look after the hosts of the strategy `remote`, before and after runs.

    \b
      tea hosts check workflow.yaml
      tea hosts check user@server1
      tea hosts clean workflow.yaml
    """,
)

COMMANDS = {
    "run": Entry("tea.cli.run:run", "Run a workflow; its final state goes to stdout."),
    "resume": Entry("tea.cli.resume:resume", "Go on with a run that was stopped, killed or has failed branches."),
    "worker": Entry("tea.cli.worker:worker", "Run jobs of a spool, beside those that run already."),
    "validate": Entry("tea.cli.validate:validate", "Name every mistake in workflow files, and run nothing."),
    "subset": Entry("tea.cli.subset:subset", "The smallest workflow that runs a part of another one."),
    "graph": Entry("tools.graph:command", "Draw a workflow: for the terminal, Mermaid, Graphviz, SVG."),
    "bundle": Entry("tools.bundle:command", "Write tea as one file that any Python from 3.11 on runs."),
    "hosts": Entry("tea.cli.main:hosts", "Look after the hosts of the strategy `remote`, before and after runs."),
    "spool": Entry("tea.cli.main:spool", "Look at the job directories of a run, and act on them."),
}

cli = LazyGroup(
    name="tea",
    entries=COMMANDS,
    help="""Run workflows that fan out. Every branch becomes a directory that can be read, retried and replayed.

    \b
      tea validate workflow.yaml
      tea run workflow.yaml --input '{"n": 3}'
      tea spool status
      tea resume --retry-failed

    Exit codes: 0 done, 1 the workflow failed, 2 the input is wrong and nothing was started, 3 done but branches
    failed (with --fail-on-branch-errors), 130 interrupted. TEA_DEBUG=1 shows tracebacks of errors.

    Completion: eval "$(_TEA_COMPLETE=bash_source tea)" in bash; zsh_source and fish_source are there, too.
    """,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
cli = click.version_option(__version__, prog_name="tea", message="%(prog)s %(version)s")(cli)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code of the process."""
    if os.name != "posix":
        print("tea runs on Linux and macOS; on Windows use WSL", file=sys.stderr)
        return EXIT_INPUT
    if argv is None:
        atexit.register(gc.freeze)  # a process that ends need not tidy its memory, which takes long after many jobs
    try:
        code = cli.main(args=None if argv is None else list(argv), prog_name="tea", standalone_mode=False)
        if sys.stdout is not None:  # it was closed before we began: `tea ... >&-`
            sys.stdout.flush()
    except (ReaderGoneError, BrokenPipeError):  # `tea ... | head`
        return quiet_stdout()
    except (KeyboardInterrupt, click.Abort):
        return interrupted()
    except Exception as error:  # the last boundary: one message instead of a traceback
        return exit_code_of(error)
    return code if isinstance(code, int) else 0
