"""From a node's mapping in the file to its function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tea import templates
from tea.call import call
from tea.nodes.action import action_step
from tea.nodes.command import command_step
from tea.nodes.context import Context, KeyPath, Offered, Step, Updates, in_order, place_name, scratch
from tea.nodes.loop import for_each_step, while_step
from tea.nodes.python import expression_function, python_function

NodeFunction = Callable[..., Updates]


def make_node(spec: Mapping[str, Any], path: KeyPath, context: Context) -> NodeFunction | None:
    """The function of a node that does not fan out; None for a node that does nothing.

    Raises SyntaxError, templates.TemplateSyntax or UnknownAction.
    """
    if spec.get("type") is None:
        return _made(spec, path, spec["name"], context)
    return _as_function(_typed(spec, path, context))


def make_body(spec: Mapping[str, Any], path: KeyPath, context: Context) -> NodeFunction | None:
    """The function of one branch of a node that fans out over data. Raises like `make_node`."""
    if "action" in spec:
        return _made(spec["action"], (*path, "action"), spec["name"], context)
    own = spec if spec.get("type") is None else {key: spec[key] for key in spec if key != "output"}
    return _made(own, path, spec["name"], context)


def _made(spec: Mapping[str, Any], path: KeyPath, name: str, context: Context) -> NodeFunction | None:
    for key in ("run", "script"):
        if key in spec:
            return _python(spec[key], (*path, key), name, context)
    step = _other_step(spec, path, name, context)
    return None if step is None else _as_function(step)


def _python(code: Any, path: KeyPath, name: str, context: Context) -> NodeFunction:
    make = python_function if isinstance(code, str) else expression_function
    return make(code, path, name, context)


def _step(spec: Mapping[str, Any], path: KeyPath, node: str, context: Context) -> Step:
    """One step of several."""
    name = f"{node}.{spec['name']}" if "name" in spec else place_name(node, path)
    for key in ("run", "script"):
        if key in spec:
            return _as_step(_python(spec[key], (*path, key), name, context))
    step = _other_step(spec, path, name, context)
    return step if step is not None else lambda offered: {}


def _other_step(spec: Mapping[str, Any], path: KeyPath, name: str, context: Context) -> Step | None:
    output = spec.get("output")
    if "command" in spec:
        return command_step(spec["command"], output, name, context)
    if "uses" in spec:
        return action_step(spec["uses"], spec.get("with", {}), output, name, context)
    if "steps" in spec:
        return _steps(spec["steps"], (*path, "steps"), name, context)
    if "subgraph" in spec:
        return _subgraph(spec, name, context)
    return None


def _steps(specs: list[Mapping[str, Any]], path: KeyPath, name: str, context: Context) -> Step:
    steps = [_step(one, (*path, n), name, context) for n, one in enumerate(specs)]
    return lambda offered: in_order(steps, scratch(offered))


def _subgraph(spec: Mapping[str, Any], name: str, context: Context) -> Step:
    """Run another workflow; its final state goes to `output`, or is merged into the state without it."""
    workflow, inputs, output = spec["subgraph"], spec.get("input"), spec.get("output")

    def step(offered: Offered) -> Updates:
        if context.run_workflow is None:
            raise RuntimeError(f"node '{name}': sub-workflows can't be run here")
        state = offered["state"]
        given = dict(state) if inputs is None else templates.render(inputs, state, context.variables)
        reference = templates.render(workflow, state, context.variables) if isinstance(workflow, str) else workflow
        final = context.run_workflow(reference, given, offered)
        return final if output is None else {output: final}

    return step


def _typed(spec: Mapping[str, Any], path: KeyPath, context: Context) -> Step:
    name = spec["name"]
    if spec["type"] == "while_loop":
        body = [_step(one, (*path, "body", n), name, context) for n, one in enumerate(spec["body"])]
        return while_step(spec, body, name, context)
    function = make_body(spec, path, context)
    return for_each_step(spec, _as_step(function) if function else lambda offered: {}, name, context)


def _as_step(function: NodeFunction) -> Step:
    return lambda offered: call(function, offered)


def _as_function(step: Step) -> NodeFunction:
    """A step as a function that names all it may want."""

    def run(
        state: Any,
        config: Any = None,
        node: Any = None,
        graph: Any = None,
        parallel_results: Any = None,
        cancel_token: Any = None,
        scope: Any = None,
    ) -> Updates:
        return step(
            {
                "state": state,
                "config": config,
                "node": node,
                "graph": graph,
                "parallel_results": parallel_results,
                "cancel_token": cancel_token,
                "scope": scope,
            }
        )

    return run
