import os

import cv2
import numpy as np
import pytest
import torch

from codes.image import (
    AnimationWriter,
    enlarge_to,
    grey,
    grid,
    label,
    read_image,
    to_float,
    to_uint8,
    write_gif,
    write_image,
)


def test_grey_is_the_official_sum_in_bgr():
    pixel = np.array([100, 200, 50], np.float32)  # B, G, R
    expected = 0.11 * 100 + 0.59 * 200 + 0.3 * 50
    assert grey(torch.from_numpy(pixel).view(1, 3, 1, 1)).flatten().tolist() == pytest.approx([expected])
    assert grey(pixel.reshape(1, 1, 3), axis=-1).ravel().tolist() == pytest.approx([expected])
    assert grey(torch.rand(2, 3, 4, 5)).shape == (2, 1, 4, 5)


def test_files_keep_every_value_and_the_colour_order(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    write_image(tmp_path / "ü x.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "ü x.png"), image)
    cv2.imwrite(str(tmp_path / "b.png"), image)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), image)
    np.testing.assert_array_equal(to_uint8(to_float(image)), image)
    assert to_float(image).dtype == np.float32 and to_float(image).shape == (3, 8, 12)


def test_to_uint8_clips_rounds_and_spreads_grey():
    values = torch.tensor([[[-1.0, 0.5, 2.0, float("nan"), 1.4 / 255, 1.6 / 255]]])
    np.testing.assert_array_equal(to_uint8(values)[0, :, 0], [0, 128, 255, 0, 1, 2])
    assert to_uint8(values).shape == (1, 6, 3) and (np.ptp(to_uint8(values), axis=2) == 0).all()


def test_grid_places_enlarged_cells_in_reading_order():
    cells = [(np.full((40, 60, 3), value, np.uint8), "") for value in (10, 20)]
    cells.append((np.full((10, 15, 3), 30, np.uint8), ""))  # small: enlarged
    picture = grid(cells, columns=2)
    assert picture.shape == (80, 120, 3)
    assert [picture[y, x, 0] for y, x in ((39, 59), (39, 119), (79, 59), (79, 119))] == [10, 20, 30, 0]


def test_enlarging_keeps_pixels_square_edged():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(enlarge_to(image, 4, 4), image.repeat(2, 0).repeat(2, 1))


def test_label_writes_in_the_upper_left_and_leaves_the_rest():
    image = np.full((100, 200, 3), 128, np.uint8)
    labelled = label(image, "text")
    assert (labelled[:12, :20] != 128).any() and (labelled[50:] == 128).all() and (image == 128).all()


def test_animations_can_be_read_back(tmp_path):
    frames = [np.full((32, 48, 3), value, np.uint8) for value in (0, 120, 240)]
    frames[1][:, ::2], frames[1][:, 1::2] = 0, 240  # the palette is that of the middle frame
    write_gif(tmp_path / "a.gif", frames)
    video, levels = cv2.VideoCapture(str(tmp_path / "a.gif")), []
    while (frame := video.read()[1]) is not None and len(levels) < 10:
        assert frame.shape == (32, 48, 3)
        levels.append(frame.mean())
    assert levels == pytest.approx([0, 120, 240], abs=6)


def test_videos_are_what_browsers_and_slides_play(tmp_path):
    """H.264 in yuv420p, its colours named in the file and right; one row and one column less where they are odd."""
    import av

    bars = np.uint8([[0, 0, 255], [0, 255, 0], [255, 0, 0], [255, 255, 255], [30, 160, 220]]).repeat(16, axis=0)
    frames = [np.roll(np.tile(bars, (49, 1, 1)), 16 * shift, axis=1) for shift in range(5)]
    with AnimationWriter(tmp_path / "a.mp4", fps=7) as writer:
        for frame in frames:
            writer.add(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 80, 48)
        assert (stream.frames, stream.average_rate) == (5, 7)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        for frame, expected in zip(container.decode(video=0), frames, strict=True):
            # Y'CbCr of BT.709, limited range, to B,G,R by its definition.
            y, cb, cr = (plane.astype(float) for plane in split_planes(frame.to_ndarray(), 48, 80))
            y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
            red, blue = y + 1.5748 * cr, y + 1.8556 * cb
            green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
            shown = 255 * np.stack([blue, green, red], axis=-1)
            assert np.abs(shown[8:-8, 8::16] - expected[8:40, 8::16]).max() <= 6  # in the middle of each bar


def split_planes(planes, height, width):
    """Y, Cb and Cr of yuv420p, each ``(height, width)``."""
    y, cb, cr = np.split(planes.reshape(-1), [height * width, height * width * 5 // 4])
    return y.reshape(height, width), *(c.reshape(height // 2, -1).repeat(2, 0).repeat(2, 1) for c in (cb, cr))


def test_a_video_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no known kind of video"), AnimationWriter(tmp_path / "a.xyz"):
        pass
    with pytest.raises(RuntimeError), AnimationWriter(tmp_path / "a.mp4") as writer:
        writer.add(np.zeros((16, 16, 3), np.uint8))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_that_is_cut_is_refused_wherever_it_is_cut(progressive, tmp_path):
    """Also where the preview in its header has an end marker of its own, and where bytes follow the picture."""
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    preview = cv2.imencode(".jpg", image[::4, ::4])[1].tobytes()
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    segment = b"Exif\0\0" + preview
    content = content[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]
    path = tmp_path / "a.jpg"
    for whole in (content, content + b"\0" * 3000):
        path.write_bytes(whole)
        assert read_image(path).shape == (64, 80, 3)
    for end in (3, 100, len(segment) + 10, len(content) // 2, len(content) - 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="no image that can be decoded"):
            read_image(path)


def test_animations_keep_the_colour_of_small_things(tmp_path):
    """A red spot of a thousandth of a grey textured picture, where a palette by frequency has no red."""
    frame = np.random.default_rng(0).integers(0, 256, (128, 128, 1), np.uint8).repeat(3, axis=2)
    frame[60:64, 60:64] = (30, 20, 220)
    write_gif(tmp_path / "a.gif", [frame, frame])
    shown = cv2.VideoCapture(str(tmp_path / "a.gif")).read()[1]
    assert np.abs(shown[61:63, 61:63].astype(int) - (30, 20, 220)).max() <= 12


def test_images_that_cannot_be_used_say_why(tmp_path):
    path = tmp_path / "a.tiff"
    cv2.imwrite(str(path), np.random.default_rng(0).random((8, 8), np.float32))
    with pytest.raises(ValueError, match="its numbers are float32: save it with 8 or 16 bits"):
        read_image(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="no image that can be decoded .* a Git LFS pointer"):
        read_image(path)
    path.unlink()
    os.mkfifo(path)  # nobody writes to it: it must not be waited for
    with pytest.raises(ValueError, match="it is a pipe: give a file"):
        read_image(path)
