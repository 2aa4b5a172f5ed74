"""Where things lie in the HDF5 files of one recorder: what a YAML file says to read a format of your own.

Paths are below an episode, or from the file's root with a leading "/". In a glob `*` stays within one name, `**` goes
any depth. A value is a dataset's (`length`) or an attribute's (`@task`, `/data@env_args`). All but `schema` and `name`
may be left out: then a file is one episode, and whatever has a row per step or looks like pictures is taken.

    schema: wamkit/hdf5_layout@1
    name: my_rig
    files: "**"                        # glob of file names; only .h5 and .hdf5 files are looked at
    episodes: "runs/run_*"             # groups, or "/" for one episode per file
    needs: ["runs/run_*/command"]      # what a file must hold to be of this format
    main: command                      # dataset whose rows are counted; without it the commonest number of rows
    streams: ["state/*", "command"]
    leave_out: ["state/debug*"]
    cameras:
      - {from: "cams/top", coding: jpeg, channels: bgr}
      - {from: "cams/raw_*", coding: raw, size: [480, 640]}          # (height, width) where the shape does not say
      - {from: "cams/side", times: "cams/side_t", unit: ns}          # a camera with a clock of its own
    rate: {times: stamps, unit: ms}    # or {hz: 30}, or {from: "@fps"}, or {from: "/data@args", json: "env.fps"}
    length: ["@num_samples", is_pad]   # first one there: a number of rows, or a flag per row that marks padding
    texts: ["@task", {from: "/@info", json: language}, {file: "(.+)_demo$"}]     # file: its first group, of the path
    success: ["@success"]
    session: ["@operator"]

Does not describe: streams of one episode that have different clocks, pictures spread over one dataset each.
"""

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.record import Record

TimeUnit = Literal["s", "ms", "us", "ns"]


class Value(Record):
    """One value of a file or an episode: `path`, `path@attribute` or `@attribute`; or a part of the file's path.

    Args:
        json_key: names with dots between them, to look up in the value's JSON text.
        file: regular expression, searched in the file's relative path without suffix; its first group is the value.
    """

    source: str | None = Field(None, alias="from")
    json_key: str | None = Field(None, alias="json")
    file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, content: Any) -> Any:
        return {"from": content} if isinstance(content, str) else content

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.source is None) == (self.file is None):
            raise ValueError("give either `from` or `file`")
        return self

    @field_validator("file")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            groups = 1 if value is None else re.compile(value).groups
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        if not groups:
            raise ValueError('needs one group in brackets, such as "(.+)_demo$"')
        return value


class CameraPlace(Record):
    """Datasets that hold pictures; one that a glob finds and that holds none is a stream or left out.

    Args:
        coding: `auto` goes by type, shape and the first bytes.
        size: (height, width) of raw pictures that are stored as plain bytes.
        channels: told in a finding where it is not `rgb`; pixels are never swapped here.
        times: dataset with a time per frame; without it frames are at the times of the rows.
    """

    source: str = Field(alias="from")
    coding: Literal["auto", "raw", "jpeg", "png"] = "auto"
    size: tuple[int, int] | None = None
    channels: Literal["rgb", "bgr", "unknown"] = "rgb"
    times: str | None = None
    unit: TimeUnit = "s"


class Rate(Record):
    """When rows were taken: their own times, else a rate that the file says, else one known of the format."""

    times: str | None = None
    unit: TimeUnit = "s"
    source: str | None = Field(None, alias="from")
    json_key: str | None = Field(None, alias="json")
    hz: float | None = Field(None, gt=0, le=10_000)


class Hdf5Layout(Record):
    """One recorder's way to fill HDF5 files.

    Args:
        reward: dataset whose last row is 1 or more where the task succeeded.
        robot: what the file calls its robot.
        filters: group of lists of episode names, such as robomimic's `mask`.
        upside_down: pictures are rendered upside down: `always`, or where `image_convention` is `opengl`.
    """

    schema_id: Literal["wamkit/hdf5_layout@1"] = Field(alias="schema")
    name: str = Field(min_length=1)
    files: str = "**"
    episodes: str = "/"
    needs: tuple[str, ...] = ()
    main: str | None = None
    streams: tuple[str, ...] = ("**",)
    leave_out: tuple[str, ...] = ()
    cameras: tuple[CameraPlace, ...] = (CameraPlace(source="**"),)
    rate: Rate = Rate()
    length: tuple[Value, ...] = ()
    texts: tuple[Value, ...] = ()
    success: tuple[Value, ...] = ()
    reward: str | None = None
    session: tuple[Value, ...] = ()
    robot: tuple[Value, ...] = ()
    filters: str | None = None
    upside_down: Literal["never", "always"] = "never"
    image_convention: Value | None = None
