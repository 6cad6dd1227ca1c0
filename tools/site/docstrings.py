"""Docstrings of this package as Markdown for Sphinx: Google's sections, and ours."""

from __future__ import annotations

import inspect
import logging
import re
import textwrap
from typing import Any

import griffe

logging.getLogger("griffe").setLevel(logging.ERROR)  # types stand in the signatures
LISTS = {"parameters": "Arguments", "attributes": "Attributes"}
SEVERAL = re.compile(r"^    \*{0,2}\w+(, \*{0,2}\w+)+(?=: )", re.MULTILINE)  # "    a, b: text"
BLOCKS = {"Formula": "text", "Example": "pycon", "Examples": "pycon"}


def signature(name: str, value: Any) -> str:
    """`name(arguments)` of a function or class, without types; a bare name of anything else."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return name
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters if p.name != "self"]
    return name + str(inspect.Signature(bare))


def markdown(docstring: str) -> str:
    """A docstring as Markdown, its sections in the order in which they stand."""
    text = re.sub(SEVERAL, lambda names: names[0].replace(", ", "/"), inspect.cleandoc(docstring))
    parsed = griffe.Docstring(text).parse(
        "google", returns_named_value=False, returns_multiple_items=False
    )
    return "\n\n".join(_section(section) for section in parsed)


def _section(section: Any) -> str:
    kind = section.kind.value
    if kind in LISTS:
        items = [
            f"- `{item.name.replace('/', ', ')}`: {_line(item.description)}"
            for item in section.value
        ]
        return "\n".join([f"**{LISTS[kind]}**", "", *items])
    if kind in ("raises", "warns"):
        items = [f"- `{item.annotation}`: {_line(item.description)}" for item in section.value]
        return "\n".join([f"**{'Errors' if kind == 'raises' else 'Warnings'}**", "", *items])
    if kind in ("returns", "yields"):
        return f"**{kind.title()}** " + " ".join(_line(item.description) for item in section.value)
    if kind == "examples":
        return "\n\n".join(
            _line(text) if part.value == "text" else _fenced(text, "pycon")
            for part, text in section.value
        )
    if kind == "admonition":
        title, text = section.title or section.value.kind.title(), section.value.contents
        if title in BLOCKS:
            return f"**{title}**\n\n{_fenced(text, BLOCKS[title])}"
        return f"**{title}**\n\n{_items(text)}"
    return _text(section.value)


def _items(text: str) -> str:
    """`name: text` with deeper lines that go on, as a list."""
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith(" ") and found:
            found[-1] += " " + line.strip()
        elif line.strip():
            found.append(line.strip())
    return "\n".join(f"- {_escaped(item)}" for item in found)


def _text(text: str) -> str:
    """Paragraphs; indented ones and those that begin with >>> are code."""
    parts: list[str] = []
    for part in re.split(r"\n\s*\n", text):
        if parts and all(p.startswith("    ") for p in (parts[-1], part)):
            parts[-1] += f"\n\n{part}"  # the same code goes on
        else:
            parts.append(part)
    return "\n\n".join(_paragraph(part) for part in parts)


def _paragraph(text: str) -> str:
    if text.lstrip().startswith(">>>"):
        return _fenced(text, "pycon")
    if text.startswith("    ") or _is_table(text):
        return _fenced(textwrap.dedent(text), "text")
    if re.match(r"\s*([*-]|\d+\.) ", text):
        return "\n".join(map(_escaped, text.splitlines()))
    source = re.match(r"Source: (.*)", text, re.DOTALL)
    if source:
        return f"**Source** {_line(source[1])}"
    return _line(text)


def _is_table(text: str) -> bool:
    """Lines in columns, or of code, that may not flow together."""
    lines = text.splitlines()
    return len(lines) > 1 and all(re.search(r"\S {3,}\S|^\s{2,}\S", line) for line in lines)


def _line(text: str) -> str:
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    """Plain text in which Markdown finds nothing but code between backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        p if p.startswith("`") else re.sub(r"([*_<>$\[\]|\\])", r"\\\1", p) for p in parts
    )


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def directive(kind: str, head: str, body: str) -> str:
    """A definition that Sphinx indexes; its fence is longer than those within it."""
    inner = [len(fence) for fence in re.findall(r"^:{3,}", body, re.MULTILINE)]
    fence = ":" * max(3, *(length + 1 for length in inner), 3)
    return f"{fence}{{py:{kind}}} {head}\n\n{body}\n\n{fence}"
