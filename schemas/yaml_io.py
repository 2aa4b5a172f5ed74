"""YAML files in and out: strict, with the file, the field and a suggestion in every message."""

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from schemas.errors import UsageError
from schemas.files import write_atomic
from schemas.record import Record, first_problem

R = TypeVar("R", bound=Record)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice; plain YAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UsageError: the file is missing, is not YAML, or is not a mapping; names the line.
    """
    try:
        content = yaml.load(path.read_text(), Loader=_StrictLoader)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}. Check the path.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text file. Give a YAML file.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise UsageError(f"{path}:{line} {getattr(error, 'problem', None) or 'not YAML'}. Mend that line.") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds {type(content).__name__}, wanted a mapping of fields.")
    return content


def parse(model: type[R], content: dict[str, Any], where: str) -> R:
    """`content` as `model`; `where` names its origin in the message.

    Raises:
        UsageError: an unknown, missing or wrong field, with a suggestion for a misspelt one.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        unknown = [p for p in problems if p["type"] == "extra_forbidden"]  # first: a misspelt field is also missing
        if not unknown:
            raise UsageError(f"{where}: {first_problem(error)}. Mend that field.") from None
        *parents, key = unknown[0]["loc"]
        known = _field_names(model, parents)
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
        path = ".".join(str(p) for p in unknown[0]["loc"])
        raise UsageError(f"{where}: unknown field {path!r}. {hint}") from None


def read_yaml(path: Path, model: type[R]) -> R:
    """A YAML file as a checked record."""
    return parse(model, load_yaml(path), str(path))


def write_yaml(path: Path, record: Record) -> None:
    """Write a record as YAML, atomically, leaving out what has its default value."""
    content = record.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    write_atomic(path, dump_yaml(content).encode())


def dump_yaml(content: dict[str, Any]) -> str:
    """YAML text in the order given."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _field_names(model: type[Record], parents: list[Any]) -> list[str]:
    """Names a file may use at `parents` below `model`; follows nested records, lists and mappings."""
    current: Any = model
    for step in parents:
        if isinstance(step, int) or not _is_record(current):
            continue
        field = next((f for n, f in current.model_fields.items() if step in (n, f.alias)), None)
        nested = next((a for a in _arguments(field.annotation) if _is_record(a)), None) if field else None
        current = nested or current
    return [field.alias or name for name, field in current.model_fields.items()] if _is_record(current) else []


def _is_record(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Record)


def _arguments(annotation: Any) -> list[Any]:
    """`annotation` and everything nested in it: tuple[X, ...], X | None, dict[str, X]."""
    found = [annotation]
    for argument in getattr(annotation, "__args__", ()):
        found += _arguments(argument)
    return found
