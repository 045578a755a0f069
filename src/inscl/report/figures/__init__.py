"""The figures, each drawn once from the facts: for the page, and as SVG and PNG files.

A figure carries its finding in words and the table of its numbers, for readers who do not see it.
"""

from inscl.report.figures.figure import Figure
from inscl.report.figures.frontier import frontier_figure
from inscl.report.figures.headline import headline_figure, trend_figure
from inscl.report.figures.heat import distance_figure, score_figures
from inscl.report.figures.instruction_map import map_figure
from inscl.report.figures.loss import loss_figure
from inscl.report.figures.replay import budget_figures, insinfo_figures, share_figure
from inscl.report.figures.stages import gain_figure
from inscl.report.figures.tasks import change_figure, kinds_figure

__all__ = [
    "Figure",
    "budget_figures",
    "change_figure",
    "distance_figure",
    "frontier_figure",
    "gain_figure",
    "headline_figure",
    "insinfo_figures",
    "kinds_figure",
    "loss_figure",
    "map_figure",
    "score_figures",
    "share_figure",
    "trend_figure",
]
