"""What an executor is given: the branches of one fan-out, each with its state, its name and what is allowed to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from executors.base import Flow, as_flows
from executors.policy import ParallelConfig
from executors.state import BranchStates, as_branch_states
from spool.attempts import Policy
from spool.layout import job_name


def policy_of(config: ParallelConfig) -> Policy:
    """The part of a configuration that stands in job.json."""
    retry = config.retry_policy
    types = None
    if retry is not None and retry.retry_on is not None:
        types = tuple(sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in retry.retry_on))
    return Policy(
        max_retries=retry.max_retries if retry else 0,
        base_delay=retry.base_delay if retry else 1.0,
        max_delay=retry.max_delay if retry else 60.0,
        backoff_multiplier=retry.backoff_multiplier if retry else 2.0,
        timeout_seconds=config.timeout_seconds,
        timeout_total=config.timeout_total,
        max_lost=config.max_lost,
        grace_seconds=config.grace_seconds,
        max_memory=config.max_memory,
        retry_on=types,
    )


class Branches:
    """The branches of one fan-out, by number. Raises ValueError when there is not one state for each flow."""

    def __init__(self, flows: Sequence[Any], states: Sequence[Any], config: ParallelConfig) -> None:
        if len(flows) != len(states):
            raise ValueError(f"{len(flows)} flows, but {len(states)} states")
        self.flows: list[Flow] = as_flows(flows)
        self.states: BranchStates = as_branch_states(states)
        self.config, self.common = config, policy_of(config)
        stems = {branch: job_name(0, 1, branch)[4:] for branch in {flow.branch for flow in self.flows}}
        digits = len(job_name(0, len(self.flows), "x")) - 2
        self.names = [f"{i:0{digits}d}{stems[flow.branch]}" for i, flow in enumerate(self.flows)]

    def __len__(self) -> int:
        return len(self.flows)

    def config_of(self, i: int) -> ParallelConfig:
        """The configuration of branch i."""
        return self.flows[i].config or self.config

    def policy(self, i: int) -> Policy:
        """What is allowed to the job of branch i."""
        config = self.flows[i].config
        return self.common if config is None else policy_of(config)

    def index(self, name: str) -> int | None:
        """The branch of a job's name; None for a name that is not one of ours."""
        number = name.partition("-")[0]
        if number.isdecimal() and int(number) < len(self) and self.names[int(number)] == name:
            return int(number)
        return None
