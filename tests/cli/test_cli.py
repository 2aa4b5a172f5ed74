"""The words a user types: real files, exit codes, and where it matters real processes."""

import json
import shutil
from pathlib import Path

import pytest
from commands import process, refused, wam

ROOT = Path(__file__).resolve().parents[2]


COMMANDS = ("check", "base", "plan", "adapt", "ingest", "eval", "compare", "pack", "export", "show", "doctor")
COMMANDS += ("robot", "shard")


def test_a_process_of_its_own_ends_with_the_same_words_and_code(tmp_path: Path) -> None:
    for words in (("check", tmp_path / "nowhere"), ("robot", "list")):
        alone, here = process(*words), wam(*words)
        assert (alone.returncode, alone.stdout, alone.stderr) == (here.returncode, here.stdout, here.stderr)
    assert alone.returncode == 0 and "g1_inspire" in alone.stdout


def test_every_command_explains_itself() -> None:
    listed = wam("--help").stdout
    for command in COMMANDS:
        assert command in listed
        told = wam(command, "--help")
        assert told.returncode == 0 and len(told.stdout) > 200


def test_ingest_show_and_plan_tell_the_same_story(g1: Path, tmp_path: Path) -> None:
    made = wam("ingest", g1, "--robot", "g1_inspire", "--out", tmp_path / "s", "--executor", "local", "--json")
    facts = json.loads(made.stdout)
    assert facts["episodes"] == 16 and facts["rejects"] == {"missing_video": ["episode_000003"]}
    assert facts["split"] == {"train": 10, "val": 2, "test": 4} and facts["licences"] == ["MIT"]
    shown = wam("show", tmp_path / "s")
    assert "16 of 17 episodes" in shown.stdout and "missing_video" in shown.stdout
    plan = json.loads(wam("plan", tmp_path / "s", "--json").stdout)
    assert plan["episodes"] == facts["split"] and plan["train_windows"] == 714
    assert any("one instruction" in w for w in plan["warnings"])


def test_check_names_the_missing_video_and_strict_fails(g1: Path) -> None:
    ran = wam("check", g1, "--json", "--strict")
    facts = json.loads(ran.stdout)
    assert ran.returncode == 1 and (facts["episodes"], facts["usable"]) == (17, 16)
    errors = [f for f in facts["findings"] if f["severity"] == "error"]
    assert [(f["code"], f["where"]) for f in errors] == [("missing_video", "episode_000003")]


def test_a_drafted_robot_checks_and_ingests(g1: Path, tmp_path: Path) -> None:
    drafted = wam("robot", "draft", g1, "--out", tmp_path / "r.yaml")
    assert (drafted.returncode == 0 and "2 open questions" in drafted.stdout) or "4 open questions" in drafted.stdout
    assert wam("robot", "check", tmp_path / "r.yaml", g1).returncode == 0
    shown = json.loads(wam("robot", "show", tmp_path / "r.yaml", "--json").stdout)
    assert [c["name"] for c in shown["action"]] == ["left_arm", "right_arm", "left_hand", "right_hand"]
    assert shown["native_hz"] == 30 and shown["cameras"][0]["role"] == "head"
    assert shown["action"][0]["relative_to"] == "state.left_arm"


def test_open_questions_of_a_draft_must_be_answered_or_accepted(g1: Path, tmp_path: Path) -> None:
    assert "open question" in refused("ingest", g1, "--out", tmp_path / "s", "--executor", "local")
    ran = wam("ingest", g1, "--out", tmp_path / "s", "--executor", "local", "--yes")
    assert ran.returncode == 0 and "16 of 17 episodes" in ran.stdout


def test_plain_videos_are_action_free(droid_video: Path, tmp_path: Path) -> None:
    ran = wam("ingest", droid_video, "--task", "tidy up", "--out", tmp_path / "v", "--executor", "local", "--json")
    facts = json.loads(ran.stdout)
    assert facts["robot"] == "video_only" and facts["episodes"] == 3


def test_shards_are_merged_filtered_split_and_resharded(g1_shards: Path, tmp_path: Path) -> None:
    train = wam("shard", "filter", g1_shards, "--where", 'split == "train"', "--out", tmp_path / "a", "--json")
    rest = wam("shard", "filter", g1_shards, "--where", 'split != "train"', "--out", tmp_path / "b", "--json")
    assert json.loads(train.stdout)["clips"] == 10 and json.loads(rest.stdout)["clips"] == 6
    merged = wam("shard", "merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c", "--json")
    assert json.loads(merged.stdout)["split"] == {"train": 10, "val": 2, "test": 4}
    small = wam("shard", "reshard", tmp_path / "c", "--shard-mb", 1, "--out", tmp_path / "d", "--json")
    assert json.loads(small.stdout)["clips"] == 16 and json.loads(small.stdout)["shards"] > 3
    again = wam("shard", "split", tmp_path / "d", "--by", "order", "--test", "0.5", "--out", tmp_path / "e", "--json")
    assert json.loads(again.stdout)["split"]["test"] == 8


def test_doctor_finds_this_machine_fit() -> None:
    ran = wam("doctor", "--json")
    states = {c["check"]: c["state"] for c in json.loads(ran.stdout)}
    assert ran.returncode == 0 and states["AV1 decoding"] == "ok" and states["package names"] == "ok"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ingest", "{tmp}/nowhere", "--out", "{tmp}/o"), "nowhere"),
        (("ingest", "{tmp}/empty", "--out", "{tmp}/o"), "no robot log or video found"),
        (("adapt", "{tmp}/nowhere", "--out", "{tmp}/o"), "nowhere"),
        (("check", "{tmp}/empty"), "no robot log or video found"),
        (("show", "{tmp}/nowhere"), "no such file or folder"),
        (("plan", "{tmp}/empty"), "holds no shards"),
        (("export", "{tmp}/empty", "--out", "{tmp}/o"), "no adapter"),
        (("eval", "{tmp}/empty", "{tmp}/empty", "--out", "{tmp}/o"), "no finished shards"),
        (("robot", "show", "g2"), "no such built-in robot"),
        (("ingest", "{g1}", "--robot", "{tmp}/typo.yaml", "--out", "{tmp}/o"), "Did you mean 'native_hz'"),
        (("ingest", "{g1}", "--robot", "{tmp}/columns.yaml", "--out", "{tmp}/o", "--executor", "local"), "column 99"),
        (("ingest", "{g1}", "--robot", "g1_inspire", "--out", "{tmp}/o", "--executor", "moon"), "give ray or local"),
        (("ingest", "{g1}", "--robot", "g1_inspire", "--out", "{tmp}/o", "--split-by", "moon"), "by"),
        (("adapt", "{shards}", "--backbone", "14b", "--out", "{tmp}/o"), "not known. Give one of: nano, dreamzero"),
        (("adapt", "{shards}", "--steps", "0", "--out", "{tmp}/o"), "steps"),
        (("adapt", "{shards}", "--recipe", "{tmp}/recipe.yaml", "--out", "{tmp}/o"), "Did you mean 'batch'"),
        (
            ("ingest", "{g1}", "--robot", "g1_inspire", "--out", "{tmp}/typo.yaml/o", "--executor", "local"),
            "Check the path",
        ),
        (("ingest", "{g1}", "--robot", "g1_inspire", "--out", "{tmp}/o", "--max-clip-s", "inf"), "max_clip_s"),
        (("adapt", "{shards}", "--task", "wave", "--out", "{tmp}/o"), "shards hold their words"),
        (("adapt", "{g1}", "--robot", "g1_inspire", "--out", "{tmp}/half"), "is a run on other shards"),
        (("shard", "filter", "{shards}", "--where", "import os", "--out", "{tmp}/o"), "--where"),
        (("shard", "filter", "{shards}", "--where", "rows > 10000", "--out", "{tmp}/o"), "keeps no clip"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: tuple[str, ...], message: str, tmp_path: Path, g1: Path, g1_shards: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half/latents").mkdir(parents=True)
    (tmp_path / "typo.yaml").write_text("schema: wamkit/embodiment@1\nname: a\nnativ_hz: 30\n")
    (tmp_path / "recipe.yaml").write_text("bacth: 4\n")
    (tmp_path / "columns.yaml").write_text(
        "schema: wamkit/embodiment@1\nname: a\nnative_hz: 30\n"
        "cameras: [{role: head, from: observation.images.cam_high}]\n"
        "state: [{name: arm, unit: rad, from: observation.state, columns: [99]}]\n"
    )
    places = {"tmp": tmp_path, "g1": g1, "shards": g1_shards}
    assert message in refused(*(w.format(**places) for w in words))
    assert not (tmp_path / "o" / "manifest.json").exists() and not list(tmp_path.rglob("*.partial"))


def test_a_truncated_parquet_and_a_truncated_mp4_cost_their_episodes_only(g1: Path, tmp_path: Path) -> None:
    shutil.copytree(g1, tmp_path / "logs")
    rows = tmp_path / "logs/data/chunk-000/episode_000001.parquet"
    rows.write_bytes(rows.read_bytes()[:9000])
    video = tmp_path / "logs/videos/chunk-000/observation.images.cam_high/episode_000002.mp4"
    video.write_bytes(video.read_bytes()[:9000])
    ran = wam(
        "ingest", tmp_path / "logs", "--robot", "g1_inspire", "--out", tmp_path / "s", "--executor", "local", "--json"
    )
    facts = json.loads(ran.stdout)
    assert ran.returncode == 0 and facts["episodes"] == 14
    assert facts["rejects"]["unreadable"] == ["episode_000001"] and facts["rejects"]["corrupt_video"] == [
        "episode_000002"
    ]


def test_stats_are_those_of_numpy_on_the_training_rows(g1_shards: Path, tmp_path: Path) -> None:
    import numpy as np

    from wamdata.shards import read_manifest, stream_clips

    ran = wam("stats", g1_shards, "--chunk-s", "0.8", "--out", tmp_path / "s.json", "--json")
    facts = json.loads(ran.stdout)
    manifest = read_manifest(g1_shards)
    state = np.concatenate([c.state for c in stream_clips(g1_shards, manifest, split="train")]).astype(np.float64)
    assert np.allclose(facts["state"]["q99"], np.quantile(state, 0.99, axis=0), atol=1e-6)
    assert np.allclose(facts["state"]["std"], state.std(axis=0), atol=1e-6) and len(facts["relative_step"]) == 24
    near, far = (np.array(facts["relative_step"][n]["std"])[7:14].mean() for n in (0, 23))
    assert far > 1.5 * near and json.loads((tmp_path / "s.json").read_text())["state"] == facts["state"]
    told = wam("stats", g1_shards, "--chunk-s", "0.8", "--step", "23").stdout
    assert "relative, step 23" in told and "kRightElbow" in told
    assert "--step 24: a chunk has steps 0 to 23" in refused("stats", g1_shards, "--step", "24")
