"""`wam show RUN`: where a run is, while it runs, after it was killed, and when it is done."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import pytest
import ticks
from commands import wam

from adapt import stage
from adapt.training.curves import CURVES, Curves, Point
from adapt.training.log import LOG, LogWriter
from adapt.training.loop import Tick
from cli.show_run import RunView, lines_of, lock_holder, spark

ROOT = Path(__file__).resolve().parents[2]
FIRST = replace(
    ticks.FIRST,
    steps=400,
    loss=1.0,
    parts={"video": 0.6, "action": 0.4},
    hold=0.04,
    seconds=0.5,
    wait_share=0.1,
    samples=4,
)


def log(run: Path, ticks: list[Tick | str]) -> None:
    """Append steps and notes as training does."""
    writer = LogWriter(run / "train" / LOG)
    for told in ticks:
        writer.write({"note": told} if isinstance(told, str) else asdict(told))
    writer.close()


def steps(first: int, last: int, **changes) -> list[Tick]:
    return [replace(FIRST, step=s, loss=2.0 - s / 400, **changes) for s in range(first, last + 1)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in the middle of training: its latents are there, a checkpoint is, a look at the held-out part was."""
    folder = tmp_path / "run"
    stage.begin(folder / "latents", "latents", {})
    stage.finish(folder / "latents", "latents", {}, {"seconds": 12.0})
    stage.begin(folder / "train", "train", {})
    saved = folder / "train" / "step-000100"
    saved.mkdir()
    (saved / "model.safetensors").write_bytes(b"0" * 2_000_000)
    (folder / "train" / "step-000050.broken").mkdir()
    curves = Curves(loss=(Point(100, 1.75),), val_error=(Point(100, 0.03),), best_step=100, best_error=0.03, seconds=50)
    (folder / "train" / CURVES).write_bytes(curves.to_json())
    log(folder, [*steps(1, 99), *steps(100, 139, val_error=0.03), "a note", *steps(140, 150, val_error=0.02)])
    return folder


@pytest.fixture
def held(run: Path) -> Iterator[int]:
    """Another process works on the run; its id."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom wamdata.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.stdin.close()


def rows(run: Path) -> dict[str, str]:
    """The report by label."""
    lines = lines_of(RunView(run).look(), datetime.now())[1:]
    return {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in lines if "  " in line}


needs_locks = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux' list of locks")


@needs_locks
def test_a_run_that_runs_says_how_far_it_is_and_how_long_it_takes(run: Path, held: int) -> None:
    facts = RunView(run).look()
    assert facts["pid"] == held and facts["stages"]["train"]["state"] == "running"
    assert (facts["step"], facts["steps"]) == (150, 400) and facts["loss"] == pytest.approx(2 - 150 / 400)
    assert facts["windows_per_s"] == pytest.approx(8) and facts["left_s"] == pytest.approx(250 * 0.5)
    assert facts["held_out"] == {"step": 140, "error": 0.02, "hold": 0.04, "best_step": 140, "best_error": 0.02}
    assert facts["checkpoint"]["step"] == 100 and facts["checkpoint"]["bytes"] == 2_000_000
    shown = rows(run)
    assert shown["latents"] == "done in 12 s" and shown["train"].startswith("running, since ")
    assert shown["eval"] == "not begun"
    assert shown["step"] == "150 of 400 (38 %)"
    assert shown["loss"].startswith("1.625 (video 0.600, action 0.400)  █") and shown["loss"].endswith("▁")
    assert shown["held out"] == "0.0200 vs hold 0.0400 at step 140, best 0.0200 at step 140 (50 % below standing still)"
    assert shown["speed"] == "8.00 windows/s over the last minute of training, data wait 10 %"
    assert shown["left"].startswith("2.1 min, ends ") and shown["notes"] == "a note"
    assert shown["checkpoint"].startswith("step 100, ") and shown["checkpoint"].endswith("ago, 2.0 MB")
    assert lines_of(facts, datetime.now())[0] == f"run {run}: process {held} works on it"


def test_speed_is_told_in_tokens_and_as_a_share_of_the_peak_where_that_is_known(run: Path, held: int) -> None:
    from adapt.training.log import LogWriter

    writer = LogWriter(run / "train/log.jsonl")
    writer.write({"facts": {"tokens": 15_940, "flops": 9.9e14, "peak_tflops": 9900.0}})
    writer.close()
    told = "8.00 windows/s over the last minute of training, 127,520 tokens/s, MFU 80 %, data wait 10 %"
    assert rows(run)["speed"] == told


def test_a_run_that_was_killed_says_how_to_go_on(run: Path) -> None:
    shown = rows(run)
    assert shown["train"].startswith("stopped, begun ") and "left" not in shown
    os.utime(run / "train" / LOG, (time.time() - 7200,) * 2)
    os.utime(run / "train" / stage.STARTED, (time.time() - 9000,) * 2)
    assert rows(run)["last line"] == "2.0 h ago"
    assert "the same `wam adapt` goes on" in lines_of(RunView(run).look(), datetime.now())[0]


@needs_locks
def test_looking_takes_no_lock_and_changes_no_file(run: Path, held: int) -> None:
    before = {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in run.rglob("*")}
    RunView(run).look()
    assert {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in run.rglob("*")} == before
    (run / "other").mkdir()
    (run / "other" / ".lock").touch()
    assert lock_holder(run) == held and lock_holder(run / "other") is None and lock_holder(run / "none") is None
    other = RunView(run / "other")
    other.look()
    assert [f.name for f in (run / "other").iterdir()] == [".lock"]


def test_steps_that_were_abandoned_are_not_shown(run: Path) -> None:
    log(run, [replace(FIRST, step=101, loss=9.0, resumed_from=100, val_error=0.03, hold=0.04)])
    facts = RunView(run).look()
    assert facts["step"] == 101 and facts["loss"] == 9.0 and facts["resumed_from"] == 100
    assert facts["held_out"]["best_error"] == 0.03 and facts["held_out"]["step"] == 100
    assert len(facts["curve"]) == 34, "of 101 steps, three to a point"
    assert facts["curve"][-1] == pytest.approx((9.0 + 1.75) / 2) and facts["left_s"] is None


def test_lines_of_an_earlier_call_tell_no_speed(run: Path) -> None:
    os.utime(run / "train" / LOG, (time.time() - 600,) * 2)
    facts = RunView(run).look()
    assert facts["step"] == 150 and "windows_per_s" not in facts and "left_s" not in facts


def test_a_view_reads_what_is_new_and_passes_over_a_line_that_is_cut_off(run: Path) -> None:
    view = RunView(run)
    assert view.look()["step"] == 150
    with (run / "train" / LOG).open("a") as file:
        file.write('{"step": 151, "ste\n')
        file.write('{"step": 15')
    assert view.look()["step"] == 150
    with (run / "train" / LOG).open("a") as file:
        file.write("2}\n")
    log(run, steps(152, 153, val_error=0.02))
    assert view.look()["step"] == 153 == RunView(run).look()["step"]


def test_without_a_log_the_curves_of_the_checkpoint_speak(run: Path) -> None:
    (run / "train" / LOG).unlink()
    facts = RunView(run).look()
    assert facts["step"] == 100 and facts["loss"] == 1.75 and facts["held_out"]["best_error"] == 0.03
    assert rows(run)["held out"] == "0.0300 at step 100, best 0.0300 at step 100"
    (run / "train" / CURVES).write_bytes(b"{")
    assert "step" not in RunView(run).look()


def test_show_prints_it_as_text_and_as_json(run: Path) -> None:
    ran = wam("show", run)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"run {run}: no process of this machine works on it")
    assert "\nstep        150 of 400 (38 %)\n" in ran.stdout
    facts = json.loads(wam("show", run, "--json").stdout)
    assert facts["stages"]["latents"] == {"state": "done", "seconds": 12.0} and facts["notes"] == ["a note"]


def test_a_finished_run_has_its_verdict_first_hand(run: Path) -> None:
    for name in ("train", "eval", "adapter"):
        stage.begin(run / name, name, {})
        stage.finish(run / name, name, {}, {"seconds": 3.0})
    (run / "eval" / "report.json").write_text(json.dumps({"verdict": "OFFLINE PASS", "reason": "good", "more": 1}))
    shown = rows(run)
    assert (shown["verdict"], shown["reason"]) == ("OFFLINE PASS", "good") and "last line" not in shown
    assert lines_of(RunView(run).look(), datetime.now())[0] == f"run {run}: complete"


def test_a_run_that_only_ingests_yet_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / ".lock").touch()
    facts = json.loads(wam("show", tmp_path, "--json").stdout)
    assert facts["stages"]["shards"] == {"state": "stopped"} and facts["checkpoint"] is None


def test_showing_a_run_imports_no_torch_and_is_quick(run: Path) -> None:
    log(run, steps(151, 400, val_error=0.02) * 40)
    code = (
        "import sys, time\nsys.argv = ['wam', 'show', sys.argv[1]]\nfrom cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(time.process_time(), [m for m in ('numpy', 'torch', 'ray', 'safetensors') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, modules = ran.stdout.strip().splitlines()[-1].split(" ", 1)
    assert modules == "[]" and float(seconds) < 4


def test_watching_needs_a_terminal(run: Path) -> None:
    ran = wam("show", run, "--watch")
    assert ran.returncode == 2 and ran.stderr == (
        "wam: --watch refreshes a terminal, and there is none. Use --json, as often as you like.\n"
    )
    assert "--watch is for runs, in a terminal" in wam("show", run, "--watch", "--json").stderr


def test_an_empty_folder_is_told_what_could_be_in_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = wam("show", tmp_path / "empty")
    assert ran.returncode == 2 and len(ran.stderr.splitlines()) == 1
    assert "is empty. Give robot logs" in ran.stderr and "DreamZero or Wan checkpoint" in ran.stderr
    (tmp_path / "empty" / "notes.txt").touch()
    assert "is nothing that wam knows" in wam("show", tmp_path / "empty").stderr


def test_a_little_curve_runs_from_the_lowest_to_the_highest() -> None:
    assert spark([0.0, 1.0, 7.0]) == "▁▂█" and spark([2.0, 2.0]) == "▁▁" and spark([]) == ""


def test_a_run_without_commands_shows_its_video_loss(run: Path) -> None:
    (run / "train" / CURVES).unlink()
    (run / "train" / LOG).unlink()
    log(run, [*steps(1, 9, hold=None), *steps(10, 12, hold=None, val_error=0.1)])
    assert rows(run)["held out"] == "video loss 0.1000 at step 10, best 0.1000 at step 10"
