"""The notebooks in a real JupyterLab, in a real browser."""

import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from mtl_utils.exercises import nb00
from tests.chromium import in_browser
from tools import notebooks as tool

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60  # seconds for anything but running a notebook
RUN_TIME = 600  # seconds for all cells of one
REDRAW = 5.0  # seconds from a key to the new figure: 0.2 on an idle machine, this one may be busy

MOVED = ("04_two_regressions", "12_gradient_conflicts")  # whose knobs are moved
OTHERS = [path for path in tool.find() if tool.label(path) not in MOVED]

pytestmark = in_browser

OPEN = """async ([path, kernel]) => {
    const found = await jupyterapp.commands.execute('docmanager:open', {path, kernel});
    await Promise.all([found.context.ready, found.revealed, found.context.sessionContext.ready]);
    await found.context.sessionContext.session.kernel.info;  // only now would it be changed
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const cells = found.content.widgets;
    return {
        changed: found.context.model.dirty,
        folded: cells.map(cell => cell.inputHidden === true),
        pictures: [...found.node.querySelectorAll('img')].map(img => img.alt),
    };
}"""
# A kernel answers in order: after its answer, all that was sent before has been dealt with.
SETTLED = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await panel.context.sessionContext.session.kernel.requestKernelInfo();
}"""
# A cell that is to be run loses its number, until it has run.
STARTED = """() => jupyterapp.shell.currentWidget.content.widgets
    .some(cell => cell.model.type === 'code' && cell.model.executionCount === null)"""
ENDED = """() => {
    const cells = jupyterapp.shell.currentWidget.content.widgets
        .filter(cell => cell.model.type === 'code');
    const failed = cell => cell.model.outputs.toJSON().some(o => o.output_type === 'error');
    return cells.some(failed) || cells.every(cell => cell.model.executionCount !== null);
}"""
BAD_OUTPUTS = """() => jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code')
    .flatMap(cell => cell.model.outputs.toJSON())
    .filter(output => output.output_type === 'error' || output.name === 'stderr')"""
PICTURES = """() => [...jupyterapp.shell.currentWidget.content.node.querySelectorAll('img')]
    .map(img => img.alt)"""
END_KERNEL = """async () => {
    await jupyterapp.shell.currentWidget.context.sessionContext.shutdown();
}"""
NEW_KERNEL = """async () => {
    const model = {path: 'shared', name: 'shared', type: 'console', kernel: {name: 'python3'}};
    return (await jupyterapp.serviceManager.sessions.startNew(model)).kernel.id;
}"""
# From here on, remember the alternative text of each picture that a widget shows, and the way
# that the page moved.
WATCH = """widget => {
    window.drawn = [];
    new MutationObserver(() => drawn.push(widget.querySelector('img')?.alt))
        .observe(widget.querySelector('img').parentElement, {childList: true});
}"""


# ---- JupyterLab and the browser --------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of the notebooks, beside the records that they read.

    It names this Python: JupyterLab writes the kernel's version into a notebook, and a notebook
    that was recorded by another one is changed by that alone.
    """
    folder = tmp_path_factory.mktemp("jupyterlab") / "course"
    shutil.copytree(
        ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("student", ".*")
    )
    for path in (folder / "notebooks").rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.language_info.version = platform.python_version()
        nbformat.write(notebook, path)
    for name in ("results", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def server(folder) -> Iterator[str]:
    """Address of a JupyterLab whose home holds nobody's settings."""
    home = folder.parent / "home"
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    taken = ("JUPYTER", "IPYTHON", "XDG_", "MPLBACKEND")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(taken)}
    token = secrets.token_hex()
    environment |= {"HOME": str(home), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    environment["JUPYTER_TOKEN"] = token
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    address = f"http://127.0.0.1:{free_port()}"
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": address.rpartition(":")[2],
        "ServerApp.root_dir": folder,
        "LabApp.expose_app_in_browser": "True",
        "LabApp.extension_manager": "readonly",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (
        open(folder.parent / "server.log", "w") as log,
        subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            wait_for_answer(f"{address}/api/status?token={token}", process)
            yield f"{address}/lab?token={token}&reset"
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for_answer(address: str, process: subprocess.Popen) -> None:
    """Ask a server until it answers; there is no event to wait for."""
    until = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, "JupyterLab ended at once, see server.log"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError):
            assert time.monotonic() < until, "JupyterLab does not answer, see server.log"
            time.sleep(0.2)


@pytest.fixture
def page(browser, server, screenshots, request):
    """JupyterLab, ready for use; at the end no error may have been reported."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(1000 * PATIENCE)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.goto(server)
    page.wait_for_function("() => window.jupyterapp?.restored.then(() => true)")
    yield page
    name = re.sub(r"\W+", "-", request.node.name)
    page.screenshot(path=screenshots / f"{name}-end.png")
    page.close()
    assert errors == []


def open_notebook(page, path: str, kernel: str | None = None) -> dict:
    """Open a notebook, as a double click on its name does; with a kernel that runs already."""
    return page.evaluate(OPEN, [path, {"id": kernel} if kernel else None])


def run_all(page, has_pictures: bool = True) -> None:
    """Run > Run All Cells, until the last one has run; no error, no warning."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(STARTED)
    page.wait_for_function(ENDED, timeout=1000 * RUN_TIME)
    assert page.evaluate(BAD_OUTPUTS) == []
    page.evaluate(SETTLED)
    assert (page.evaluate(PICTURES) != []) == has_pictures
    assert [alt for alt in page.evaluate(PICTURES) if len(alt.split()) < 5] == []


def folded(path: Path) -> list[bool]:
    """Which cells of a stored notebook are to be folded."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell.metadata.get("jupyter", {}).get("source_hidden", False) for cell in cells]


# ---- tests -----------------------------------------------------------------------------------


def test_every_notebook_opens_unchanged_and_folded(page, folder, screenshots):
    """All with one kernel: a kernel each would take a minute more."""
    kernel = page.evaluate(NEW_KERNEL)
    paths = sorted((folder / "notebooks").rglob("*.ipynb"))
    assert len(paths) == len(tool.find())
    for path in paths:
        found = open_notebook(page, str(path.relative_to(folder)), kernel)
        assert not found["changed"], f"{path.name}: JupyterLab marks it as changed"
        assert found["folded"] == folded(path), path.name
        page.screenshot(path=screenshots / f"{path.parent.name}-{path.stem}.png")


def test_that_a_change_would_be_seen(page, folder):
    """A notebook that lacks the version of its language, which JupyterLab adds."""
    notebook = nbformat.read(folder / "notebooks" / "00_start_here.ipynb", as_version=4)
    del notebook.metadata.language_info["version"]
    nbformat.write(notebook, folder / "lacking.ipynb")
    assert open_notebook(page, "lacking.ipynb")["changed"]


def test_start_here_and_an_exercise(page, screenshots):
    """Run all cells, answer a question wrongly, read the hint, answer it rightly."""
    open_notebook(page, "notebooks/00_start_here.ipynb")
    run_all(page)
    exercise = nb00.EXERCISES["00.1"]
    cell = page.locator(".jp-CodeCell", has_text='check("00.1", answer)').first
    line = cell.locator(".cm-line", has_text="answer =")
    for before, answer, says in (
        ("...", "[3, 3]", f"✗ 00.1: {exercise.hint}"),
        ("[3, 3]", "[2, 0.5]", f"✓ 00.1: {exercise.praise}"),
    ):
        line.click()
        page.keyboard.press("Home")
        for _ in "answer = ":
            page.keyboard.press("ArrowRight")
        for _ in before:
            page.keyboard.press("Shift+ArrowRight")
        page.keyboard.insert_text(answer)
        page.keyboard.press("Control+Enter")
        cell.locator(".jp-OutputArea-output", has_text=says).wait_for()
        page.screenshot(path=screenshots / f"exercise-{says[0]}.png")


@pytest.mark.skipif(
    not os.environ.get("MTL_SLOW"), reason="takes as long as all notebooks; MTL_SLOW=1 runs it"
)
@pytest.mark.parametrize("path", OTHERS, ids=tool.label)
def test_run_all_of_the_others(page, path, screenshots):
    open_notebook(page, f"notebooks/{tool.label(path)}.ipynb")
    stored = path.read_text(encoding="utf-8")
    run_all(page, has_pictures="<img " in stored or '"image/png"' in stored)
    page.evaluate(END_KERNEL)


def at_rest(thing):
    """Scroll a thing into view, and wait until JupyterLab has drawn the cells above it."""
    before = None
    while before is None or thing.bounding_box() != before:
        thing.scroll_into_view_if_needed()
        before = thing.bounding_box()
        thing.page.wait_for_timeout(1000)


def within(widget):
    """The height of a widget, and where in it its figure stands: what moves the page below, while
    JupyterLab itself scrolls when it draws late what is above."""
    whole, figure = widget.bounding_box(), widget.locator("img").bounding_box()
    offset = [round(figure[side] - whole[side], 1) for side in "xy"]
    return whole["height"], figure["width"], figure["height"], *offset


@pytest.mark.parametrize("name", MOVED)
def test_run_all_and_move_a_knob(page, name, screenshots):
    open_notebook(page, f"notebooks/{name}.ipynb")
    run_all(page)
    widget = page.locator(".widget-vbox", has=page.locator("img")).first
    knob = widget.locator(".noUi-handle").first
    at_rest(knob)
    page.screenshot(path=screenshots / f"{name}-before.png")
    widget.evaluate(WATCH)
    place = within(widget)

    started = time.monotonic()
    knob.press("ArrowRight")
    page.wait_for_function("() => drawn.length > 0")
    seconds = time.monotonic() - started
    (screenshots / f"{name}-redraw.txt").write_text(f"{seconds:.2f} s from a key to its figure\n")
    assert seconds < REDRAW
    page.evaluate(SETTLED)
    assert page.evaluate("drawn.length") == 1
    assert value_of(widget) in page.evaluate("drawn[0]")

    page.evaluate("() => { drawn.length = 0 }")
    x, y = (knob.bounding_box()[side] + 5 for side in "xy")
    page.mouse.move(x, y)
    page.mouse.down()
    track = widget.locator(".noUi-target").first.bounding_box()
    is_left = x < track["x"] + track["width"] / 2  # there is room on the other side
    page.mouse.move(x + (100 if is_left else -100), y, steps=25)
    page.evaluate(SETTLED)
    assert page.evaluate("drawn.length") == 0, "it draws on the way"
    page.mouse.up()
    page.wait_for_function("() => drawn.length > 0")
    page.evaluate(SETTLED)
    assert page.evaluate("drawn.length") == 1, "one redraw, of the last value"
    assert value_of(widget) in page.evaluate("drawn[0]")
    page.screenshot(path=screenshots / f"{name}-after.png")
    assert within(widget) == place, "the page jumped"


def value_of(widget) -> str:
    """The number that stands beside the first knob, as a text would write it."""
    return f"{float(widget.locator('.widget-readout').first.inner_text()):g}"
