"""Every mistake in a workflow is told, at its place, with what to do about it."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tea.dialect import Workflow, WorkflowError, load_dict, load_text


def problems(text: str) -> list[str]:
    with pytest.raises(WorkflowError) as caught:
        load_text(dedent(text), "f")
    return [str(problem) for problem in caught.value.problems]


def node(text: str) -> list[str]:
    """Problems of a workflow with one node `a` that has these lines, a fan-in `m` beside it; the node's in line 2."""
    lines = "\n".join("    " + line for line in dedent(text).strip().splitlines())
    return problems(f"nodes:\n  - name: a\n{lines}\n  - {{name: m, fan_in: true}}\n")


def warnings(text: str) -> list[str]:
    return [str(problem) for problem in load_text(dedent(text), "f").problems]


def test_all_mistakes_of_a_file_at_once() -> None:
    found = problems(
        """
        nam: x
        settings:
          paralel: {strategy: thread}
          parallel: {max_workers: 0, retry: {max_retries: many}}
        nodes:
          - name: a
            run: |
              x = 1
              return {
            goto: bb
          - name: b
            run: x = 1
            uses: m:f
          - name: b
            script: 3
        edges:
          - {from: a, too: b}
        """
    )
    assert [line.split(": ")[0] for line in found] == [
        "f:2:1",
        "f:4:3",
        "f:5:27",
        "f:5:51",
        "f:10:14",
        "f:11:11",
        "f:14:5",
        "f:15:11",
        "f:16:13",
        "f:18:5",
        "f:18:5",
        "f:18:15",
    ]
    assert "unknown key 'nam' in a workflow (did you mean 'name'?)" in found[0]
    assert "unknown key 'paralel' in settings (did you mean 'parallel'?)" in found[1]
    assert "'max_workers' must be a whole number, 1 or more (or empty), not 0" in found[2]
    assert "there is no node 'bb' (did you mean 'b'?)" in found[5]
    assert "'uses' beside 'run'" in found[6]
    assert "node 'b' exists already (the first one is in line 12)" in found[7]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "type: dynamic_paralell\nitems: x",
            "unknown type of node 'dynamic_paralell' (did you mean 'dynamic_parallel'?)",
        ),
        ("type: dynamic_parallel\nsteps: [{run: x = 1}]", "'items' is missing in a dynamic_parallel node"),
        ("type: dynamic_parallel\nitems: '{{ state.x }}'", "one of action, steps, subgraph is missing"),
        ("type: dynamic_parallel\nitems: 3\naction: {run: x = 1}", "'items' must be a template that gives a list"),
        ("type: dynamic_parallel\nitems: []\naction: {run: x = 1}\nsteps: [{run: x = 1}]", "'steps' beside 'action'"),
        (
            "type: dynamic_parallel\nitems: []\naction: {run: x = 1}\nchunk_size: 0",
            "'chunk_size' must be a whole number, 1",
        ),
        ("type: dynamic_parallel\nitems: []\naction: {run: x = 1}\ninput: {}", "'input' needs 'subgraph'"),
        ("type: dynamic_parallel\nitems: []\naction: {}", "nothing to run"),
        ("type: dynamic_parallel\nitems: []\naction: {run: x = 1}\nfan_in: n", "there is no node 'n'"),
        ("type: dynamic_parallel\nitems: []\naction: {run: x = 1}\nfan_in: a", "has no 'fan_in: true'"),
        (
            "type: dynamic_parallel\nitems: []\naction: {run: x = 1}\nitem_var: a b",
            "'item_var' must be a name made of",
        ),
        (
            "type: dynamic_parallel\nitems: []\naction: {run: x = 1}\nmax_workers: 1\nmax_concurrency: 1",
            "given twice",
        ),
        ("run: x = 1\nstrategy: {matrix: {os: []}}\nfan_in: m", "'os' must be a non-empty list, not an empty list"),
        ("run: x = 1\nstrategy: {matrix: {os: linux}}\nfan_in: m", "'os' must be a non-empty list"),
        ("run: x = 1\nstrategy: {matrix: {}}\nfan_in: m", "at least one list"),
        ("run: x = 1\nstrategy: {matrix: {os: [a]}}", "needs 'fan_in'"),
        ("run: x = 1\nstrategy: {parallel_each: '{{ state.x }}'}", "needs 'fan_in'"),
        ("run: x = 1\nparallel_each: '{{ state.x }}'\nfan_in: true", "needs 'fan_in'"),
        ("run: x = 1\nstrategy: {max_parallel: 2}\nfan_in: m", "either 'matrix' or 'parallel_each'"),
        (
            "run: x = 1\nstrategy: {matrix: {a: [1]}, parallel_each: [1]}\nfan_in: m",
            "either 'matrix' or 'parallel_each'",
        ),
        ("strategy: {matrix: {a: [1]}}\nfan_in: m", "nothing to run for each item"),
        ("run: x = 1\nmax_workers: 3", "'max_workers' needs a node that fans out"),
        ("run: x = 1\nfan_in: m", "'fan_in' of this node must be true or false"),
        ("type: while_loop\ncondition: x\nbody: [{run: x = 1}]", "'max_iterations' is missing in a while_loop node"),
        (
            "type: while_loop\ncondition: x\nmax_iterations: 1001\nbody: [{run: x = 1}]",
            "a whole number from 1 to 1000",
        ),
        ("type: while_loop\ncondition: x\nmax_iterations: 0\nbody: [{run: x = 1}]", "a whole number from 1 to 1000"),
        (
            "type: while_loop\ncondition: x\nmax_iterations: true\nbody: [{run: x = 1}]",
            "a whole number from 1 to 1000",
        ),
        ("type: while_loop\ncondition: x >\nmax_iterations: 1\nbody: [{run: x = 1}]", "not a valid template"),
        ("type: while_loop\ncondition: x\nmax_iterations: 1\nbody: [{type: while_loop}]", "nested while_loop"),
        (
            "type: while_loop\ncondition: x\nmax_iterations: 1\nbody: []",
            "'body' must be a list with at least one value",
        ),
        ("run: x = 1\nwith: {a: 1}", "'with' needs 'uses'"),
        ("run: {type: expression, value: 1 +, output_key: x}", "Python does not understand this"),
        ("run: {type: expression, value: '1'}", "'output_key' is missing in run"),
        ("run: x = 1\nlanguage: lua", "'language' must be 'python', not 'lua'"),
        ("command: []", "'command' must be a list of words"),
        ("command: [echo, [x]]", "'command[1]' must be text or a number, not a list"),
        ("command: [echo, '{{ x']", "not a valid template"),
        ("uses: m:f\nwith: {a: {b: ['{{ x y }}']}}", "nodes[0].with.a.b[0]: not a valid template"),
        ("goto: []", "'goto' must be the name of a node, or a list of rules, not an empty list"),
        ("goto: [{if: x}]", "'to' is missing in a goto rule"),
        ("goto: [{iff: x, to: m}]", "unknown key 'iff' in a goto rule (did you mean 'if'?)"),
        ("goto: [{if: 'text {{ x }}', to: m}]", "not a valid template: there is text around the expression"),
        ("goto: __start__", "nothing can go to '__start__'"),
        ("parallel_strategyy: thread", "did you mean 'parallel_strategy'?"),
        ("timeout_seconds: 3", "it belongs in settings.parallel or in parallel_config"),
        ("subgraph: {nodes: [{name: s, goto: t}]}", "there is no node 't'"),
        ("subgraph: {nodes: [{name: s, runn: t}]}", "unknown key 'runn'"),
        ("run: from x import *", "import * only allowed at module level"),
    ],
)
def test_nodes(text: str, says: str) -> None:
    found = node(text)
    assert any(says in line for line in found), found


@pytest.mark.parametrize(
    ("edge", "says"),
    [
        ("{from: a, to: z}", "there is no node 'z'"),
        ("{from: z, to: a}", "there is no node 'z'"),
        ("{to: a}", "'from' is missing in an edge"),
        ("{from: a}", "'to' is missing in an edge"),
        ("{from: [a, b], to: m}", "'from' must be text, not a list"),
        ("{from: __end__, to: a}", "an edge can't begin at '__end__'"),
        ("{from: a, to: __start__}", "nothing can go to '__start__'"),
        ("{from: a, to: [b, m]}", "several targets need a parallel edge"),
        ("{from: a, to: b, parallel: true}", "needs 'fan_in'"),
        ("{from: a, to: b, fan_in: m}", "'fan_in' needs a parallel edge"),
        ("{from: a, to: b, parallel: true, fan_in: mm}", "there is no node 'mm'"),
        ("{from: a, to: b, parallel: true, fan_in: c}", "node 'c' collects results but has no 'fan_in: true'"),
        ("{from: a, to: b, parallel: true, fan_in: __end__}", "is not a node"),
        ("{from: a, to: m, parallel: true, fan_in: m}", "is empty"),
        ("{from: a, to: b, parallel: true, fan_in: m, when: x}", "a parallel edge can't have 'when'"),
        ("{from: a, to: [b, b], parallel: true, fan_in: m}", "two branches that begin at 'b'"),
        ("{from: a, to: b, parallel: false, type: parallel, fan_in: m}", "contradicts"),
        ("{from: a, to: b, type: conditional}", "needs 'when' or 'condition'"),
        ("{from: a, to: b, condition: {type: expression, value: x}, when: y}", "'when' must be true or false"),
        ("{from: a, to: b, condition: {type: lua, value: x}}", "'type' must be 'expression'"),
        ("{from: a, to: b, when: 'x =='}", "not a valid template"),
        ("{from: a, to: b, when: '!'}", "must be an expression"),
        ("{from: a, type: entry, to: b}", "has 'from: __start__'"),
        ("{from: a, type: sideways, to: b}", "'type' must be 'normal' or 'parallel'"),
        ("{from: a, to: b, parallel_config: {timeout_seconds: 1}}", "'parallel_config' needs a parallel edge"),
        ("{from: a, to: b, parallel: true, fan_in: m, parallel_config: {timeout_seconds: 0}}", "a number above 0"),
        (
            "{from: a, to: b, parallel: true, fan_in: m, parallel_config: {strategy: process}}",
            "it belongs in settings.par",
        ),
    ],
)
def test_edges(edge: str, says: str) -> None:
    found = problems(
        f"""
        nodes:
          - {{name: a}}
          - {{name: b}}
          - {{name: m, fan_in: true}}
          - {{name: c}}
        edges:
          - {edge}
        """
    )
    assert any(says in line for line in found), found
    assert next(line for line in found if "warning" not in line).startswith("f:8:")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("{parallel: {timeout_seconds: -1}}", "'timeout_seconds' must be a number above 0"),
        ("{parallel: {timeout_seconds: .inf}}", "a number above 0"),
        ("{parallel: {timeout_total: soon}}", "a number above 0"),
        ("{parallel: {fail_fast: 1}}", "'fail_fast' must be true or false, not 1"),
        ("{parallel: {retry: {backoff_multiplier: 0}}}", "a number above 0"),
        ("{parallel: {retry: {max_retires: 0}}}", "did you mean 'max_retries'?"),
        ("{parallel: {circuit_breaker: {failure_threshold: 0}}}", "a whole number, 1 or more"),
        ("{parallel: {max_lost: -1}}", "a whole number, 0 or more"),
        ("{parallel: {remote: {}}}", "'hosts' is missing in settings.parallel.remote"),
        ("{parallel: {remote: {hosts: []}}}", "at least one value"),
        ("{parallel: {remote: {hosts: [-oProxyCommand=x]}}}", "is refused"),
        ("{parallel: {remote: {hosts: [{host: -x}]}}}", "is refused"),
        ("{parallel: {remote: {hosts: ['a b']}}}", "is refused"),
        ("{parallel: {remote: {hosts: [{slots: 3}]}}}", "'host' is missing in a host"),
        ("{parallel: {remote: {hosts: [h], launcher: rsh}}}", "'launcher' must be 'auto' or 'parallel' or 'ssh'"),
        ("{spool: {durability: none}}", "'durability' must be 'process' or 'power'"),
        ("{spool: {lease_duration: 0}}", "a number above 0"),
        ("{spool: {strategy: x}}", "it belongs in settings.parallel or in a node"),
    ],
)
def test_settings(settings: str, says: str) -> None:
    found = problems(f"settings: {settings}\nnodes: [{{name: a}}]")
    assert any(says in line for line in found), found
    assert all(line.startswith("f:1:") for line in found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "'nodes' is missing in a workflow"),
        ("nodes: []", "'nodes' must be a list with at least one value"),
        ("nodes: [3]", "'nodes[0]' must be a mapping, not 3"),
        ("nodes: [{run: x = 1}]", "'name' is missing in a node"),
        ("nodes: [{name: 3}]", "'name' must be text, not 3 (put it in quotes)"),
        ("nodes: [{name: __end__}]", "'__end__' is reserved"),
        ('nodes: [{name: "a\\nb"}]', "a node's name is printable text"),
        (f"nodes: [{{name: {'x' * 201}}}]", "at most 200 characters"),
        ("nodes: [{name: a}]\nimports: [{namespace: n}]", "either 'path' or 'package'"),
        ("nodes: [{name: a}]\nimports: [{path: p}]", "'namespace' is missing"),
        ("nodes: [{name: a}]\nconfig: {interrupt_before: [b]}", "there is no node 'b'"),
        ("nodes: [{name: a}]\nstrategy: process", "it belongs in settings.parallel or in a node"),
    ],
)
def test_whole_workflow(text: str, says: str) -> None:
    found = problems(text)
    assert any(says in line for line in found), found


def test_syntax_error_of_python_stands_in_its_real_line_and_column() -> None:
    found = node("run: |\n  x = 1\n\n  if x\n    pass\n")
    assert found[:1] == ["f:6:11: nodes[0].run: Python does not understand this: expected ':'"]


def test_what_only_the_compiler_finds_stands_in_its_real_line_too() -> None:
    found = node("run: |\n  x = 1\n  nonlocal y\n")
    assert found[0].startswith("f:5:7: nodes[0].run: Python does not understand this: no binding for nonlocal")


def test_syntax_error_in_a_quoted_text() -> None:
    assert node('run: "x = = 1"')[0].startswith("f:3:15: ")


def test_syntax_error_without_a_file_names_the_line_of_the_code() -> None:
    with pytest.raises(WorkflowError, match=r"^nodes\[0\]\.run: .*, in line 2 of the code$"):
        load_dict({"nodes": [{"name": "a", "run": "x = 1\nif\n"}]})


def test_unknown_strategy_is_a_warning() -> None:
    text = "settings: {parallel: {strategy: proces}}\nnodes: [{name: a}]"
    assert warnings(text) == [
        "f:1:33: warning: strategy 'proces' is unknown; 'thread' is used instead (did you mean 'process'?)"
    ]


def test_output_beside_run_is_a_warning() -> None:
    assert "'output' is not used here" in warnings("nodes: [{name: a, run: x = 1, output: y}]")[0]


def test_valid_workflow_has_no_problems() -> None:
    workflow = load_text("nodes: [{name: a, run: 'return {}'}]")
    assert isinstance(workflow, Workflow)
    assert workflow.problems == []


def test_output_beside_fan_in_is_a_warning() -> None:
    node = "{name: a, type: dynamic_parallel, items: [1], action: {run: x = 1}, fan_in: m, output: y}"
    assert "'output' is not used beside 'fan_in'" in warnings(f"nodes: [{node}, {{name: m, fan_in: true}}]")[0]


FAN_OUT = "nodes: [{name: a, parallel_each: [1], run: x = 1, fan_in: m%s}, {name: m, fan_in: true}]"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "settings: {parallel: {strategy: slurm}}\n" + FAN_OUT % "",
            "f:1:33: warning: strategy 'slurm' is not in this",
        ),
        (
            "settings: {parallel: {strategy: remote}}\n" + FAN_OUT % "",
            "f:1:33: warning: strategy 'remote' has no hosts",
        ),
        (FAN_OUT % ", parallel_strategy: remote", "f:1:81: warning: strategy 'remote' has no hosts"),
    ],
)
def test_a_strategy_that_a_run_would_refuse_is_a_warning(text: str, says: str) -> None:
    (warning,) = load_text(text, "f").problems
    assert str(warning).startswith(says)
    hosts = "settings: {parallel: {remote: {hosts: [h]}}}\n"
    assert load_text(hosts + FAN_OUT % ", parallel_strategy: remote", "f").problems == []
