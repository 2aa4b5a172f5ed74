"""Where parts run: in this process, or as Ray tasks. Both give the same bytes; only the speed differs."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from schemas.errors import UsageError

P = TypeVar("P")
R = TypeVar("R")
ExecutorName = Literal["ray", "local"]


def run_parts(
    work: Callable[[P], R], parts: Sequence[P], *, executor: ExecutorName, address: str | None = None
) -> Iterator[R]:
    """Results of `work` over `parts`, as they finish, in any order.

    Args:
        executor: `local` runs in this process, one after the other; `ray` on all cores or on a cluster.
        address: of a running Ray cluster; None starts one here.
    """
    if executor == "local" or not parts:
        yield from map(work, parts)
        return
    yield from _run_on_ray(work, parts, address)


def _run_on_ray(work: Callable[[P], R], parts: Sequence[P], address: str | None) -> Iterator[R]:
    ray = start_ray(address)
    # num_cpus: one part decodes nothing and writes at disk speed, so one core each is enough.
    task = ray.remote(num_cpus=1, max_retries=3, retry_exceptions=False)(work)
    in_flight_limit = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
    waiting, running = list(parts)[::-1], []
    try:
        while waiting or running:
            while waiting and len(running) < in_flight_limit:
                running.append(task.remote(waiting.pop()))
            done, running = ray.wait(running, num_returns=1)
            for ref in done:
                yield _result(ray, ref)
    finally:
        for ref in running:
            ray.cancel(ref)
        if address is None:
            ray.shutdown()


def _result(ray: Any, ref: Any) -> Any:
    """A task's result; an error of ours comes back as itself, not wrapped in Ray's."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


def start_ray(address: str | None) -> Any:
    """Ray, connected to the cluster at `address`, or started on this machine."""
    # Ray reads these while it is imported: no telemetry, no log lines of workers between our progress bars.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return ray
    try:
        ray.init(
            address=address,
            num_cpus=os.cpu_count() if address is None else None,
            include_dashboard=False if address is None else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except ConnectionError as error:
        raise UsageError(f"Ray cluster {address!r}: {error}. Start it, or leave --ray-address out.") from None
    return ray
