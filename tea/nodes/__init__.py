"""Node functions: what a node of a workflow file does to the state.

Each is a function that is called with what it names (`state`, `config`, `node`, `graph`, `parallel_results`,
`cancel_token`) and returns a dict of updates. It is made once, when the graph is built: code is compiled,
templates are parsed and actions are looked up then, so that running it costs little more than what it does.

Nothing here knows how a graph is walked, where a branch runs or what happens to an error.
"""

from tea.nodes.command import CommandFailed
from tea.nodes.context import Context
from tea.nodes.functions import absent
from tea.nodes.make import make_body, make_node

__all__ = ["CommandFailed", "Context", "absent", "make_body", "make_node"]
