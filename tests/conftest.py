"""What the tests in a browser share."""

import os
from pathlib import Path

import pytest

from tests.chromium import CHROMIUM


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as p:
        # As root, in a container, Chromium has no sandbox.
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def screenshots(tmp_path) -> Path:
    """Where pictures of what was seen go: the folder MTL_SCREENSHOTS, else one of pytest's own."""
    folder = Path(os.environ.get("MTL_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
