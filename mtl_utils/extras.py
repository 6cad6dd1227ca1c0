"""What says which packages to install, where one is missing that only the notebooks need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Within it, a package that is missing is reported with the extra that brings it.

    Args:
        name: of the extra in `pyproject.toml`, such as "notebooks".

    Raises:
        ModuleNotFoundError: an import in here failed; says what to install.

    >>> with extra("notebooks"):
    ...     import no_such_package
    Traceback (most recent call last):
    ModuleNotFoundError: needs no_such_package: pip install "mtl-loss-weighting[notebooks]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mtl_utils"):
            raise
        text = f'needs {error.name}: pip install "mtl-loss-weighting[{name}]"'
        raise ModuleNotFoundError(text, name=error.name) from error
