"""The doctor on a toy arm: clean logs are called clean, each fault is named with its episode, and nothing else is."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arm_logs import HZ, Take, robot_file, take, write_logs
from robots import tree_hash

from schemas.episode import Finding
from schemas.errors import UsageError
from schemas.recipe import IngestRecipe
from wamdata.doctor.check import CheckResult, check_source
from wamdata.doctor.fixes import fix_plan
from wamdata.doctor.page import Page
from wamdata.ingest import ingest
from wamdata.label_table import read_table, write_table
from wamdata.labels import read_labels
from wamdata.shards import read_clip
from wamdata.source import Source
from wamdata.use import clip_feeds

EPISODES = 4
BAD = 2  # the episode that a test spoils
KEY = f"episode_{BAD:06d}"


def doctor(folder: Path, takes: list[Take], **options) -> CheckResult:
    source = write_logs(folder / "logs", takes)
    before = tree_hash(source)
    robot = options.pop("robot", None) or robot_file(folder / "robot.yaml")
    result = check_source(Source.at(source), robot=str(robot), **options)
    assert tree_hash(source) == before
    return result


def spoiled(spoil: Callable[[Take], None]) -> list[Take]:
    takes = [take(n) for n in range(EPISODES)]
    spoil(takes[BAD])
    return takes


def told(result: CheckResult) -> list[tuple[str, str]]:
    """(code, where) of what is worse than info."""
    return [(f.code, f.where) for f in result.findings if f.severity != "info"]


def first(result: CheckResult, code: str) -> Finding:
    return next(f for f in result.findings if f.code == code)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CheckResult]:
    folder = tmp_path_factory.mktemp("clean")
    return folder, doctor(folder, [take(n) for n in range(EPISODES)])


def test_clean_logs_are_called_clean(clean: tuple[Path, CheckResult]) -> None:
    _, result = clean
    assert (result.episodes, result.usable, result.clean) == (EPISODES, EPISODES, EPISODES)
    assert [(f.code, f.message) for f in result.findings] == [
        ("label_lag", first(result, "label_lag").message)
    ]  # fmt: skip
    assert dict(first(result, "label_lag").numbers)["lag_ms"] == 150.0


def black(one: Take) -> None:
    one.pictures["front"][60:120] = 3


def blank(one: Take) -> None:
    one.pictures["wrist"][:] = 90


def frozen(one: Take) -> None:
    one.pictures["front"][50:110] = one.pictures["front"][50]


def leap(one: Take) -> None:
    one.state[80:] += np.float32(0.9)
    one.action[80:] += np.float32(0.9)


def wrap(one: Take) -> None:
    ramp = np.linspace(2.5, 3.8, len(one.state), dtype=np.float32)
    one.state[:, 0] = (ramp + np.pi) % (2 * np.pi) - np.pi
    one.action[:, 0] = one.state[:, 0]


def swapped(one: Take) -> None:
    one.pictures = {"front": one.pictures["wrist"], "wrist": one.pictures["front"]}


def upside_down(one: Take) -> None:
    one.pictures["front"] = np.ascontiguousarray(one.pictures["front"][:, ::-1, ::-1])


def other_colours(one: Take) -> None:
    one.pictures["front"] = np.ascontiguousarray(one.pictures["front"][..., ::-1])


def lost_frames(one: Take) -> None:
    keep = np.random.default_rng(0).permutation(160)[:155]
    one.pictures["front"] = one.pictures["front"][np.sort(keep)]


def not_a_number(one: Take) -> None:
    one.state[30:33, 1] = np.nan


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (black, "black_frames", r"front: \d of \d pictures looked at are black, the first at 3\.\d s \(frame \d+\)"),
        (blank, "blank_frames", r"wrist: all \d pictures looked at are of one single colour"),
        (frozen, "freeze", r"front: frames \d+ to \d+ \(.*\) are one and the same picture while the robot moves"),
        (leap, "jump", r"state\.pan leaps by 0\.\d+ rad at row 80 \(4\.00 s\), \d+ times its usual step"),
        (wrap, "angle_wrap", r"state\.pan leaps by a full turn at row \d+, 1 times in all: its angle wraps"),
        (swapped, "cameras_swapped", r"'observation.images.front' and 'observation.images.wrist' look exchanged"),
        (upside_down, "camera_turned", r"'observation.images.front' looks upside down, beside the other 3 episodes"),
        (other_colours, "camera_turned", r"'observation.images.front' looks with red and blue exchanged"),
        (lost_frames, "clock_drift", r"rows last 7\.95 s, its frames 7\.70 s: -250 ms at the end \(155 frames"),
        (not_a_number, "bad_rows", r"3 of 160 rows are NaN"),
    ],
)
def test_a_fault_is_named_with_its_episode_and_nothing_else_is(
    spoil: Callable[[Take], None], code: str, words: str, tmp_path: Path
) -> None:
    result = doctor(tmp_path, spoiled(spoil))
    found = told(result)
    also = {"frame_count"} if spoil is lost_frames else set()
    assert {where for _, where in found} == {KEY} and {c for c, _ in found} - also == {code}
    assert re.search(words, first(result, code).message), first(result, code).message
    assert (result.usable, result.clean) == (EPISODES, EPISODES - 1)


def test_a_still_picture_beside_a_robot_that_rests_is_no_fault(tmp_path: Path) -> None:
    def rests(one: Take) -> None:
        for values in (one.state, one.action):
            values[130:] += values[50] - values[130]
            values[50:130] = values[50]
        for pictures in one.pictures.values():
            pictures[50:130] = pictures[50]

    result = doctor(tmp_path, spoiled(rests))
    assert "freeze" not in {f.code for f in result.findings}
    idle = first(result, "idle")
    assert idle.where == KEY and idle.fix == "" and 3.0 < dict(idle.numbers)["idle_s"] <= 4.0


def test_an_idle_end_is_proposed_for_trimming(tmp_path: Path) -> None:
    def waits(one: Take) -> None:
        one.state[80:], one.action[80:] = one.state[80], one.state[80]

    idle = first(doctor(tmp_path, spoiled(waits)), "idle")
    assert (idle.where, idle.fix, idle.severity) == (KEY, "none", "info")
    assert 4.0 <= idle.span_s[0] <= 4.6 and idle.span_s[1] == pytest.approx(159 / HZ)


def test_half_of_the_episodes_may_have_their_cameras_exchanged(tmp_path: Path) -> None:
    takes = [take(n) for n in range(6)]
    for one in takes[1::2]:
        swapped(one)
    result = doctor(tmp_path, takes)
    assert [w for c, w in told(result) if c == "cameras_swapped"] == [f"episode_{n:06d}" for n in (1, 3, 5)]


def test_copies_are_named(tmp_path: Path) -> None:
    takes = [take(n) for n in range(3)]
    result = doctor(tmp_path, [*takes, takes[1]])
    assert told(result) == [("duplicate", "episode_000003")]
    assert first(result, "duplicate").message == "holds what episode_000001 holds. Keep one of them"


def test_spellings_of_one_task_are_told(tmp_path: Path) -> None:
    takes = [take(n) for n in range(3)]
    takes[1].task = "Move the  block."
    found = first(doctor(tmp_path, takes), "spelling")
    assert (found.where, found.severity) == ("episode_000001", "info")
    assert "says 'Move the  block.' where 2 others say 'move the block'" in found.message


def test_a_broken_packet_is_found_without_decoding(tmp_path: Path) -> None:
    import av

    source = write_logs(tmp_path / "logs", [take(n) for n in range(3)])
    video = source / "videos/chunk-000/observation.images.front/episode_000001.mp4"
    with av.open(str(video)) as container:
        at = [p.pos for p in container.demux(video=0) if p.size][45]
    content = bytearray(video.read_bytes())
    content[at : at + 4] = b"\xff\xff\xff\xff"
    video.write_bytes(content)
    result = check_source(Source.at(source), robot=str(robot_file(tmp_path / "robot.yaml")))
    found = first(result, "corrupt_video")
    assert (found.where, found.severity, found.fix) == ("episode_000001", "error", "drop")
    assert "frame 45 of 160 is damaged, and 14 frames lean on it" in found.message  # a key frame every 20
    assert (result.episodes, result.usable) == (3, 2)


def relative(takes: list[Take]) -> None:
    for one in takes:
        one.action = np.diff(one.state, axis=0, append=one.state[-1:])


def echoed(takes: list[Take]) -> None:
    for one in takes:
        one.action = one.state.copy()


def degrees(takes: list[Take]) -> None:
    for one in takes:
        one.state, one.action = np.degrees(one.state), np.degrees(one.action)


def degrees_in_commands(takes: list[Take]) -> None:
    for one in takes:
        one.action = np.degrees(one.action) / 5


def reordered(takes: list[Take]) -> None:
    for one in takes:
        one.action = np.ascontiguousarray(one.action[:, [1, 0, 2]])


def ticks(takes: list[Take]) -> None:
    for one in takes:
        one.state, one.action = (np.round(2048 + x / np.pi * 2048).astype(np.float32) for x in (one.state, one.action))


@pytest.mark.parametrize(
    ("spoil", "code", "severity", "words"),
    [
        (
            relative,
            "double_relative",
            "error",
            r"action\.arm is already relative: explains 100% of it as 1 x the state",
        ),
        (
            echoed,
            "echo_label",
            "error",
            r"action\.arm equals the state at the same row: .* a policy can win by copying",
        ),
        (degrees, "unit_suspect", "warning", r"state\.arm reaches 5\d\.\d+ rad, \d\.\d turns: it looks like degrees"),
        (degrees_in_commands, "unit_mismatch", "error", r"action\.arm\.pan follows its state, 11\.\d times as large"),
        (reordered, "column_order", "error", r"2 of 3 columns .*: 'pan' goes with state\.arm\.lift \(correlation"),
        (ticks, "unit_suspect", "warning", r"looks like motor ticks: the values are whole numbers"),
    ],
)
def test_a_fault_of_the_whole_set_is_told_once(
    spoil: Callable[[list[Take]], None], code: str, severity: str, words: str, tmp_path: Path
) -> None:
    takes = [take(n) for n in range(EPISODES)]
    spoil(takes)
    result = doctor(tmp_path, takes, looks=False)
    found = first(result, code)
    assert found.severity == severity and re.search(words, found.message), found.message


def test_a_fix_plan_is_a_label_table_that_ingest_obeys(tmp_path: Path) -> None:
    takes = [take(n) for n in range(5)]
    black(takes[1])
    lost_frames(takes[2])
    takes[3].state[:], takes[3].action[:] = np.nan, np.nan
    result = doctor(tmp_path, takes)
    plan = tmp_path / "fixes.csv"
    plan.write_bytes(write_table(fix_plan(result.keys, result.findings)))
    rows = list(csv.DictReader(plan.open()))
    assert [(r["episode"][-1], r["use"]) for r in rows] == [
        ("0", ""), ("1", "none"), ("2", "video"), ("3", "drop"), ("4", "")
    ]  # fmt: skip
    recipe = IngestRecipe(
        sources=(str(tmp_path / "logs"),), robot=str(tmp_path / "robot.yaml"), labels=(str(plan),)
    )  # fmt: skip
    manifest = ingest(recipe, tmp_path / "out", executor="local")
    assert [(r.episode, r.reason) for r in manifest.rejects] == [("episode_000003", "dropped")]
    clips = {s.episode: read_clip(tmp_path / "out", manifest, s.key) for s in manifest.samples}
    trimmed, aside = clip_feeds(clips["episode_000001"]), clip_feeds(clips["episode_000002"])
    assert not trimmed.video[60:120].any() and trimmed.action[:30].all()
    assert aside.video.all() and aside.action[:25].all() and not aside.action[50:].any()

    def planned(refs):
        return read_labels([plan], refs, refs)

    again = check_source(
        Source.at(tmp_path / "logs"), robot=str(tmp_path / "robot.yaml"), labels=planned, looks=False
    )  # fmt: skip
    assert again.episodes == 4 and "episode_000003" not in {f.where for f in again.findings}


def test_a_missing_instruction_waits_to_be_filled_in(tmp_path: Path) -> None:
    takes = [take(n) for n in range(2)]
    takes[1].task = ""
    result = doctor(tmp_path, takes, looks=False)
    rows = fix_plan(result.keys, result.findings)
    assert rows[1] == {"episode": "episode_000001", "task": "FILL IN", "reason": "no instruction"}
    (tmp_path / "fixes.csv").write_bytes(write_table(rows))
    with pytest.raises(UsageError, match=r"row 3: still says 'FILL IN'\. Write what is done there"):
        read_table(tmp_path / "fixes.csv")


@pytest.mark.parametrize(("frames_late", "words"), [(0, None), (4, "200 ms"), (-3, "150 ms")])
def test_a_late_camera_is_measured(frames_late: int, words: str | None, tmp_path: Path) -> None:
    takes = [take(n, rows=240) for n in range(4)]
    for one in takes:
        for camera, pictures in one.pictures.items():
            one.pictures[camera] = np.roll(pictures, frames_late, axis=0)
    found = [f for f in doctor(tmp_path, takes, looks=False, offsets=True).findings if f.code == "video_offset"]
    assert len(found) == 2
    for finding in found:
        late_ms = dict(finding.numbers)["late_ms"]
        assert abs(late_ms - frames_late * 1e3 / HZ) < 20, finding.message
        assert finding.severity == ("info" if words is None else "warning")


def test_a_camera_that_sees_nothing_of_the_robot_gives_no_offset(tmp_path: Path) -> None:
    takes = [take(n, rows=240) for n in range(4)]
    for one in takes:
        one.pictures["front"] = np.random.default_rng(0).integers(90, 140, one.pictures["front"].shape, np.uint8)
    result = doctor(tmp_path, takes, looks=False, offsets=True)
    found = next(f for f in result.findings if f.code == "video_offset" and "front" in f.message)
    assert found.severity == "info" and "cannot be told" in found.message and not found.numbers


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = Page(tmp_path / "check.html")
    result = doctor(tmp_path, spoiled(black), on_seen=page.add)
    page.write(result)
    html = (tmp_path / "check.html").read_text()
    assert html.count("<img") == 2 * EPISODES and html.count("<svg") == EPISODES
    assert "black_frames" in html and 'class="mark"' in html
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]+"', html)


def test_names_from_logs_are_escaped_in_the_page(tmp_path: Path) -> None:
    takes = [take(n) for n in range(2)]
    takes[0].task, takes[1].task = "<script>alert(1)</script>", "<script>alert(1)</script>."
    page = Page(tmp_path / "check.html")
    page.write(doctor(tmp_path, takes, on_seen=page.add))
    assert "<script" not in (tmp_path / "check.html").read_text()


def test_only_chosen_episodes_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    takes = [take(0), take(1, rows=60), take(2)]
    result = doctor(tmp_path, takes, where="rows < 100", looks=False)
    assert (result.episodes, result.keys) == (1, ("episode_000001",))


def test_episodes_without_the_camera_take_no_place_among_those_measured(tmp_path: Path) -> None:
    from dataclasses import replace

    from schemas.embodiment import load_embodiment
    from wamdata.doctor.offset import EPISODES, measure
    from wamdata.mapping import map_episode
    from wamdata.readers import detect_reader

    source = Source.at(write_logs(tmp_path / "logs", [take(n, rows=240) for n in range(3)]))
    reader, robot = detect_reader(source), load_embodiment(str(robot_file(tmp_path / "robot.yaml")))
    seen = [map_episode(reader.read(ref), robot) for ref in reader.list_episodes(source).episodes]
    blind = replace(seen[0], episode=replace(seen[0].episode, videos={}))
    camera = "observation.images.front"
    assert measure([blind] * EPISODES + seen, camera) == measure(seen, camera) is not None
