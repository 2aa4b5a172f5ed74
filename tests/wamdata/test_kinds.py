"""Targets, steps, velocities and copies are told apart from numbers alone, with noise and lag."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from wamdata.kinds import column_kind, component_kind
from wamdata.readers.rlds import reader as rlds
from wamdata.source import Source

HZ = 20.0


def paths(seed: int = 0, rows: int = 200, noise: float = 0.002) -> list[np.ndarray]:
    """Smooth paths of four episodes, with a sensor's noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows + 30) / HZ
    clean = [np.sin(2 * np.pi * f * t + p) for f, p in zip(rng.uniform(0.1, 0.5, 4), rng.uniform(0, 6, 4), strict=True)]
    return [c + rng.normal(0, noise, len(c)) for c in clean]


@pytest.mark.parametrize("lag", [0, 4, 12])
def test_a_command_that_leads_the_state_is_a_target(lag: int) -> None:
    clean = paths(noise=0)
    found = column_kind([p[lag : lag + 200] for p in clean], [p[:200] for p in paths()], HZ)
    assert (found.kind, found.lag) == ("target", lag) and found.explained > 0.99


@pytest.mark.parametrize(("factor", "kind"), [(1.0, "step"), (14.0, "step"), (HZ, "velocity")])
def test_a_command_that_is_a_multiple_of_the_next_step_is_no_target(factor: float, kind: str) -> None:
    clean = paths(noise=0)
    found = column_kind([factor * np.diff(p)[:200] for p in clean], [p[:200] for p in paths(noise=1e-4)], HZ)
    assert found.kind == kind and found.factor == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize("lag", [0, 1])
def test_a_copy_is_found_to_the_last_digit(lag: int) -> None:
    found = column_kind([p[lag : lag + 200] for p in paths()], [p[:200] for p in paths()], HZ)
    assert (found.kind, found.lag) == ("copy", lag) and "no command was logged" in found.words


def test_noise_and_rest_decide_nothing() -> None:
    rng = np.random.default_rng(0)
    assert column_kind([rng.normal(0, 1, 230)], [paths()[0]], HZ).kind == "unclear"
    assert column_kind([np.zeros(230)], [paths()[0]], HZ).kind == "still"
    assert column_kind([np.zeros(2)], [np.zeros(2)], HZ).kind == "still"


def test_a_component_is_what_most_of_its_moving_columns_are() -> None:
    clean = paths(noise=0)
    commands = [np.stack([p[3:203], np.diff(p)[:200], p[3:203], np.zeros(200)], 1) for p in clean]
    states = [np.stack([p[:200]] * 4, 1) for p in clean]
    found = component_kind(commands, states, HZ)
    assert (found.kind, found.lag) == ("target", 3)


def test_an_arm_that_rests_is_judged_by_where_it_rests() -> None:
    rng = np.random.default_rng(0)
    states = [np.tile([0.3, -0.8, 1.2], (200, 1)) + rng.normal(0, 0.003, (200, 3)) for _ in range(3)]
    held = [np.tile([0.31, -0.78, 1.2], (200, 1)) for _ in range(3)]
    found = component_kind(held, states, HZ)
    assert found.kind == "target" and found.at_rest and "hardly moves" in found.words
    assert component_kind([np.zeros((200, 3))] * 3, states, HZ).kind == "still"


def test_the_real_g1_is_commanded_by_targets_and_the_real_bridge_by_steps(g1, request: pytest.FixtureRequest) -> None:
    tables = [pq.ParquetFile(g1 / f"data/chunk-000/episode_{i:06d}.parquet").read() for i in (1, 2, 4, 5)]
    arms = [tuple(np.array(t[n].to_pylist())[:, :14] for n in ("action", "observation.state")) for t in tables]
    found = component_kind([a for a, _ in arms], [s for _, s in arms], 30.0)
    assert found.kind == "target" and 4 <= found.lag <= 12  # the data's page says about 8

    bridge = Source.at(request.config.rootpath / "tests/data/bridge_rlds/1.0.0")
    episodes = [rlds.read(ref) for ref in rlds.list_episodes(bridge).episodes]
    moves = [(e.streams["action"].values[:, :3], e.streams["observation/state"].values[:, :3]) for e in episodes]
    found = component_kind([a for a, _ in moves], [s for _, s in moves], 5.0)
    assert found.kind == "step" and 0.5 < found.factor < 1.6
