"""MCAP recordings: single files, folders of them, and ROS 2 bags whose storage is MCAP.

One recording is one episode; a robot's `episodes` rule cuts it into tries. A split bag is one recording. Messages may
be CDR or ROS 1 by their definitions, protobuf or JSON. Topics become streams, cameras and events by their types:

    /joint_states (sensor_msgs/JointState)      streams /joint_states.position, .velocity, .effort by joint names
    /ee_pose (geometry_msgs/PoseStamped)        stream /ee_pose: position.x ... orientation.w
    /command (std_msgs/Float64MultiArray)       stream /command; columns have no names
    /tf                                         a stream per pair of frames: /tf.base->tool
    /camera/wrist/compressed                    camera of that name
    /instruction (std_msgs/String)              events and texts

Limits: depth, point clouds and other arrays that change their length are left out; AV1 and VP9 are not read.
"""

from pathlib import Path

from schemas.episode import Episode
from schemas.errors import DataError
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.mcap.file import MAGIC, McapFile
from wamdata.readers.messages.bag import BagFile, plain_file, starts_with
from wamdata.readers.messages.episode import read_recording
from wamdata.readers.messages.recordings import candidates, list_recordings
from wamdata.source import Source

NAME = "mcap"
VERSION = 1
SUFFIXES = (".mcap",)


def detect(source: Source) -> bool:
    """Whether `source` is or holds MCAP files; a lone file of this machine may have any suffix."""
    return bool(_names(source))


def list_episodes(source: Source) -> Listing:
    """Every recording; no message is decoded, so one that cannot be read shows when it is.

    Raises:
        DataError: there is none.
    """
    names = _names(source)
    if not names:
        raise DataError(f"{source}: holds no MCAP files. Give the folder that holds them.")
    return list_recordings(source, NAME, names, "MCAP", open_file)


def read(ref: EpisodeRef) -> Episode:
    """One recording as logged; its pictures stay where they are.

    Raises:
        DataError: none of its files can be read, or they hold no messages.
    """
    return read_recording(ref, open_file, f"{NAME}@{VERSION}")


def open_file(path: Path, where: str) -> BagFile:
    """The file; one that ROS 2 compressed as a whole is unpacked to a temporary place first."""
    return McapFile(plain_file(path), where)


def _names(source: Source) -> list[str]:
    names = candidates(source, SUFFIXES)
    if source.is_file and source.is_local and not source.name.lower().endswith(SUFFIXES):
        return names if starts_with(source.path(source.name), MAGIC) else []
    return names
