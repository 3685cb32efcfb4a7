"""What a person who looks after runs over hosts sees and does: status, the copy on a host, other input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.remote.conftest import Farm
from tests.support import tea_cmd


def verb(farm: Farm, *args: str | Path) -> Any:
    """`tea spool ARGS --json`, on the farm's spool."""
    done = tea_cmd("spool", *args, "--spool", farm.spool, "--json", cwd=farm.folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_other_input_reaches_the_host(farm: Farm) -> None:
    """Beside a shared state in each input, and beside one that is linked."""
    farm.host("one")
    code = "if state['item'] == 1:\n    raise ValueError('no')\nreturn {'v': state['item'] + state['more']}"
    shared: list[dict[str, Any]] = [{"more": 1}, {"more": 1, "big": "x" * 5000}]
    for state in shared:
        ran = farm.run(farm.workflow(code, 3), "--input", json.dumps(state))
        assert ran.state["outcomes"] == ["succeeded", "failed", "succeeded"]
        verb(farm, "retry", "1", "--with-input", '{"item": 30, "more": 5}')
        assert farm.resume().state["sum"] == 1 + 35 + 3
        assert verb(farm, "replay", "1")["verdict"] == "same"
    for job in farm.jobs():
        record = json.loads((job / "job.json").read_text())
        assert json.loads((job / "result.json").read_text())["input_sha256"] == record["input_sha256"]
