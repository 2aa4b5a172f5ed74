"""A robot's recordings in MCAP, by the writers of mcap, mcap-ros2-support and foxglove-sdk; pictures by Pillow, PyAV.

`rig` is the one rig that the ROS bags of `rosbag.py` hold too: two arms' joints, commands, a wrist camera whose
stamps jitter, an instruction, and words that say where an episode starts and stops.
"""

import io
import json
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import foxglove
import numpy as np
from foxglove import messages as fox
from foxglove.channels import CompressedVideoChannel, JointStatesChannel
from mcap.writer import CompressionType, Writer
from mcap_ros2.writer import Writer as Ros2Writer
from PIL import Image
from rosbags.typesys import Stores, get_typestore

READER = "mcap"
START_NS = 1_760_000_000_000_000_000
DELAY_NS = 4_000_000  # from a message's stamp to its log time
JOINTS = ["shoulder", "elbow", "wrist"]
HEIGHT, WIDTH = 48, 64
PACKET = """std_msgs/Header header
int32 width
int32 height
string encoding
uint64 pts
uint8 flags
bool is_bigendian
uint8[] data
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""

Message = tuple[int, str, str, dict[str, Any]]  # log time, topic, type, fields


def picture(number: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8, different for each number."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    shades = [100 + 60 * np.sin((x + 5 * number) / 20), 90 + 50 * np.cos(y / 15), np.full(x.shape, 60 + 3.0 * number)]
    return np.stack(shades, -1).astype(np.uint8)


@lru_cache
def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, "JPEG", quality=90)
    return file.getvalue()


def header(stamp_ns: int) -> dict[str, Any]:
    return {"stamp": {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9}, "frame_id": "base"}


def joints(at_ns: int, number: int) -> dict[str, Any]:
    position = [number * 0.02 + 0.1 * i for i in range(3)]
    return {"header": header(at_ns), "name": JOINTS, "position": position, "velocity": [1.0, 1.0, 1.0], "effort": []}


def rig(seconds: float = 1.0) -> Iterator[Message]:
    """Messages in the order they are logged."""
    found: list[Message] = []

    def say(at_ns: int, topic: str, kind: str, fields: dict[str, Any]) -> None:
        found.append((at_ns + DELAY_NS, topic, kind, fields))

    say(START_NS, "/instruction", "std_msgs/msg/String", {"data": "pick up the cup"})
    for number, word in enumerate(("start", "stop")):
        at = START_NS + round((0.1 + 0.7 * number) * seconds * 1e9)
        say(at, "/episode", "std_msgs/msg/String", {"data": word})
    for number in range(round(50 * seconds)):
        at = START_NS + number * 20_000_000
        say(at, "/joint_states", "sensor_msgs/msg/JointState", joints(at, number))
        command = {"layout": {"dim": [], "data_offset": 0}, "data": [number * 0.02 + 0.01, 0.5, -0.5]}
        say(at, "/command", "std_msgs/msg/Float64MultiArray", command)
    for number in range(round(15 * seconds)):
        at = START_NS + round(number * 1e9 / 15) + (number * 7919 % 5) * 1_000_000
        fields = {"header": header(at), "format": "jpeg", "data": jpeg(number)}
        say(at, "/camera/wrist/compressed", "sensor_msgs/msg/CompressedImage", fields)
    yield from sorted(found, key=lambda m: m[0])


def definition(kind: str) -> str:
    return get_typestore(Stores.ROS2_HUMBLE).generate_msgdef(kind, ros_version=2)[0]


def write_ros2(path: Path, messages: Iterator[Message], **options: Any) -> Path:
    with path.open("wb") as file, Ros2Writer(file, chunk_size=20_000, **options) as writer:
        schemas: dict[str, Any] = {}
        for log_ns, topic, kind, fields in messages:
            if kind not in schemas:
                text = PACKET if kind.endswith("FFMPEGPacket") else definition(kind)
                schemas[kind] = writer.register_msgdef(kind, text)
            writer.write_message(topic, schemas[kind], fields, log_ns, log_ns)
    return path


@lru_cache
def packets(codec: str = "libx264", count: int = 20, bframes: int = 0, gop: int = 8) -> tuple[tuple[bytes, ...], bytes]:
    """Packets in Annex B whose parameter sets are left out, and these."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.gop_size = Fraction(1, 20), gop
    quiet = {"x265-params": f"log-level=none:bframes={bframes}:scenecut=0:keyint={gop}"} if codec == "libx265" else {}
    encoder.options = {"bf": str(bframes), "sc_threshold": "0", "preset": "ultrafast", **quiet}
    if bframes:
        encoder.options = {**encoder.options, "preset": "medium"}
    encoder.flags |= av.codec.context.Flags.global_header
    coded = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(picture(number), "rgb24").reformat(format="yuv420p")
        frame.pts = number
        coded += encoder.encode(frame)
    coded += encoder.encode(None)
    return tuple(bytes(p) for p in coded), bytes(encoder.extradata)


def robot(root: Path) -> Path:
    return write_ros2(root / "kitchen.mcap", rig())


def truncated(root: Path) -> Path:
    """A recorder that was killed: no summary, the last chunk half written."""
    path = write_ros2(root / "killed.mcap", rig(), compression=CompressionType.LZ4)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    return path


def split(root: Path) -> Path:
    """Two parts in a folder without metadata, named after it."""
    folder, messages = root / "night", list(rig())
    folder.mkdir()
    for number, part in enumerate((messages[:70], messages[70:])):
        write_ros2(folder / f"night_{number}.mcap", iter(part))
    return folder


def two(root: Path) -> Path:
    """Two tries, numbered, with a pause between them."""
    folder = root / "tries"
    folder.mkdir()
    for number in range(2):
        later = ((m[0] + number * 9 * 10**9, *m[1:]) for m in rig(0.5 + 0.2 * number))
        write_ros2(folder / f"episode_{number}.mcap", later)
    return folder


def video(root: Path) -> Path:
    """foxglove-sdk's own writer: H.264 whose parameter sets come once, and joints as protobuf."""
    path, context = root / "film.mcap", foxglove.Context()
    coded, parameters = packets()
    with foxglove.open_mcap(path, context=context):
        camera = CompressedVideoChannel("/camera", context=context)
        state = JointStatesChannel("/joints", context=context)
        for number, data in enumerate(coded):
            at = START_NS + number * 50_000_000
            stamp = fox.Timestamp(at // 10**9, at % 10**9)
            data = parameters + data if number == 0 else data
            camera.log(fox.CompressedVideo(timestamp=stamp, data=data, format="h264"), log_time=at + DELAY_NS)
            row = [fox.JointState(name=n, position=0.1 * i + 0.02 * number) for i, n in enumerate(JOINTS)]
            state.log(fox.JointStates(timestamp=stamp, joints=row), log_time=at + DELAY_NS)
    return path


def packet_messages(coded: tuple[bytes, ...], *, pieces: int = 1, encoding: str = "hevc") -> Iterator[Message]:
    """FFMPEGPacket messages of 20 frames a second, each packet in so many pieces."""
    for number, data in enumerate(coded):
        at = START_NS + number * 50_000_000
        size = -(-len(data) // pieces)
        for piece in range(pieces):
            fields = {
                "header": header(at), "width": WIDTH, "height": HEIGHT, "encoding": encoding, "pts": number, "flags": 0,
                "is_bigendian": False, "data": data[piece * size : (piece + 1) * size],
            }  # fmt: skip
            yield at + DELAY_NS + piece, "/cam/ffmpeg", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket", fields


def ffmpeg(root: Path) -> Path:
    """HEVC, each packet in two pieces with the same stamp."""
    coded, parameters = packets("libx265")
    return write_ros2(root / "packets.mcap", packet_messages((parameters + coded[0], *coded[1:]), pieces=2))


def json_rig(root: Path, rows: int = 12) -> Path:
    """JSON without a schema, as small rigs write it, in a file without chunks."""
    path = root / "json.mcap"
    with path.open("wb") as file:
        writer = Writer(file, use_chunking=False)
        writer.start()
        channels = {t: writer.register_channel(t, "json", 0) for t in ("/state", "/task")}

        def say(topic: str, at: int, fields: dict[str, Any]) -> None:
            writer.add_message(channels[topic], at, json.dumps(fields).encode(), at)

        say("/task", START_NS, {"data": "stack the blocks"})
        for number in range(rows):
            at = START_NS + number * 100_000_000
            stamp = {"sec": at // 10**9, "nsec": at % 10**9}
            say("/state", at, {"timestamp": stamp, "arm": {"x": 0.1 * number, "y": -1}, "grip": [0.5, number]})
        writer.finish()
    return path


def raw(root: Path) -> Path:
    """Raw pictures whose rows are padded, beside depth."""

    def messages() -> Iterator[Message]:
        for number in range(5):
            at = START_NS + number * 100_000_000
            rows = np.pad(picture(number)[..., ::-1].reshape(HEIGHT, -1), ((0, 0), (0, 8)))
            shape = {"header": header(at), "height": HEIGHT, "width": WIDTH, "is_bigendian": 0}
            colour = {**shape, "encoding": "bgr8", "step": WIDTH * 3 + 8, "data": rows.tobytes()}
            yield at, "/camera/image_raw", "sensor_msgs/msg/Image", colour
            depth = {**shape, "encoding": "16UC1", "step": WIDTH * 2, "data": bytes(HEIGHT * WIDTH * 2)}
            yield at, "/depth/image_raw", "sensor_msgs/msg/Image", depth

    return write_ros2(root / "raw.mcap", messages())


SAMPLES = {
    "robot": robot,
    "truncated": truncated,
    "split": split,
    "two": two,
    "video": video,
    "ffmpeg": ffmpeg,
    "json": json_rig,
    "raw": raw,
}
