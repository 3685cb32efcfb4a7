"""The settings of the strategy `remote`, and what is said while it is not built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tea
from tea import ParallelConfig, RemoteConfig, StateGraph


def test_a_planned_strategy_is_refused_before_anything_starts(tmp_path: Path) -> None:
    ran: list[int] = []
    graph = StateGraph({})
    graph.add_node("src")
    graph.add_node("a", run=lambda state: ran.append(1))
    graph.add_fanin_node("join")
    graph.set_entry_point("src")
    graph.add_parallel_edge("src", "a", "join")
    graph.add_edge("a", "join")
    graph.set_finish_point("join")
    graph.compile(parallel_config=ParallelConfig(strategy="remote", remote_config=RemoteConfig(["me@there"])))
    with pytest.raises(ValueError, match="'remote' is not in this version"):
        list(graph.invoke({}, {"spool": tmp_path / "spool"}))
    assert ran == []
    with pytest.raises(ValueError, match="'remote' is not in this version"):
        tea.get_executor("remote")
    with pytest.raises(ValueError, match="not in this version"):
        tea.RemoteExecutor().execute([], [], ParallelConfig())
    assert "remote" not in tea.available_strategies()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hosts": []}, "hosts.*at least one"),
        ({"hosts": "me@there"}, "hosts.*list"),
        ({"hosts": ["-oProxyCommand=x"]}, "can't begin with '-'"),
        ({"hosts": ["me@-x"]}, "can't begin with '-'"),
        ({"hosts": [{"host": "-x"}]}, "can't begin with '-'"),
        ({"hosts": ["a b"]}, "host name"),
        ({"hosts": [{"slots": 2}]}, "mapping with 'host'"),
        ({"hosts": [{"host": "a", "slots": 0}]}, "slots of a"),
        ({"hosts": [{"host": "a", "color": 1}]}, "has no color"),
        ({"hosts": ["a"], "launcher": "rsh"}, "launcher.*auto, parallel, ssh"),
        ({"hosts": ["a"], "transport": "ftp"}, "transport.*auto, openssh, sftp"),
        ({"hosts": ["a"], "env": ["A=1"]}, "env.*name of a variable"),
        ({"hosts": ["a"], "files": "lib"}, "files.*list"),
        ({"hosts": ["a"], "connect_timeout": 0}, "connect_timeout.*seconds"),
        ({"hosts": ["a"], "cleanup": "yes"}, "cleanup.*true or false"),
        ({"hosts": ["a"], "workdir": ""}, "workdir"),
        ({"hosts": ["a"], "basefile": ""}, "basefile"),
        ({"hosts": ["a"], "hots": 1}, "has no hots"),
        ({}, "hosts.*user@server"),
    ],
)
def test_remote_config_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RemoteConfig.from_mapping(settings)


def test_remote_config_takes_hosts_in_every_form() -> None:
    config = RemoteConfig(["me@there", {"host": "big", "slots": 8, "env": {"A": "1"}}], files=["lib/"], compress=True)
    assert [(host.host, host.slots) for host in config.hosts] == [("me@there", None), ("big", 8)]
    assert RemoteConfig.from_mapping(config.to_json()) == config
    assert ParallelConfig(strategy="remote", remote_config=config).to_json()["remote_config"]["files"] == ["lib/"]
