"""`tea spool replay`: run a job again, apart from its record.

It stands here and not in `tools/` because it runs a user's nodes, and the process that does that never imports
`tools`: a module of that name may be the user's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from tea.cli.complete import job_names
from tea.cli.errors import EXIT_FAILED, say
from tea.cli.options import json_option, spool_option, spool_path

if TYPE_CHECKING:
    from tea.replay import Changes, Replayed

HELP = """Run a job again from its own directory, and say how the new result differs from the recorded one. The record
is not changed: what comes out goes to a folder of its own, by default under replays/ in the spool.

\b
  tea spool replay 7
  tea spool replay 7 --set item=3 --set 'options={"deep": true}'
  tea spool replay 7 --input changed.json --workflow fixed.yaml
  tea spool replay 7 --pdb
  tea spool replay 7 --strategy remote

FILE of --workflow is a changed copy of the job's workflow.yaml, or the whole workflow after a change. The job runs
here, where its run was started, without time limit and retries. With --strategy it runs as branches do: in a worker
process, or on a host of the workflow's settings, within its limits. What it prints goes to stderr.

Exits with 0 when the job succeeded, with 1 when it failed.
"""


@click.command("replay", help=HELP, short_help="Run a job again, apart from its record, and compare.")
@click.argument("job", metavar="JOB", shell_complete=job_names)
@click.option(
    "--set", "sets", metavar="KEY=VALUE", multiple=True, help="Another value in its input: JSON, else text."
)
@click.option(
    "--input", "inputs", metavar="JSON|FILE", multiple=True, help="Other values, as an object. --set comes after it."
)
@click.option("--workflow", metavar="FILE", help="Run it with this workflow.")
@click.option(
    "--pdb", "debug", is_flag=True, help="When it fails, look around at the failure with Python's debugger."
)
@click.option("--strategy", metavar="NAME", help="Run it by this strategy: process, remote, thread.")
@click.option("--output", "-o", metavar="DIR", help="The folder for the result: new, or empty.")
@spool_option
@json_option
def replay(
    job: str,
    sets: tuple[str, ...],
    inputs: tuple[str, ...],
    workflow: str | None,
    debug: bool,
    strategy: str | None,
    output: str | None,
    spool: str | None,
    as_json: bool,
) -> int:
    from spool.find import in_run, job_at
    from tea.cli.drive import stdout_for_results
    from tea.replay import replay as run_again

    if debug and strategy is not None:
        raise click.UsageError("--pdb looks at a failure in this process; leave --strategy out")
    files = job_at(spool_path(spool), job)
    changes = _changes(sets, inputs, workflow)
    out = stdout_for_results()
    replayed = run_again(files, changes, output, strategy)
    if debug and not replayed.success:
        _debug(replayed)
    name = in_run(files.path)
    text = (
        json.dumps(data(name, replayed), indent=2, ensure_ascii=False)
        if as_json
        else "\n".join(lines(name, replayed))
    )
    with open(out, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return 0 if replayed.success else EXIT_FAILED


def _changes(sets: tuple[str, ...], inputs: tuple[str, ...], workflow: str | None) -> Changes:
    from tea.given import load_input
    from tea.replay import Changes

    values = load_input(inputs)
    values.update(parsed(text) for text in sets)
    files = [os.path.abspath(text) for text in inputs if not text.lstrip().startswith("{")]
    return Changes(values, workflow, ", ".join(files) or None)


def parsed(text: str) -> tuple[str, Any]:
    """The key and the value of `KEY=VALUE`: JSON where it parses, else the text. Raises click.UsageError."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise click.UsageError(f"--set {text}: give KEY=VALUE, for instance --set limit=10")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _debug(replayed: Replayed) -> None:
    """The debugger at the place of the failure."""
    import pdb

    cause = replayed.cause
    if cause is None or cause.__traceback__ is None:
        say("there is no place of failure to look at")
        return
    say(f"{type(cause).__name__}: {cause}; `u` and `d` go through the frames, `q` ends")
    pdb.post_mortem(cause.__traceback__)


# -- what came of it ------------------------------------------------------------------------------------------------

VERDICTS = {
    "same": "it succeeded, with the same result as the record",
    "differs": "it succeeded, with another result than the record",
    "fixed": "fixed: it failed in the record, and succeeds now",
    "still fails": "it still fails, as in the record",
    "fails otherwise": "it fails with another error than in the record",
    "fails now": "it fails now, and succeeded in the record",
    "nothing to compare with": "the record has no result to compare with",
}


def lines(name: str, replayed: Replayed) -> Iterator[str]:
    """What came of it, for people."""
    compared, recorded = replayed.compared, replayed.recorded
    yield f"{name}: {VERDICTS[compared.verdict]}"
    if recorded and recorded.get("outcome") != "succeeded":
        yield f"  recorded  {_error(recorded)}"
    if not replayed.success:
        yield f"  now       {_error(replayed.result)}"
    elif compared.verdict == "nothing to compare with":
        yield "  now       succeeded"
    for key, (old, new) in compared.changed.items():
        yield f"  {key}: {_shown(old)} -> {_shown(new)}"
    state = replayed.result.get("state") or {}
    yield from (f"  {key}: only in the record" for key in compared.missing)
    yield from (f"  {key}: new, {_shown(state[key])}" for key in compared.added)
    yield f"in {_relative(replayed.files.path)}"


def _error(result: Mapping[str, Any]) -> str:
    outcome, kind = str(result.get("outcome")).replace("_", " "), result.get("error_type")
    where = f" in node '{result['node']}'" if result.get("node") else ""
    return f"{outcome}{where}: {f'{kind}: ' if kind else ''}{_clip(str(result.get('error')))}"


def _shown(value: Any) -> str:
    return _clip(json.dumps(value, ensure_ascii=False, default=repr), 100)


def _clip(text: str, width: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def data(name: str, replayed: Replayed) -> dict[str, Any]:
    """What came of it, for programs."""
    compared = replayed.compared
    members = ("outcome", "error", "error_type", "node", "attempt")
    return {
        "job": name,
        "success": replayed.success,
        "verdict": compared.verdict,
        "folder": replayed.files.path,
        "result": dict(replayed.result),
        "recorded": {key: replayed.recorded[key] for key in members if key in replayed.recorded} or None,
        "changed": {key: {"recorded": old, "now": new} for key, (old, new) in compared.changed.items()},
        "missing": list(compared.missing),
        "added": list(compared.added),
    }
