"""The figures of the report, one file each, found through the entry points of the group `rfsearch.figures`.

A figure is a `Figure`: a heading, a caption, and a function that draws it with `plotly.graph_objects` from a run's
`RunView`. Adding one takes one file and one entry point; the page shows every figure that draws something.
"""

from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.registry import DrawnFigure, draw_figures
from rfsearch.report.figures.switches import Option, add_switch
from rfsearch.report.view import RunView
from rfsearch.report.wording import literal

__all__ = ["DrawnFigure", "Figure", "Option", "RunView", "add_switch", "draw_figures", "literal"]
