"""The browser of the tests that want one; the fixtures `browser` and `screenshots` use it."""

import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")

in_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no browser found: apt-get install chromium"),
]
