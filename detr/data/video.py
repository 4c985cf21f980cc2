"""Frames of a video, one at a time, and a video of frames, both by PyAV, which is needed for nothing else. No torch."""

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from utils import UserError, atomic_path

_SUFFIXES = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp"}
_TURNS = {angle: Image.Transpose[f"ROTATE_{angle}"] for angle in (90, 180, 270)}  # counter-clockwise, as PyAV counts
_RATE = 25  # frames a second of what does not say when they are shown
_TICK = Fraction(1, 90_000)  # of a second, to which times are kept: every usual frame rate is a whole number of them


class Frame(NamedTuple):
    """A frame of a video."""

    number: int  # from 0
    seconds: float  # when it is shown
    image: Image.Image  # RGB, upright


def is_video(path: Path) -> bool:
    """Return whether a file's name ends as those of videos do."""
    return path.suffix.lower() in _SUFFIXES


def read_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames of a video's first stream. Raises UserError where it cannot be read, or is damaged."""
    import av

    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise UserError(f"{path}: no video in this file")
            container.streams.video[0].thread_type = "AUTO"  # decode on several cores
            number = -1
            for number, frame in enumerate(container.decode(video=0)):
                image = frame.to_image()
                turn = _TURNS.get(frame.rotation % 360)
                seconds = number / _RATE if frame.time is None else frame.time  # raw streams have no times
                yield Frame(number, seconds, image if turn is None else image.transpose(turn))
            if number < 0:
                raise UserError(f"{path}: no frames in this video")
    except (av.FFmpegError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: not a video that PyAV can read, or damaged ({reason})") from error


@contextlib.contextmanager
def video_writer(path: Path) -> Iterator[Callable[[Image.Image, float], None]]:
    """A function that adds an RGB image, shown from that second on, to a new video: H.264, which browsers play.

    The first image sets the size; where that is odd, a black line is added, as H.264 knows even sides only. The file is
    there once all are written.
    """
    import av

    with atomic_path(path) as temporary, av.open(temporary, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=_RATE, options={"crf": "20"})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", _TICK
        tick = -1

        def write(image: Image.Image, seconds: float) -> None:
            """Encode an RGB image as the next frame, shown from that second on."""
            nonlocal tick
            if not stream.codec_context.is_open:
                stream.width, stream.height = (side + side % 2 for side in image.size)
            frame = av.VideoFrame.from_image(image.crop((0, 0, stream.width, stream.height)))
            tick = max(tick + 1, round(seconds / _TICK))  # a damaged video's times may go back, a new one's may not
            frame.pts, frame.time_base = tick, _TICK
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode())
