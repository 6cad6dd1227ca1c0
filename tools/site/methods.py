"""A page for each method, made from the card and the docstring in its file."""

from __future__ import annotations

import csv
import inspect
import re
from pathlib import Path
from statistics import median

from mtl_utils.weighting.base import READS, Card, cards, weighting_class
from tools.site import docstrings
from tools.site.notebooks import heading

ROOT = Path(__file__).resolve().parents[2]


def write(source: Path) -> None:
    """The pages, and an index of them as a table."""
    folder = source / "methods"
    folder.mkdir()
    for card in cards():
        (folder / f"{card.name}.md").write_text(page(card), encoding="utf-8")
    (folder / "index.md").write_text(index(), encoding="utf-8")


def page(card: Card) -> str:
    """A method: its card, what it does, where the course teaches it, what a step costs."""
    cls = weighting_class(card.name)
    arguments = docstrings.signature("", cls)[1:-1]
    file = Path(inspect.getsourcefile(cls) or "").resolve().relative_to(ROOT)
    own = ", ".join(f"`{name}`" for name in cls.engine_options)
    observed = ", ".join(f"`{name}=`" for name in _observes(card.name))
    facts = {
        "reads": READS[card.reads],
        "year": str(card.year),
        "paper": _linked(card.source),
        "lesson": ", ".join(_lesson(number) for number in _notebooks(card)),
        "needs `shared=`": "yes" if cls.needs_shared else "no",
        "needs `observe(...)`": observed or "no",
        "options of `use(...)`": own or "those of every rule",
        "one step / a plain step": _cost(card.name),
        "file": f"`{file}`",
    }
    lines = [f"# {card.title}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in facts.items() if text]
    call = f'make_weighting("{card.name}", {arguments})'
    body = docstrings.markdown(cls.__doc__ or "")
    return "\n".join([*lines, "", "```python", call, "```", "", body, ""])


def index() -> str:
    """All methods."""
    lines = ["# Methods", "", "In the order in which the course meets them.", ""]
    lines += ["| method | name | year | reads | lesson |", "|---|---|---|---|---|"]
    for card in cards():
        lessons = ", ".join(_lesson(number, short=True) for number in _notebooks(card))
        row = f"| [{card.title}]({card.name}.md) | `{card.name}` | {card.year} "
        lines.append(f"{row}| {READS[card.reads]} | {lessons} |")
    names = [card.name for card in cards()]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", *names, "```", ""])


def _notebooks(card: Card) -> list[str]:
    return re.findall(r"\d\d", card.notebook)


def _lesson(number: str, short: bool = False) -> str:
    path = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    return f"[{number if short else heading(path)}](../notebooks/{path.name})"


def _linked(paper: str) -> str:
    arxiv = re.fullmatch(r"arXiv (\d{4}\.\d{4,5})", paper)
    return f"[{paper}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else paper


def _observes(name: str) -> tuple[str, ...]:
    return weighting_class(name).observes


def _cost(name: str) -> str:
    """From the record of step costs, the trunk of linear layers."""
    found: dict[int, list[float]] = {}
    with (ROOT / "results" / "step_cost.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["model"] == "mlp" and row["contender"] == f"ours: {name}":
                found.setdefault(int(row["tasks"]), []).append(float(row["ratio"]))
    return ", ".join(f"{median(v):.1f} for K = {k}" for k, v in sorted(found.items()))
