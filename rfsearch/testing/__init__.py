"""Checks for the authors of plugins: of strategies, backbones, tasks, layouts, choices, spaces and figures.

A check is a function that returns nothing, or raises an AssertionError that says the rule and what broke it. It needs
no test framework; with pytest, one test a check:

    @pytest.mark.parametrize("check", rfsearch.testing.STRATEGY_CHECKS, ids=lambda check: check.__name__)
    def test_my_strategy(check):
        check(MyStrategy, space)

A strategy's checks take the class, or anything `(space, seed) -> strategy`, and a space; a backbone's the callable
`(num_classes, in_channels=3) -> nn.Module`; a task's what makes it for a data set, `data -> task`, and a small data set
of the kind that it takes, such as `labelled_faces()`, and where its outputs are no maps, `Outputs`: for detection,
`boxed_objects()` and `grid_outputs(data)`; a detector's backbone has checks of its own, DETECTOR_CHECKS; a choice's
one choice of its kind; a layout's the layout and a sound folder for it; a space's the
path of its file; a figure's the figure, and a run that it has something to show of where a made-up run will not do.
"""

from rfsearch.testing.backbones import BACKBONE_CHECKS
from rfsearch.testing.choices import CHOICE_CHECKS
from rfsearch.testing.detectors import DETECTOR_CHECKS, boxed_objects, grid_outputs
from rfsearch.testing.figures import FIGURE_CHECKS
from rfsearch.testing.layouts import LAYOUT_CHECKS
from rfsearch.testing.spaces import SPACE_CHECKS
from rfsearch.testing.strategies import STRATEGY_CHECKS
from rfsearch.testing.tasks import TASK_CHECKS, Outputs, labelled_faces

__all__ = [
    "BACKBONE_CHECKS",
    "CHOICE_CHECKS",
    "DETECTOR_CHECKS",
    "FIGURE_CHECKS",
    "LAYOUT_CHECKS",
    "SPACE_CHECKS",
    "STRATEGY_CHECKS",
    "TASK_CHECKS",
    "Outputs",
    "boxed_objects",
    "grid_outputs",
    "labelled_faces",
]
