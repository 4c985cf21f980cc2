"""Show how good a run is and what it finds: curves, and predicted boxes beside the annotated ones.

python results.py                                     the run in outputs/
python results.py --log outputs other_run             several runs in the same diagrams
python results.py --images photo.jpg holiday/         what the detector finds in any photograph
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import utils
from detr.errors import UserError
from detr.images import SUFFIXES, read_rgb
from detr.report.runs import Run, read_json, read_run

if TYPE_CHECKING:
    from detr.detector import Detection

SHOWN_IMAGES = 12


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--log",
        type=Path,
        nargs="+",
        default=[Path("outputs")],
        metavar="DIR",
        help="run folders; pictures are saved in the first one's figures/ (outputs)",
    )
    add("--images", type=Path, nargs="+", metavar="PATH", help="photographs or folders of them to find objects in")
    add("--threshold", type=float, default=0.5, help="lowest score to show, 0 to 1 (%(default)s)")
    add("--checkpoint", type=Path, metavar="FILE", help="detector to use (default: checkpoint_best.pth of the run)")
    add("--device", default="auto", help="auto, cuda, mps or cpu; only for --images and --checkpoint (%(default)s)")
    add("--coco_path", type=Path, help="the COCO folder (default: the one the run was trained on)")
    return parser.parse_args()


def main() -> None:
    """Photographs if asked for, otherwise the curves and the validation images of the run."""
    args = parse_arguments()
    figures = args.log[0] / "figures"
    if args.images:
        show_photographs(args, figures)
        return
    runs = [read_run(folder) for folder in args.log]
    show_curves(runs, figures)
    show_validation_images(args, runs[0], figures)


def show_curves(runs: list[Run], figures: Path) -> None:
    """Save the curves of all runs, and print where each stands."""
    from detr.report.curves import FIGURES, draw_curves

    for run in runs:
        _, ap = run.series("test_coco_eval_bbox", 0)
        _, ap50 = run.series("test_coco_eval_bbox", 1)
        if ap:
            best = max(range(len(ap)), key=ap.__getitem__)
            summary = f"best AP {ap[best]:.3f} (AP50 {ap50[best]:.3f}), last AP {ap[-1]:.3f}"
            print(f"{run.name}: {summary}, {len(run.log)} epochs")
        else:
            print(f"{run.name}: {len(run.log)} epochs, none evaluated")
    for name in FIGURES:
        with utils.atomic_path(figures / f"{name}.png") as temporary:
            draw_curves(runs, name, temporary, utils.COLOURS)
        print(f"saved {figures / name}.png")


def show_validation_images(args: argparse.Namespace, run: Run, figures: Path) -> None:
    """Save validation images with annotated and with predicted boxes, side by side."""
    truth, folder = find_truth(args, run)
    if truth is None:
        print("no picture of predictions: the run does not say where its images are; --coco_path tells")
        return
    names = {category["id"]: category["name"] for category in truth["categories"]}
    images = truth["images"][:: max(1, len(truth["images"]) // SHOWN_IMAGES)][:SHOWN_IMAGES]
    predictions = find_predictions(args, images, folder)
    if predictions is None:
        print(f"no picture of predictions: {args.log[0]} has no predictions.json; --checkpoint makes them")
        return
    cells = []
    for image in images:
        photograph = read_rgb(folder / image["file_name"])
        annotated = [to_drawing(a, names) for a in truth["annotations"] if a["image_id"] == image["id"]]
        predicted = [
            to_drawing(p, names) for p in predictions if p["image_id"] == image["id"] and p["score"] >= args.threshold
        ]
        cells.append((photograph, f"{image['file_name']}: annotated", annotated))
        cells.append((photograph, f"predicted, score from {args.threshold:g}", predicted))
    utils.save_grid(cells, 4, figures / "predictions.png")
    print(f"saved {figures / 'predictions.png'}")


def find_truth(args: argparse.Namespace, run: Run) -> tuple[dict | None, Path]:
    """The validation annotations the run was evaluated on, and its image folder; None where they are not known."""
    recorded = run.config.get("args", {})
    coco_path = args.coco_path or (Path(recorded["coco_path"]) if "coco_path" in recorded else None)
    if coco_path is None:
        return None, Path()
    name = "instances_val2017.json" if recorded.get("dataset_file") == "coco" else "custom_val.json"
    path = coco_path / "annotations" / name
    truth = read_json(path)
    if truth is None:
        raise UserError(f"{path}: no such file; --coco_path says where the COCO folder is now")
    return truth, coco_path / "val2017"


def find_predictions(args: argparse.Namespace, images: list[dict], folder: Path) -> list[dict] | None:
    """Detections in COCO's results format: made by --checkpoint where given, otherwise the run's predictions.json."""
    if not args.checkpoint:
        return read_json(args.log[0] / "predictions.json")
    from detr.detector import Detector

    detector = Detector(args.checkpoint, args.device)
    with utils.Progress(len(images), "detect") as bar:
        predictions = []
        for image in images:
            predictions += [to_result(image["id"], d) for d in detector(folder / image["file_name"], args.threshold)]
            bar.update()
    return predictions


def show_photographs(args: argparse.Namespace, figures: Path) -> None:
    """Find objects in any photographs; save each with its boxes drawn, and all detections as JSON."""
    from detr.detector import Detector

    paths = find_photographs(args.images)
    detector = Detector(args.checkpoint or args.log[0] / "checkpoint_best.pth", args.device)
    report, stems = [], Counter()
    with utils.Progress(len(paths), "detect") as bar:
        for path in paths:
            stems[path.stem] += 1  # a.jpg here and a.png there are two photographs
            name = path.stem if stems[path.stem] == 1 else f"{path.stem}_{stems[path.stem]}"
            photograph = read_rgb(path)
            detections = detector(photograph, args.threshold)
            names = {d.category_id: d.category for d in detections}
            results = [to_result(str(path), d) for d in detections]
            drawn = utils.draw_objects(photograph, [to_drawing(result, names) for result in results])
            utils.save_image(drawn, figures / "images" / f"{name}.png")
            report += [{"category": names[result["category_id"]], **result} for result in results]
            bar.update()
    utils.write_json(figures / "images" / "detections.json", report, indent=1)
    print(f"{len(report)} objects in {len(paths)} photographs; saved in {figures / 'images'}")


def find_photographs(paths: list[Path]) -> list[Path]:
    """The photographs among files and folders. Raises UserError for what is neither, and when there are none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"--images {path}: no such file or folder")
    if not found:
        raise UserError(f"--images {', '.join(map(str, paths))}: no photographs; accepted: {', '.join(SUFFIXES)}")
    return found


def to_result(image_id: int | str, detection: "Detection") -> dict:
    """A detection as an entry of COCO's results format."""
    left, top, right, bottom = detection.box_xyxy
    return {
        "image_id": image_id,
        "category_id": detection.category_id,
        "bbox": [left, top, right - left, bottom - top],
        "score": detection.score,
    }


def to_drawing(entry: dict, names: dict[int, str]) -> dict:
    """An annotation or a result in COCO's format as something to draw; results show their score."""
    left, top, width, height = entry["bbox"]
    score = f" {entry['score']:.2f}" if "score" in entry else ""
    return {
        "box_xyxy": (left, top, left + width, top + height),
        "text": names[entry["category_id"]] + score,
        "colour": utils.colour_of(entry["category_id"]),
    }


if __name__ == "__main__":
    utils.run_script(main)
