"""Handle a user id without a name or a home, as containers have: libraries ask for both and raise if there is none."""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import tempfile
from pathlib import Path


def stand_ins() -> dict[str, str]:
    """Return environment variables that give the user a name and a home, none if the system knows both.

    torch names its folder of compiled code by the user; Ray asks for the home when it is imported. A temporary folder
    stands in for the home until this process ends.
    """
    found = {}
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        found["LOGNAME"] = f"uid{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        found["HOME"] = tempfile.mkdtemp(prefix="rfsearch-home-")
        atexit.register(shutil.rmtree, found["HOME"], ignore_errors=True)
    return found
