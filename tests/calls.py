"""What a call of the command line gave."""


def wrong(told: tuple[int, str, str], *parts: str) -> None:
    code, _, err = told
    assert code == 2, told
    assert "Traceback" not in err
    for part in parts:
        assert part in err
