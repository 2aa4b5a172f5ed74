"""The pictures of one record's steps, as cameras that are loaded when asked for.

A picture's bytes are kept as they are, JPEG or PNG by what they begin with. Left out with a finding: depth, video
inside a step, and cameras without any picture.
"""

from collections.abc import Callable

from schemas.episode import Coded, Finding, Pictures
from schemas.errors import DataError
from wamdata.readers.picture_header import sniff
from wamdata.readers.rlds.features import Leaf
from wamdata.readers.rlds.steps import STEPS, Steps

Read = Callable[[int, int], bytes]  # bytes [start, stop) of a record's data


def read_cameras(steps: Steps, read: Read) -> tuple[dict[str, Pictures], list[Finding]]:
    """Every image leaf of the steps as pictures that are loaded when asked for; those without any are found out."""
    cameras: dict[str, Pictures] = {}
    findings = []
    for leaf in steps.layout.leaves:
        if not leaf.path.startswith(STEPS) or leaf.kind not in ("image", "video"):
            continue
        name = leaf.path.removeprefix(STEPS)
        left_out = _left_out_camera(steps, leaf, name)
        if left_out:
            findings.append(left_out)
            continue
        spans = steps.example.spans(leaf.path)
        found = _camera(steps, leaf.path, spans, read)
        if isinstance(found, Pictures):
            cameras[name] = found
            findings += _camera_findings(steps, name, spans)
        else:
            findings.append(found)
    return cameras, findings


def _left_out_camera(steps: Steps, leaf: Leaf, name: str) -> Finding | None:
    if "depth" in name.lower() or leaf.dtype not in ("uint8", ""):
        return Finding("depth_left_out", "info", steps.key, f"{name}: depth is not read, left out")
    if leaf.kind == "video" or leaf.levels > 1:
        return Finding("column_left_out", "info", steps.key, f"{name}: several pictures a step, left out")
    return None


def _camera(steps: Steps, path: str, spans: list[tuple[int, int]], read: Read) -> Pictures | Finding:
    first = next((steps.example.data[start:stop] for start, stop in spans if stop > start), None)
    if first is None:
        message = f"{path}: no step has a picture, left out"
        return Finding("missing_video", "warning", steps.key, message)
    if len(spans) != steps.count:
        raise DataError(f"{steps.example.where}: {path} has {len(spans)} pictures for {steps.count} steps. Drop it.")
    try:
        codec, width, height = sniff(first, path)
    except DataError as error:
        return Finding("corrupt_video", "warning", steps.key, str(error))
    return Pictures(steps.t_ns, codec, width, height, _loader(spans, read))


def _loader(spans: list[tuple[int, int]], read: Read) -> Callable[[int, int], list[Coded]]:
    def load(first: int, stop: int) -> list[Coded]:
        if first >= stop:
            return []
        begin = spans[first][0]  # a camera's pictures lie one after the other
        block = read(begin, spans[stop - 1][1])
        return [block[start - begin : end - begin] for start, end in spans[first:stop]]

    return load


def _camera_findings(steps: Steps, name: str, spans: list[tuple[int, int]]) -> list[Finding]:
    """How many of a camera's pictures are empty, and whether they are all the same."""
    data, sizes = steps.example.data, {stop - start for start, stop in spans}
    if 0 in sizes:
        empty = sum(start == stop for start, stop in spans)
        message = f"{name}: {empty} of {len(spans)} pictures are empty; clips that show them cannot be cut"
        return [Finding("corrupt_video", "warning", steps.key, message)]
    start, stop = spans[0]
    if len(spans) < 2 or len(sizes) > 1 or any(data[a:b] != data[start:stop] for a, b in spans):
        return []
    message = f"{name}: all {len(spans)} pictures are one and the same: a placeholder? Leave it out of the robot's file"
    return [Finding("constant_camera", "warning", steps.key, message)]
