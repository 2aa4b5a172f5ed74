"""From what a user points at to the parts of a recipe: logs, shards, or a mix file; raw logs are ingested first."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import sources as source

if TYPE_CHECKING:
    from adapt.clips import Clips
    from schemas.mix import MixPart

VIDEO_SHARE = 0.125  # of each batch: enough to teach looks, little enough not to take the actions' share of a short run
REPLAY_SHARE = 0.2


@dataclass(frozen=True)
class Asked:
    """What the options say of data.

    Args:
        play: the robot's logs or shards; `add`: more of them; `replay`: shards of other data against forgetting.
        mix: a mix file, or the video's share of each batch.
    """

    play: Sequence[Path]
    add: Path | None = None
    video: Path | None = None
    replay: Sequence[Path] = ()
    mix: str | None = None
    robot: str | None = None
    task: str | None = None
    video_task: str | None = None
    split_by: str | None = None
    ingest: dict[str, Any] = field(default_factory=dict)


def parts_of(asked: Asked, out: Path) -> "tuple[tuple[MixPart, ...], dict[str, Clips]]":
    """Parts and their shards, by name; raw logs are ingested below `out` first."""
    share = _share(asked)
    if isinstance(share, Path):
        return _from_file(share, asked)
    found = {"play": _play(asked, list(asked.play), out / "shards")}
    if asked.add:
        found["added"] = _play(asked, [asked.add], out / "added_shards")
    if asked.video:
        whole = None if source.is_shards(asked.video) else {"val": 0, "test": 0}
        found["video"] = source.shards_of(
            [asked.video], out / "video_shards", robot=None, task=asked.video_task, split=whole, blank_text=True,
            **asked.ingest,
        )  # fmt: skip
    return _with_replays(found, share, asked)


def opened_parts(asked: Asked) -> "tuple[tuple[MixPart, ...], dict[str, Clips]]":
    """The same of finished shards.

    Raises:
        UsageError: a folder holds no shards.
    """
    from schemas.errors import UsageError

    share = _share(asked)
    if isinstance(share, Path):
        return _from_file(share, asked)
    if len(asked.play) > 1:
        raise UsageError(f"{asked.play[1]}: one folder of play, and one more with --add. Merge with `wam shard merge`.")
    folders = {"play": asked.play[0], "added": asked.add, "video": asked.video}
    for path in (*filter(None, folders.values()), *asked.replay):
        if not source.is_shards(path):
            raise UsageError(
                f"{path}: holds no shards. Ingest it with `wam ingest`, or give it to `wam adapt --dry-run`."
            )
    found = {n: source.opened(p, None if n == "video" else asked.robot) for n, p in folders.items() if p}
    return _with_replays(found, share, asked)


def _with_replays(
    found: "dict[str, Clips]", video_share: float | None, asked: Asked
) -> "tuple[tuple[MixPart, ...], dict[str, Clips]]":
    found |= {f"replay{number or ''}": source.opened(folder, None) for number, folder in enumerate(asked.replay)}
    return _shared(found, video_share), found


def _play(asked: Asked, folders: list[Path], out: Path) -> "Clips":
    split = {"by": asked.split_by} if asked.split_by else None
    return source.shards_of(folders, out, robot=asked.robot, task=asked.task, split=split, **asked.ingest)


def _shared(found: "dict[str, Clips]", video_share: float | None) -> "tuple[MixPart, ...]":
    from schemas.errors import UsageError
    from schemas.mix import MixPart

    free = found["play"].embodiment.is_action_free
    video = (VIDEO_SHARE if video_share is None else video_share) if "video" in found else 0.0
    replays = [n for n in found if n.startswith("replay")]
    replay = REPLAY_SHARE if replays else 0.0
    own = [n for n in ("play", "added") if n in found]
    if "added" in found and found["added"].embodiment.is_action_free != free:
        raise UsageError(f"--add {found['added'].folder}: has no actions, or alone has some. Give films with --video.")
    if video + replay >= 1:
        raise UsageError(f"--mix {video:g} and {replay:g} for --replay leave nothing for play. Give a mix.yaml.")
    shares = {n: (1 - video - replay) / len(own) for n in own} | {n: replay / len(replays) for n in replays}
    shares |= {"video": video} if "video" in found else {}
    parts = []
    for name, clips in found.items():
        role = "video" if free or name == "video" else "replay" if name in replays else "play"
        losses = ("video",) if role == "video" or clips.embodiment.is_action_free else ("video", "action")
        parts.append(MixPart(name=name, shards=str(clips.folder), share=shares[name], losses=losses, role=role))
    return tuple(parts)


def _share(asked: Asked) -> float | Path | None:
    """The video's share of each batch, or a mix file, which then names everything.

    Raises:
        UsageError: something that is pointed at does not exist, or nothing is.
    """
    from schemas.errors import UsageError

    for path in (*asked.play, *asked.replay, *(p for p in (asked.add, asked.video) if p)):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder. Check the path.")
    try:
        share = None if asked.mix is None else float(asked.mix)
    except ValueError:
        return Path(asked.mix)
    if not asked.play:
        raise UsageError("no data: give the robot's logs or shards, or a mix file with --mix FILE.")
    if share is not None and not 0 < share < 1:
        raise UsageError(f"--mix {asked.mix}: the video's share of each batch, wanted between 0 and 1.")
    if share is not None and asked.video is None:
        raise UsageError(f"--mix {asked.mix}: is the share of --video DIR, which is not given.")
    return share


def _from_file(path: Path, asked: Asked) -> "tuple[tuple[MixPart, ...], dict[str, Clips]]":
    from schemas.errors import UsageError
    from schemas.mix import Mix
    from schemas.yaml_io import read_yaml

    if asked.play or asked.video or asked.add or asked.replay:
        raise UsageError(f"--mix {path}: names all data itself. Leave the other folders out, or put them into it.")
    mix = read_yaml(path, Mix)
    found, parts = {}, []
    for part in mix.parts:
        folder = Path(part.shards) if Path(part.shards).is_absolute() else path.parent / part.shards
        found[part.name] = source.opened(folder, part.robot or (asked.robot if part.role == "play" else None))
        parts.append(part.model_copy(update={"shards": str(folder), "share": mix.shares[part.name]}))
    return tuple(parts), found
