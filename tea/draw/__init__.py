"""Drawing a workflow: as text for the terminal, as SVG, and for Mermaid and Graphviz.

    Workflow --picture--> boxes and arrows --layers--> places --ascii, svg--> a drawing
                                 +--markup--> Mermaid, dot

Everything is drawn from the plan of the workflow: no node function is built and no module of the user's is imported.
"""

from tea.draw.ascii import ascii_text
from tea.draw.markup import dot_text, mermaid_text
from tea.draw.picture import Picture, picture
from tea.draw.svg import svg_text

__all__ = ["Picture", "ascii_text", "dot_text", "mermaid_text", "picture", "svg_text"]
