"""Pictures that a log keeps one by one become an mp4 as they are, and read back like any other video."""

import io
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from schemas.embodiment import Camera
from schemas.episode import Pictures
from schemas.errors import DataError
from wamdata.footage import cut, frames, mended, shard_codec
from wamdata.video import probe, read_frames

HEIGHT, WIDTH, COUNT = 48, 64, 30
T_NS = (np.arange(COUNT) * 1e9 / 15 + 7e9).astype(np.int64)


def pixels(count: int = COUNT) -> np.ndarray:
    """Smooth colours that differ from frame to frame."""
    y, x, t = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(count), indexing="ij")
    shades = [100 + 60 * np.sin((x + 5 * t) / 20), 90 + 50 * np.cos(y / 15), 60 + 4.0 * t]
    return np.stack(shades, -1).transpose(2, 0, 1, 3).astype(np.uint8)


def listed(coded: list) -> Callable[[int, int], list]:
    return lambda first, stop: coded[first:stop]


def coded_as(kind: str) -> Pictures:
    if kind == "raw":
        return Pictures(T_NS, "raw", WIDTH, HEIGHT, listed(list(pixels())))
    coded = []
    for picture in pixels():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, {"mjpeg": "JPEG", "png": "PNG"}[kind], quality=95)
        coded.append(file.getvalue())
    return Pictures(T_NS, kind, WIDTH, HEIGHT, listed(coded))


def packets_of(codec: str, options: dict[str, str]) -> Pictures:
    """Bare packets of a video codec as a message stream carries them, key frames 10 apart, no B-frames."""
    coded, keys = [], []
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.options = WIDTH, HEIGHT, "yuv420p", options
    encoder.framerate, encoder.time_base = 15, Fraction(1, 15)
    for at, picture in enumerate(pixels()):
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
        frame.pts = at
        for packet in encoder.encode(frame):
            coded.append(bytes(packet))
            keys.append(packet.is_keyframe)
    for packet in encoder.encode(None):
        coded.append(bytes(packet))
        keys.append(packet.is_keyframe)
    name = {"libx264": "h264", "libx265": "hevc"}[codec]
    return Pictures(T_NS, name, WIDTH, HEIGHT, listed(coded), np.array(keys))


KINDS = {
    "mjpeg": lambda: coded_as("mjpeg"),
    "png": lambda: coded_as("png"),
    "raw": lambda: coded_as("raw"),
    "h264": lambda: packets_of("libx264", {"g": "10", "bf": "0", "x264-params": "scenecut=0", "crf": "12"}),
    "hevc": lambda: packets_of(
        "libx265", {"x265-params": "keyint=10:bframes=0:scenecut=0:log-level=none:pools=1:crf=12"}
    ),
}


@pytest.fixture(params=KINDS)
def footage(request: pytest.FixtureRequest) -> Pictures:
    return KINDS[request.param]()


def test_frames_are_those_that_were_logged(footage: Pictures) -> None:
    got = frames(footage, [25, 3, 3, 12])
    error = np.abs(got.astype(int) - pixels()[[25, 3, 3, 12]]).mean(axis=(1, 2, 3))
    assert got.shape == (4, HEIGHT, WIDTH, 3) and (error < 3).all(), error


def test_a_cut_holds_the_wanted_frames_on_their_clock(footage: Pictures) -> None:
    mp4, first = cut(footage, 12, 25)
    info = probe(mp4)
    assert info.num_frames >= first + 13 and info.codec == shard_codec(footage)
    got = read_frames(mp4, range(first, first + 13))
    assert np.abs(got.astype(int) - pixels()[12:25]).mean() < 3
    span = info.pts_ns[first + 12] - info.pts_ns[first]
    assert abs(int(span) - int(T_NS[24] - T_NS[12])) < 1e5
    assert mp4 == cut(footage, 12, 25)[0]


@pytest.mark.parametrize("kind", ["mjpeg", "png", "h264"])
def test_coded_pictures_keep_their_bytes(kind: str) -> None:
    footage = KINDS[kind]()
    mp4, first = cut(footage, 20, 23)
    with av.open(io.BytesIO(mp4)) as clip:
        packets = [bytes(p) for p in clip.demux(video=0) if p.size]
    wanted = footage.load(20 - first, 23)
    if kind == "h264":  # an mp4 gives each unit's length where a stream has start codes
        assert [len(p) for p in packets[1:]] == [len(w) for w in wanted[1:]]
    else:
        assert packets == wanted


def test_lossless_pictures_stay_lossless() -> None:
    assert np.array_equal(frames(coded_as("png"), range(COUNT)), pixels())
    assert np.array_equal(frames(coded_as("raw"), range(COUNT)), pixels())


def test_size_and_rotation_are_as_for_a_video_file() -> None:
    for kind in ("png", "raw"):
        turned = frames(coded_as(kind), [4], rotate=90)
        assert np.array_equal(turned[0], np.rot90(pixels()[4], -1))
        assert frames(coded_as(kind), [4, 5], size=(20, 30), rotate=180).shape == (2, 20, 30, 3)
        assert frames(coded_as(kind), [], rotate=90).shape == (0, WIDTH, HEIGHT, 3)


def test_a_recording_that_starts_inside_a_group_says_so() -> None:
    whole = packets_of("libx264", {"g": "10", "bf": "0", "x264-params": "scenecut=0"})
    late = Pictures(T_NS[3:], "h264", WIDTH, HEIGHT, lambda a, b: whole.load(a + 3, b + 3), whole.is_key[3:])
    with pytest.raises(DataError, match="no key frame at or before frame 2: the recording starts inside a group"):
        cut(late, 2, 5)
    assert len(frames(late, [8])) == 1


@pytest.mark.parametrize("broken, says", [(b"", "frame 5 is empty"), (b"no picture", "not a readable mjpeg picture")])
def test_a_broken_picture_is_named(broken: bytes, says: str) -> None:
    good = coded_as("mjpeg")
    coded = [broken if i == 5 else content for i, content in enumerate(good.load(0, COUNT))]
    with pytest.raises(DataError, match=says):
        cut(Pictures(T_NS, "mjpeg", WIDTH, HEIGHT, listed(coded)), 5, 8)


def test_a_frame_outside_the_log_is_refused() -> None:
    for call in (lambda f: frames(f, [COUNT]), lambda f: cut(f, 5, COUNT + 1), lambda f: cut(f, 5, 5)):
        with pytest.raises(DataError, match="no frame"):
            call(coded_as("png"))


def test_a_camera_is_mended_as_the_robots_file_says() -> None:
    shown = pixels()[:2]
    made = lambda **how: mended(shown, Camera.model_validate({"role": "wrist", "from": "x", **how}))  # noqa: E731
    assert np.array_equal(made(), shown)
    assert np.array_equal(made(channels="bgr"), shown[..., ::-1])
    assert np.array_equal(made(flip="vertical"), shown[:, ::-1])
    assert np.array_equal(made(flip="horizontal"), shown[:, :, ::-1])
