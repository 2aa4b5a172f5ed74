"""`wam robot preview`: what DreamZero would see of a robot."""

import json
from pathlib import Path

from commands import refused, wam


def test_a_preview_shows_mosaic_prompt_slots_and_time_base(g1_shards: Path, tmp_path: Path) -> None:
    ran = wam("robot", "preview", g1_shards, "--out", tmp_path / "v", "--slot", "action.right_hand=right_effector")
    assert ran.returncode == 0, ran.stderr
    told = " ".join(ran.stdout.split())
    assert "The video shows the camera view from the robot's head. The robot pick up the yellow bottle" in told
    assert "1.6 s to a chunk of 24 steps (15 Hz), video at 5 frames/s (published;" in told
    assert "the robot logs at 30 Hz and is resampled" in told
    assert "15 right_hand (1) as asked: the base's right_effector" in told
    slots = json.loads((tmp_path / "v" / "slots.json").read_text())
    assert [s["channel"] for s in slots["action"]] == [0, 7, 22, 15, 16]
    for name in ("mosaic.png", "slots.png"):
        assert (tmp_path / "v" / name).read_bytes().startswith(b"\x89PNG")


def test_a_preview_as_json_holds_every_slot(droid_shards: Path, tmp_path: Path) -> None:
    words = ("robot", "preview", droid_shards, "--out", tmp_path / "v", "--base", "droid", "--json")
    facts = json.loads(wam(*words).stdout)
    assert facts["style"] == "whole" and facts["slots"] == {"action": [], "state": []}
    assert facts["prompt"].startswith("A single view video shows that a robot work at a table")


def test_what_cannot_be_previewed_is_refused_in_one_line(g1_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "v"
    assert "base 'gr1': not known" in refused("robot", "preview", g1_shards, "--out", out, "--base", "gr1")
    assert "--size '70b': not known" in refused("robot", "preview", g1_shards, "--out", out, "--size", "70b")
    assert "wanted COMPONENT=CHANNEL" in refused("robot", "preview", g1_shards, "--out", out, "--slot", "hand")
    assert "has no such component" in refused("robot", "preview", g1_shards, "--out", out, "--slot", "tail=3")
    assert "takes three cameras" in refused("robot", "preview", g1_shards, "--out", out, "--style", "droid")
    assert not out.exists()
