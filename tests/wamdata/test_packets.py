"""Damage in a video file is told from packets, without decoding."""

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DataError
from wamdata.packets import framing_of
from wamdata.video import codec_name, open_video, probe, probe_whole

DATA = Path(__file__).parent.parent / "data"
AV1 = DATA / "g1_inspire_v21/videos/chunk-000/observation.images.cam_high/episode_000002.mp4"
H264 = DATA / "droid_video/wrist_image_left.mp4"


def packets(path: Path) -> tuple[list[bytes], str, bytes | None]:
    with open_video(path) as (container, stream):
        return (
            [bytes(p) for p in container.demux(stream) if p.size],
            codec_name(stream),
            stream.codec_context.extradata,
        )


@pytest.fixture(scope="module")
def hevc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hevc") / "x.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", rate=10, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(12):
            picture = np.full((48, 64, 3), shade * 20, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    return path


def test_packets_of_good_files_are_whole(hevc: Path) -> None:
    for path in (AV1, H264, hevc):
        found, codec, extradata = packets(path)
        is_whole = framing_of(codec, extradata)
        assert is_whole is not None and found
        assert all(is_whole(memoryview(p)) for p in found)
        assert not probe(path).damaged.any()


def test_a_packet_cut_short_is_not_whole(hevc: Path) -> None:
    for path in (AV1, H264, hevc):
        found, codec, extradata = packets(path)
        is_whole = framing_of(codec, extradata)
        assert not any(is_whole(memoryview(p[:-1])) for p in found[:50])
        assert not any(is_whole(memoryview(bytes(len(p)))) for p in found[:50] if codec != "av1")


@given(content=st.binary(max_size=300), codec=st.sampled_from(["av1", "h264"]))
def test_any_bytes_are_answered(content: bytes, codec: str) -> None:
    is_whole = framing_of(codec, b"\x01\x00\x00\x00\xff")
    assert is_whole(memoryview(content)) in (True, False)


def test_the_damaged_frames_of_a_real_file_are_named() -> None:
    info = probe(DATA / "video_edge_cases/corrupted.mp4")
    assert (info.num_frames, int(info.damaged.argmax()), int(info.damaged.sum())) == (50, 29, 20)
    with pytest.raises(DataError, match=r"corrupted\.mp4: frame 29 of 50 is damaged, and \d+ frames lean on it"):
        probe_whole(DATA / "video_edge_cases/corrupted.mp4")


def test_damage_ends_at_the_next_key_frame(tmp_path: Path) -> None:
    content = bytearray(AV1.read_bytes())
    with open_video(AV1) as (container, stream):
        at = [p.pos for p in container.demux(stream) if p.size][100]
    content[at : at + 8] = b"\xff" * 8
    (tmp_path / "x.mp4").write_bytes(content)
    info = probe(tmp_path / "x.mp4")
    keys = np.flatnonzero(info.is_key)
    assert np.flatnonzero(info.damaged).tolist() == list(range(100, keys[keys > 100][0]))


def test_streams_with_start_codes_are_left_alone() -> None:
    assert framing_of("h264", b"\x00\x00\x00\x01\x67") is None and framing_of("h264", None) is None
    assert framing_of("mjpeg", b"") is None
