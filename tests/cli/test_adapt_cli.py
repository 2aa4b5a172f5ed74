"""`wam adapt` as it is typed: mixtures, budgets, going on from an adapter, mirrors and logs."""

import json
from pathlib import Path

import pytest
from commands import refused, wam

from schemas.recipe import AdaptRecipe, IngestRecipe
from schemas.yaml_io import read_yaml
from wamdata.ingest import ingest

ARM = Path(__file__).resolve().parents[1] / "data/synthetic_arm.yaml"
SMALL = """
batch: 4
eval_every: 2
save_every: 2
denoise_steps: 1
samples: 2
window_stride_s: 0.8
"""


@pytest.fixture(scope="module")
def shards(lerobot_v3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("arm") / "shards"
    ingest(IngestRecipe(sources=(str(lerobot_v3),), robot=str(ARM)), out, executor="local")
    return out


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def first(shards: Path, droid_shards: Path, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a quarter of action-free video, mirrored and logged while it went."""
    out = tmp_path_factory.mktemp("runs") / "first"
    ran = wam(
        "adapt", shards, "--video", droid_shards, "--mix", "0.25", "--out", out, "--recipe", settings, "--steps", 2,
        "--log", "tensorboard", "--sync", f"file://{out.parent}/mirror", "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout)["verdict"] in ("FAIL", "OFFLINE PASS")
    return out


def test_a_mix_is_in_the_recipe_and_the_run_is_mirrored_and_logged(first: Path) -> None:
    recipe = read_yaml(first / "recipe.yaml", AdaptRecipe)
    assert {p.name: (p.share, p.role) for p in recipe.parts} == {"play": (0.75, "play"), "video": (0.25, "video")}
    mirrored = {p.relative_to(first.parent / "mirror") for p in (first.parent / "mirror").rglob("stage.json")}
    assert mirrored == {p.relative_to(first) for p in first.rglob("stage.json")}
    assert list(first.rglob("events.out.tfevents*"))


def test_an_adapter_is_gone_on_from_with_new_data_added(first: Path, shards: Path, settings: Path) -> None:
    out = first.parent / "more"
    ran = wam(
        "adapt", shards, "--add", shards, "--from", first / "adapter/export", "--out", out, "--recipe", settings,
        "--steps", 2, "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    recipe = read_yaml(out / "recipe.yaml", AdaptRecipe)
    assert [(p.name, p.role, p.share) for p in recipe.parts] == [("play", "play", 0.5), ("added", "play", 0.5)]


def test_a_mix_file_names_all_data(shards: Path, droid_shards: Path, settings: Path, tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text(
        f"parts:\n- {{name: play, shards: {shards}, share: 3, losses: [video, action], role: play}}\n"
        f"- {{name: looks, shards: {droid_shards}, share: 1, losses: [video], role: video}}\n"
    )
    ran = wam("adapt", "--mix", tmp_path / "mix.yaml", "--out", tmp_path / "r", "--recipe", settings, "--dry-run")
    assert ran.returncode == 0 and "training windows" in ran.stdout, ran.stderr
    told = refused("adapt", shards, "--mix", tmp_path / "mix.yaml", "--out", tmp_path / "r")
    assert "names all data itself" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--mix", "0.5"), "is the share of --video DIR"),
        (("--mix", "1.5", "--video", "."), "wanted between 0 and 1"),
        (("--steps", 3, "--epochs", 2), "wanted one of them"),
        (("--until", "yesterday"), "no time"),
        (("--until", "2020-01-01T00:00"), "has passed"),
        (("--device", "cuda"), "torch sees no GPU"),
        (("--base", "nowhere"), "nowhere"),
        (("--weights", "int3"), "weights"),
        (("--rank", 8), "LoRA needs what it is put on"),
        (("--style", "yam"), "is for DreamZero"),
        (("--from", "nowhere", "--dry-run"), "nowhere: no adapter.json here"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple, told: str, shards: Path, tmp_path: Path) -> None:
    assert told in refused("adapt", shards, "--out", tmp_path / "r", *words)


def test_video_alone_of_a_new_robot_gets_no_action_verdict(droid_shards: Path, settings: Path, tmp_path: Path) -> None:
    ran = wam("adapt", droid_shards, "--out", tmp_path / "r", "--recipe", settings, "--steps", 2, "--strict", "--json")
    report = json.loads(ran.stdout)
    assert ran.returncode == 1 and report["verdict"] == "NO ACTION VERDICT" and report["video"]["psnr"]
