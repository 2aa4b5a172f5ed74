"""From films to shards: a curation is a label table, and what ingest makes of it crosses no cut."""

import json
import weakref
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from films import HEIGHT, WIDTH, black, scene, write
from typer.testing import CliRunner

from cli.main import app
from schemas.curate import CurateRules
from schemas.errors import UsageError
from schemas.recipe import IngestRecipe
from wamdata.curate import curation
from wamdata.curate.curation import curate
from wamdata.curate.embedding import clip_encoder
from wamdata.curate.table import table_of
from wamdata.ingest import ingest
from wamdata.label_table import write_table
from wamdata.shards import read_clip
from wamdata.source import Source
from wamdata.use import clip_feeds
from wamdata.video import read_frames

CAPTIONS = "1\n00:00:00,000 --> 00:00:06,000\nWork.\n\n2\n00:00:00,500 --> 00:00:01,000\nReach.\n"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shots at 25 fps, a rest, a short shot; a film all black; one cut off."""
    folder = tmp_path_factory.mktemp("films")
    rest = [next(scene(3, 1))] * 140
    write(folder / "kitchen.mp4", chain(scene(1, 63), scene(2, 61), rest, scene(4, 20)), fps=25)
    (folder / "kitchen.srt").write_text(CAPTIONS)
    write(folder / "night.mp4", black(90))
    content = write(folder / "whole.mp4", scene(5, 60)).read_bytes()
    (folder / "whole.mp4").unlink()
    (folder / "torn.mp4").write_bytes(content[: len(content) // 2])
    return folder


def test_a_curated_ingest_crosses_no_cut_and_learns_nothing_from_dropped_spans(films: Path, tmp_path: Path) -> None:
    curated = curate(Source.at(films), CurateRules())
    kitchen = curated.films[0]
    assert [(s.first, s.reason) for s in kitchen.shots] == [(0, ""), (63, ""), (124, "static"), (264, "short")]
    table = tmp_path / "curated.csv"
    table.write_bytes(write_table(table_of(curated)))
    recipe = IngestRecipe(sources=(str(films),), robot="video_only", labels=(str(table),), max_clip_s=2.0)
    manifest = ingest(recipe, tmp_path / "shards", executor="local")
    clips = [read_clip(tmp_path / "shards", manifest, s.key) for s in manifest.samples]
    start_ns = [round(s.start_s * 1e9) for s in kitchen.shots] + [10**18]
    taught = set()
    for clip in clips:
        shot = int(np.searchsorted(start_ns, clip.t_ns[0] + 1000, side="right"))
        frames = next(iter(clip.pts_ns.values()))
        assert start_ns[shot - 1] - 1000 <= min(clip.t_ns[0], frames[0])
        assert max(clip.t_ns[-1], frames[-1]) < start_ns[shot] - 1000
        assert clip_feeds(clip).video.all() == (shot in (1, 2)) == clip_feeds(clip).video.any()
        taught |= {shot} if clip_feeds(clip).video.any() else set()
    assert taught == {1, 2}
    assert clips[0].text_at(0) == "Work."
    assert {t.text for t in clips[-1].meta.text} <= {"", "Work."}
    assert [s.captions for s in kitchen.shots[:2]] == [("Work.", "Reach."), ("Work.",)]
    assert {r.episode: r.reason for r in manifest.rejects} == {"night": "dropped", "torn": "dropped"}
    said = {r.episode: r.detail for r in manifest.rejects}
    assert said["night"].endswith("no shot is kept (black: black for 3.0 s)")
    assert "unreadable: torn.mp4: " in said["torn"]


def test_pictures_of_a_clip_are_those_of_its_shot(films: Path, tmp_path: Path) -> None:
    red, blue = (np.full((HEIGHT, WIDTH, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    source = write(tmp_path / "films/flat.mp4", [red] * 33 + [blue] * 33, fps=24).parent
    table = tmp_path / "labels.csv"
    table.write_bytes(
        write_table(
            [
                {"episode": "flat", "start_s": 0, "end_s": 33 / 24, "shot": "red"},
                {"episode": "flat", "start_s": 33 / 24, "shot": "blue"},
            ]
        )
    )
    recipe = IngestRecipe(sources=(str(source),), robot="video_only", labels=(str(table),), task="look")
    manifest = ingest(recipe, tmp_path / "shards", executor="local")
    clips = [read_clip(tmp_path / "shards", manifest, s.key) for s in manifest.samples]
    seen = []
    for clip in clips:
        ((camera, meta),) = clip.meta.cameras.items()
        at = np.arange(meta.first_frame, meta.first_frame + meta.num_frames)
        colours = read_frames(clip.videos[camera], at).mean((1, 2)).argmax(axis=1)
        assert len(set(colours)) == 1
        seen.append((int(colours[0]), meta.num_frames))
    assert seen == [(0, 33), (2, 33)]


def test_no_more_than_a_few_frames_are_alive_at_once(droid_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = [], 0

    def watched(footage):
        nonlocal alive, most
        for at in range(len(footage.t_ns)):
            picture = np.full((HEIGHT, WIDTH, 3), at % 200, np.uint8)
            alive = [ref for ref in alive if ref() is not None] + [weakref.ref(picture)]
            most = max(most, len(alive))
            yield picture

    monkeypatch.setattr(curation, "small_frames", watched)
    curate(Source.at(droid_video), CurateRules())
    assert most <= 3


def test_an_encoder_finds_shots_that_show_the_same(films: Path) -> None:
    def brightness_alone(pictures):
        return np.ones((len(pictures), 4), np.float32)

    found = curate(Source.at(films), CurateRules(), encoder=brightness_alone).films[0].shots
    assert [s.reason for s in found] == ["", "similar", "static", "short"]
    assert found[1].words.startswith("shows the same as kitchen, shot 1 (0.0 s to 2.5 s) (similarity 1.0")


def test_a_clip_model_of_transformers_is_an_encoder(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = layers | {"image_size": 32, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=layers | {"vocab_size": 8}, vision_config=vision, projection_dim=8))
    model.save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    vectors = clip_encoder(tmp_path)(np.stack(list(scene(1, 2, pan=40))))
    assert vectors.shape == (2, 8) and np.isfinite(vectors).all()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"--embed .*: holds no CLIP model \(.*\)\. Save it again\."):
        clip_encoder(tmp_path)


def test_the_command_writes_the_table_and_says_what_was_dropped(films: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("min_s: 0.5\n")
    ran = CliRunner().invoke(
        app, ["curate", str(films), "--out", str(tmp_path / "c.csv"), "--rules", str(rules), "--static-s", "0"]
    )
    assert ran.exit_code == 0, ran.output
    assert "3 films, 5 shots" in ran.output and "4 shots kept" in ran.output
    assert "unreadable" in ran.output and "black for 3.0 s" in ran.output
    assert (tmp_path / "c.csv").read_text().startswith("episode,start_s,end_s,shot,use,reason\nkitchen,0.000000,2.5")
    told = json.loads(CliRunner().invoke(app, ["curate", str(films), "--json"]).stdout)
    assert told["films"][0]["shots"][2]["reason"] == "static" and told["rules"]["min_s"] == 2.0
    assert set(told["dropped_minutes"]) == {"static", "short", "black", "unreadable"}


def test_what_cannot_be_curated_is_one_line(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no robot log or video found"):
        curate(Source.at(tmp_path), CurateRules())
    with pytest.raises(UsageError, match=r"no camera 'wrist'; it has video\. Give --camera one of them\."):
        curate(Source.at(films), CurateRules(), camera="wrist")
    with pytest.raises(UsageError, match="no such folder"):
        clip_encoder(tmp_path / "none")
    monkeypatch.setitem(__import__("sys").modules, "scenedetect", None)
    monkeypatch.setitem(__import__("sys").modules, "scenedetect.detectors", None)
    with pytest.raises(UsageError, match=r"needs the package 'scenedetect': pip install 'wamkit\[curate\]'"):
        curate(Source.at(films), CurateRules())
