"""Where the home folder cannot be written, matplotlib gets a folder of its own.

It would make one itself, but say so on stderr, and a notebook that writes on stderr fails. This
has to happen before matplotlib is imported, so importing this module does it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def home_is_writable() -> bool:
    """Whether programs can keep their settings in the user's home folder."""
    try:
        home = Path.home()
    except RuntimeError:  # there is none
        return False
    return home.is_dir() and os.access(home, os.W_OK)


def temporary_folder(name: str) -> str:
    """A folder that is removed when the program ends."""
    folder = tempfile.mkdtemp(prefix=f"{name}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


if "MPLCONFIGDIR" not in os.environ and not home_is_writable():
    os.environ["MPLCONFIGDIR"] = temporary_folder("matplotlib")
