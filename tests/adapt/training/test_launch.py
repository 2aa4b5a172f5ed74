"""Processes that are started, heard, lost and replaced."""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from training_jobs import distance, endings, toy_job, toy_recipe, train_in

from adapt.training import launch as launching
from adapt.training.launch import Hear, ProcessLost, Where, launch
from adapt.training.loop import Tick
from schemas.errors import DataError, UsageError

SAME = 1e-6
EXACT = {"precision": "float64", "steps": 30, "save_every": 5, "eval_every": 10}


@dataclass
class Heard:
    ticks: list[Tick] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    saves: int = 0

    def save(self) -> None:
        self.saves += 1

    @property
    def hear(self) -> Hear:
        return Hear(self.ticks.append, self.notes.append, self.save)


def children() -> list[multiprocessing.Process]:
    return [p for p in multiprocessing.active_children() if p.name.startswith("SpawnProcess")]


def test_a_run_that_loses_a_process_goes_on_from_the_newest_checkpoint_with_the_rest(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train_in(toy_job(tmp_path / "alone", toy_recipe(**EXACT)), 1)
    capfd.readouterr()
    heard, killed = Heard(), []

    def tick(tick: Tick) -> None:
        heard.ticks.append(tick)
        if tick.step >= 12 and not killed:
            victim = max(children(), key=lambda p: p.pid)
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    job = toy_job(tmp_path / "lost", toy_recipe(**EXACT))
    done = launch(job, Where(processes=2), Hear(tick, heard.notes.append, heard.save))
    assert killed and done.steps == 30 and not children()
    assert heard.notes == ["a process was lost (killed by signal 9); going on from the newest checkpoint with 1"]
    resumed = {t.resumed_from for t in heard.ticks}
    assert resumed > {0} and all(r % 5 == 0 for r in resumed)
    assert heard.ticks[-1].step == 30 and heard.saves >= 5  # of 6: one may be saved and not told when it dies
    assert distance(endings(tmp_path / "alone"), endings(tmp_path / "lost")) < SAME
    told = capfd.readouterr()
    assert "Gloo" not in told.out and not told.out


class _Process:
    """As `multiprocessing.Process` once it has ended."""

    def __init__(self, exitcode: int | None) -> None:
        self.exitcode = exitcode


def _outcome(*told: tuple[tuple | None, int]):
    """What `launch` makes of (what a process said, its exit code)."""
    answers = []
    for said, _ in told:
        answer, mouth = multiprocessing.Pipe(duplex=False)
        if said is not None:
            mouth.send(said)
        mouth.close()
        answers.append(answer)
    return launching._outcome(answers, [_Process(code) for _, code in told])


def test_the_reason_of_a_failure_comes_before_what_others_missed() -> None:
    lost = ("failed", "Connection closed by peer")
    with pytest.raises(DataError, match="clip 7 is torn"):
        _outcome((lost, 1), (("DataError", "clip 7 is torn"), 1))
    with pytest.raises(UsageError, match="shard"):
        _outcome((lost, 1), (("UsageError", "no shard"), 1))
    with pytest.raises(torch.OutOfMemoryError, match="tried to allocate"):
        _outcome((lost, 1), (("memory", "tried to allocate"), 1))


def test_what_is_left_are_all_but_the_killed() -> None:
    lost = ("failed", "Connection closed by peer")
    with pytest.raises(ProcessLost, match="killed by signal 9") as found:
        _outcome((lost, 1), (None, -9), (lost, 1), (None, -9))
    assert found.value.left == 2
    with pytest.raises(ProcessLost, match="Connection closed by peer") as found:
        _outcome((lost, 1), (lost, 1))
    assert found.value.left == 2
    with pytest.raises(ProcessLost, match="ended without a word"):
        _outcome((("done", None), 0), (None, 1))


def test_what_fails_again_and_again_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def work(job, where, processes, hear):
        tried.append(processes)
        raise ProcessLost("killed by signal 9", left=processes - 1)

    monkeypatch.setattr(launching, "_here", work)
    heard = Heard()
    with pytest.raises(DataError, match=r"training failed 4 times: killed by signal 9. Look at .*log.jsonl"):
        launch(toy_job(tmp_path), Where(processes=3), heard.hear)
    assert tried == [3, 2, 1, 1] and len(heard.notes) == 3


def test_one_process_tells_the_log_and_the_listener_the_same(tmp_path: Path) -> None:
    from adapt.training.log import LOG, read_log

    heard = Heard()
    done = launch(toy_job(tmp_path), Where(), heard.hear)
    log = read_log(tmp_path / "train" / LOG)
    assert [t.step for t in heard.ticks] == list(log) == list(range(1, 9)) and done.steps == 8
    assert [t.loss for t in heard.ticks] == [line["loss"] for line in log.values()]
    assert heard.saves == 3


def test_what_was_done_survives_being_sent() -> None:
    import json

    from adapt.training.curves import Point, Trained
    from adapt.training.launch import trained_from

    done = Trained(8, 4, 1.5, 10, 20, 3, 1, 0.5, (Point(1, 0.5),), (Point(4, 0.25),), stopped="time was up")
    assert trained_from(json.loads(json.dumps(done.as_dict()))) == done


def _start(job, where: Where) -> None:
    launch(job, where, Hear())


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """Or they would go on writing beside the run that is started next."""
    job = toy_job(tmp_path, toy_recipe(steps=100_000))
    starter = multiprocessing.get_context("spawn").Process(target=_start, args=(job, Where(processes=2)))
    starter.start()
    log = tmp_path / "train/log.jsonl"
    while not log.exists() or not log.stat().st_size:
        assert starter.is_alive()
        time.sleep(0.2)
    started = [int(p) for p in Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()]
    assert started
    starter.kill()
    starter.join()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() and b"spawn" in _command(pid) for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_ray_train_ends_with_the_same_weights(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = toy_recipe(precision="float64")
    train_in(toy_job(tmp_path / "alone", recipe), 1)
    capfd.readouterr()
    heard = Heard()
    done = launch(toy_job(tmp_path / "ray", recipe), Where(processes=2, launcher="ray"), heard.hear)
    assert done.steps == 8 and [t.step for t in heard.ticks] == list(range(1, 9)) and not heard.notes
    assert distance(endings(tmp_path / "alone"), endings(tmp_path / "ray")) < SAME
    left = {p.name for p in (tmp_path / "ray/train").iterdir() if not p.name.startswith("step-")}
    assert left == {"best.safetensors", "curves.json", "horizon.json", "log.jsonl"}
    told = capfd.readouterr()
    assert told.out == "" and "usage" not in told.err
