"""Frames of videos and folders: what is read is what was written, and what is wrong with a file is said."""

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from codes.errors import InputError
from codes.image import write_image
from codes.making.film import Film, Images, Video
from codes.making.interpolation import Linear


def write_video(path, count=42, times=None, size=(48, 64), **options):
    """Plain frames that become brighter by 5 levels; ``times`` in ms, else 30 a second."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "1"})
        stream.height, stream.width = size
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(count):
            picture = np.full((*size, 3), 5 * index, np.uint8)
            picture[: size[0] // 2, : size[1] // 2] = 255 - 5 * index  # the upper left corner is told from the others
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = times[index] if times else round(1000 * index / 30), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frames_in_any_order(suffix, tmp_path):
    write_video(tmp_path / f"my clip{suffix}")
    video = Video(tmp_path / f"my clip{suffix}")
    assert (len(video), video.name, video.note) == (42, "my clip", "")
    for index in (0, 1, 7, 41, 3):
        frame = video.read(index)
        assert frame.shape == (48, 64, 3) and frame.dtype == np.uint8
        assert abs(int(frame[40, 50, 0]) - 5 * index) <= 6 and abs(int(frame[5, 5, 2]) - (255 - 5 * index)) <= 6


@pytest.mark.parametrize(("name", "options"), [("a.mkv", {}), ("a.mp4", {"movflags": "faststart"})])
def test_a_video_that_is_cut_off(name, options, tmp_path):
    write_video(tmp_path / name, **options)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(InputError, match=r"is cut off or damaged after \d+ frames \(.+\); --to_the_cut"):
        Video(tmp_path / name)
    video = Video(tmp_path / name, to_the_cut=True)
    assert 0 < len(video) < 42 and "used as far as that" in video.note
    assert abs(int(video.read(len(video) - 1)[40, 50, 0]) - 5 * (len(video) - 1)) <= 6


def test_no_video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"a\.mp4 is no video that can be opened"):
        Video(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4")  # its index is at the end
    (tmp_path / "b.mp4").write_bytes((tmp_path / "b.mp4").read_bytes()[:2000])
    with pytest.raises(InputError, match=r"b\.mp4 is no video that can be opened"):
        Video(tmp_path / "b.mp4", to_the_cut=True)


def test_a_variable_frame_rate_is_told_with_its_spread(tmp_path):
    times = [40 * index + 15 * (index % 2) for index in range(20)]  # 55 and 25 ms by turns
    write_video(tmp_path / "a.mkv", 20, times)
    assert "25.0 to 55.0 ms" in Video(tmp_path / "a.mkv").note


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_shown_upright(degrees, tmp_path):
    """As phones write them: the matrix of the track header is replaced; OpenCV turns likewise."""
    path, one = tmp_path / "a.mp4", 1 << 16
    write_video(path, 3)
    matrix = {90: (0, one, 0, -one, 0), 180: (-one, 0, 0, 0, -one), 270: (0, -one, 0, one, 0)}[degrees]
    content = path.read_bytes()
    place = content.index(struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30), content.index(b"tkhd"))
    path.write_bytes(content[:place] + struct.pack(">5i", *matrix) + content[place + 20 :])
    expected = cv2.VideoCapture(str(path)).read()[1]
    found = Video(path).read(0)
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 3


def test_inserted_frames_lie_between(tmp_path):
    for index in range(4):
        write_image(tmp_path / "s" / f"{index:06}.png", np.full((9, 11, 3), 40 * index, np.uint8))
    film = Film(tmp_path / "s", 3, Linear(), (4, 2))
    assert (film.count, film.whole, film.size, film.digits) == (13, (9, 11), (8, 10), 6)
    for needed in ({0, 1, 2, 3, 4, 12}, {5}, {8, 9}, set(range(13))):
        found = [(index, frame[0, 0, 0], frame.shape) for index, frame in film.frames(needed)]
        assert found == [(index, 10 * index, (8, 10, 3)) for index in sorted(needed)]


def test_files_without_a_number_are_left_out_and_named(tmp_path):
    for name in ("1.png", "2.png", "preview.png", ".thumb3.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    images = Images(tmp_path, None)
    assert [path.name for path in images.files] == ["1.png", "2.png"]
    assert "preview.png" in images.note and "thumb3" not in images.note
