"""Packages that only some formats need: imported when they are needed, and asked for in one line where they lack."""

import importlib
from types import ModuleType

from schemas.errors import UsageError


def need(package: str, *, for_what: str, extra: str = "formats") -> ModuleType:
    """An optional package.

    Raises:
        UsageError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        lacking = (error.name or package).split(".")[0]
        raise UsageError(f"{for_what} needs the package {lacking!r}: pip install 'wamkit[{extra}]'") from None
