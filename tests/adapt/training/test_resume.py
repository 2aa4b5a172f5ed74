"""A run that is killed, whenever, and resumed ends bit-equal to one that was left alone."""

import multiprocessing
import os
import random
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import SafetensorError
from training_jobs import SMALL, endings, same, toy_job, toy_recipe

from adapt.training import checkpoint
from adapt.training.job import Job, train_here
from adapt.training.log import LOG, read_log
from adapt.training.world import World
from schemas.errors import DataError


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    run = tmp_path_factory.mktemp("alone")
    train_here(toy_job(run), World())
    return endings(run)


@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_stopped_after_any_step_it_ends_the_same(left_alone: dict, stop: int, tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    seen = []
    train_here(replace(job, stop_after=stop), World())
    train_here(job, World(), on_tick=lambda t: seen.append(t))
    assert same(left_alone, endings(tmp_path))
    assert seen[0].resumed_from == stop // SMALL["save_every"] * SMALL["save_every"]  # no more than that is lost
    assert [t.step for t in seen] == list(range(seen[0].resumed_from + 1, SMALL["steps"] + 1))


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_flush_or_rename_it_ends_the_same(left_alone: dict, seed: int, tmp_path: Path) -> None:
    """Every write to disk ends in a flush or a rename: each life of the run ends just before one of its own choice."""
    job, chance, lives = toy_job(tmp_path), random.Random(seed), 0
    while _life(job, dies_at=chance.randint(1, 18)) == -signal.SIGKILL:
        lives += 1
        assert lives < 100
    assert lives > 1
    assert same(left_alone, endings(tmp_path))
    assert not list((tmp_path / "train").glob("step-*.partial"))


@pytest.mark.slow
def test_killed_at_any_time_it_ends_the_same(left_alone: dict, tmp_path: Path) -> None:
    for seed in range(10):
        chance, lives = random.Random(seed), 0
        job = toy_job(tmp_path / str(seed))
        while _life(job, lives_s=chance.uniform(0.05, 0.6 + lives / 10)) == -signal.SIGKILL:
            lives += 1
        assert same(left_alone, endings(tmp_path / str(seed)))


def _life(job: Job, *, dies_at: int = 0, lives_s: float | None = None) -> int:
    """Exit code of a process that trains until it dies."""
    process = multiprocessing.get_context("fork").Process(target=_live, args=(job, dies_at))
    process.start()
    process.join(lives_s)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def _live(job: Job, dies_at: int) -> None:
    calls = 0

    def counted(plain):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*arguments)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    train_here(job, World())


def test_best_weights_of_later_than_the_checkpoint_do_not_change_the_course(tmp_path: Path) -> None:
    """They were written at step 6, the checkpoint is of step 4: looks at 5 must be counted as they were at first."""
    recipe = toy_recipe(steps=12, save_every=4, eval_every=1, patience=2, lr=3e-2)
    plain, stopped = toy_job(tmp_path / "plain", recipe), toy_job(tmp_path / "stopped", recipe)
    done = train_here(plain, World())
    for stop in (3, 2, 3, 3):
        train_here(replace(stopped, stop_after=stop), World())
    again = train_here(stopped, World())
    assert same(endings(tmp_path / "plain"), endings(tmp_path / "stopped"))
    assert (again.stopped, again.chosen_step) == (done.stopped, done.chosen_step)


def test_a_run_that_stopped_for_want_of_gain_does_not_go_on_when_resumed(tmp_path: Path) -> None:
    recipe = toy_recipe(steps=40, eval_every=1, save_every=4, patience=2, lr=0.3)
    job = toy_job(tmp_path, recipe)
    done = train_here(job, World())
    assert done.stopped.startswith("no better for 2 looks") and done.steps < 40
    before = endings(tmp_path)
    again = train_here(job, World(), on_tick=lambda t: pytest.fail("went on"))
    assert (again.steps, again.stopped) == (done.steps, done.stopped) and same(before, endings(tmp_path))


def _flip(path: Path, at: int = -100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "curves.json", "checkpoint.json"])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_taken(
    left_alone: dict, name: str, tmp_path: Path
) -> None:
    job, notes, ticks = toy_job(tmp_path), [], []
    train_here(replace(job, stop_after=7), World())
    _flip(tmp_path / "train/step-000006" / name, at=10 if name == "checkpoint.json" else -100)
    train_here(job, World(), on_note=notes.append, on_tick=ticks.append)
    assert ticks[0].resumed_from == 3
    assert len(notes) == 1 and "step-000006: is damaged and was set aside" in notes[0]
    assert (tmp_path / "train/step-000006.broken").is_dir()
    assert same(left_alone, endings(tmp_path))


def test_a_record_of_another_step_than_its_folder_is_damage(tmp_path: Path) -> None:
    job, ticks = toy_job(tmp_path), []
    train_here(replace(job, stop_after=6), World())
    record = tmp_path / "train/step-000006/checkpoint.json"
    record.write_text(record.read_text().replace('"step": 6', '"step": 7'))
    train_here(job, World(), on_tick=ticks.append)
    assert ticks[0].resumed_from == 3


def test_where_every_checkpoint_is_damaged_nothing_begins_again_by_itself(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    train_here(replace(job, stop_after=7), World())
    for path in (tmp_path / "train").glob("step-*/model.safetensors"):
        _flip(path)
    for _ in range(2):
        with pytest.raises(DataError, match="holds checkpoints and none is whole. Delete that folder"):
            train_here(job, World())


def test_lost_best_weights_are_said_and_kept_again(tmp_path: Path) -> None:
    job, notes = toy_job(tmp_path), []
    train_here(replace(job, stop_after=7), World())
    (tmp_path / "train/best.safetensors").write_bytes(b"torn")
    done = train_here(job, World(), on_note=notes.append)
    assert done.chosen_step == 8 and "best.safetensors: is missing or damaged" in notes[0]


def test_a_full_disk_costs_that_save_alone(left_alone: dict, tmp_path: Path) -> None:
    """The operating system refuses files of more than 100 kB during steps 2 to 5: a real failed write."""
    job, notes, saved = toy_job(tmp_path), [], []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def tick(tick) -> None:
        limit = 100_000 if 1 <= tick.step < 5 else soft
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))

    try:
        train_here(job, World(), on_tick=tick, on_note=notes.append, on_save=lambda: saved.append(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [n.split(" could")[0] for n in notes] == ["the checkpoint of step 3", "the best weights, of step 4,"]
    assert len(saved) == 2
    end = endings(tmp_path)
    assert same({**left_alone, "curves": {}}, {**end, "curves": {}})
    assert [p.name for p in sorted((tmp_path / "train").glob("step-*"))] == ["step-000006", "step-000008"]


def test_the_last_save_fails_loudly_and_leaves_what_was_there(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def tick(tick) -> None:
        if tick.step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    try:
        with pytest.raises(DataError, match=r"step 8, could not be written \(File too large\). Make room"):
            train_here(job, World(), on_tick=tick)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "train").glob("*.partial"))
    found = checkpoint.newest(tmp_path / "train")
    assert found is not None and found[1].step == 6
    train_here(job, World())


def test_older_checkpoints_make_room_on_a_full_disk(
    left_alone: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that holds two checkpoints and the best weights, no third: the writer leaves half a file."""
    job, plain = toy_job(tmp_path), checkpoint.save_file
    most = 900_000

    def save_file(tensors, path, about=None) -> None:
        plain(tensors, path, about)
        if sum(p.stat().st_size for p in (tmp_path / "train").rglob("*.safetensors*")) > most:
            os.truncate(path, Path(path).stat().st_size // 2)
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    notes: list[str] = []
    train_here(job, World(), on_note=notes.append)
    assert not notes and same(left_alone, endings(tmp_path))
    assert sorted(p.name for p in (tmp_path / "train").glob("step-*")) == ["step-000006", "step-000008"]


def test_a_file_that_was_cut_short_without_a_word_never_becomes_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, plain, notes = toy_job(tmp_path), checkpoint.save_file, []

    def save_file(tensors, path, about=None) -> None:
        plain(tensors, path, about)
        if "step-000003" in str(path):
            os.truncate(path, Path(path).stat().st_size - 8)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    train_here(replace(job, stop_after=4), World(), on_note=notes.append)
    assert "the checkpoint of step 3 could not be written" in notes[0]
    assert checkpoint.newest(tmp_path / "train") is None


def test_of_a_step_that_was_done_twice_the_last_line_of_the_log_holds(tmp_path: Path) -> None:
    from adapt.training.log import LogReader, LogWriter

    path = tmp_path / LOG
    writer = LogWriter(path)
    for step in (1, 2):
        writer.write({"step": step, "loss": float("nan")})
    writer.close()
    with path.open("ab") as file:
        file.write(b'{"step": 3, "lo')  # killed
    writer = LogWriter(path)
    writer.write({"step": 2, "loss": 0.5})
    assert read_log(path) == {1: {"step": 1, "loss": None}, 2: {"step": 2, "loss": 0.5}}
    reader = LogReader(path)
    assert len(list(reader.new())) == 3 and not list(reader.new())
