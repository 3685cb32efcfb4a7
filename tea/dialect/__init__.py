"""The YAML dialect: from a file to a graph, with every mistake named by file, line and column.

    load (text to data with places) -> validate (schema, flow) -> Workflow -> build -> Graph
                                                                     |
                                                                     +-> subset: one branch, runnable alone

Nothing here runs a workflow.
"""

from tea.dialect.build import build
from tea.dialect.engine import YAMLEngine
from tea.dialect.problems import Problem, WorkflowError
from tea.dialect.workflow import Workflow, load_dict, load_file, load_text

__all__ = ["Problem", "Workflow", "WorkflowError", "YAMLEngine", "build", "load_dict", "load_file", "load_text"]
