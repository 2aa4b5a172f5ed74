"""HDF5 logs of every recorder that is known, of one that is not, and of files that are broken or mean harm."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
import samples.hdf5 as made

from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError
from schemas.recipe import IngestRecipe
from schemas.yaml_io import parse, write_yaml
from wamdata.footage import frames
from wamdata.ingest import ingest
from wamdata.readers import detect_reader
from wamdata.readers.base import EpisodeRef
from wamdata.readers.hdf5 import reader as hdf5
from wamdata.readers.hdf5.pictures import without_padding
from wamdata.readers.picture_header import header_of
from wamdata.shards import read_clip, read_manifest
from wamdata.source import Source

LAYOUT = """
schema: wamkit/hdf5_layout@1
name: my_rig
files: "logs/*"
episodes: "runs/run_*"
main: command
streams: ["state/*", command]
leave_out: ["state/debug"]
cameras:
  - {from: cams/jpeg, channels: bgr}
  - {from: "cams/flat", coding: raw, size: [48, 64]}
  - {from: "cams/planes"}
  - {from: "cams/unit"}
  - {from: "cams/grey_image"}
  - {from: "cams/slow", times: stamps/slow, unit: ms}
rate: {times: stamps/rows, unit: ns}
texts: [{from: "@meta", json: "task.said"}]
success: ["@ok"]
session: ["@operator"]
"""


def refs(place: Path) -> list[EpisodeRef]:
    return list(hdf5.list_episodes(Source.at(place)).episodes)


def codes(place: Path) -> list[str]:
    return [f.code for f in hdf5.list_episodes(Source.at(place)).findings]


def act(path: Path, change: Callable[[Any], None] = lambda h5: None, rows: int = 20) -> Path:
    """A small ALOHA file with raw pictures, changed."""
    made.act_file(path, 3, rows=rows, jpeg=False, cameras=("top",))
    with h5py.File(path, "a") as h5:
        change(h5)
    return path


def only(place: Path):
    (ref,) = refs(place)
    return hdf5.read(ref)


def replaced(h5: Any, path: str, values: Any) -> None:
    del h5[path]
    h5[path] = values


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    """A recorder of nobody's: times of its own, five ways to hold pictures."""
    (tmp_path / "rig/logs").mkdir(parents=True)
    (tmp_path / "rig.yaml").write_text(LAYOUT)
    with h5py.File(tmp_path / "rig/logs/monday.h5", "w") as h5:
        for number in (1, 10, 9):
            run, rows = h5.create_group(f"runs/run_{number}"), 10
            run.attrs["meta"] = json.dumps({"task": {"said": f"push  block {number}"}})
            run.attrs["ok"], run.attrs["operator"] = number != 9, "ann"
            run["command"], run["state/joints"], run["state/debug"] = (made.ramp(rows, 3, number) for _ in range(3))
            run["state/is_held"] = np.arange(rows) > 4
            run["stamps/rows"] = 1_700_000_000_000_000_000 + np.arange(rows) * 33_000_001
            run["stamps/slow"] = 1_700_000_000_000.0 + np.arange(4) * 100
            pictures = made.smooth(rows, number)
            run["cams/jpeg"] = made.padded(made.coded(pictures))
            run["cams/flat"] = pictures.reshape(rows, -1)
            run["cams/planes"] = pictures.transpose(0, 3, 1, 2)
            run["cams/unit"] = pictures.astype(np.float32) / 255
            run["cams/grey_image"] = pictures[..., 0]
            run["cams/slow"] = pictures[:4]
    return tmp_path / "rig"


def test_demos_come_by_number_with_their_masks_and_rate(tmp_path: Path) -> None:
    listing = hdf5.list_episodes(Source.at(made.robomimic(tmp_path)))
    assert [r.key for r in listing.episodes][:3] == ["lift_ph__demo_0", "lift_ph__demo_1", "lift_ph__demo_2"]
    assert [r.key for r in listing.episodes][-2:] == ["lift_ph__demo_10", "lift_ph__demo_11"]
    assert [r.rows for r in listing.episodes] == list(range(5, 17))
    assert (listing.hints["fps"], listing.hints["filters"], listing.hints["robot_type"]) == (
        "20",
        "train, valid",
        "Panda",
    )
    assert listing.episodes[2].place["filters"] == ["train"] and listing.episodes[11].place["filters"] == ["valid"]
    assert listing.findings == ()


def test_a_demo_has_its_streams_and_not_the_simulators(tmp_path: Path) -> None:
    episode = hdf5.read(refs(made.robomimic(tmp_path))[3])
    assert list(episode.streams) == ["actions", "dones", "obs/robot0_eef_pos", "obs/robot0_gripper_qpos", "rewards"]
    assert np.array_equal(episode.streams["actions"].values, made.ramp(8, 7, 3).astype(np.float32))
    assert episode.streams["rewards"].values.shape == (8, 1)
    assert (episode.counted_hz, episode.outcome, episode.rows) == (20.0, "success", (0, 8))
    assert episode.streams["actions"].t_ns[:3].tolist() == [0, 50_000_000, 100_000_000]
    assert np.array_equal(frames(episode.videos["obs/agentview_image"], [2])[0], made.smooth(8, 3)[2])


def test_libero_says_its_task_and_that_it_is_upside_down(tmp_path: Path) -> None:
    folder = made.libero(tmp_path)
    listing = hdf5.list_episodes(Source.at(folder))
    said, named = (hdf5.read(ref).texts[0] for ref in (listing.episodes[0], listing.episodes[2]))
    assert (said.text, said.origin) == ("open the top drawer", "/data@problem_info")
    assert (named.text, named.origin) == ("put the red mug on the plate", "file name")
    (finding,) = listing.findings
    assert (finding.code, finding.severity) == ("upside_down", "info") and "`flip: vertical`" in finding.message
    assert listing.hints["fps"] == "20"


@pytest.mark.parametrize(("source", "is_shared"), [("demo_4", True), (None, False)])
def test_copies_of_one_demo_share_a_session(tmp_path: Path, source: str | None, is_shared: bool) -> None:
    file = made.robomimic(tmp_path, demos=2)
    with h5py.File(file, "a") as h5:
        for demo in h5["data"].values() if source else ():
            demo.attrs["src_demo"] = source
    sessions = {hdf5.read(ref).session for ref in refs(file)}
    assert sessions == ({"lift_ph/demo_4"} if is_shared else {"lift_ph__demo_0", "lift_ph__demo_1"})


def test_the_sources_of_a_generated_demo_are_no_stream(tmp_path: Path) -> None:
    file = made.robomimic(tmp_path, demos=1)
    with h5py.File(file, "a") as h5:
        h5["data/demo_0/src_demo_inds"] = np.array([7, 3, 7])
        h5["data/demo_0/datagen_info/eef_pose"] = np.tile(np.eye(4), (5, 1, 1))
    episode = only(file)
    assert episode.session == "lift_ph/3-7" and "src_demo_inds" not in episode.streams
    assert episode.streams["datagen_info/eef_pose"].values.shape == (5, 16)


def test_alohas_pictures_lose_their_padding_and_nothing_else(tmp_path: Path) -> None:
    listing = hdf5.list_episodes(Source.at(made.aloha(tmp_path)))
    assert [r.key for r in listing.episodes] == ["episode_0", "episode_2", "episode_10"]
    episode = hdf5.read(listing.episodes[2])
    low = episode.videos["observations/images/cam_low"]
    assert (low.codec, low.width, low.height) == ("mjpeg", 64, 48)
    assert low.load(3, 6) == made.coded(made.smooth(30, 10 + 3))[3:6]  # whatever the order of compress_len
    assert (episode.counted_hz, episode.outcome) == (50.0, "unknown")
    assert [f.code for f in episode.findings] == ["blank_text"]
    assert [f.code for f in listing.findings] == ["channel_order"]


def test_alohas_base_is_a_stream_and_its_raw_pictures_are_pixels(tmp_path: Path) -> None:
    mobile = hdf5.read(refs(made.mobile_aloha(tmp_path))[1])
    assert mobile.streams["base_action"].values.shape == (30, 2) and "compress_len" not in mobile.streams
    raw = hdf5.read(refs(made.aloha_raw(tmp_path))[1]).videos["observations/images/top"]
    assert raw.codec == "raw" and np.array_equal(np.stack(raw.load(4, 7)), made.smooth(12, 1)[4:7])


def test_robomind_keeps_both_kinds_of_pictures_and_leaves_depth(tmp_path: Path) -> None:
    source = made.robomind(tmp_path)
    failed, done = (hdf5.read(ref) for ref in refs(source))
    assert (failed.outcome, done.outcome, done.key) == (
        "failure", "success", "bread_on_table__success_episodes__1023_101640__data__trajectory",
    )  # fmt: skip
    left, top = (done.videos[f"observations/rgb_images/{c}"] for c in ("camera_left", "camera_top"))
    assert left.load(1, 3) == made.coded(made.smooth(5))[1:3]
    assert np.array_equal(top.load(1, 2)[0], made.smooth(5, 0, 480, 640)[1])
    assert [(f.code, f.severity) for f in done.findings] == [("unread_pictures", "info")]
    assert done.texts[0].text == "put the bread on the table" and "no_clock" in codes(source)


def test_a_layout_in_yaml_reads_what_nobody_knows(rig: Path) -> None:
    assert not hdf5.detect(Source.at(rig))
    reader = detect_reader(Source.at(rig), str(rig.parent / "rig.yaml"))
    listing = reader.list_episodes(Source.at(rig))
    assert [r.key for r in listing.episodes] == ["logs__monday__run_1", "logs__monday__run_9", "logs__monday__run_10"]
    (rig.parent / "rig.yaml").unlink()
    episode = hdf5.read(pickle.loads(pickle.dumps(listing.episodes[1])))  # as a worker does, without the YAML
    assert sorted(episode.streams) == ["command", "state/is_held", "state/joints"]
    assert episode.streams["command"].t_ns[1] == 1_700_000_000_033_000_001 and episode.counted_hz == 0
    assert (episode.texts[0].text, episode.outcome, episode.session) == ("push block 9", "failure", "logs__monday/ann")
    assert "no_clock" not in [f.code for f in listing.findings] and "channel_order" in [
        f.code for f in listing.findings
    ]


def test_every_way_to_hold_pictures_gives_the_same_pictures(rig: Path) -> None:
    reader = hdf5.with_layout(rig.parent / "rig.yaml")
    videos = reader.read(reader.list_episodes(Source.at(rig)).episodes[0]).videos
    pictures = made.smooth(10, 1)
    for name in ("cams/flat", "cams/planes", "cams/unit"):
        assert np.array_equal(frames(videos[name], [0, 7]), pictures[[0, 7]]), name
    assert np.array_equal(frames(videos["cams/grey_image"], [3])[0, ..., 2], pictures[3, ..., 0])
    assert videos["cams/jpeg"].load(0, 10) == made.coded(pictures)
    assert (videos["cams/slow"].t_ns - videos["cams/slow"].t_ns[0]).tolist() == [0, 10**8, 2 * 10**8, 3 * 10**8]


def test_an_edited_layout_is_another_version(rig: Path) -> None:
    before = hdf5.with_layout(rig.parent / "rig.yaml").VERSION
    (rig.parent / "rig.yaml").write_text(LAYOUT.replace("state/debug", "state/none"))
    assert len({before, hdf5.with_layout(rig.parent / "rig.yaml").VERSION, hdf5.VERSION}) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("streems: [a]", "unknown field 'streems'. Did you mean 'streams'"),
        ("texts: [{file: '.+'}]", "needs one group in brackets"),
        ("texts: [{json: a}]", "give either `from` or `file`"),
        ("rate: {hz: -1}", "rate.hz"),
    ],
)
def test_a_wrong_layout_is_told_by_its_field(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(f"schema: wamkit/hdf5_layout@1\nname: x\n{line}\n")
    with pytest.raises(UsageError) as error:
        hdf5.with_layout(tmp_path / "x.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_layout_that_fits_nothing_names_what_was_looked_for(rig: Path, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("schema: wamkit/hdf5_layout@1\nname: x\nepisodes: 'trials/*'\n")
    with pytest.raises(DataError, match=r"monday.h5: fits no layout \(x: trials/\*\)"):
        hdf5.with_layout(tmp_path / "x.yaml").list_episodes(Source.at(rig))


def test_other_peoples_files_are_not_taken(tmp_path: Path) -> None:
    for name in ("trajectory.h5", "proprio_stats.h5"):
        act(tmp_path / name)
        assert not hdf5.detect(Source.at(tmp_path)) and not hdf5.detect(Source.at(tmp_path / name))
    act(tmp_path / "deep.hdf5").rename(tmp_path / "no_suffix")
    assert not hdf5.detect(Source.at(tmp_path)) and hdf5.detect(Source.at(tmp_path / "no_suffix"))
    with h5py.File(tmp_path / "weights.h5", "w") as h5:
        h5["layer/kernel"] = np.zeros((3, 3))
    assert not hdf5.detect(Source.at(tmp_path))


def test_files_of_one_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    for folder in ("a b", "a_b"):
        (tmp_path / folder).mkdir()
        act(tmp_path / folder / "episode_0.hdf5")
    keys = [ref.key for ref in refs(tmp_path)]
    assert len(set(keys)) == 2 and all(key.startswith("a_b__episode_0-") for key in keys)


def test_runs_of_one_name_in_two_groups_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("schema: wamkit/hdf5_layout@1\nname: x\nepisodes: 'day_*/run*'\n")
    with h5py.File(tmp_path / "log.h5", "w") as h5:
        for group in ("day_1/run", "day_2/run", "day_2/run.1", "day_2/run_1"):
            h5[f"{group}/touch"] = np.zeros((9, 16, 16), np.float32)
    keys = [r.key for r in hdf5.with_layout(tmp_path / "x.yaml").list_episodes(Source.at(tmp_path / "log.h5")).episodes]
    assert keys[:2] == ["log__day_1__run", "log__day_2__run"] and len(set(keys)) == 4
    assert all("." not in key and key.startswith("log__day_2__run_1-") for key in keys[2:])


def test_a_touch_sensor_is_a_stream_and_no_depth(tmp_path: Path) -> None:
    def touch(h5: Any) -> None:
        h5["observations/touch"] = np.zeros((20, 16, 16), np.float32)

    assert only(act(tmp_path / "e.hdf5", touch)).streams["observations/touch"].values.shape == (20, 256)


def test_a_broken_file_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    folder = made.aloha(tmp_path)
    whole = (folder / "episode_0.hdf5").read_bytes()
    (folder / "episode_3.hdf5").write_bytes(whole[: len(whole) // 2])
    (folder / "episode_4.hdf5").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (folder / "episode_5.hdf5").write_bytes(b"no log at all")
    listing = hdf5.list_episodes(Source.at(folder))
    assert [r.key for r in listing.episodes] == ["episode_0", "episode_2", "episode_10"]
    errors = [f.message for f in listing.findings if f.code == "unreadable" and f.severity == "error"]
    assert ["cut short" in errors[0], "Git-LFS pointer" in errors[1], "not an HDF5 file" in errors[2]] == [True] * 3
    for name in ("episode_0", "episode_2", "episode_10"):
        (folder / f"{name}.hdf5").unlink()
    with pytest.raises(DataError, match=r"episode_3.hdf5: cut short .* \(3 files cannot be read\)"):
        assert hdf5.detect(Source.at(folder)) and hdf5.list_episodes(Source.at(folder))


def test_a_file_whose_writer_was_killed_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w", libver="latest") as h5:
        h5["action"] = made.ramp(5, 2)
        h5.flush()
        shutil.copy(tmp_path / "w.h5", tmp_path / "killed.h5")
    with pytest.raises(DataError, match=r"killed.h5: its writer is still at work or was killed"):
        hdf5.list_episodes(Source.at(tmp_path / "killed.h5"))


def test_a_demo_without_actions_is_refused_alone(tmp_path: Path) -> None:
    file = made.robomimic(tmp_path, demos=3)
    with h5py.File(file, "a") as h5:
        del h5["data/demo_1/actions"]
    listed = refs(file)
    assert [r.rows for r in listed] == [5, 0, 7] and hdf5.read(listed[2]).rows == (0, 7)
    with pytest.raises(DataError, match=r"lift_ph__demo_1: no dataset 'actions'"):
        hdf5.read(listed[1])


def test_lengths_that_differ_are_told_with_their_numbers(tmp_path: Path) -> None:
    def shorten(h5: Any) -> None:
        replaced(h5, "observations/qpos", made.ramp(19, 14))
        replaced(h5, "observations/qvel", made.ramp(17, 14)[:, :0].repeat(1, 1))
        replaced(h5, "observations/effort", made.ramp(80, 14))
        h5["observations/intrinsics"] = np.eye(3)
        replaced(h5, "observations/images/top", made.smooth(12))

    episode = only(act(tmp_path / "e.hdf5", shorten))
    assert {len(s.t_ns) for s in episode.streams.values()} == {19}
    told = {f.code: f.message for f in episode.findings}
    messages = [f.message for f in episode.findings if f.code == "count_mismatch"]
    assert "most have 20 rows, observations/qpos has 19: the first 19 are taken" in messages
    assert "20 rows, but observations/effort has 80: left out" in messages
    assert "12 frames for 19 rows" in told["frame_count"] and "observations/intrinsics (3, 3)" in told["not_per_row"]


@pytest.mark.parametrize("how", ["is_pad", "attribute", "nothing"])
def test_padded_rows_are_left_out_where_the_file_says_so(tmp_path: Path, how: str) -> None:
    def say(h5: Any) -> None:
        if how == "is_pad":
            h5["is_pad"] = np.arange(20) >= 15
        elif how == "attribute":
            h5.attrs["num_samples"] = 15

    file = act(tmp_path / "e.hdf5", say)
    rows = 20 if how == "nothing" else 15
    assert refs(file)[0].rows == rows
    episode = only(file)
    assert episode.rows == (0, rows) and len(episode.videos["observations/images/top"].t_ns) == rows


def test_a_file_that_declares_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    def declare(rows: int, width: int) -> Callable[[Any], None]:
        def change(h5: Any) -> None:
            for path in ("action", "observations/qpos"):
                del h5[path]
                h5.create_dataset(path, (rows, width), np.float32, chunks=(1000, width))

        return change

    with pytest.raises(DataError, match=r"declares 1000000000 rows, more than"):
        only(act(tmp_path / "rows.hdf5", declare(10**9, 4)))
    with pytest.raises(DataError, match=r"declares 144 GB of rows, .*\(20000000, 900\)"):
        only(act(tmp_path / "bytes.hdf5", declare(20_000_000, 900)))


def test_what_a_killed_recorder_never_wrote_is_not_taken_for_zeros(tmp_path: Path) -> None:
    def declare(path: str, *, part: int) -> Callable[[Any], None]:
        def change(h5: Any) -> None:
            old = h5[path][()]
            del h5[path]
            new = h5.create_dataset(path, old.shape, old.dtype, chunks=(1, *old.shape[1:]) if part else None)
            if part:
                new[:part] = old[:part]

        return change

    for number, (path, part) in enumerate([("observations/images/top", 7), ("observations/effort", 0)]):
        episode = only(act(tmp_path / f"{number}.hdf5", declare(path, part=part)))
        assert path not in episode.videos | episode.streams and episode.streams
        assert next(f.message for f in episode.findings if f.code == "unwritten").startswith(f"{path}: never written")
    with pytest.raises(DataError, match=r"'action' was never written to its end"):
        only(act(tmp_path / "action.hdf5", declare("action", part=19)))


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    def add(h5: Any) -> None:
        top = h5["observations/images"]
        top["depth_front"] = np.zeros((20, 48, 64), np.uint16)
        top["far"] = np.zeros((20, 48, 64, 1), np.float32)
        top["classes"] = np.zeros((20, 48, 64), np.int32)
        top["unknown"] = np.full((20, 5000), 7, np.uint8)
        top["none"] = np.zeros((0, 48, 64, 3), np.uint8)

    episode = only(act(tmp_path / "e.hdf5", add))
    messages = " | ".join(f.message for f in episode.findings if f.code == "unread_pictures" and f.severity == "info")
    assert list(episode.videos) == ["observations/images/top"]
    for name in ("depth_front", "far", "classes", "unknown", "none"):
        assert f"observations/images/{name}" in messages, name


def test_only_the_first_file_of_a_store_is_fetched_to_list_it(tmp_path: Path) -> None:
    import fsspec

    folder = made.aloha(tmp_path)
    store = fsspec.filesystem("memory")
    for file in folder.iterdir():
        store.pipe_file(f"/bucket/aloha/{file.name}", file.read_bytes())
    source = Source("memory://bucket/aloha", cache=str(tmp_path / "cache"))
    listing = hdf5.list_episodes(source)
    assert [(r.key, r.rows) for r in listing.episodes] == [("episode_0", 30), ("episode_2", 0), ("episode_10", 0)]
    assert len(list((tmp_path / "cache").rglob("*.hdf5"))) == 1
    here = hdf5.read(refs(folder)[2])
    assert hdf5.read(listing.episodes[2]).source_sha256 == here.source_sha256


def test_a_hostile_file_reaches_no_other_file(tmp_path: Path) -> None:
    secret = act(tmp_path / "secret/other.hdf5") if (tmp_path / "secret").mkdir() is None else tmp_path
    (tmp_path / "secret/plain.bin").write_bytes(bytes(20 * 4))

    def link(h5: Any) -> None:
        h5["observations/mine"] = h5py.ExternalLink(str(secret), "/action")

    def soft_link_through_a_link(h5: Any) -> None:
        h5["door"] = h5py.ExternalLink(str(secret), "/")
        h5["observations/mine"] = h5py.SoftLink("/door/action")

    def outside(h5: Any) -> None:
        h5.create_dataset(
            "observations/mine", (20, 1), np.float32, external=[(str(tmp_path / "secret/plain.bin"), 0, 80)]
        )

    def virtual(h5: Any) -> None:
        layout = h5py.VirtualLayout((20, 14), np.float64)
        layout[:] = h5py.VirtualSource(str(secret), "action", (20, 14))
        h5.create_virtual_dataset("observations/mine", layout)

    def circle(h5: Any) -> None:
        h5["observations/mine"], h5["a"] = h5py.SoftLink("/a"), h5py.SoftLink("/observations/mine")

    for number, change in enumerate((link, soft_link_through_a_link, outside, virtual, circle)):
        file = act(tmp_path / f"{number}.hdf5", change)
        with pytest.raises(DataError, match="in another file|into another file|in a circle"):
            only(file)


def test_pickles_and_references_are_never_looked_into(tmp_path: Path) -> None:
    def hide(h5: Any) -> None:
        h5["observations/pickled"] = np.void(pickle.dumps({"a": 1}))
        h5["observations/pointers"] = np.array([h5["action"].ref] * 20, dtype=h5py.ref_dtype)
        h5["observations/words"] = ["a"] * 20

    assert "observations/words" not in only(act(tmp_path / "e.hdf5", hide)).streams


def test_groups_that_hold_themselves_end(tmp_path: Path) -> None:
    def knot(h5: Any) -> None:
        h5["observations/again"] = h5["observations"]

    assert only(act(tmp_path / "e.hdf5", knot)).rows == (0, 20)


def test_a_picture_that_was_cut_off_is_told_with_its_frame(tmp_path: Path) -> None:
    file = made.aloha(tmp_path) / "episode_0.hdf5"
    with h5py.File(file, "a") as h5:
        h5["observations/images/cam_high"][4, 300:] = 0
    head = only(file).videos["observations/images/cam_high"]
    assert len(head.load(0, 4)) == 4
    with pytest.raises(DataError, match=r"cam_high: frame 4 is empty or cut off"):
        head.load(2, 6)


def test_time_that_stands_still_is_refused(rig: Path) -> None:
    reader = hdf5.with_layout(rig.parent / "rig.yaml")
    with h5py.File(rig / "logs/monday.h5", "a") as h5:
        h5["runs/run_1/stamps/rows"][6] = h5["runs/run_1/stamps/rows"][5]
    with pytest.raises(DataError, match=r"run_1: stamps/rows: time does not increase at row 6"):
        reader.read(reader.list_episodes(Source.at(rig)).episodes[0])


def test_an_instruction_per_row_holds_for_its_rows(tmp_path: Path) -> None:
    def speak(h5: Any) -> None:
        h5["language_instruction"] = ["reach"] * 12 + ["grasp"] * 8

    texts = only(act(tmp_path / "e.hdf5", speak)).texts
    assert [(t.text, t.start_ns, t.stop_ns) for t in texts] == [
        ("reach", 0, 240_000_000),
        ("grasp", 240_000_000, 400_000_000),
    ]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_coded_picture_says_its_size_and_where_it_ends(kind: str) -> None:
    (picture,) = made.coded(made.smooth(1, height=40, width=72), kind)
    codec = {"JPEG": "mjpeg", "PNG": "png"}[kind]
    assert header_of(picture) == (codec, 72, 40) and header_of(b"\0" * 90) is None
    assert without_padding(picture + bytes(50), codec) == picture == without_padding(picture, codec)
    assert without_padding(picture[:200], codec) == b""


def test_pictures_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    episode = only(act(tmp_path / "e.hdf5"))
    with h5py.File(tmp_path / "e.hdf5", "a") as h5:
        h5["observations/images/top"][7] = 9
    top = episode.videos["observations/images/top"]
    assert (top.load(7, 8)[0] == 9).all()
    assert only(tmp_path / "e.hdf5").rows == (0, 20) and len(top.load(0, 20)) == 20  # one handle closed, one open


def test_a_read_only_file_can_be_read(tmp_path: Path) -> None:
    file = act(tmp_path / "e.hdf5")
    file.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert only(file).rows == (0, 20)
    finally:
        tmp_path.chmod(0o755)


def aloha_robot(path: Path) -> Path:
    """Joints only, so that the made-up numbers need no meaning."""
    arm = {"name": "arm", "unit": "rad", "from": "observations/qpos", "columns": "0:14"}
    content = {
        "schema": "wamkit/embodiment@1",
        "name": "toy_aloha",
        "native_hz": 50,
        "cameras": [{"role": "head", "from": "observations/images/cam_high", "channels": "bgr"}],
        "state": [arm],
        "action": [{"name": "arm", "like": "state.arm", "from": "action"}],
    }
    write_yaml(path, parse(Embodiment, content, "toy"))
    return path


def test_a_shard_holds_the_very_bytes_that_aloha_logged(tmp_path: Path) -> None:
    source = made.aloha(tmp_path)
    recipe = IngestRecipe(
        sources=(str(source),), robot=str(aloha_robot(tmp_path / "toy.yaml")), task="hand over the cube",
        filters={"min_s": 0.2},
    )  # fmt: skip
    manifest = ingest(recipe, tmp_path / "out", executor="local")
    assert (manifest.source_episodes, manifest.episodes, manifest.rejects) == (3, 3, ())
    assert manifest == ingest(recipe, tmp_path / "out", executor="local") == read_manifest(tmp_path / "out")
    key = next(s.key for s in manifest.samples if s.episode == "episode_10")
    clip = read_clip(tmp_path / "out", manifest, key)
    with av.open(io.BytesIO(clip.videos["head"])) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    assert packets == made.coded(made.smooth(30, 10))
    assert np.array_equal(clip.state, made.ramp(30, 14, 10).astype(np.float32))
    assert clip.text_at(0) == "hand over the cube"


def test_a_layout_in_yaml_goes_all_the_way(rig: Path, tmp_path: Path) -> None:
    content = {
        "schema": "wamkit/embodiment@1",
        "name": "toy_rig",
        "native_hz": 30.303,
        "cameras": [{"role": "head", "from": "cams/planes"}],
        "state": [{"name": "arm", "unit": "rad", "from": "state/joints", "columns": "0:3"}],
        "action": [{"name": "arm", "like": "state.arm", "from": "command"}],
    }
    write_yaml(tmp_path / "toy.yaml", parse(Embodiment, content, "toy"))
    recipe = IngestRecipe(
        sources=(str(rig),), robot=str(tmp_path / "toy.yaml"), reader=str(tmp_path / "rig.yaml"),
        filters={"min_s": 0.1},
    )  # fmt: skip
    manifest = ingest(recipe, tmp_path / "out", executor="local")
    assert (manifest.episodes, manifest.rejects) == (3, ())
