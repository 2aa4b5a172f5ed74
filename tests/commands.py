"""`wam` as a user types it, in this process: seconds quicker than a process of its own, with the same words and codes.

`process` is the real thing, for what only a process shows.
"""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
WIDE = {"COLUMNS": "150"}

Ran = subprocess.CompletedProcess[str]


def wam(*words: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
    """Run a command through `cli.main.main`."""
    from cli.main import main

    out, error, code = io.StringIO(), io.StringIO(), 0
    arguments = ["wam", *map(str, words)]
    with (
        mock.patch.dict(os.environ, WIDE | (env or {})),
        mock.patch.object(sys, "argv", arguments),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())


def process(*words: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
    """Run a command in a process of its own."""
    environment = os.environ | WIDE | {"PYTHONPATH": str(ROOT)} | (env or {})
    command = [sys.executable, "-c", "from cli.main import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def refused(*words: object, env: dict[str, str] | None = None) -> str:
    """The one line with which a call is refused."""
    ran = wam(*words, env=env)
    assert ran.returncode == 2, (ran.returncode, ran.stdout, ran.stderr)
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("robot drafted")]
    assert len(lines) == 1 and lines[0].startswith("wam: "), ran.stderr
    return lines[0]
