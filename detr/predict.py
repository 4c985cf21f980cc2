"""Detect objects in image files and videos: while the network looks at a batch, the next one is read and the last one
is drawn and saved.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from PIL import Image

import utils
from detr.data.coco_json import check_white, match_categories
from detr.data.images import read_rgb, read_size_hw
from detr.data.video import Frame, is_video, read_frames, video_writer
from detr.drawing import save_image
from detr.evaluation.coco_matching import with_masks
from detr.report.detections import draw_results, picture_names
from detr.report.gallery import evenly_spaced
from detr.report.outlines import color_splash
from detr.report.via_project import Detected
from utils import UserError

if TYPE_CHECKING:
    from detr.detector import Detection, Detector

_UNSAVED = 2  # pictures that may wait to be saved
_MOST_COMPARED = 300  # annotated images
T = TypeVar("T")


class Predictions(NamedTuple):
    """What was detected in files, in COCO's results format, with the file as `image_id` and `category`, the name."""

    results: dict[Path, list[dict]]  # of each file; of videos also `frame`, from 0, and `seconds`
    detected: dict[Path, Detected]  # of each image
    problems: list[str]  # sentences about files that cannot be read


class Predictor:
    """Detects objects in files, and saves pictures of them.

    Args:
        detector: what detects.
        batch_size: images, or frames of a video, at once (None: 4, and on a CPU, where more are no faster, 1).
        threshold: the least score of what is drawn and returned.
        min_score: the least score that `Detected` knows of.
    """

    def __init__(self, detector: "Detector", batch_size: int | None, threshold: float, min_score: float) -> None:
        self.detector = detector
        self.batch_size = batch_size or (1 if detector.device.type == "cpu" else 4)
        self.threshold, self.min_score = threshold, min(min_score, threshold)

    def __call__(self, paths: Sequence[Path], folder: Path, splash: Path | None = None) -> Predictions:
        """Detect in images and videos; save each with its detections drawn in `folder`, and in gray but for the objects
        in `splash`, if there is such a folder to be. Raises UserError where what reads videos is not installed.
        """
        names, predictions = picture_names(paths), Predictions({}, {}, [])
        images = [path for path in paths if not is_video(path)]
        if videos := [path for path in paths if is_video(path)]:
            utils.check_packages(f"{videos[0]}: a video", ["av"])

        def save(one: tuple[Path, Image.Image, list["Detection"]]) -> tuple[Path, Detected]:
            """Save an image with its detections drawn, and return these."""
            path, image, detections = one
            results = self._results(path, detections)
            save_image(draw_results(image, results), folder / f"{names[path]}.jpg")
            if splash:
                gray = color_splash(image, [result["segmentation"] for result in with_masks(results)])
                save_image(gray, splash / f"{names[path]}.png")
            return path, Detected(image.size, results, [detection.score for detection in detections])

        with utils.Progress(None if videos else len(images), "detect") as bar:
            for path, detected in utils.map_in_thread(save, self._in_images(images, predictions.problems), _UNSAVED):
                predictions.results[path], predictions.detected[path] = detected.results, detected
                bar.update()
            for path in videos:
                try:
                    predictions.results[path] = self._video(path, folder / f"{names[path]}.mp4", bar)
                except UserError as error:
                    predictions.problems.append(str(error))
        return predictions

    def _in_images(
        self, paths: Sequence[Path], problems: list[str]
    ) -> Iterator[tuple[Path, Image.Image, list["Detection"]]]:
        """Yield the images, RGB and upright, and what is in each, in batches of similar aspect ratio."""
        sizes_hw, unread = _try_each(read_size_hw, paths)
        problems += unread
        ordered = sorted(sizes_hw, key=lambda path: sizes_hw[path][0] / sizes_hw[path][1])
        read = partial(_try_each, partial(read_rgb, white=self.detector.white))
        for images, damaged in utils.map_in_thread(read, _batches(ordered, self.batch_size)):
            problems += damaged
            detections = self.detector.detect([*images.values()], self.min_score)
            yield from zip(images, images.values(), detections, strict=True)

    def _video(self, path: Path, drawn: Path, bar: utils.Progress) -> list[dict]:
        """Return the detections in all frames of a video, and save it with them drawn."""
        in_frames = []
        with video_writer(drawn) as write:

            def save(one: tuple[Frame, list["Detection"]]) -> list[dict]:
                """Append a frame with its detections drawn to the video, and return these."""
                frame, results = one[0], self._results(path, one[1])
                write(draw_results(frame.image, results), frame.seconds)
                return [result | {"frame": frame.number, "seconds": round(frame.seconds, 3)} for result in results]

            for results in utils.map_in_thread(save, self._in_frames(path), _UNSAVED):
                in_frames += results
                bar.update()
        return in_frames

    def _in_frames(self, path: Path) -> Iterator[tuple[Frame, list["Detection"]]]:
        """Yield the frames of a video, which PyAV decodes in threads of its own, and what is in each."""
        for frames in _batches(read_frames(path), self.batch_size):
            yield from zip(frames, self.detector.detect([frame.image for frame in frames], self.threshold), strict=True)

    def _results(self, path: Path, detections: Sequence["Detection"]) -> list[dict]:
        return [{"category": d.category, **to_result(str(path), d)} for d in detections if d.score >= self.threshold]


def _try_each(read: Callable[[Path], T], paths: Sequence[Path]) -> tuple[dict[Path, T], list[str]]:
    """Return what `read` returns for each path that can be read, and sentences about the others."""
    values, problems = {}, []
    for path in paths:
        try:
            values[path] = read(path)
        except UserError as error:
            problems.append(str(error))
    return values, problems


def _batches(items: Sequence[T] | Iterator[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    return iter(lambda: [*itertools.islice(iterator, size)], [])


def novelty(detector: "Detector", paths: Sequence[Path], annotated: Sequence[Path]) -> dict[Path, float]:
    """Return for each image how unlike the most similar annotated one it is, 0 to 1, as `Detector.embed` sees them.

    Annotated images that cannot be read are left out; of more than `_MOST_COMPARED`, evenly spaced ones are taken.
    """
    annotated = [annotated[number] for number in evenly_spaced(len(annotated), _MOST_COMPARED)]
    with utils.Progress(len(annotated) + len(paths), "compare") as bar:

        def embed(path: Path) -> np.ndarray:
            """Return the features of an image, and count it as done."""
            bar.update()
            return detector.embed(path)

        known = [*_try_each(embed, annotated)[0].values()]
        return {path: 1 - float(np.max(known @ embed(path), initial=0)) for path in paths if known}


def to_result(image_id: int | str, detection: "Detection") -> dict:
    """Return a detection as an entry of COCO's results format."""
    left, top, right, bottom = detection.box_xyxy
    result = {
        "image_id": image_id,
        "category_id": detection.category_id,
        "bbox": [left, top, right - left, bottom - top],
        "score": detection.score,
    }
    return result | ({"segmentation": detection.segmentation} if detection.segmentation else {})


def detect_annotated(
    detector: "Detector", coco: dict, folder: Path, source: Path, threshold: float = 0.0
) -> list[dict]:
    """Return the detections in the images of `coco`, which are in `folder`, in COCO's results format and from a score
    on, with the category ids of `coco`. `source` is the detector's file, for messages.
    """
    gt_ids = match_categories(detector.label_map.categories, coco["categories"], source)
    check_white(detector.white, coco, source)
    paths, results = [folder / image["file_name"] for image in coco["images"]], []
    with utils.Progress(len(paths), "detect") as bar:
        pixels = utils.map_in_thread(partial(read_rgb, white=detector.white), paths)
        for image, rgb in zip(coco["images"], pixels, strict=True):
            results += [to_result(image["id"], detection) for detection in detector(rgb, threshold)]
            bar.update()
    return [result | {"category_id": gt_ids[result["category_id"]]} for result in results]
