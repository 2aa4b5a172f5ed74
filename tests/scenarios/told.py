"""`wam` as scenarios use it: words without line breaks, findings by code."""

import json
from pathlib import Path
from typing import Any

from commands import Ran, wam

QUIET = ("--executor", "local", "--quiet")
SMALL = {
    "batch": 2, "steps": 6, "eval_every": 3, "save_every": 3, "denoise_steps": 1, "samples": 2, "window_stride_s": 0.8,
    "time_base": {"chunk_s": 0.8, "video_fps": 10},
}  # fmt: skip


def words(ran: Ran) -> str:
    """All of the output in one line; a run that failed with anything but a code of 0 or 1 fails the test."""
    assert ran.returncode in (0, 1), ran.stderr
    return " ".join(ran.stdout.split())


def checked(source: Path, *options: object) -> dict[str, Any]:
    """The facts of `wam check --json`."""
    ran = wam("check", source, "--json", *options)
    assert ran.returncode in (0, 1), ran.stderr
    return json.loads(ran.stdout) | {"code": ran.returncode}


def of_code(facts: dict[str, Any], code: str) -> list[dict[str, Any]]:
    return [f for f in facts["findings"] if f["code"] == code]


def worse_than_info(facts: dict[str, Any]) -> set[tuple[str, str]]:
    """(code, where)."""
    return {(f["code"], f["where"]) for f in facts["findings"] if f["severity"] != "info"}


def small_recipe(path: Path, **changes: object) -> Path:
    """Settings of a run that takes seconds. JSON is YAML."""
    path.write_text(json.dumps(SMALL | changes))
    return path
