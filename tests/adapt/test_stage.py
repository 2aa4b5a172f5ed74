from pathlib import Path

import pytest

from adapt.stage import begin, finish, finished
from schemas.errors import UsageError


def test_a_stage_is_finished_only_when_its_record_is_there(tmp_path: Path) -> None:
    assert finished(tmp_path, "train", {"lr": 1}) is None
    begin(tmp_path, "train", {"lr": 1})
    assert finished(tmp_path, "train", {"lr": 1}) is None
    finish(tmp_path, "train", {"lr": 1}, {"step": 3})
    assert finished(tmp_path, "train", {"lr": 1}).facts == {"step": 3}


def test_a_half_made_stage_is_not_continued_under_another_recipe(tmp_path: Path) -> None:
    begin(tmp_path, "train", {"lr": 1, "steps": 5})
    with pytest.raises(UsageError, match="lr was 1, is now 2"):
        finished(tmp_path, "train", {"lr": 2, "steps": 5})


def test_the_innermost_difference_is_named(tmp_path: Path) -> None:
    whole = {"play": ["3ac8" * 20, "b381" * 20], "video": "8d" * 20}
    finish(tmp_path, "latents", {"sources": whole})
    with pytest.raises(UsageError, match=r"sources\.video was '8d8d.*', is now none"):
        finished(tmp_path, "latents", {"sources": {"play": whole["play"]}})
