"""Rows of the figure of classes: what tells them apart, and nothing else."""

from __future__ import annotations

import pytest

from tests.report.figures.specs import spec
from tests.report.made_up import MakeRun, record


@pytest.mark.parametrize(
    ("scores", "rows", "title"),
    [
        (["f_eye_pooled", "f_upper_lip_pooled"], ["eye", "upper lip"], "score of the class, f pooled"),
        (["iou_0", "iou_1"], ["skin", "eyes"], "score of the class, iou"),
        (["lips", "nose"], ["lips", "nose"], "score of the class"),
        (["f_pooled", "f_eye_pooled", "f_eye"], ["pooled", "eye pooled", "eye"], "score of the class, f"),
        (["f_a_b", "f_b"], ["a b", "b"], "score of the class, f"),
    ],
)
def test_words_that_all_scores_share_are_said_once(
    make_run: MakeRun, scores: list[str], rows: list[str], title: str
) -> None:
    falling = {name: 0.9 - 0.1 * i for i, name in enumerate(scores)}
    figure = spec("class-scores", make_run([record("a", 1, val=0.5), record("b", 4, val=0.9, scores=falling)]))
    assert figure["data"][0]["y"] == rows
    assert figure["layout"]["xaxis"]["title"]["text"] == title
