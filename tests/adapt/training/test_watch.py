"""Ticks as rates and as curves: what is drawn where, over resumed and restarted training."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ticks import FIRST

from adapt.training.loop import Tick
from adapt.training.watch import Board, Pace, Watcher, writers
from schemas.errors import UsageError


@pytest.fixture(autouse=True)
def numbered_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard orders files of one second by a number without leading zeros, so 10 comes before 9."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def ticks(first: int, last: int, **changes) -> list[Tick]:
    return [replace(FIRST, step=step, **changes) for step in range(first, last + 1)]


def pace_of(told: list[Tick]) -> Pace:
    pace = Pace()
    for tick in told:
        pace.add(tick)
    return pace


def drawn(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder))
    board.Reload()
    return {tag: {e.step: e.value for e in board.Scalars(tag)} for tag in board.Tags()["scalars"]}


def test_the_start_of_a_call_does_not_slow_its_speed_down() -> None:
    slow = replace(FIRST, seconds=500.0)
    assert pace_of([slow]).samples_per_s == pytest.approx(8 / 500) and pace_of([slow]).seconds_per_step is None
    pace = pace_of([slow, *ticks(2, 20)])
    assert pace.samples_per_s == pytest.approx(4) and pace.seconds_per_step == pytest.approx(2)
    assert pace.wait_share == pytest.approx(0.25)


def test_a_resumed_run_has_the_speed_of_its_own_steps() -> None:
    pace = pace_of([*ticks(1, 60), *ticks(51, 60, resumed_from=50, seconds=4.0)])
    assert pace.samples_per_s == pytest.approx(2)
    assert pace.left_s(replace(FIRST, step=60)) == pytest.approx(40 * 4)


def test_looks_at_the_held_out_part_count_for_the_time_left_and_not_for_the_speed() -> None:
    told = [
        replace(
            FIRST, step=s, val_error=None if s < 10 else 0.03 - s // 10 * 1e-3, seconds=22.0 if s % 10 == 0 else 2.0
        )
        for s in range(1, 62)
    ]
    pace = pace_of(told)
    assert pace.samples_per_s == pytest.approx(4)
    assert pace.seconds_per_step == pytest.approx(4)


def test_the_speed_is_that_of_the_last_minute_and_the_mean_forgets() -> None:
    pace = pace_of([*ticks(1, 2000), *ticks(2001, 2040, samples=16)])
    assert pace.samples_per_s == pytest.approx(8)
    quick = pace_of(ticks(1, 100_000, seconds=0.01))
    assert quick.samples_per_s == pytest.approx(800) and len(quick._slices) <= 700


def test_windows_encoded_on_the_way_have_a_speed() -> None:
    assert pace_of(ticks(1, 30)).encoded_per_s == 0
    assert pace_of(ticks(1, 30, encoded=3)).encoded_per_s == pytest.approx(1.5)


def test_tensorboard_shows_what_a_tick_says(tmp_path: Path) -> None:
    told = [*ticks(1, 9), *ticks(10, 12, val_error=0.03, peak_bytes=5_000_000_000, encoded=2)]
    with writers(tmp_path, ("tensorboard",)) as watcher:
        for tick in told:
            watcher.tick(tick)
    shown = drawn(tmp_path / "train" / "tensorboard")
    assert shown["loss/total"] == pytest.approx(dict.fromkeys(range(1, 13), 0.3))
    assert shown["loss/video"][12] == pytest.approx(0.2) and shown["loss/action"][12] == pytest.approx(0.1)
    assert shown["held_out/error"] == pytest.approx({10: 0.03})
    assert shown["held_out/standing_still"] == pytest.approx({10: 0.0375})
    assert shown["speed/windows_per_s"][9] == pytest.approx(4) and shown["speed/wait_percent"][9] == pytest.approx(25)
    assert shown["memory/peak_gb"] == pytest.approx({10: 5, 11: 5, 12: 5})
    assert shown["lr"][1] == pytest.approx(1e-4) and min(shown["speed/windows_encoded_per_s"]) == 10


def test_quick_steps_are_averaged_and_none_is_lost_at_the_end(tmp_path: Path) -> None:
    quick = replace(FIRST, seconds=0.125)
    told = [replace(quick, step=s, loss=float(s), val_error=0.03 if s >= 15 else None) for s in range(1, 23)]
    with writers(tmp_path, ("tensorboard",)) as watcher:
        for tick in told:
            watcher.tick(tick)
    losses = drawn(tmp_path / "train" / "tensorboard")["loss/total"]
    assert losses == {8: 4.5, 15: 12.0, 22: 19.0}


def test_losses_that_have_not_arrived_are_not_drawn(tmp_path: Path) -> None:
    unknown = replace(FIRST, loss=math.nan, parts={"video": math.nan, "action": math.nan})
    with writers(tmp_path, ("tensorboard",)) as watcher:
        for tick in (unknown, *ticks(2, 3)):
            watcher.tick(tick)
    shown = drawn(tmp_path / "train" / "tensorboard")
    assert list(shown["loss/total"]) == [2, 3] and list(shown["lr"]) == [1, 2, 3]


def test_a_resumed_run_hides_the_steps_that_were_abandoned(tmp_path: Path) -> None:
    for told in (ticks(1, 30, loss=1.0), ticks(21, 25, loss=2.0, resumed_from=20, val_error=0.03)):
        with writers(tmp_path, ("tensorboard",)) as watcher:
            for tick in told:
                watcher.tick(tick)
    shown = drawn(tmp_path / "train" / "tensorboard")
    assert shown["loss/total"] == dict.fromkeys(range(1, 21), 1.0) | dict.fromkeys(range(21, 26), 2.0)
    assert "held_out/error" not in shown, "the error that a resumed run begins with is of an earlier step"


@pytest.mark.parametrize("again", [20, 0])
def test_training_that_begins_again_in_the_same_process_hides_them_too(tmp_path: Path, again: int) -> None:
    with writers(tmp_path, ("tensorboard",)) as watcher:
        for tick in (*ticks(1, 30, loss=1.0), *ticks(again + 1, again + 5, loss=2.0, resumed_from=again)):
            watcher.tick(tick)
    losses = drawn(tmp_path / "train" / "tensorboard")["loss/total"]
    assert losses == dict.fromkeys(range(1, again + 1), 1.0) | dict.fromkeys(range(again + 1, again + 6), 2.0)


def test_a_board_shows_nothing_after_the_step_it_goes_on_from(tmp_path: Path) -> None:
    for resume_step in (0, 4):
        board = Board(tmp_path, resume_step)
        for step in range(resume_step + 1, resume_step + 8):
            board.write(step, {"lr": float(resume_step)})
        board.close()
    assert drawn(tmp_path)["lr"] == dict.fromkeys(range(1, 5), 0.0) | dict.fromkeys(range(5, 12), 4.0)


def test_a_writer_that_fails_is_noted_once_and_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "tensorboard").write_text("in the way")
    noted: list[str] = []
    with writers(tmp_path, ("tensorboard",), on_note=noted.append) as watcher:
        for tick in ticks(1, 5):
            watcher.tick(tick)
    assert len(noted) == 1 and "tensorboard" in noted[0] and "training goes on" in noted[0]


def test_no_file_is_made_before_the_first_step(tmp_path: Path) -> None:
    noted: list[str] = []
    with writers(tmp_path, ("tensorboard",), on_note=noted.append) as watcher:
        assert list(tmp_path.iterdir()) == []
        watcher.tick(FIRST)
        assert noted == [f"curves: tensorboard --logdir {tmp_path / 'train' / 'tensorboard'}"]


def test_what_cannot_be_drawn_in_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"'tensorbord': not known. Give one of: tensorboard, wandb"):
        writers(tmp_path, ("tensorbord",))
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="wandb is not installed. Run `pip install wandb`"):
        writers(tmp_path, ("tensorboard", "wandb"))
    assert isinstance(writers(tmp_path, ("tensorboard",)), Watcher)


def test_wandb_is_offline_without_a_login_and_keeps_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    noted: list[str] = []
    for told in (ticks(1, 3), ticks(3, 4, resumed_from=2, loss=2.0)):
        with writers(tmp_path / "run", ("wandb",), on_note=noted.append) as watcher:
            for tick in told:
                watcher.tick(tick)
    files = sorted((tmp_path / "run" / "train" / "wandb").rglob("run-*.wandb"))
    assert len(files) == 2 and {f.stem for f in files} == {f"run-{(files[0].parents[2] / 'id').read_text()}"}
    assert all("wandb sync" in words and "offline-run" in words for words in noted) and len(noted) == 2
    losses = []
    for file in files:
        store = DataStore()
        store.open_for_scan(str(file))
        while (data := store.scan_data()) is not None:
            record = Record()
            record.ParseFromString(data)
            item = {".".join(i.nested_key) or i.key: float(i.value_json) for i in record.history.item}
            if "step" in item:
                losses.append((item["step"], item["loss/total"]))
    assert losses == [(1, 0.3), (2, 0.3), (3, 0.3), (3, 2.0), (4, 2.0)]


def test_pace_and_names_need_no_torch() -> None:
    import subprocess

    heavy = ("torch", "numpy", "wandb", "tensorboard")
    code = f"import adapt.training.watch, sys; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ran.stdout.strip() == "[]"
