"""An exported detector beside the one in PyTorch: the largest differences of what they predict, and the AP of both."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import utils
from detr.data.coco_json import all_have_outlines, match_categories
from detr.data.folds import find_gt
from detr.data.images import White, read_rgb
from detr.data.transforms import evaluation_params, resample
from detr.detector import Detector
from detr.export.outputs import OUTPUTS, Inference, Outputs, every_query, pad_normalized, to_outputs
from detr.models.postprocess import LEAST_MASK_SCORE, Detections, masks_to_rle
from detr.structures import MaskLogits
from detr.training.evaluate import to_coco_results, twelve_coco_numbers
from detr.training.run_files import CONFIG
from utils import UserError

MOST_DIFFERENT = {"scores": 1e-4, "boxes_xyxy": 1e-4, "masks": 1e-2}  # in float32; of masks the logits
MOST_AP_LOST = 0.01  # by fewer bits
_PADDED = 3  # images that are compared as one padded batch


class Comparison(NamedTuple):
    """An exported detector beside the one in PyTorch."""

    images: int
    differences: dict[str, float]  # the largest of each output
    ap: dict[str, tuple[float, float]]  # of boxes, and of masks: in PyTorch, exported; empty where not defined

    def __str__(self) -> str:
        parts = [f"{name} {difference:.1e}" for name, difference in self.differences.items()]
        ap = "".join(f"; {name} {exported:.4f}, in PyTorch {ours:.4f}" for name, (ours, exported) in self.ap.items())
        of = utils.pluralize(self.images, "validation image" if self.ap else "image")
        return f"largest differences from PyTorch on {of}: {', '.join(parts)}{ap}"


def find_images(checkpoint: Path, coco_path: Path | None) -> tuple[dict | None, Path]:
    """Return the annotations to compare on and their images' folder; None where the run's are not there any more."""
    config = utils.read_json(checkpoint.parent / CONFIG) or {}
    recorded = config.get("args", {}).get("coco_path")
    if coco_path is None and not (recorded and Path(recorded).is_dir()):
        print("no validation images are known (--coco_path names them): compared on random ones")
        return None, Path()
    return find_gt(coco_path, config)


def _read_images(gt: dict | None, folder: Path, white: White) -> Iterator[tuple[int, Image.Image]]:
    """Yield the number and the pixels of each image, in RGB."""
    if gt is None:
        random = np.random.default_rng(0)
        for number, size_hw in enumerate([(480, 640), (640, 480), (500, 500)]):
            yield number, Image.fromarray(random.integers(0, 256, (*size_hw, 3), dtype=np.uint8))
    else:
        for image in gt["images"]:
            yield image["id"], read_rgb(folder / image["file_name"], white=white)


def compare(
    detector: Detector, run: Inference, gt: dict | None, folder: Path, source: Path, mask_box_weight: float = 0.0
) -> Comparison:
    """Compare what `run` returns with PyTorch: image by image, and the first ones as a padded batch.

    Args:
        detector: on the CPU, in float32.
        run: the exported detector; of images as they are fed, (H, W) and smaller.
        gt, folder: COCO annotations and where their images are, or None for random images.
        source: the detector's file, for messages.
        mask_box_weight: of the boxes that `run` returns, see `outputs.to_outputs`.
    """
    first, differences = [], {}
    results: tuple[list[dict], list[dict]] = ([], [])  # of PyTorch, of the exported detector
    gt_ids = gt and match_categories(detector.label_map.categories, gt["categories"], source)

    def outputs_of(images: list[Image.Image]) -> tuple[Outputs, Outputs]:
        """Return what both predict, and keep the largest differences."""
        both = run_detector(detector, images, mask_box_weight), run(images)
        for name, ours, exported in zip(OUTPUTS, *both, strict=False):
            largest = float((ours - exported).abs().max())
            differences[name] = float(np.maximum(differences.get(name, 0.0), largest))  # unlike max, keeps NaN
        return both

    with utils.Progress(len(gt["images"]) if gt else None, "compare") as bar:
        for image_id, image in _read_images(gt, folder, detector.white):
            size_hw = (image.height, image.width)
            resized = resample(image, evaluation_params(size_hw, None, **detector.resolution), size_hw)
            first += [resized] if len(first) < _PADDED else []
            for results_of_one, outputs in zip(results, outputs_of([resized]), strict=True):
                results_of_one += to_results(detector, outputs, image_id, (resized.height, resized.width), size_hw)
            bar.update()
    outputs_of(first)
    kinds = {"AP": "bbox"} if gt else {}
    if gt and detector.model.config.masks and all_have_outlines(gt):
        kinds["mask AP"] = "segm"
    ap = {}
    for name, kind in kinds.items():
        ours, exported = (
            twelve_coco_numbers(gt, [r | {"category_id": gt_ids[r["category_id"]]} for r in results_of_one], kind)[0]
            for results_of_one in results
        )
        ap |= {name: (ours, exported)} if ours >= 0 else {}
    return Comparison(max(len(first), len(gt["images"]) if gt else 0), differences, ap)


@torch.inference_mode()
def run_detector(detector: Detector, images: list[Image.Image], mask_box_weight: float = 0.0) -> Outputs:
    """Return `OUTPUTS` of images in PyTorch, padded and normalized as in training."""
    pixels, padding_mask = pad_normalized(images)
    outputs = detector.model(pixels, padding_mask, every_query)
    return list(to_outputs(outputs, sorted(detector.label_map.names), padding_mask, mask_box_weight))


def to_results(
    detector: Detector, outputs: Outputs, image_id: int, valid_hw: tuple[int, int], size_hw: tuple[int, int]
) -> list[dict]:
    """Return the `OUTPUTS` of one image in COCO's results format; it was fed at `valid_hw`, and is `size_hw` large."""
    scores, column = outputs[0].max(-1)
    labels = torch.tensor(sorted(detector.label_map.names))[column]
    boxes_xyxy = outputs[1] * torch.tensor(size_hw[::-1] * 2)
    rles = None
    if len(outputs) > 2:
        query = torch.nonzero(scores[0] >= LEAST_MASK_SCORE)[:, 0]
        masks = MaskLogits(outputs[2][0, query], torch.zeros_like(query), query)
        rles = masks_to_rle(masks, [valid_hw], valid_hw, [size_hw])
    return to_coco_results(Detections(scores, labels, boxes_xyxy), [image_id], detector.label_map, rles)


def check(comparison: Comparison, precision: str, path: Path) -> None:
    """Raise UserError where the exported detector is not the same: in its outputs, or with fewer bits in its AP."""
    if precision == "fp32":
        wrong = [name for name, value in comparison.differences.items() if not value <= MOST_DIFFERENT[name]]
    elif not comparison.ap:
        raise UserError(f"--precision {precision} needs annotated images to measure what it costs: --coco_path")
    else:
        wrong = [name for name, (ours, exported) in comparison.ap.items() if not exported >= ours - MOST_AP_LOST]
    if wrong:
        raise UserError(
            f"{path} was not written, as it would not be the same detector: {wrong[0]} differs; {comparison}"
        )
