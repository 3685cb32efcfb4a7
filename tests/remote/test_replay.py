"""A job of any run, run again on a host of its workflow's settings."""

from __future__ import annotations

import json
from pathlib import Path

from tests.remote.conftest import Farm
from tests.support import tea_cmd

WHERE = "import os; print('at work'); return {'folder': os.getcwd(), 'value': 12 // state['item']}"


def test_on_a_host(farm: Farm) -> None:
    host = farm.host("alone")
    ran = farm.run(farm.workflow(WHERE, [0, 4]), "--strategy", "process")
    assert ran.code == 0, ran.err

    def replay(*arguments: str, code: int = 0) -> tuple[str, str]:
        words = ("spool", "replay", *arguments, "--strategy", "remote", "--spool", farm.spool)
        done = tea_cmd(*words, cwd=farm.folder, env=farm.env)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout, done.stderr

    out, err = replay("1", "--json")
    found = json.loads(out)
    assert (found["verdict"], list(found["changed"])) == ("differs", ["folder"])
    assert Path(found["result"]["state"]["folder"]).is_relative_to(host.workdir)
    assert "at work" in err
    assert "still fails, as in the record" in replay("0", code=1)[0]
    assert "fixed" in replay("0", "--set", "item=3")[0]
    host.stop()
    assert "WorkersFailedError" in replay("1", code=1)[0]
