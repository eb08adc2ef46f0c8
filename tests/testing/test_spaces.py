"""The suite for space files: what ships passes it, and each kind of broken file fails just the check that is meant."""

import pytest

from rfsearch import plugins
from rfsearch.testing import spaces
from tests.toys import toy_file


@pytest.mark.parametrize("check", spaces.SPACE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", plugins.names("spaces"))
def test_every_space_passes(check, name):
    check(plugins.space_file(name))


READ, SITES, FIT = (
    "space_file_can_be_read",
    "space_has_sites_in_its_backbones",
    "space_dilations_fit_its_embedded_images",
)
BROKEN_SPACES = [
    ('title = "Toy faces"', "", READ, r"1 fault\(s\):\n  line 1, title: Field required"),
    ("[presets.mini]\n", "[presets.maxi]\n", READ, "fault|has no preset 'mini'"),
    ('backbone = "wei-small"', 'backbone = "wei-smal"', READ, "names a task and a backbone. unknown backbone"),
    ('title = "Toy', 'task = "segmentatoin"\ntitle = "Toy', READ, "unknown task 'segmentatoin'"),
    ('sites = ["conv6"]', 'sites = ["conv9"]', SITES, "names sites of its backbone.*'conv9'"),
    ("dilations = [1, 2, 4]", "dilations = [1, 2, 400]", FIT, "dilation 400.*Asked for by .*preset mini"),
]


@pytest.mark.parametrize("check", spaces.SPACE_CHECKS, ids=lambda check: check.__name__)
def test_a_sound_space_passes(check, tmp_path):
    check(toy_file(tmp_path))


@pytest.mark.parametrize(("old", "new", "check", "message"), BROKEN_SPACES, ids=lambda value: str(value)[:40])
def test_a_broken_space_fails(old, new, check, message, tmp_path):
    file = toy_file(tmp_path)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(AssertionError, match=message):
        getattr(spaces, check)(file)
