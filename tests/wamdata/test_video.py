"""Frames by presentation index, packet copies, and what broken files say."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from schemas.errors import DataError
from wamdata.video import probe, read_frames
from wamdata.video_cut import cut_packets
from wamdata.video_encode import encode_h264

H264_OPEN = {"g": "20", "bf": "3", "x264-params": "b-pyramid=normal:open-gop=1:scenecut=0:keyint=20"}
HEVC_OPEN = {"x265-params": "keyint=20:bframes=4:open-gop=1:log-level=none:pools=1"}
VP9 = {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "cpu-used": "8"}
FRAMES = 60


def pictures(count: int = FRAMES, height: int = 64, width: int = 96) -> np.ndarray:
    """Noise that drifts to the right, so that every frame differs from every other."""
    blocks = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3)).astype(np.uint8)
    return np.stack([np.roll(blocks.repeat(8, 0).repeat(8, 1), 2 * i, 1) for i in range(count)])


def write(path: Path, codec: str, options: dict[str, str], *, times_ms: list[int] | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        if times_ms:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(pictures(len(times_ms) if times_ms else FRAMES)):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[i], stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def every_frame(source: Path | bytes) -> np.ndarray:
    """The oracle: all frames, decoded from the start in one go."""
    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory, g1: Path, droid_video: Path) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("clips")
    return {
        "av1": g1 / "videos/chunk-000/observation.images.cam_high/episode_000016.mp4",
        "av1_gop_2": g1 / "videos/chunk-000/observation.images.cam_high/episode_000010.mp4",
        "h264_gop_250": droid_video / "wrist_image_left.mp4",
        "h264_open_gop": write(made / "h264_open_gop.mp4", "libx264", H264_OPEN),
        "h264_mkv": write(made / "h264.mkv", "libx264", H264_OPEN | {"x264-params": "b-pyramid=normal:keyint=20"}),
        "hevc_open_gop": write(made / "hevc.mp4", "libx265", HEVC_OPEN),
        "hevc_mkv": write(made / "hevc.mkv", "libx265", HEVC_OPEN),
        "h264_mov": write(made / "h264.mov", "libx264", H264_OPEN),
        "vp9_mkv": write(made / "vp9.mkv", "libvpx-vp9", VP9),
        "mpeg4_avi": write(made / "mpeg4.avi", "mpeg4", {"g": "20", "bf": "2"}),
    }


@pytest.fixture(scope="session", params=[
    "av1", "av1_gop_2", "h264_gop_250", "h264_open_gop", "h264_mkv", "h264_mov", "hevc_open_gop", "hevc_mkv",
    "vp9_mkv", "mpeg4_avi",
])  # fmt: skip
def clip(request: pytest.FixtureRequest, clips: dict[str, Path]) -> tuple[Path, np.ndarray]:
    return clips[request.param], every_frame(clips[request.param])


def test_every_frame_has_a_time_and_times_rise(clip: tuple[Path, np.ndarray]) -> None:
    path, frames = clip
    info = probe(path)
    assert info.num_frames == len(frames)
    assert info.is_key[0] and (np.diff(info.pts_ns) > 0).all()
    assert (info.height, info.width) == frames.shape[1:3]


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_frames_come_in_the_order_asked_for(clip: tuple[Path, np.ndarray], backend: str) -> None:
    path, frames = clip
    last = len(frames) - 1
    indices = [last, 3, 3, 45, 0, 21, 22, last - 1]
    assert np.array_equal(read_frames(path, indices, backend=backend), frames[indices])


def test_a_cut_decodes_to_the_same_pixels_and_times(clip: tuple[Path, np.ndarray]) -> None:
    path, frames = clip
    last = len(frames)
    times = probe(path).pts_ns
    for first, stop in [(0, 7), (5, 9), (19, 21), (20, 35), (23, 24), (25, 47), (41, last), (last - 1, last)]:
        data, first_frame = cut_packets(path, first, stop)
        info = probe(data)
        wanted = range(first_frame, first_frame + stop - first)
        assert np.array_equal(read_frames(data, wanted), frames[first:stop]), (first, stop)
        moved_ns = np.diff(info.pts_ns[wanted]) - np.diff(times[first:stop])
        assert np.abs(moved_ns).max(initial=0) <= 1, (first, stop)  # one third of a second is no whole number of ns


def test_a_cut_read_by_a_plain_decoder_holds_the_same_frames(clip: tuple[Path, np.ndarray]) -> None:
    path, frames = clip
    data, first_frame = cut_packets(path, 23, 40)
    assert np.array_equal(every_frame(data)[first_frame : first_frame + 17], frames[23:40])


def test_two_cuts_of_the_same_span_are_the_same_bytes(clip: tuple[Path, np.ndarray]) -> None:
    path, _ = clip
    assert cut_packets(path, 11, 37) == cut_packets(path, 11, 37)


def test_a_cut_starts_at_the_key_frame_before_it(clips: dict[str, Path]) -> None:
    data, first_frame = cut_packets(clips["hevc_open_gop"], 27, 30)
    assert first_frame == 7  # key frames at 0, 20, 40
    assert probe(data).num_frames <= 15


def test_a_cut_is_a_plain_mp4(clips: dict[str, Path]) -> None:
    data, _ = cut_packets(clips["h264_mkv"], 5, 30)
    assert data[4:8] == b"ftyp" and b"moov" in data and b"moof" not in data


def test_a_cut_outside_the_video_is_refused(clips: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"hevc\.mp4: no frames \[50, 61\), the video has 60"):
        cut_packets(clips["hevc_open_gop"], 50, 61)


def test_a_cut_keeps_the_rotation(tmp_path: Path, clips: dict[str, Path]) -> None:
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(turn_quarter(cut_packets(clips["h264_gop_250"], 0, 20)[0]))
    assert probe(turned).rotation == 90
    assert probe(cut_packets(turned, 3, 9)[0]).rotation == 90


def turn_quarter(data: bytes) -> bytes:
    """An mp4 whose track header says: turn a quarter clockwise to view."""
    identity = b"".join(v.to_bytes(4, "big") for v in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    quarter = b"".join((v % 2**32).to_bytes(4, "big") for v in (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30))
    at = data.index(identity, data.index(b"tkhd"))
    return data[:at] + quarter + data[at + len(identity) :]


def test_an_edit_list_that_hides_leading_frames_moves_no_frame(tmp_path: Path, clips: dict[str, Path]) -> None:
    hidden = tmp_path / "hidden.mp4"
    with av.open(str(clips["h264_open_gop"])) as source, av.open(str(hidden), "w") as target:
        track = target.add_stream_from_template(source.streams.video[0], opaque=True)
        shift = round(7 * 0.04 / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, track
                target.mux(packet)
    frames = every_frame(hidden)
    assert probe(hidden).num_frames == len(frames) == FRAMES - 7
    assert np.array_equal(read_frames(hidden, [2, 30]), frames[[2, 30]])
    data, first_frame = cut_packets(hidden, 2, 30)
    assert np.array_equal(read_frames(data, range(first_frame, first_frame + 28)), frames[2:30])


def test_a_variable_frame_rate_stays_what_it_was(tmp_path: Path) -> None:
    times_ms = [0, 33, 66, 180, 181, 400, 433, 466, 900]
    path = write(tmp_path / "phone.mkv", "libx264", {"bf": "0"}, times_ms=times_ms)
    assert probe(path).pts_ns.tolist() == [t * 1_000_000 for t in times_ms]
    data, _ = cut_packets(path, 0, len(times_ms))
    assert probe(data).pts_ns.tolist() == [t * 1_000_000 for t in times_ms]


def test_size_and_rotation_are_applied_in_that_order(clips: dict[str, Path]) -> None:
    small = read_frames(clips["h264_gop_250"], [0], size=(90, 160))
    turned = read_frames(clips["h264_gop_250"], [0], size=(160, 90), rotate=90)
    assert turned.shape == (1, 160, 90, 3)
    assert np.array_equal(turned[0], np.rot90(small[0], -1))


def test_shrinking_averages_areas(clips: dict[str, Path]) -> None:
    frame = read_frames(clips["h264_gop_250"], [0])[0].astype(float)
    small = read_frames(clips["h264_gop_250"], [0], size=(90, 160))[0]
    means = frame.reshape(90, 2, 160, 2, 3).mean((1, 3))
    assert np.abs(small - means).mean() < 1.5


def test_colours_follow_the_matrix_that_the_file_names() -> None:
    """PyAV's own conversion gives 185, 11, 31 here: it takes every file for BT.601."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = 1
        red = av.VideoFrame.from_ndarray(np.full((64, 64, 3), (200, 30, 30), np.uint8), "rgb24")
        container.mux(stream.encode(red.reformat(format="yuv420p", src_colorspace="ITU601", dst_colorspace="ITU709")))
        container.mux(stream.encode())
    for backend in ("pyav", "decord"):
        shown = read_frames(file.getvalue(), [0], backend=backend)[0, 32, 32]
        assert np.abs(shown.astype(int) - (200, 30, 30)).max() <= 2, backend


def test_bytes_read_like_the_file(clips: dict[str, Path]) -> None:
    path = clips["av1"]
    assert np.array_equal(read_frames(path.read_bytes(), [5, 70]), read_frames(path, [5, 70]))


def test_no_indices_give_no_frames(clips: dict[str, Path]) -> None:
    assert read_frames(clips["av1"], []).shape == (0, 144, 192, 3)


def test_an_index_outside_the_video_is_named(clips: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"hevc\.mp4: no frame 60, the video has 60"):
        read_frames(clips["hevc_open_gop"], [3, 60])


def test_a_video_cut_off_behind_its_index_says_so(tmp_path: Path) -> None:
    whole = encode_h264(pictures(), 25)
    path = tmp_path / "half.mp4"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(DataError, match=r"half\.mp4: video packet \d+ is cut off by the end of the file"):
        probe(path)


def test_a_video_cut_off_between_two_packets_says_so(tmp_path: Path) -> None:
    whole = encode_h264(pictures(), 25)
    with av.open(io.BytesIO(whole)) as container:
        starts = sorted(p.pos for p in container.demux(video=0) if p.size)
    path = tmp_path / "half.mp4"
    path.write_bytes(whole[: starts[30]])
    with pytest.raises(DataError, match=r"half\.mp4: .*(cut off|cannot be read)"):
        probe(path)


def test_a_video_without_its_index_says_so(tmp_path: Path, clips: dict[str, Path]) -> None:
    path = tmp_path / "no_moov.mp4"
    path.write_bytes(clips["av1"].read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"no_moov\.mp4: not a readable video"):
        probe(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 4096])
def test_what_is_no_video_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.mp4: .*Copy it again, or drop the episode"):
        probe(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match=r"sound\.mp4: holds no video stream"):
        probe(path)


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    whole = bytearray(encode_h264(pictures(), 25))
    with av.open(io.BytesIO(bytes(whole))) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for start, size in packets[20:]:
        whole[start : start + size] = b"\xff" * size
    path = tmp_path / "broken.mp4"
    path.write_bytes(whole)
    assert len(read_frames(path, [5])) == 1
    with pytest.raises(DataError, match=r"broken\.mp4: frame 50 cannot be decoded"):
        read_frames(path, [50])


def test_encoded_pictures_come_back_nearly_the_same() -> None:
    frames = pictures()
    back = read_frames(encode_h264(frames, 15), range(FRAMES))
    assert np.abs(back.astype(int) - frames).mean() < 12  # chroma is stored at half the size
    assert probe(encode_h264(frames, 15)).average_fps == 15


def test_encoding_is_deterministic_and_ready_for_a_browser() -> None:
    frames = pictures(9)[:, :63, :95]
    data = encode_h264(frames, 29.97)
    info = probe(data)
    assert data == encode_h264(frames, 29.97)
    assert (info.codec, info.height, info.width) == ("h264", 64, 96)
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_a_codec_that_nobody_knows_is_refused(tmp_path: Path, clips: dict[str, Path]) -> None:
    content = clips["h264_gop_250"].read_bytes()
    at = content.index(b"avc1", content.index(b"stsd"))
    (tmp_path / "odd.mp4").write_bytes(content[:at] + b"zzz9" + content[at + 4 :])
    with pytest.raises(DataError, match=r"odd\.mp4: its codec is not known"):
        probe(tmp_path / "odd.mp4")
