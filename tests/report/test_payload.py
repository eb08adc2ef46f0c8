"""What a page's script gets: every array once, and no more of plotly than the figures need."""

from __future__ import annotations

import json

from plotly.offline import get_plotlyjs

from rfsearch.report.payload import in_script, plotly_for


def test_equal_arrays_are_held_once_and_numbers_as_far_as_they_are_seen() -> None:
    long = [0.123456789, 1.0, None, 3.5, 4.25]
    specs = [{"name": str(k), "data": [{"x": long, "y": [1, 2]}], "layout": {}} for k in range(3)]
    held = json.loads(in_script(specs))
    assert held["arrays"] == [[0.123457, 1, None, 3.5, 4.25]]
    assert [figure["data"][0] for figure in held["figures"]] == [{"x": {"$": 0}, "y": [1, 2]}] * 3


def test_no_string_ends_the_script() -> None:
    text = in_script([{"name": "</script><!--", "data": [{"text": ["</script>"] * 5}], "layout": {}}])
    assert not {"<", ">", "&"} & set(text)
    assert json.loads(text)["arrays"] == [["</script>"] * 5]


def test_the_basic_bundle_serves_lines_and_bars_and_the_whole_one_everything_else() -> None:
    def bundle(*types: str) -> str:
        return plotly_for([{"data": [{"type": kind} for kind in types], "layout": {}}])

    basic = bundle("scatter", "bar")
    assert "plotly.js (basic - minified)" in basic[:100]
    assert len(basic) < 1.3e6
    assert bundle("scatter", "heatmap") == get_plotlyjs()
    assert plotly_for([]) == ""
