"""Training in one process, in several on this machine, or on a Ray cluster; the same samples in the same order in all.

Several processes tell through the run's log what they do, which the one that started them reads. When one is lost,
training goes on from the newest checkpoint with as many as are left: checkpoints know nothing of ranks.
"""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from adapt.training.curves import SERIES, Point, Trained
from adapt.training.job import TRAIN, Job, train_here
from adapt.training.log import LOG, LogReader, LogWriter
from adapt.training.loop import Tick
from schemas.errors import DataError, UsageError, WamError
from schemas.files import write_atomic

ANSWER = "answer.json"
RETRIES = 3
POLL_S = 0.2
GRACE_S = 20.0  # for the processes that are left to say why they ended
ERRORS = {e.__name__: e for e in (DataError, UsageError)}


@dataclass(frozen=True)
class Where:
    """Where training runs.

    Args:
        processes: one to a GPU, or several on a CPU (gloo).
        kind: `cuda` or `cpu`.
        is_sharded: the base divided over them (FSDP2).
        launcher: `local` processes, or `ray` (Ray Train), which a cluster needs.
    """

    processes: int = 1
    kind: Literal["cpu", "cuda"] = "cpu"
    is_sharded: bool = False
    launcher: Literal["local", "ray"] = "local"
    address: str | None = None


@dataclass(frozen=True)
class Hear:
    """What is told while training: steps, remarks, and that a checkpoint was saved."""

    tick: Callable[[Tick], None] = lambda tick: None
    note: Callable[[str], None] = lambda words: None
    save: Callable[[], None] = lambda: None


@dataclass
class _Log:
    """Writes what one process is told into the run's log."""

    writer: LogWriter
    hear: Hear = field(default_factory=Hear)

    def tick(self, tick: Tick) -> None:
        self.writer.write(asdict(tick))
        self.hear.tick(tick)

    def note(self, words: str) -> None:
        self.writer.write({"note": words})
        self.hear.note(words)

    def save(self) -> None:
        self.writer.write({"saved": True})
        self.hear.save()


def launch(job: Job, where: Where, hear: Hear) -> Trained:
    """Train, wherever that is.

    Raises:
        torch.OutOfMemoryError: the rung is too high.
        DataError: a process failed again and again; names its last words.
    """
    if where.processes == 1 and where.launcher == "local":
        return _alone(job, where, hear)
    left, failures = where.processes, 0
    while True:
        try:
            work = _on_ray if where.launcher == "ray" else _here
            return work(job, where, left, hear)
        except ProcessLost as lost:
            failures += 1
            left = max(1, left if lost.left is None else min(left, lost.left))
            while where.is_sharded and job.recipe.batch % (left * job.rung.micro_batch):
                left -= 1  # ranks of a divided base have equally many samples; one rank always divides
            if failures > RETRIES:
                raise DataError(f"training failed {failures} times: {lost}. Look at {job.run / TRAIN / LOG}.") from None
            hear.note(f"a process was lost ({lost}); going on from the newest checkpoint with {left}")


class ProcessLost(Exception):
    """A training process died; `left` says how many there can be now."""

    def __init__(self, words: str, left: int | None = None) -> None:
        super().__init__(words)
        self.left = left


def _alone(job: Job, where: Where, hear: Hear) -> Trained:
    import torch

    from adapt.training.world import World

    log = _Log(LogWriter(job.run / TRAIN / LOG), hear)
    device = torch.device("cuda", 0) if where.kind == "cuda" else torch.device("cpu")
    try:
        return train_here(job, World(device=device), on_tick=log.tick, on_note=log.note, on_save=log.save)
    finally:
        log.writer.close()


def _here(job: Job, where: Where, processes: int, hear: Hear) -> Trained:
    """Processes on this machine, started afresh (no state of this one leaks into them)."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    port = _free_port()
    workers, answers = [], []
    reader = LogReader(job.run / TRAIN / LOG)
    list(reader.new())
    try:
        for rank in range(processes):
            answer, told = context.Pipe(duplex=False)
            worker = context.Process(target=_worker, args=(rank, processes, port, job, where, told), daemon=True)
            worker.start()
            told.close()  # so that a process that dies is heard
            workers.append(worker)
            answers.append(answer)
        while all(w.exitcode in (None, 0) for w in workers) and any(w.is_alive() for w in workers):
            _pass_on(reader, hear)
            workers[0].join(POLL_S)
        return _outcome(answers, workers)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
            worker.join()
        for answer in answers:
            answer.close()
        _pass_on(reader, hear)  # what was said until the last of them was gone


def _outcome(answers: Sequence[Any], workers: Sequence[Any]) -> Trained:
    """What the first process returned, or the reason of the first that has one; the others only miss it."""
    deadline = time.monotonic() + GRACE_S
    found: list[tuple[str, Any]] = []
    for answer in answers:
        try:
            while not answer.poll(0) and time.monotonic() < deadline:
                answer.poll(POLL_S)
            if answer.poll(0):
                found.append(answer.recv())
        except EOFError:  # killed before it could say anything
            pass
    for kind, content in sorted(found, key=lambda told: told[0] in ("done", "failed")):
        if kind != "failed":
            _raise(kind, content)
    is_whole = all(kind == "done" for kind, _ in found) and len(found) == len(workers)
    if not is_whole:
        killed = [w.exitcode for w in workers if w.exitcode is not None and w.exitcode < 0]
        said = [content for kind, content in found if kind == "failed"]
        words = f"killed by signal {-killed[0]}" if killed else said[0] if said else "it ended without a word"
        raise ProcessLost(words, left=len(workers) - len(killed))
    return trained_from(found[0][1])


def _raise(kind: str, content: Any) -> None:
    import torch

    if kind == "memory":
        raise torch.OutOfMemoryError(content)
    if kind in ERRORS:
        raise ERRORS[kind](content)
    if kind == "failed":
        raise ProcessLost(content)


def _worker(rank: int, size: int, port: int, job: Job, where: Where, answer: Any) -> None:
    _end_with_parent()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # gloo prints a line for every process it meets
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
    told = _take_part(job, where, rank)
    answer.send(told)
    answer.close()
    if told[0] != "done":
        os._exit(1)  # the process group is broken: an orderly end would wait for it


def _end_with_parent() -> None:
    """A run whose first process was killed must not go on writing beside the one that is started next."""
    import multiprocessing
    from multiprocessing.connection import wait
    from threading import Thread

    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _take_part(job: Job, where: Where, local_rank: int) -> tuple[str, Any]:
    """Train as one of many; what happened, in a form that can be sent."""
    from dataclasses import replace

    import torch

    from adapt.training.world import join, leave

    device = torch.device("cuda", local_rank) if where.kind == "cuda" else torch.device("cpu")
    if where.kind == "cuda":
        torch.cuda.set_device(device)
    try:
        world = replace(join(device), is_sharded=where.is_sharded)
        if not world.is_main:
            train_here(job, world)
            leave()
            return "done", None
        log = _Log(LogWriter(job.run / TRAIN / LOG))
        done = train_here(job, world, on_tick=log.tick, on_note=log.note, on_save=log.save)
        log.writer.close()
        leave()
        return "done", done.as_dict()
    except torch.OutOfMemoryError as error:
        return "memory", _first_line(error)
    except WamError as error:
        return type(error).__name__, str(error)
    except RuntimeError as error:  # a peer that died breaks the collective of all others
        return "failed", _first_line(error)


def _on_ray(job: Job, where: Where, processes: int, hear: Hear) -> Trained:
    """Ray Train starts the processes, wherever the cluster has room, and their process group."""
    import threading

    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from wamdata.executors import start_ray

    start_ray(where.address)
    reader = LogReader(job.run / TRAIN / LOG)
    list(reader.new())
    ended = threading.Event()

    def pass_on() -> None:
        while not ended.wait(POLL_S):
            _pass_on(reader, hear)

    thread = threading.Thread(target=pass_on, daemon=True)
    answer, storage = job.run / TRAIN / ANSWER, (job.run / TRAIN / "ray").resolve()
    answer.unlink(missing_ok=True)
    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config={"job": job, "where": where, "answer": str(answer.resolve())},
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=where.kind == "cuda"),
        torch_config=TorchConfig(backend="nccl" if where.kind == "cuda" else "gloo"),
        run_config=RunConfig(storage_path=str(storage)),
    )
    thread.start()
    try:
        trainer.fit()
    except Exception as error:  # Ray wraps whatever the processes raised, and losses of its own
        left = int(ray.available_resources().get("GPU" if where.kind == "cuda" else "CPU", 1))
        if not answer.exists():
            raise ProcessLost(_first_line(error), left=min(processes, left)) from None
    finally:
        ended.set()
        thread.join()
        _pass_on(reader, hear)
        shutil.rmtree(storage, ignore_errors=True)
        if where.address is None:
            ray.shutdown()
    kind, content = json.loads(answer.read_bytes())
    answer.unlink()
    _raise(kind, content)
    return trained_from(content)


def _ray_worker(config: dict[str, Any]) -> None:
    """One process of Ray Train's; the first (or one that has a reason to fail) leaves its answer in the run folder."""
    import ray.train

    context = ray.train.get_context()
    kind, content = _take_part(config["job"], config["where"], context.get_local_rank())
    if kind in (*ERRORS, "memory") or (kind == "done" and context.get_world_rank() == 0):
        write_atomic(Path(config["answer"]), json.dumps([kind, content]).encode())
    if kind != "done":
        raise RuntimeError(f"{kind}: {content}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _pass_on(reader: LogReader, hear: Hear) -> None:
    known = {f.name for f in fields(Tick)}
    for line in reader.new():
        if "note" in line:
            hear.note(line["note"])
        elif "saved" in line:
            hear.save()
        elif known <= line.keys():
            hear.tick(Tick(**{k: float("nan") if k == "loss" and line[k] is None else line[k] for k in known}))


def trained_from(values: dict[str, Any]) -> Trained:
    """A `Trained` as it was sent or written."""
    return Trained(**values | {name: tuple(Point(**p) for p in values[name]) for name in SERIES})


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
