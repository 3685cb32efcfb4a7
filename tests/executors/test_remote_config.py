"""The settings of the strategy `remote`."""

from __future__ import annotations

from typing import Any

import pytest

from tea import ParallelConfig, RemoteConfig


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
        ({"hosts": ["a"], "workdir": "/tmp/$(id)"}, "workdir.*letters, digits"),
        ({"hosts": [{"host": "a", "python": "python3; id"}]}, "python of a.*letters, digits"),
        ({"hosts": ["a", {"host": "a"}]}, "listed twice"),
        ({"hosts": ["a"], "host_keys": "no"}, "host_keys.*strict, accept-new"),
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "needs hosts"),
        ({"hosts": ["a"], "launcher": "parallel", "transport": "sftp"}, "needs ssh and rsync"),
        ({"hosts": ["a"], "env": ["NO_SUCH_VARIABLE_HERE"]}, "NO_SUCH_VARIABLE_HERE.*export"),
    ],
)
def test_what_cannot_be_done_is_refused(settings: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RemoteConfig.usable(settings)


def test_a_port_may_follow_the_host() -> None:
    one, two, three = RemoteConfig(["me@there:2222", "there", "::1"]).hosts
    assert (one.target, one.port) == ("me@there", 2222)
    assert (two.target, two.port) == ("there", None)
    assert (three.target, three.port) == ("::1", None)
