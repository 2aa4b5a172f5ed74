from pathlib import Path

import pytest

from schemas.errors import DataError
from schemas.files import write_atomic
from schemas.recipe import SplitRule, TimeBase


def test_equal_records_have_equal_digests_whatever_the_order_of_fields() -> None:
    assert SplitRule(val=0.1, test=0.2).digest() == SplitRule(test=0.2, val=0.1).digest()
    assert SplitRule(val=0.1).digest() != SplitRule(val=0.2).digest()


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    rule = SplitRule(by="order", val=0.1, test=0.3)
    rule.write_json(tmp_path / "rule.json")
    assert SplitRule.read_json(tmp_path / "rule.json") == rule
    assert [p.name for p in tmp_path.iterdir()] == ["rule.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"by": "moon"}', b'{"by": "hash", "extra": 1}'])
def test_a_damaged_record_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rule.json").write_bytes(content)
    with pytest.raises(DataError, match=r"rule\.json") as error:
        SplitRule.read_json(tmp_path / "rule.json")
    assert "\n" not in str(error.value)


def test_a_missing_record_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        SplitRule.read_json(tmp_path / "rule.json")


def test_an_interrupted_write_leaves_the_old_content(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")
    (tmp_path / "a.partial").write_bytes(b"half of the n")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_dreamzeros_window_is_33_frames_96_actions_and_97_rows() -> None:
    base = TimeBase(chunk_s=0.8, video_fps=10)
    assert (base.num_frames, base.steps * base.chunks, base.window_rows, base.action_hz) == (33, 96, 97, 30.0)


def test_a_time_base_with_half_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        TimeBase(chunk_s=0.75, video_fps=10)
