"""What the code of a notebook has to be like, read and not run."""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from collections.abc import Iterable, Set

BUILTINS = frozenset(dir(builtins))
MUTABLE = (ast.List, ast.Dict, ast.Set, ast.Call, ast.ListComp, ast.DictComp, ast.SetComp)


def parsed(source: str) -> ast.Module:
    """The code of a cell; lines of IPython (%magic, !command) count as comments."""
    lines = [f"# {line}" if line.lstrip()[:1] in "%!" else line for line in source.splitlines()]
    return ast.parse("\n".join(lines))


def ends_in_semicolon(source: str) -> bool:
    """Whether the last line of code ends in `;`: nbval alone shows the result all the same."""
    lines = [re.sub(r"\s*#.*$", "", line).strip() for line in source.splitlines()]
    return "".join(lines).endswith(";")


def names_in(node: ast.AST) -> set[str]:
    """The names that an expression reads, without the arguments of its own lambdas."""
    own = {a.arg for part in ast.walk(node) if isinstance(part, ast.Lambda) for a in part.args.args}
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - own


def fixed_names(sources: Iterable[str]) -> set[str]:
    """The names that are given a constant, once, and nothing else in the whole notebook."""
    nodes = [node for source in sources for node in ast.walk(parsed(source))]
    times = Counter(n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    times.update(n.arg for n in nodes if isinstance(n, ast.arg))
    fixed: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, alone = node.targets[0].id, len(node.targets) == 1
            constant = not any(isinstance(part, MUTABLE) for part in ast.walk(node.value))
            if alone and times[name] == 1 and constant and names_in(node.value) <= fixed:
                fixed.add(name)
    return fixed


def is_claim(node: ast.AST) -> bool:
    """Whether a node calls `claim(...)` or `claims.claim(...)`."""
    called = getattr(node, "func", None)
    return "claim" in (getattr(called, "id", ""), getattr(called, "attr", ""))


def idle_claims(source: str, fixed: Set[str] = frozenset()) -> list[str]:
    """The claims of a cell that cannot fail.

    On constants only, of a thing against itself, with a tolerance as large as what is compared, or
    where an error goes no further; and `claim` under another name, as it is not looked at then.

    Args:
        source: the code of the cell.
        fixed: names that hold constants, `fixed_names` of the notebook.
    """
    found = []
    for node in ast.walk(parsed(source)):
        if is_claim(node) and (_is_settled(node, fixed) or _is_wide(node)):
            found.append(ast.unparse(node))
        elif _catches(node):
            inside = [part for child in node.body for part in ast.walk(child)]
            found += [ast.unparse(part) for part in inside if is_claim(part)]
        elif isinstance(node, ast.alias) and node.name == "claim" and node.asname:
            found.append(ast.unparse(node))
    return found


def _is_settled(claim: ast.Call, fixed: Set[str]) -> bool:
    """Whether both sides are known before anything runs."""
    sides = claim.args[1:3] + [k.value for k in claim.keywords if k.arg in ("got", "want")]
    same = len(sides) == 2 and ast.dump(sides[0]) == ast.dump(sides[1])
    known = all(names_in(side) <= BUILTINS | fixed for side in sides)
    return same or known or any(_is_true(part) for side in sides[:1] for part in ast.walk(side))


def _is_true(node: ast.AST) -> bool:
    """Whether it is `x == x`, `x <= x`, or `... or True`."""
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.LtE | ast.GtE):
        return ast.dump(node.left) == ast.dump(node.comparators[0])
    parts = node.values if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) else []
    return any(isinstance(part, ast.Constant) and part.value for part in parts)


def _is_wide(claim: ast.Call) -> bool:
    """Whether a tolerance lets zero pass, or anything."""
    given = dict(zip(("rtol", "atol"), claim.args[3:], strict=False))
    given |= {k.arg: k.value for k in claim.keywords if k.arg in ("rtol", "atol")}
    rtol = given.get("rtol")
    wide = isinstance(rtol, ast.Constant) and rtol.value >= 1
    return wide or any(re.search(r"\binf\b", ast.unparse(v)) for v in given.values())


def _catches(node: ast.AST) -> bool:
    """Whether it keeps the error of a claim to itself."""
    if isinstance(node, ast.With):
        return any("suppress" in ast.unparse(item.context_expr) for item in node.items)
    caught = [h.type for h in node.handlers] if isinstance(node, ast.Try) else []
    wide = ("AssertionError", "Exception", "BaseException")
    return any(kind is None or any(w in ast.unparse(kind) for w in wide) for kind in caught)


def is_gpu_cell(source: str) -> bool:
    """Whether a cell does all that it does in `if needs_cuda(...):`, without an else."""
    body = parsed(source).body
    return (
        len(body) == 1
        and isinstance(body[0], ast.If)
        and isinstance(body[0].test, ast.Call)
        and getattr(body[0].test.func, "id", "") == "needs_cuda"
        and not body[0].orelse
    )


TEXTS = ("annotate", "bar_label", "clabel", "figtext", "legend", "set_color", "set_title")
TEXTS += ("set_xlabel", "set_ylabel", "suptitle", "text", "tick_params")
READABLE = ("readable(", "plots.readable(")
COLOURS = ("c", "color", "colors", "labelcolor", "labelcolors")


def coloured_texts(source: str) -> list[str]:
    """The calls that draw text in a colour which nobody made sure can be read.

    Text is black, or its colour went through `readable(...)` of mtl_utils.plots.
    """
    found = []
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in TEXTS:
            colours = [k.value for k in node.keywords if k.arg in COLOURS]
            if node.func.attr == "set_color":
                colours += node.args
            sure = all(
                ast.unparse(c) in ("'black'", "'k'") or ast.unparse(c).startswith(READABLE)
                for c in colours
            )
            if not sure:
                found.append(ast.unparse(node))
    return found
