"""An episode as logged -> a trajectory: the embodiment's components, order, units and clock.

Nothing is guessed here. A component whose stream, column or joint is missing is an error that names what the
log has. Grippers become the fraction open (1 = open); other columns become SI where the unit has a known
factor, or stay as declared.
"""

from dataclasses import replace

import numpy as np

from schemas.embodiment import SI_FACTOR, Component, Embodiment
from schemas.episode import CONTROL_CODES, Episode, Float32, Int64, Stream, Trajectory
from schemas.errors import DataError
from wamdata.align import Rule, distance_ns, nearest, resample, uniform_grid

RATE_TOLERANCE = 0.02  # a row clock may be this far from native_hz: real logs of "30 Hz" run at 29.9 to 30.1
NEAR_ROWS = 1.5  # a grid time without a sample within this many periods is invalid


def map_episode(episode: Episode, embodiment: Embodiment) -> Trajectory:
    """The trajectory of an episode.

    Raises:
        DataError: a stream, column or joint is missing, or the row clock does not run at `native_hz`.
    """
    episode = timed(episode, embodiment)
    where = f"{episode.source} {episode.key}"
    for component in (*embodiment.model_state, *embodiment.model_action):
        if component.source not in episode.streams:
            raise DataError(
                f"{where}: {component.name} reads stream {component.source!r}, the log has "
                f"{_some(tuple(episode.streams))}. Mend `from`."
            )
    grid_ns = clock(episode, embodiment)
    state, state_valid = _columns(episode, embodiment.model_state, grid_ns, embodiment.native_hz, where)
    action, action_valid = _columns(episode, embodiment.model_action, grid_ns, embodiment.native_hz, where)
    return Trajectory(
        episode=episode,
        embodiment=embodiment,
        t_ns=grid_ns,
        state=state,
        action=action,
        control=_control(episode, embodiment, grid_ns),
        state_valid=state_valid,
        action_valid=action_valid,
    )


def timed(episode: Episode, embodiment: Embodiment) -> Episode:
    """The episode with its counted rows at the robot's rate; one that has times of its own as it is."""
    hz = embodiment.native_hz
    if not episode.counted_hz or episode.counted_hz == hz:
        return episode

    def at_rate(t_ns: Int64) -> Int64:
        return np.round(t_ns * (episode.counted_hz / hz)).astype(np.int64)

    streams = {n: replace(s, t_ns=at_rate(s.t_ns)) for n, s in episode.streams.items()}
    videos = {n: replace(v, t_ns=at_rate(v.t_ns)) for n, v in episode.videos.items()}
    scale = episode.counted_hz / hz
    texts = tuple(
        replace(t, start_ns=round(t.start_ns * scale), stop_ns=round(t.stop_ns * scale)) for t in episode.texts
    )
    return replace(episode, streams=streams, videos=videos, texts=texts, counted_hz=hz)


def clock(episode: Episode, embodiment: Embodiment) -> Int64:
    """The embodiment's clock over one episode: the log's own rows, or a uniform grid over what all streams cover."""
    used = [episode.streams[c.source] for c in (*embodiment.model_state, *embodiment.model_action)]
    if not used:
        cameras = [episode.videos[c.source] for c in embodiment.model_cameras if c.source in episode.videos]
        if not cameras:
            raise DataError(f"{episode.source} {episode.key}: holds none of the embodiment's streams and cameras.")
        start, stop = max(int(v.t_ns[0]) for v in cameras), min(int(v.t_ns[-1]) for v in cameras)
        return uniform_grid(start, stop, embodiment.native_hz)
    if embodiment.clock == "row":
        rows = used[0]
        off = abs(rows.rate_hz / embodiment.native_hz - 1)
        if len(rows.t_ns) > 1 and off > RATE_TOLERANCE:
            raise DataError(
                f"{episode.source} {episode.key}: rows come at {rows.rate_hz:.2f} Hz but {embodiment.name} says "
                f"native_hz: {embodiment.native_hz:g}. Set native_hz to the log's rate; a recipe resamples later."
            )
        return rows.t_ns.copy()
    start, stop = max(int(s.t_ns[0]) for s in used), min(int(s.t_ns[-1]) for s in used)
    return uniform_grid(start, stop, embodiment.native_hz)


def column_indices(component: Component, stream: Stream, where: str) -> tuple[int, ...]:
    """Which columns of the stream make the component; by joint name where both know names."""
    width = stream.values.shape[1]
    if component.joints and stream.columns:
        if component.columns:
            named = tuple(stream.columns[c] if c < width else "(none)" for c in component.columns)
            if named != component.joints:
                wrong = next(i for i, (a, b) in enumerate(zip(named, component.joints, strict=True)) if a != b)
                raise DataError(
                    f"{where}: {component.name} says column {component.columns[wrong]} of {stream.name!r} is "
                    f"{component.joints[wrong]!r}, the log says {named[wrong]!r}. Mend `columns` or `joints`."
                )
            return component.columns
        missing = [j for j in component.joints if j not in stream.columns]
        if missing:
            raise DataError(
                f"{where}: {component.name} needs joint {missing[0]!r}, {stream.name!r} has "
                f"{_some(stream.columns)}. Mend `joints` or give `columns`."
            )
        return tuple(stream.columns.index(j) for j in component.joints)
    if component.columns is None:
        if component.kind == "pose" and width == component.width:
            return tuple(range(width))
        raise DataError(
            f"{where}: {stream.name!r} has no column names, so {component.name} needs `columns` (0 to {width - 1})."
        )
    beyond = [c for c in component.columns if c >= width]
    if beyond:
        raise DataError(
            f"{where}: {component.name} needs column {beyond[0]} of {stream.name!r}, which has {width}. Mend `columns`."
        )
    return component.columns


def to_mapped_units(component: Component, raw: Float32) -> Float32:
    """Raw columns (N, D) in the component's mapped units."""
    if component.open is not None and component.closed is not None:
        return ((raw - component.closed) / (component.open - component.closed)).astype(np.float32)
    if component.to_si is not None:
        scale, offset = np.asarray(component.to_si.scale), np.asarray(component.to_si.offset)
        return (raw * scale + offset).astype(np.float32)
    if component.kind == "pose":
        factors = [SI_FACTOR.get(component.units[0], 1.0)] * 3 + [1.0] * (component.width - 3)
    else:
        factors = [SI_FACTOR.get(u, 1.0) for u in component.units]
    return raw if all(f == 1.0 for f in factors) else (raw * np.asarray(factors)).astype(np.float32)


def resampling_rule(component: Component) -> Rule:
    return "previous" if component.kind == "discrete" else "linear"


ROTATION_RULES: dict[str, Rule] = {
    "quat_xyzw": "slerp_xyzw", "quat_wxyz": "slerp_xyzw", "axis_angle": "slerp_axis_angle", "euler_xyz": "wrapped",
}  # fmt: skip


def resample_component(component: Component, t_ns: Int64, values: Float32, grid_ns: Int64) -> Float32:
    """A component's columns at new times; a pose's rotation turns along the shorter arc."""
    rule = ROTATION_RULES.get(component.rotation or "") if component.kind == "pose" else None
    if rule is not None:
        position = resample(t_ns, values[:, :3], grid_ns)
        return np.concatenate([position, resample(t_ns, values[:, 3:], grid_ns, rule=rule)], axis=1)
    return resample(t_ns, values, grid_ns, rule=resampling_rule(component))


def _columns(
    episode: Episode, components: tuple[Component, ...], grid_ns: Int64, hz: float, where: str
) -> tuple[Float32, np.ndarray]:
    """The components side by side on the grid, and which rows can be trusted."""
    parts: list[Float32] = []
    valid = np.ones(len(grid_ns), bool)
    for component in components:
        stream = episode.streams[component.source]
        t_ns, raw = stream.t_ns, stream.values[:, column_indices(component, stream, where)]
        if component.ahead:
            if len(t_ns) <= component.ahead:
                raise DataError(f"{where}: {component.name} reads {component.ahead} rows ahead, there are {len(t_ns)}.")
            t_ns, raw = t_ns[: -component.ahead], raw[component.ahead :]
            valid &= grid_ns <= t_ns[-1]
        finite = np.isfinite(raw).all(axis=1)
        valid &= finite[nearest(t_ns, grid_ns)]
        valid &= distance_ns(t_ns, grid_ns) <= NEAR_ROWS * 1e9 / hz
        if not finite.any():
            raise DataError(f"{where}: {component.name} holds no finite value at all. Drop the episode.")
        mapped = to_mapped_units(component, raw[finite])
        parts.append(resample_component(component, t_ns[finite], mapped, grid_ns))
    if not parts:
        return np.zeros((len(grid_ns), 0), np.float32), valid
    return np.ascontiguousarray(np.concatenate(parts, axis=1)), valid


def _control(episode: Episode, embodiment: Embodiment, grid_ns: Int64) -> np.ndarray:
    rule = embodiment.control_source
    if rule is None:
        return np.zeros(len(grid_ns), np.uint8)
    codes = np.full(len(grid_ns), CONTROL_CODES[rule.default], np.uint8)
    stream = episode.streams.get(rule.source)
    if stream is None:
        return codes
    values = resample(stream.t_ns, stream.values[:, :1], grid_ns, rule="previous")[:, 0]
    for raw, who in rule.map.items():
        codes[values == float(raw)] = CONTROL_CODES[who]
    return codes


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(n) for n in names[:6])
    return (shown + (f" and {len(names) - 6} more" if len(names) > 6 else "")) or "none"
