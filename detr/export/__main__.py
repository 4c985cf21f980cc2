"""Write a detector for other programs. What they compute from it is compared with PyTorch before the file is kept.

python -m detr.export outputs/checkpoint_best.pth --to onnx                 outputs/checkpoint_best.onnx
python -m detr.export outputs/checkpoint_best.pth --to onnx small.onnx --precision fp16
python -m detr.export outputs/checkpoint_best.pth --to web                  a page that detects in the browser
python -m detr.export outputs/checkpoint_best.pth --to huggingface DIR      a folder for transformers
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import utils
from detr.export.web_page import build_detector_page, fetch_runtime
from utils import UserError

PRECISIONS = ("fp32", "fp16", "int8")
_ONNX = ("onnx", "onnxruntime", "onnxscript")
PACKAGES = {"onnx": _ONNX, "web": _ONNX, "huggingface": ("transformers", "timm", "safetensors")}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = utils.ArgumentParser("python -m detr.export", description=__doc__)
    add = parser.add_argument
    add("checkpoint", type=Path, help="a detector: checkpoint_best.pth of a run")
    add("output", type=Path, nargs="?", help="what to write (default: beside the checkpoint, under its name)")
    targets = "a file for onnxruntime; a page for browsers; a folder for transformers"
    add("--to", required=True, choices=PACKAGES, help=targets)
    add("--precision", choices=PRECISIONS, default="fp32", help="number format; AP must stay within 0.01 (%(default)s)")
    add("--coco_path", type=Path, help="COCO folder to compare on (default: that of the run, else random images)")
    return parser.parse_intermixed_args()


def main() -> None:
    """Write, compare, keep."""
    args = parse_arguments()
    suffix = {"onnx": ".onnx", "web": ".html", "huggingface": "_huggingface"}[args.to]
    if args.output and args.to != "huggingface" and args.output.suffix != suffix:
        raise UserError(f"{args.output}: what --to {args.to} writes has a name that ends in {suffix}")
    if args.precision != "fp32":
        if args.to == "huggingface":
            raise UserError(f"--precision {args.precision} is for --to onnx; transformers converts what it loads")
        suffix = f"_{args.precision}{suffix}"
    path = args.output or args.checkpoint.with_name(f"{args.checkpoint.stem}{suffix}")
    utils.check_packages(f"--to {args.to}", PACKAGES[args.to])
    from detr.detector import Detector
    from detr.export.comparison import check, compare, find_images  # torch takes seconds to import

    gt, folder = find_images(args.checkpoint, args.coco_path)
    detector = Detector(args.checkpoint, device="cpu", amp="off", categories=gt and gt["categories"])
    labels = sorted(detector.label_map.names)
    with (_new_folder if args.to == "huggingface" else utils.atomic_path)(path) as temporary:
        if args.to == "huggingface":
            from detr.export.hub_folder import hub_runner, write_folder

            write_folder(detector, temporary)
            run, mask_box_weight = hub_runner(temporary, labels), 0.0  # it has the box head's boxes
        else:
            from detr.export.onnx_file import onnx_runner, write_onnx

            runtime = fetch_runtime() if args.to == "web" else {}
            write_onnx(detector, temporary, args.precision)
            run, mask_box_weight = onnx_runner(temporary), detector.model.config.mask_box_weight
        comparison = compare(detector, run, gt, folder, args.checkpoint, mask_box_weight)
        check(comparison, args.precision, path)
        if args.to == "web":
            names = [detector.label_map.names[label] for label in labels]
            page = build_detector_page(path.stem, names, detector.resolution, temporary.read_bytes(), runtime)
            temporary.write_text(page, encoding="utf-8")
    print(f"{path}: {comparison}")


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` once whole. Raises UserError where something is there already."""
    if path.exists():
        raise UserError(f"{path} is there already; accepted: the name of a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        (new := Path(temporary) / path.name).mkdir()
        yield new
        new.rename(path)


if __name__ == "__main__":
    utils.run_script(main)
