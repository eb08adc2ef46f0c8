"""The targets of the guided fuzzer, without it: a result, or an error of ours."""

import random

import pytest

from rfsearch.errors import RfsearchError
from tests.fuzz_targets import TARGETS


def answer(read, body):
    """Return what an error of ours says, "" where there is none."""
    try:
        read(body)
    except RfsearchError as error:
        return str(error) or "nothing"
    return ""


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_reads_its_first_input_and_takes_changed_ones(name, tmp_path):
    read, seeds = TARGETS[name](tmp_path)
    assert answer(read, seeds[0]) == ""
    draw = random.Random(0)
    for seed in (*seeds, b"", b"\xff\x00{"):
        assert answer(read, seed) != "nothing"
        body, place = bytearray(seed), draw.randrange(len(seed) + 1)
        body[place : place + draw.randrange(8)] = draw.randbytes(draw.randrange(4))
        assert answer(read, bytes(body)) != "nothing"


WRONG = ["no-such-command", "run\n--no-such-option", "plan\n--seeds\nmany", "run\n--out\n\udc80"]


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_command_line_is_refused_without_anything_being_run(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    read, _ = TARGETS["command_line"](tmp_path)
    assert read(words.encode(errors="surrogatepass")) is None
    assert not list(tmp_path.iterdir())
