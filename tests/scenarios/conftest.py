"""What scenarios share: a source is as it was when its test ends; a finished run on two cameras and two tasks."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from arm_logs import take, write_logs
from commands import wam
from robots import tree_hash
from told import QUIET, small_recipe


@pytest.fixture
def untouched() -> Iterator[Callable[[Path], Path]]:
    """A function through which a test passes each source folder, which nothing may write to from then on."""
    before: dict[Path, str] = {}

    def watch(source: Path) -> Path:
        before[source] = tree_hash(source)
        return source

    yield watch
    assert before and {source: tree_hash(source) for source in before} == before


@pytest.fixture(scope="session")
def gear_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy arm in GEAR's layout: LeRobot v2.1 with meta/modality.json beside it, two tasks, two cameras."""
    takes = [take(n, 80) for n in range(5)]
    for one in takes[::2]:
        one.task = "put it back"
    logs = write_logs(tmp_path_factory.mktemp("gear") / "logs", takes)
    slices = {"reach": {"start": 0, "end": 2}, "bend": {"start": 2, "end": 3}}
    (logs / "meta/modality.json").write_text(json.dumps({"state": slices, "action": slices}))
    return logs


@pytest.fixture(scope="session")
def gear_run(gear_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on them. Read-only by agreement."""
    run = tmp_path_factory.mktemp("gear_run") / "run"
    recipe = small_recipe(run.with_name("small.yaml"), window_stride_s=0.4)
    ran = wam("adapt", gear_logs, "--out", run, "--recipe", recipe, *QUIET)
    assert ran.returncode == 0, ran.stderr
    return run
