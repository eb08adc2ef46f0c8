from __future__ import annotations

from rfsearch.report.wording import listing


def test_listing() -> None:
    assert [listing(["a"]), listing(["a", "b"]), listing(["a", "b", "c"]), listing([])] == [
        "a",
        "a and b",
        "a, b and c",
        "",
    ]
