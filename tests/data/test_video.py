"""Videos: what is written comes back, upright and in time; what is no video is refused in one sentence."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from detr.data.video import read_frames, video_writer
from utils import UserError

TIMES = (0.0, 0.04, 0.12, 0.36)  # of a clip whose frame rate varies


def picture(width: int, height: int, number: int = 0) -> Image.Image:
    """Left half of one color, right half of another, told apart by the number."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (220, 40 * number, 30)
    pixels[:, width // 2 :] = (20, 60, 200)
    return Image.fromarray(pixels)


def write_clip(path: Path, width: int = 64, height: int = 48) -> list[Image.Image]:
    pictures = [picture(width, height, number) for number in range(len(TIMES))]
    with video_writer(path) as write:
        for image, seconds in zip(pictures, TIMES, strict=True):
            write(image, seconds)
    return pictures


@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
def test_what_is_written_comes_back(size: tuple[int, int], tmp_path: Path) -> None:
    pictures = write_clip(tmp_path / "clip.mp4", *size)
    frames = [*read_frames(tmp_path / "clip.mp4")]
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.seconds for frame in frames] == pytest.approx(TIMES, abs=1e-4)
    for frame, image in zip(frames, pictures, strict=True):
        assert frame.image.size == (64, 48)  # odd sides get one line more
        there = np.asarray(frame.image, np.float64)[: size[1], : size[0]]
        assert np.abs(there - np.asarray(image)).mean() < 8  # H.264 loses a little


def test_frames_of_a_turned_telephone_are_upright(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4")
    upright = next(read_frames(tmp_path / "clip.mp4")).image
    for angle, turned in ((90, upright.transpose(Image.Transpose.ROTATE_90)), (180, upright.rotate(180))):
        with av.open(tmp_path / "clip.mp4") as source, av.open(tmp_path / "turned.mp4", "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            stream.set_display_rotation(angle)
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        first = next(read_frames(tmp_path / "turned.mp4")).image
        assert first.size == turned.size and np.abs(np.asarray(first, int) - np.asarray(turned, int)).mean() < 3


def test_times_never_go_back(tmp_path: Path) -> None:
    with video_writer(tmp_path / "clip.mp4") as write:
        for seconds in (0.0, 0.5, 0.2, 0.2, 1.0):
            write(picture(64, 48), seconds)
    seconds = [frame.seconds for frame in read_frames(tmp_path / "clip.mp4")]
    assert seconds == pytest.approx([0.0, 0.5, 0.5, 0.5, 1.0], abs=1e-4) and sorted({*seconds}) == seconds


def test_what_has_no_times_is_shown_in_order(tmp_path: Path) -> None:
    with av.open(tmp_path / "raw.avi", "w", format="h264") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(picture(64, 48, number))))
        container.mux(stream.encode())
    seconds = [frame.seconds for frame in read_frames(tmp_path / "raw.avi")]
    assert len(seconds) == 3 and seconds == sorted({*seconds})


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4")
    whole = (tmp_path / "clip.mp4").read_bytes()
    for name, content in (("text.mp4", b"no video"), ("empty.mp4", b""), ("cut.mp4", whole[: len(whole) // 2])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: not a video that PyAV can read, or damaged"):
            list(read_frames(tmp_path / name))
    with av.open(tmp_path / "sound.mp4", "w") as container:
        sound = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(UserError, match=r"sound.mp4: no video in this file"):
        list(read_frames(tmp_path / "sound.mp4"))


def test_a_clip_is_there_once_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), video_writer(tmp_path / "clip.mp4") as write:
        write(picture(64, 48), 0.0)
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == []
