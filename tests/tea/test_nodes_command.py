"""Programs: how they are started, what is kept of their output, and that they can always be stopped."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from executors.cancel import CancellationToken
from tea.dialect import build, load_dict
from tea.graph import Graph
from tea.nodes import CommandFailed
from tea.nodes import command as commands
from tea.nodes.command import CommandCancelled, run_program
from tests.support import is_running, kill_all, wait_until


def run(command: Any, state: dict[str, Any], output: str | None = "out", **offered: Any) -> Any:
    spec = {"name": "n", "command": command, **({"output": output} if output else {})}
    function: Any = build(load_dict({"nodes": [spec]}), Graph).nodes["n"].run
    return function(state=state, **offered)


def test_a_word_is_never_split_and_no_shell_reads_it() -> None:
    hostile = "a b; echo $HOME '\" * `id`\n-n"
    result = run(["printf", "%s|", "{{ state.x }}", "{{ state.n }}", 2.5], {"x": hostile, "n": 3})
    assert result == {"out": {"exit_code": 0, "stdout": f"{hostile}|3|2.5|", "stderr": ""}}


def test_a_string_runs_in_a_shell() -> None:
    assert run("echo {{ state.x }} | tr a-z A-Z; echo err >&2", {"x": "hi"})["out"] == {
        "exit_code": 0,
        "stdout": "HI\n",
        "stderr": "err\n",
    }


@pytest.mark.parametrize("value", [None, ["a", "b"], {"a": 1}])
def test_a_word_that_is_no_word(value: Any) -> None:
    with pytest.raises(TypeError, match=r"node 'n': '\{\{ state\.x \}\}' gives \w+, but a word of a command is text"):
        run(["echo", "{{ state.x }}"], {"x": value})


def test_null_character() -> None:
    with pytest.raises(ValueError, match="null character"):
        run(["echo", "{{ state.x }}"], {"x": "a\0b"})


def test_failure_shows_command_code_and_last_lines() -> None:
    with pytest.raises(CommandFailed) as caught:
        run("seq 10 >&2; echo out; exit 3", {})
    error = caught.value
    assert str(error) == "command `seq 10 >&2; echo out; exit 3` ended with exit code 3: 6\n7\n8\n9\n10"
    assert (error.exit_code, error.stdout) == (3, "out\n")


def test_failure_can_be_pickled() -> None:
    import pickle

    with pytest.raises(CommandFailed) as caught:
        run(["false"], {})
    assert str(pickle.loads(pickle.dumps(caught.value))) == "command `false` ended with exit code 1"


def test_killed_program_and_missing_program() -> None:
    with pytest.raises(CommandFailed, match="was killed by SIGUSR1"):
        run("kill -USR1 $$", {})
    with pytest.raises(CommandFailed, match="ended with exit code 127") as caught:
        run(["no-such-program-here"], {})
    assert caught.value.exit_code == 127
    with pytest.raises(CommandFailed, match="exit code 126"):
        run(["/"], {})


def test_without_output_what_it_prints_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("echo out; echo err >&2", {}, output=None) == {}
    assert capsys.readouterr() == ("out\n", "err\n")


def test_both_outputs_are_drained_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MAX_OUTPUT", 100_000)
    result = run_program("head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2")
    assert result["stdout"].startswith("x" * 100_000 + "\n[tea: 2900000 bytes are left out here")
    assert len(result["stderr"]) < 101_000


def test_output_that_is_not_utf8_shows_where() -> None:
    assert run(["printf", "a\\377b"], {})["out"]["stdout"] == "a\ufffdb"


def test_no_input() -> None:
    assert run(["cat"], {})["out"]["stdout"] == ""


def test_cancelling_kills_the_whole_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "GRACE", 0.3)
    token = CancellationToken()
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 300 & echo $! $$ > {pids}.tmp; mv {pids}.tmp {pids}; wait; sleep 300"
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run(script, {}, cancel_token=token)
        except CommandFailed as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(pids.exists)
    token.cancel()
    thread.join(240)
    assert isinstance(errors[0], CommandCancelled)
    assert "was stopped: its branch was cancelled" in str(errors[0])
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not is_running(int(pid)))


def test_interrupt_kills_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def interrupted(self: Any, cancel_token: Any) -> bool:
        started.append(self.process.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(commands._Outputs, "follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_program(["sleep", "300"])
    assert not is_running(started[0])
    assert started[0] not in commands.RUNNING


def test_program_in_the_background_does_not_hold_the_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "LINGER", 0.2)
    pid = tmp_path / "pid"
    assert run_program(f"sleep 300 & echo $! > {pid}; echo done")["stdout"] == "done\n"
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_nor_does_one_that_prints_without_a_pause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "LINGER", 0.2)
    pid = tmp_path / "pid"
    loop = "n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); echo; sleep 0.01; done; echo late"
    said = run_program(f"({loop}) & echo $! > {pid}; echo done")["stdout"]
    kill_all([int(pid.read_text())])
    assert said.strip() == "done"


def test_the_last_words_of_a_program_are_read_however_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may say them and end between a look at its output and the next, and that may come after all patience."""
    monkeypatch.setattr(commands, "LINGER", -1)
    look, looks = commands._Outputs.read, []

    def too_early(self: Any, timeout: float) -> None:
        looks.append(timeout)
        if len(looks) > 1:
            look(self, timeout)
        else:
            self.process.wait(240)

    monkeypatch.setattr(commands._Outputs, "read", too_early)
    assert run_program(["echo", "done"])["stdout"] == "done\n"


def test_programs_inherit_the_descriptors_they_should(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        assert run_program(f"[ -e /proc/self/fd/{file.fileno()} ] && echo yes || echo no")["stdout"] == "no\n"
        commands.INHERIT_FDS.add(file.fileno())
        try:
            assert run_program(f"[ -e /proc/self/fd/{file.fileno()} ] && echo yes || echo no")["stdout"] == "yes\n"
        finally:
            commands.INHERIT_FDS.discard(file.fileno())


@pytest.mark.parametrize("own", [True, False])
def test_group_of_a_program(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "OWN_GROUP", own)
    group = int(run_program("cut -d' ' -f5 /proc/self/stat")["stdout"])
    assert (group == os.getpgrp()) is not own


def test_cancelling_a_program_that_shares_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "OWN_GROUP", False)
    token = CancellationToken()
    threading.Timer(0.2, token.cancel).start()
    with pytest.raises(CommandCancelled):
        run_program(["sleep", "300"], token)
