"""The public Python interface: the names, their parameters, and what they do."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest

import tea
from tea import (
    END,
    START,
    CallbackManager,
    CircuitBreakerConfig,
    MemoryCheckpointer,
    ParallelConfig,
    ParallelFlowResult,
    StateGraph,
    YAMLEngine,
)
from tests.docs import blocks
from tests.support import ROOT

PARAMETERS = {
    "StateGraph": "state_schema raise_exceptions max_workers log_level log_state_values parallel_config",
    "StateGraph.add_node": "self node run",
    "StateGraph.add_edge": "self in_node out_node",
    "StateGraph.add_conditional_edges": "self in_node func cond",
    "StateGraph.add_parallel_edge": "self in_node out_node fan_in_node config",
    "StateGraph.add_fanin_node": "self node run",
    "StateGraph.set_entry_point": "self init_state",
    "StateGraph.set_finish_point": "self final_state",
    "StateGraph.node": "self node_name",
    "StateGraph.edge": "self in_node out_node",
    "StateGraph.successors": "self node",
    "StateGraph.compile": "self interrupt_before interrupt_after checkpoint_dir checkpointer parallel_config "
    "parallel_callbacks max_active_threads circuit_breaker_scope",
    "StateGraph.invoke": "self input_state config checkpoint",
    "StateGraph.stream": "self input_state config checkpoint",
    "StateGraph.execute_scoped": "self initial_state entry_point exit_point",
    "StateGraph.reset_circuit": "self name",
    "StateGraph.get_circuit_states": "self",
    "YAMLEngine": "actions_registry",
    "YAMLEngine.load_from_file": "self path",
    "YAMLEngine.load_from_dict": "self config",
    "ParallelConfig": "timeout_seconds timeout_total fail_fast retry_policy circuit_breaker include_traceback "
    "strategy max_workers remote_config",
    "RetryPolicy": "max_retries base_delay max_delay backoff_multiplier retry_on",
    "CircuitBreakerConfig": "failure_threshold reset_timeout half_open_max_calls",
    "ParallelFlowResult": "branch success state error error_type traceback timeout timing_ms retry_count "
    "circuit_state attempt_errors exit_code job host outcome",
    "RemoteConfig": "hosts basefile files workdir cleanup launcher transport env connect_timeout compress",
    "ThreadExecutor": "max_workers context",
    "ProcessExecutor": "max_workers context",
    "RemoteExecutor": "max_workers context",
    "get_executor": "strategy max_workers context",
    "register_executor": "strategy factory",
    "available_strategies": "",
    "CallbackManager": "callbacks timeout error_policy",
}
NAMES = [
    "StateGraph",
    "START",
    "END",
    "MemoryCheckpointer",
    "YAMLEngine",
    "ParallelConfig",
    "RetryPolicy",
    "CircuitBreakerConfig",
    "CircuitBreaker",
    "CircuitBreakerRegistry",
    "CircuitState",
    "CircuitOpenError",
    "RetryExhaustedError",
    "CancellationToken",
    "CallbackManager",
    "ParallelFlowCallback",
    "ParallelFlowContext",
    "ParallelFlowResult",
    "ParallelExecutor",
    "ThreadExecutor",
    "ProcessExecutor",
    "RemoteExecutor",
    "RemoteConfig",
    "PickleValidationError",
    "get_executor",
    "register_executor",
    "available_strategies",
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_can_be_imported(name: str) -> None:
    assert name in tea.__all__
    assert name in dir(tea)
    assert getattr(tea, name) is not None


def test_every_public_name_exists() -> None:
    assert [name for name in tea.__all__ if not hasattr(tea, name)] == []
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        tea.nonsense  # noqa: B018


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    owner, _, method = name.partition(".")
    found = getattr(getattr(tea, owner), method) if method else getattr(tea, owner)
    wanted = PARAMETERS[name].split()
    assert list(inspect.signature(found).parameters)[: len(wanted)] == wanted


PYTHON_BLOCKS = [block for block in blocks(ROOT / "docs" / "python-api.md") if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=lambda block: f"line-{block.line}")
def test_the_examples_of_the_documentation_run(block: Any) -> None:
    exec(compile(block.in_place, str(block.path), "exec"), {"__name__": "example"})


# -- graphs ---------------------------------------------------------------------------------------------------------


def line(*names: str, **options: Any) -> StateGraph:
    """Nodes one after the other, each adding its name to `seen`."""
    graph = StateGraph({}, **options)
    for name in names:
        graph.add_node(name, run=lambda state, node: {"seen": [*state.get("seen", []), node]})
    graph.set_entry_point(names[0])
    for one, other in itertools.pairwise(names):
        graph.add_edge(one, other)
    graph.set_finish_point(names[-1])
    return graph


def forked(join: Any = None, **branches: Any) -> StateGraph:
    graph = StateGraph({})
    graph.add_node("src")
    graph.add_fanin_node("join", run=join or (lambda parallel_results: {"n": len(parallel_results)}))
    graph.set_entry_point("src")
    graph.set_finish_point("join")
    for name, run in branches.items():
        graph.add_node(name, run=run)
        graph.add_parallel_edge("src", name, "join")
        graph.add_edge(name, "join")
    return graph


def types(events: Any) -> list[str]:
    return [event["type"] for event in events]


def test_invoke_is_a_generator_whose_last_event_is_final() -> None:
    ran = []
    graph = StateGraph({})
    graph.add_node("a", run=lambda state: ran.append(1))
    graph.set_entry_point("a")
    graph.set_finish_point("a")
    events = graph.compile().invoke({"x": 1})
    assert inspect.isgenerator(events)
    assert ran == []
    assert list(events) == [{"type": "final", "state": {"x": 1}}]


def test_the_callers_state_stays_as_it_was() -> None:
    given = {"seen": []}
    list(line("a").compile().invoke(given))
    assert given == {"seen": []}


def test_node_functions_get_what_they_name() -> None:
    got: dict[str, Any] = {}

    def node(state: Any, config: Any, node: Any, graph: Any, parallel_results: Any) -> dict[str, Any]:
        got.update(state=dict(state), config=config, node=node, graph=graph, results=parallel_results)
        return {}

    graph = StateGraph({})
    graph.add_node("a", run=node)
    graph.set_entry_point("a")
    graph.set_finish_point("a")
    list(graph.compile().invoke({"x": 1}, config={"k": 2}))
    assert got == {"state": {"x": 1}, "config": {"k": 2}, "node": "a", "graph": graph, "results": None}


def test_stream_tells_of_nodes_and_branches() -> None:
    def bad(state: Any) -> None:
        raise OSError("no")

    graph = forked(good=lambda state: {"x": 1}, bad=bad).compile()
    events = list(graph.stream({}))
    assert sorted((e["type"], e.get("branch") or e.get("node") or "") for e in events) == [
        ("final", ""),
        ("parallel_error", "bad"),
        ("parallel_state", "good"),
        ("state", "join"),
    ]
    assert types(events)[-2:] == ["state", "final"]
    (error,) = [event for event in events if event["type"] == "parallel_error"]
    assert error["error"] == "no"


def test_errors_are_events() -> None:
    def bad(state: Any) -> None:
        raise ZeroDivisionError("by nothing")

    graph = StateGraph({})
    graph.add_node("bad", run=bad)
    graph.set_entry_point("bad")
    graph.set_finish_point("bad")
    *_, last = graph.compile().invoke({"x": 1})
    assert isinstance(last.pop("exception"), ZeroDivisionError)
    assert last == {
        "type": "error",
        "node": "bad",
        "error": "by nothing",
        "error_type": "ZeroDivisionError",
        "state": {"x": 1},
    }
    graph.raise_exceptions = True
    with pytest.raises(RuntimeError, match="Error in node 'bad': by nothing") as caught:
        list(graph.invoke({}))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_dead_end_is_an_error() -> None:
    graph = StateGraph({})
    graph.add_node("a")
    graph.set_entry_point("a")
    graph.add_conditional_edges("a", lambda state: "nowhere", {"somewhere": END})
    *_, last = graph.compile().invoke({})
    assert (last["type"], last["node"]) == ("error", "a")
    assert "No valid next node found from node 'a'" in last["error"]


def test_reading_a_graph() -> None:
    graph = line("a", "b")
    assert graph.node("a")["run"] is not None
    assert graph.edge("a", "b").target == "b"
    assert (graph.successors("a"), graph.successors(START)) == (["b"], ["a"])
    for call in (lambda: graph.node("c"), lambda: graph.edge("b", "a"), lambda: graph.successors("c")):
        with pytest.raises(KeyError):
            call()


def test_building_wrongly() -> None:
    graph = line("a", "bee")
    with pytest.raises(ValueError, match="already exists"):
        graph.add_node("a")
    with pytest.raises(ValueError, match="did you mean 'bee'"):
        graph.add_edge("a", "bees")
    graph.add_parallel_edge("a", "bee", "a")
    with pytest.raises(ValueError, match="not a fan-in node"):
        graph.compile()
    with pytest.raises(ValueError, match="interrupt at node 'c'"):
        line("a").compile(interrupt_before=["c"])
    branches = line("a", "c")
    branches.add_node("b")
    branches.add_fanin_node("join")
    branches.add_parallel_edge("a", "b", "join")
    branches.add_edge("b", "join")
    with pytest.raises(ValueError, match="'b', which is in a branch"):
        branches.compile(interrupt_after=["b"])


# -- interrupts -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "files"])
def keeping(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "memory":
        return {"checkpointer": MemoryCheckpointer()}
    return {"checkpoint_dir": str(tmp_path / "checkpoints")}


@pytest.mark.parametrize(("when", "before"), [("before", ["a"]), ("after", ["a", "b"])])
def test_stopping_and_going_on(keeping: dict[str, Any], when: str, before: list[str]) -> None:
    graph = line("a", "b", "c").compile(**{f"interrupt_{when}": ["b"]}, **keeping)
    *_, stop = graph.invoke({}, {"k": 1})
    assert (stop["type"], stop["node"], stop["when"]) == ("interrupt", "b", when)
    assert stop["state"]["seen"] == before
    *_, last = graph.invoke(None, checkpoint=stop["checkpoint_path"])
    assert last == {"type": "final", "state": {"seen": ["a", "b", "c"]}}
    *_, again = graph.resume_from_checkpoint(stop["checkpoint_path"], state_update={"seen": ["new"]})
    assert again["state"]["seen"] == (["new", "b", "c"] if when == "before" else ["new", "c"])


@pytest.mark.parametrize("when", ["before", "after"])
def test_stopping_at_a_fan_in(keeping: dict[str, Any], when: str) -> None:
    graph = forked(
        join=lambda state, parallel_results: {"got": [r["x"] for r in parallel_results], "by": state.get("by")},
        a=lambda state: {"x": {1, 2}},
        b=lambda state: {"x": 3},
    ).compile(**{f"interrupt_{when}": ["join"]}, **keeping)
    *_, stop = graph.invoke({})
    assert stop["node"] == "join"
    assert len(stop["state"]["parallel_results"]) == 2
    *_, last = graph.invoke({"by": "me"}, checkpoint=stop["checkpoint_path"])
    assert last["state"]["got"] == [{1, 2}, 3]
    assert last["state"]["by"] == "me" if when == "before" else True


def test_stopping_at_every_step(keeping: dict[str, Any]) -> None:
    graph = line("a", "b").compile(interrupt_before=["a", "b"], interrupt_after=["b"], **keeping)
    events = list(graph.invoke({}))
    stops = []
    while events[-1]["type"] == "interrupt":
        stops.append((events[-1]["node"], events[-1]["when"]))
        events = list(graph.invoke(None, checkpoint=events[-1]["checkpoint_path"]))
    assert stops == [("a", "before"), ("b", "before"), ("b", "after")]
    assert events[-1]["state"]["seen"] == ["a", "b"]


def test_going_on_from_nowhere() -> None:
    graph = line("a").compile(checkpointer=MemoryCheckpointer())
    with pytest.raises(ValueError, match="give its checkpoint"):
        list(graph.invoke())
    with pytest.raises(KeyError, match="no checkpoint 'x'"):
        graph.load_checkpoint("x")
    with pytest.raises(FileNotFoundError):
        list(line("a").compile().invoke(None, checkpoint="/no/such/file"))


def test_a_checkpoint_that_the_user_writes(tmp_path: Path) -> None:
    graph = line("a", "b").compile()
    graph.save_checkpoint(str(tmp_path / "c.json"), {"seen": ["x"]}, "b")
    *_, last = graph.invoke(None, checkpoint=str(tmp_path / "c.json"))
    assert last["state"]["seen"] == ["x", "b"]


# -- the rest -------------------------------------------------------------------------------------------------------


def test_execute_scoped_runs_up_to_the_exit() -> None:
    graph = line("a", "b", "c").compile()
    assert graph.execute_scoped({}, "a", "c") == {"seen": ["a", "b"]}
    assert graph.execute_scoped({"seen": []}, "b", END)["seen"] == ["b", "c"]
    with pytest.raises(ValueError, match=r"'d' does not exist"):
        graph.execute_scoped({}, "d", "c")


def test_execute_scoped_with_a_fan_out() -> None:
    graph = forked(a=lambda state: {"x": 1}, b=lambda state: {"x": 2}).compile()
    assert graph.execute_scoped({}, "src", END)["n"] == 2
    broken = StateGraph({})
    broken.add_node("src", run=lambda state: 1 / 0)
    broken.set_entry_point("src")
    broken.set_finish_point("src")
    with pytest.raises(RuntimeError, match="Error in node 'src'"):
        broken.compile().execute_scoped({}, "src", END)


def test_the_record_of_execute_scoped_says_how_it_ended(tmp_path: Path) -> None:
    graph = forked(a=lambda state: {"x": 1}, b=lambda state: {"x": 2}).compile()
    graph.execute_scoped({}, "src", END, {"spool": tmp_path / "good"})
    bad = forked(lambda parallel_results: 1 / 0, a=lambda state: {"x": 1}).compile()
    with pytest.raises(RuntimeError, match="division by zero"):
        bad.execute_scoped({}, "src", END, {"spool": tmp_path / "bad"})
    for name, outcome in (("good", "done"), ("bad", "failed")):
        (record,) = (tmp_path / name).glob("runs/*/run.json")
        assert json.loads(record.read_text())["outcome"] == outcome


def test_circuits_of_a_graph() -> None:
    def bad(state: Any) -> None:
        raise OSError

    graph = forked(bad=bad)
    graph.compile(
        parallel_config=ParallelConfig(circuit_breaker=CircuitBreakerConfig(failure_threshold=1, reset_timeout=3600))
    )
    list(graph.invoke({}))
    assert graph.get_circuit_states()["bad"]["state"] == "open"
    *_, last = graph.invoke({})
    assert last["state"]["parallel_results"][0].error_type == "CircuitOpenError"
    graph.reset_circuit("bad")
    assert graph.get_circuit_states()["bad"]["state"] == "closed"


def test_callbacks_may_be_given_as_a_manager() -> None:
    done: list[str] = []

    class Watch:
        def on_flow_complete(self, context: Any, result: Any) -> None:
            done.append(result.branch)

    for given in ([Watch()], CallbackManager([Watch()])):
        list(forked(a=lambda state: {}).compile(parallel_callbacks=given).invoke({}))
    assert done == ["a", "a"]


def test_max_active_threads_bounds_branches() -> None:
    import threading

    now, most, lock = [0], [0], threading.Lock()

    def branch(state: Any) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.01)
        with lock:
            now[0] -= 1

    graph = forked(**{f"b{i}": branch for i in range(8)}).compile(max_active_threads=2)
    *_, last = graph.invoke({})
    assert last["state"]["n"] == 8
    assert most[0] <= 2


def test_results_read_like_a_dict() -> None:
    result = ParallelFlowResult("a", True, {"x": 1, "error": "the state's own", "host": "state's"})
    assert (result["x"], result["branch"], result["success"], result["host"]) == (1, "a", True, "state's")
    assert (result.get("missing"), result.get("missing", 5), "x" in result, "missing" in result) == (
        None,
        5,
        True,
        False,
    )
    assert result["error"] is None
    with pytest.raises(KeyError):
        result["missing"]
    assert {"branch", "x"} <= set(result.keys())
    assert dict(result)["x"] == 1


def test_spool_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = forked(a=lambda state: {}).compile()
    list(graph.invoke({}, {"spool": tmp_path / "given"}))
    assert len(os.listdir(tmp_path / "given" / "runs")) == 1
    monkeypatch.setenv("TEA_SPOOL", str(tmp_path / "environment"))
    list(graph.invoke({}))
    assert len(os.listdir(tmp_path / "environment" / "runs")) == 1
    monkeypatch.delenv("TEA_SPOOL")
    list(graph.invoke({}))
    assert len(os.listdir(tmp_path / ".tea" / "spool" / "runs")) == 1


def test_a_run_without_a_fan_out_needs_no_spool(tmp_path: Path) -> None:
    list(line("a").compile().invoke({}))
    assert os.listdir(tmp_path) == []


def test_yaml_from_a_file(tmp_path: Path) -> None:
    text = """
    name: small
    nodes:
      - {name: a, run: "return {'x': state['x'] + 1}"}
    """
    path = tmp_path / "w.yaml"
    path.write_text(textwrap.dedent(text))
    graph = YAMLEngine().load_from_file(path)
    assert isinstance(graph, StateGraph)
    assert list(graph.invoke({"x": 1}))[-1]["state"] == {"x": 2}
