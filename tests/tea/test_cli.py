"""The root command: quick, lazy, and clear about mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from tea.cli import errors, main
from tea.cli.lazy import LazyGroup
from tea.cli.main import cli
from tests.support import ROOT, clean_env, tea_argv, tea_cmd

GOOD = """\
name: good
nodes:
  - name: one
    run: |
      return {"n": state.get("n", 0) + 1}
"""


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def test_the_version_is_that_of_the_package() -> None:
    done = tea_cmd("--version")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (done.stdout, done.stderr, done.returncode) == (f"tea {version}\n", "", 0)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"], ["spool", "--help"]])
def test_help_and_version_import_nothing_that_takes_time(arguments: list[str]) -> None:
    program = (
        f"import sys; from tea.cli import main; main({arguments!r});"
        "slow = ['jinja2', 'yaml', 'rich', 'watchdog', 'filelock', 'cloudpickle', 'paramiko', 'orjson', 'tools'];"
        "print('IMPORTED', [name for name in slow if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean_env(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "IMPORTED []"


def every_command(group: LazyGroup) -> list[tuple[str, str, click.Command]]:
    found = []
    for name, entry in group.entries.items():
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found.append((name, entry.help, command))
        if isinstance(command, LazyGroup):
            found += every_command(command)
    return found


def test_the_table_says_of_a_command_what_its_own_help_says() -> None:
    for name, help_line, command in every_command(cli):
        said = command.short_help or (command.help or "").splitlines()[0]
        assert help_line == said.strip(), name


def test_every_help_teaches_by_example() -> None:
    for name, _, command in every_command(cli):
        assert any(f"  tea {group}{name}" in (command.help or "") for group in ("", "spool ", "hosts ")), name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_an_unknown_command_is_wrong_input() -> None:
    done = tea_cmd("rum")
    assert done.returncode == 2
    assert "No such command" in done.stderr
    assert "rum" in done.stderr


def test_windows_is_told_about_wsl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "name", "nt")
    code = main(["--version"])
    monkeypatch.undo()
    assert code == 2
    assert capsys.readouterr().err == "tea runs on Linux and macOS; on Windows use WSL\n"


class TestErrors:
    def test_a_missing_file_is_one_line(self, tmp_path: Path) -> None:
        done = tea_cmd("run", "nothing.yaml", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr == "tea: nothing.yaml: No such file or directory\n"
        assert not (tmp_path / ".tea").exists()

    def test_a_removed_working_folder_is_named(self, tmp_path: Path, workflow: Path) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        code = f"import os; os.rmdir(os.getcwd()); os.execv({sys.executable!r}, {tea_argv('run', workflow)!r})"
        argv = [sys.executable, "-c", code]
        done = subprocess.run(argv, cwd=gone, env=clean_env(), capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert (
            done.stderr == "tea: the folder that tea was called in has been removed; call it from one that exists\n"
        )

    def test_mistakes_in_a_workflow_name_file_line_and_remedy(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.yaml"
        path.write_text(GOOD + "    gotoo: two\n")
        done = tea_cmd("run", "bad.yaml", cwd=tmp_path)
        assert done.returncode == 2
        assert "bad.yaml:6:5: " in done.stderr
        assert "did you mean 'goto'?" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / ".tea").exists()

    def test_a_traceback_is_there_for_who_asks(self, tmp_path: Path) -> None:
        done = tea_cmd("run", "nothing.yaml", cwd=tmp_path, env={"TEA_DEBUG": "1"})
        assert "Traceback" in done.stderr

    def test_a_bug_is_one_message_too(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken(*_: Any, **__: Any) -> int:
            raise RuntimeError("oops")

        monkeypatch.setattr(cli, "main", broken)
        assert main([]) == 1
        assert "tea: internal error: RuntimeError: oops\n" in capsys.readouterr().err

    @pytest.mark.parametrize("value", ["", "0"])
    def test_debugging_is_off(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("TEA_DEBUG", value)
        assert not errors.debugging()

    def test_no_spool_says_what_to_do(self, tmp_path: Path) -> None:
        done = tea_cmd("spool", "status", cwd=tmp_path)
        assert done.returncode == 2
        assert "no spool here" in done.stderr
        assert "--spool DIR" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(workflow: Path) -> None:
    state = json.dumps({"text": "x" * 1_000_000})
    argv = [*tea_argv("run", workflow, "--input", "-", "--no-spool"), "--progress", "none"]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env()
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    process.stdin.write(state.encode())
    process.stdin.close()
    assert (process.stderr.read(), process.wait(240)) == (b"", 0)
    process.stderr.close()


def test_a_listing_may_be_cut_short(tmp_path: Path) -> None:
    argv = tea_argv("validate", *(f"missing-{n}.yaml" for n in range(4000)))
    process = subprocess.Popen(
        argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), text=True
    )
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(240)) == ("", 0)
    process.stderr.close()


class TestValidate:
    def test_all_mistakes_of_all_files(self, tmp_path: Path, workflow: Path) -> None:
        bad = tmp_path / "bad.yaml"
        bad.write_text(GOOD.replace("run:", "runn:") + "edges:\n  - {from: one, to: two}\n")
        done = tea_cmd("validate", "good.yaml", "bad.yaml", "missing.yaml", cwd=tmp_path)
        assert done.returncode == 2
        assert "good.yaml: ok" in done.stdout
        assert "did you mean 'run'?" in done.stdout
        assert "there is no node 'two'" in done.stdout
        assert "missing.yaml: can't be read" in done.stdout
        assert done.stderr.startswith("tea: 3 errors")

    def test_json(self, workflow: Path) -> None:
        done = tea_cmd("validate", workflow, "--json")
        assert done.returncode == 0
        assert json.loads(done.stdout) == {"ok": True, "files": [{"file": str(workflow), "ok": True, "problems": []}]}

    def test_an_action_that_nobody_registers(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_text("nodes:\n  - {name: one, uses: fly}\n")
        done = tea_cmd("validate", path, "--json")
        assert done.returncode == 2
        (problem,) = json.loads(done.stdout)["files"][0]["problems"]
        assert problem["message"] == "there is no action 'fly'"
        assert problem["line"] == 2

    def test_modules_beside_the_workflow_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "beside.py").write_text("def register_actions(registry, engine):\n    registry['fly'] = print\n")
        path = tmp_path / "a.yaml"
        path.write_text("imports: [{package: beside, namespace: x}]\nnodes:\n  - {name: one, uses: x.fly}\n")
        assert tea_cmd("validate", path, cwd="/").returncode == 0


class TestFunctionsThatUsesNames:
    """`uses: module:function` is looked for before anything starts, and modules are not imported for that."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        code = (
            "open('imported', 'w').close()\ndef shout(text):\n    return text.upper()\nif True:\n    loud = shout\n"
        )
        (tmp_path / "tools.py").write_text(code)
        return tmp_path

    def workflow(self, folder: Path, uses: str, more: str = "") -> Path:
        path = folder / "w.yaml"
        path.write_text(f"nodes:\n  - name: one\n    uses: '{uses}'\n    with: {{text: a}}\n    output: x\n{more}")
        return path

    @pytest.mark.parametrize("function", ["shout", "loud"])
    def test_one_beside_the_workflow_is_found_and_not_imported(self, folder: Path, function: str) -> None:
        path = self.workflow(folder, f"tools:{function}")
        assert tea_cmd("validate", path, cwd=folder).returncode == 0
        assert not (folder / "imported").exists()
        assert json.loads(tea_cmd("run", path, "--no-spool", cwd=folder).stdout)["x"] == "A"

    @pytest.mark.parametrize(
        ("uses", "says"),
        [
            ("tols:shout", "there is no module 'tols' here (did you mean 'tools'?)"),
            ("tools:shoud", "'tools' has no 'shoud' (did you mean 'shout'?)"),
            ("os.paths:join", "there is no module 'os.paths' here"),
            ("math:sqr", "'math' has no 'sqr' (did you mean 'sqrt'?)"),
            ("tools:x.", "'tools' has no 'x.'"),
            ("tools:", "write module:function"),
        ],
    )
    @pytest.mark.parametrize("verb", [("validate",), ("run",), ("run", "--dry-run"), ("run", "--strategy", "remote")])
    def test_one_that_is_not_there(self, folder: Path, verb: tuple[str, ...], uses: str, says: str) -> None:
        done = tea_cmd(*verb, self.workflow(folder, uses), cwd=folder)
        assert done.returncode == 2
        assert f"w.yaml:3:11: uses {uses!r}: {says}" in done.stdout + done.stderr
        assert not (folder / ".tea").exists()

    def test_a_module_that_cannot_be_imported(self, folder: Path) -> None:
        (folder / "broken.py").write_text("def f(:\n")
        done = tea_cmd("validate", self.workflow(folder, "broken:g"), cwd=folder)
        assert done.returncode == 2
        assert "w.yaml:3:11: uses 'broken:g': can't import 'broken': SyntaxError: " in done.stdout

    def test_every_place_that_may_name_one(self, folder: Path) -> None:
        (folder / "w.yaml").write_text(
            "nodes:\n"
            "  - name: steps\n    steps:\n      - uses: tools:one\n"
            "  - name: loop\n    type: while_loop\n    condition: 'False'\n    max_iterations: 1\n"
            "    body:\n      - uses: tools:two\n"
            "  - name: each\n    type: dynamic_parallel\n    items: '{{ state.x }}'\n    fan_in: all\n"
            "    action: {uses: 'tools:three'}\n"
            "  - {name: all, fan_in: true}\n"
            "  - name: sub\n    subgraph:\n      nodes: [{name: in, uses: 'tools:four'}]\n"
        )
        done = tea_cmd("validate", "w.yaml", cwd=folder)
        assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
            "w.yaml:4:15",
            "w.yaml:10:15",
            "w.yaml:15:20",
            "w.yaml:19:32",
        ]

    def test_files_of_two_folders_with_modules_of_one_name(self, folder: Path) -> None:
        other = folder / "other"
        other.mkdir()
        (other / "tools.py").write_text("def whisper(text):\n    return text.lower()\n")
        wrong, right = self.workflow(folder, "tools:whisper"), self.workflow(other, "tools:whisper")
        done = tea_cmd("validate", wrong, right, cwd=folder)
        assert f"{right}: ok" in done.stdout
        assert f"{wrong}: ok" not in done.stdout

    FAN_OUT = (
        "  - {name: each, uses: 'only_there:f', strategy: {parallel_each: '{{ state.x }}'}, fan_in: all}\n"
        "  - {name: all, fan_in: true}\n"
    )

    def test_a_module_of_a_branch_may_be_on_its_host_only(self, folder: Path) -> None:
        path = self.workflow(folder, "tools:shout", self.FAN_OUT)
        done = tea_cmd("validate", path)
        assert done.returncode == 2
        assert "there is no module 'only_there' here" in done.stdout
        given = ("--input", '{"x": [1]}')
        assert tea_cmd("run", path, "--dry-run", *given).returncode == 2
        assert tea_cmd("run", path, "--dry-run", *given, "--strategy", "workers").returncode == 0
        path.write_text(path.read_text() + "settings: {parallel: {strategy: workers}}\n")
        assert tea_cmd("validate", path).returncode == 0
        self.workflow(folder, "only_there:f", self.FAN_OUT + "settings: {parallel: {strategy: workers}}\n")
        assert "w.yaml:3:11: " in tea_cmd("validate", path).stdout


class TestSubset:
    YAML = GOOD + "  - {name: two, run: 'return {}'}\n  - {name: three, run: 'return {}'}\n"

    def test_is_a_workflow(self, tmp_path: Path) -> None:
        (tmp_path / "w.yaml").write_text(self.YAML)
        done = tea_cmd("subset", "w.yaml", "--entry-point", "one", "--exit-point", "three", cwd=tmp_path)
        assert done.returncode == 0
        assert "name: two" in done.stdout
        assert "name: three" not in done.stdout
        (tmp_path / "part.yaml").write_text(done.stdout)
        assert json.loads(tea_cmd("run", tmp_path / "part.yaml", "--no-spool").stdout) == {"n": 1}

    def test_a_node_that_does_not_exist(self, tmp_path: Path) -> None:
        (tmp_path / "w.yaml").write_text(self.YAML)
        done = tea_cmd("subset", "w.yaml", "--entry-point", "on", "--exit-point", "three", cwd=tmp_path)
        assert done.returncode == 2
        assert "there is no node 'on'" in done.stderr
        assert "did you mean 'one'?" in done.stderr
