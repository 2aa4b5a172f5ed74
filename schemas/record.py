"""The base of everything that is read from or written to a file: frozen, strict, hashable by content."""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import DataError
from schemas.files import write_atomic


class Record(BaseModel):
    """A frozen pydantic model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values under the names used in files."""
        return self.model_dump(mode="json", by_alias=True)

    def digest(self) -> str:
        """Hash of the content, whatever the order and layout of the file it came from."""
        return sha256_of(self.as_dict())

    def write_json(self, path: Path) -> None:
        """Write atomically, so that a file under its final name is always whole."""
        write_atomic(path, json.dumps(self.as_dict(), indent=1, ensure_ascii=False).encode() + b"\n")

    @classmethod
    def read_json(cls, path: Path) -> Self:
        """Read and check; a missing or malformed file is a one-line `DataError` naming the field."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}. Run the command that writes it again.") from None
        except ValidationError as error:
            raise DataError(
                f"{path}: {first_problem(error)}. The file was damaged or written by another version."
            ) from None


def sha256_of(value: Any) -> str:
    """Hash of any JSON-ready value, independent of key order."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation error as `field.path: what (got value)`."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(p) for p in problem["loc"]) or "(top level)"
    message = problem["msg"].removeprefix("Value error, ")
    got = problem.get("input")
    shown = "" if isinstance(got, dict | list) or problem["type"] == "missing" else f" (got {got!r})"
    return f"{where}: {message}{shown}"
