"""Where the home folder cannot be written, matplotlib gets a folder of its own.

It would make one itself, but say so on stderr, and a notebook that writes on stderr fails. This
has to happen before matplotlib is imported, so importing this module does it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_home = os.path.expanduser("~")  # "~" itself if there is none
if "MPLCONFIGDIR" not in os.environ and not (os.path.isdir(_home) and os.access(_home, os.W_OK)):
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="matplotlib-")
    atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)
