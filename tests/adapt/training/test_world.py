"""One rank or many, a whole model or one divided over them: the same weights, because losses are shares of sums."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_jobs import distance, endings, toy_job, toy_recipe, train_in

from adapt.backbones.base import Latents
from adapt.training.job import train_here
from adapt.training.world import World
from schemas.errors import UsageError

SAME = 1e-6  # relative, of float64: what is left are orders of summation


def exact(**changes):
    return toy_recipe(precision="float64", **changes)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What eight steps of five windows, play and film mixed, end with on one rank."""
    run = tmp_path_factory.mktemp("alone")
    train_in(toy_job(run, exact()), 1)
    return endings(run)


@pytest.mark.parametrize(("ranks", "micro_batch"), [(1, 1), (1, 2), (2, 1), (2, 8), (3, 2)])
def test_ranks_and_micro_batches_do_not_change_the_result(
    alone: dict, ranks: int, micro_batch: int, tmp_path: Path
) -> None:
    train_in(toy_job(tmp_path, exact(), micro_batch=micro_batch), ranks)
    end = endings(tmp_path)
    assert distance(alone, end) < SAME
    assert end["curves"]["best_step"] == alone["curves"]["best_step"]
    for one, other in zip(alone["curves"]["val_error"], end["curves"]["val_error"], strict=True):
        assert other["value"] == pytest.approx(one["value"], rel=SAME)


def test_a_rank_without_a_sample_takes_part(tmp_path: Path) -> None:
    recipe = exact(batch=2, steps=4)
    train_in(toy_job(tmp_path / "one", recipe), 1)
    train_in(toy_job(tmp_path / "three", recipe), 3)
    assert distance(endings(tmp_path / "one"), endings(tmp_path / "three")) < SAME


def test_a_step_of_film_alone_moves_no_head_and_no_moment_of_one(tmp_path: Path) -> None:
    """Of batches of one, the mixture's first steps are play, then one of film: heads must look the same after it."""
    from adapt.cache.feed import Feed

    recipe = exact(batch=1, steps=6, save_every=1, eval_every=6, share=0.5)
    job = toy_job(tmp_path / "one", recipe)
    heads = {}
    kinds = {}
    plain = Feed.take

    def noted(self, number):
        step = plain(self, number)
        kinds[number] = step.of.action_rows
        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Feed, "take", noted)
        for stop in range(1, 6):
            train_here(replace(job, stop_after=1), World())
            end = endings(tmp_path / "one")
            heads[stop - 1] = {
                f"{part}/{n}": t
                for part in ("model", "optimizer")
                for n, t in end[part].items()
                if "action_encoder" in n and not n.startswith("average.")
            }
    silent = [k for k in range(1, 5) if not kinds[k]]
    spoken = [k for k in range(1, 5) if kinds[k]]
    assert silent and spoken
    for step, is_same in [(k, True) for k in silent] + [(k, False) for k in spoken]:
        before, after = heads[step - 1], heads[step]
        assert all(torch.equal(t, after.get(n, torch.empty(0))) for n, t in before.items()) == is_same
    train_in(job, 1)
    train_in(toy_job(tmp_path / "two", recipe), 2)
    assert distance(endings(tmp_path / "one"), endings(tmp_path / "two")) < SAME


def test_the_number_of_ranks_may_change_from_one_resume_to_the_next(alone: dict, tmp_path: Path) -> None:
    job = toy_job(tmp_path, exact())
    for ranks, stop in ((2, 3), (1, 3), (3, None)):
        train_in(replace(job, stop_after=stop), ranks)
    assert distance(alone, endings(tmp_path)) < SAME


def test_a_divided_model_ends_like_a_whole_one_and_its_checkpoint_loads_whole(tmp_path: Path) -> None:
    recipe = exact(batch=4)
    train_in(toy_job(tmp_path / "whole", recipe), 1)
    job = toy_job(tmp_path / "divided", recipe, micro_batch=1)
    train_in(replace(job, stop_after=3), 2, is_sharded=True)
    train_in(replace(job, stop_after=3), 1)
    train_in(job, 2, is_sharded=True)
    whole, divided = endings(tmp_path / "whole"), endings(tmp_path / "divided")
    assert distance(whole, divided) < SAME
    for kind in ("raw_val_error", "average_val_error"):  # of the weights of that look, not of those before
        assert [p["value"] for p in divided["curves"][kind]] == pytest.approx(
            [p["value"] for p in whole["curves"][kind]], rel=SAME
        )


def test_a_batch_that_ranks_do_not_divide_is_refused_for_a_divided_model(tmp_path: Path) -> None:
    job = toy_job(tmp_path, exact(batch=5), micro_batch=1)
    with pytest.raises(UsageError, match="batch 5 over 2 ranks of micro-batch 1"):
        train_here(job, World(rank=0, size=2, is_sharded=True))
    with pytest.raises(UsageError, match="adamw8bit"):
        train_here(replace(job, rung=replace(job.rung, optimizer="adamw8bit")), World(size=2, is_sharded=True))


def test_every_rank_gets_as_many_held_out_windows_of_every_length_and_each_counts_once() -> None:
    from training_jobs import toy_part

    from adapt.training.loop import shares

    part = toy_part("val")
    samples = [_sample(part, i) for i in range(len(part.entries))]
    each = [shares(samples, World(rank=r, size=3)) for r in range(3)]
    assert len({tuple(s.chunks for s, _ in mine) for mine in each}) == 1
    counted = [s.window_id for mine in each for s, counts in mine if counts]
    assert sorted(counted) == sorted(s.window_id for s in samples)


def test_a_failure_of_the_first_rank_is_one_of_all_ranks(tmp_path: Path) -> None:
    """The others must not wait for a rank that has gone on, nor go on without it."""
    import multiprocessing

    from training_jobs import free_port

    context = multiprocessing.get_context("fork")
    told, port = context.SimpleQueue(), free_port()
    ranks = [context.Process(target=_fail_first, args=(rank, port, told)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(30)
    words = {0: "No room", 1: "the first process could not do its part"}
    assert sorted(told.get() for _ in ranks) == [(rank, said, 7.0) for rank, said in words.items()]


def _fail_first(rank: int, port: int, told) -> None:
    import os

    from adapt.training.world import join, leave

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    world = join()

    def work() -> None:
        raise OSError(28, "No room")

    try:
        world.first(work)
    except OSError as error:
        told.put((rank, error.strerror, world.told(lambda: 7.0)))
    leave()


def _sample(part, at: int) -> Latents:
    entry = part.entries[at]
    rest = {"clip_key": "", "start": 0, "text": "", "robot": "", "encoded": {}, "frames": None}
    return Latents(window_id=entry.id, copy=0, **rest, **part.row(at, 0))
