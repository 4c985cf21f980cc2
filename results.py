"""Show how good a run is and what it finds: metrics, curves, and predicted boxes beside the annotated ones.

python results.py                                     the run in outputs/
python results.py --log outputs other_run             several runs side by side
python results.py --images photo.jpg holiday/         what the detector finds in any photograph
"""

import argparse
import csv
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import utils
from detr.annotations import fingerprint, read_coco
from detr.errors import UserError
from detr.images import find_photographs, read_rgb, read_size_hw
from detr.report.matching import check_results
from detr.report.metrics import FALLBACK_THRESHOLD, measure
from detr.report.runs import COCO_KEY, Run, read_json, read_runs
from detr.report.shown import MOST_IMAGES, Judged, Look, judge, spread

if TYPE_CHECKING:
    from detr.detector import Detection

METRICS = "metrics.json"
PREDICTIONS = "predictions.json"
BEST = "checkpoint_best.pth"


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
    add("--images", nargs="+", metavar="PATH", help="photographs, folders of them, or globs, to find objects in")
    add("--batch_size", type=positive, default=4, metavar="N", help="photographs of --images at once (%(default)s)")
    add(
        "--threshold",
        type=threshold,
        default="auto",
        metavar="SCORE",
        help="lowest score to show, 0 to 1, or auto: the best F1 on the validation images (%(default)s)",
    )
    add("--checkpoint", type=Path, metavar="FILE", help="detector to use (default: checkpoint_best.pth of the run)")
    add("--device", default="auto", help="auto, cuda, mps or cpu: where a detector runs (%(default)s)")
    add("--coco_path", type=Path, help="the COCO folder (default: the one the run was trained on)")
    return parser.parse_args()


def threshold(text: str) -> float | None:
    """A score; None for `auto`. Raises ArgumentTypeError for what no score can be."""
    if text != "auto" and not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"accepted: 0 to 1, or auto; got {text}")
    return None if text == "auto" else float(text)


def positive(text: str) -> int:
    """A number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


class Measured(NamedTuple):
    """A run whose detections were held against the annotations."""

    truth: dict  # COCO
    image_folder: Path
    predictions: list[dict]  # COCO's results format
    metrics: dict  # of `detr.report.metrics.measure`


def main() -> None:
    """Photographs if asked for, otherwise curves, metrics and validation images of the runs."""
    args = parse_arguments()
    figures = args.log[0] / "figures"
    if args.images:
        show_photographs(args, figures)
        return
    runs = read_runs(args.log)
    show_curves(runs, figures)
    measured = {run.name: measure_run(args, run, folder) for run, folder in zip(runs, args.log, strict=True)}
    if any(measured.values()):
        show_metrics(measured, figures)
    first = measured[runs[0].name]
    judged = judge(first.truth, first.predictions, first.image_folder) if first and first.truth["images"] else None
    looks = look_at_images(args, judged, first.truth["categories"]) if judged else {}
    if judged:
        show_images(judged, looks, first.metrics["threshold"], figures)
    write_report(runs, measured, judged, looks, figures)


def show_curves(runs: list[Run], figures: Path) -> None:
    """Save the curves of all runs, and print where each stands."""
    from detr.report.curves import EVERYTHING, FIGURES, draw_curves

    for run in runs:
        epochs, ap = run.series(COCO_KEY)
        if ap:
            best = max(range(len(ap)), key=ap.__getitem__)
            ap50 = dict(zip(*run.series(COCO_KEY, 1), strict=True)).get(epochs[best])
            known = "" if ap50 is None else f" (AP50 {ap50:.3f})"
            print(f"{run.name}: best AP {ap[best]:.3f}{known}, last AP {ap[-1]:.3f}, {len(run.log)} epochs")
        else:
            evaluated = any(entry.get(COCO_KEY) for entry in run.log)
            why = "AP not defined: no objects to validate on" if evaluated else "none evaluated"
            print(f"{run.name}: {len(run.log)} epochs, {why}")
    for name in (*FIGURES, EVERYTHING):
        with utils.atomic_path(figures / f"{name}.png") as temporary:
            draw_curves(runs, name, temporary, utils.COLOURS)
        print(f"saved {figures / name}.png")


def measure_run(args: argparse.Namespace, run: Run, folder: Path) -> Measured | None:
    """All metrics of a run; None, after saying why, where its detections or its annotations are not known."""
    truth, image_folder = find_truth(args, run.config)
    detects = args.checkpoint and folder == args.log[0]
    path = folder / "figures" / PREDICTIONS if detects else folder / PREDICTIONS
    missing = ["does not say where its images are (--coco_path tells)"] if truth is None else []
    if not (detects or path.exists()):
        missing.append(f"has no {PREDICTIONS} (--checkpoint makes them)")
    if missing:
        print(f"no metrics: {folder} {' and '.join(missing)}")
        return None
    if detects:
        utils.write_json(path, detect_all(args, truth, image_folder))
        print(f"saved {path}")
    elif run.config.get("validation_images", now := fingerprint(truth)) != now:
        print(
            f"no metrics: {folder} was evaluated on other validation images than there are now (--checkpoint "
            f"{folder / BEST} measures on these)"
        )
        return None
    predictions = check_results(read_json(path), truth, path)
    return Measured(truth, image_folder, predictions, measure(truth, predictions, args.threshold))


def find_truth(args: argparse.Namespace, config: dict) -> tuple[dict | None, Path]:
    """The validation annotations that a run was evaluated on, and their images; None where they are not known."""
    recorded = config.get("args", {})
    coco_path = args.coco_path or (Path(recorded["coco_path"]) if "coco_path" in recorded else None)
    if coco_path is None:
        return None, Path()
    names = ["custom_val.json", "instances_val2017.json"]
    for name in reversed(names) if recorded.get("dataset_file") == "coco" else names:
        if (coco_path / "annotations" / name).exists():
            return read_coco(coco_path / "annotations" / name), coco_path / "val2017"
    raise UserError(
        f"{coco_path / 'annotations'}: no {' or '.join(names)}; --coco_path says where the COCO folder is now"
    )


def detect_all(args: argparse.Namespace, truth: dict, image_folder: Path) -> list[dict]:
    """What --checkpoint finds in the annotated images, in COCO's results format."""
    from detr.detector import Detector

    detector = Detector(args.checkpoint, args.device, categories=truth["categories"])
    predictions = []
    with utils.Progress(len(truth["images"]), "detect") as bar:
        for image in truth["images"]:
            found = detector(image_folder / image["file_name"], threshold=0)
            predictions += [to_result(image["id"], detection) for detection in found]
            bar.update()
    return predictions


def show_metrics(measured: dict[str, Measured | None], figures: Path) -> None:
    """Save and print the metrics of all runs that have any, side by side."""
    from detr.report.metric_figures import draw_confusion, draw_metrics
    from detr.report.tables import class_table, headline_table

    report = [{"name": name, "metrics": run and run.metrics} for name, run in measured.items()]
    utils.write_json(figures / METRICS, {"runs": report})
    runs = [(name, run.metrics) for name, run in measured.items() if run]
    print(f"\n{headline_table(runs)}\n\n{class_table(runs)}\n\nsaved {figures / METRICS}")
    with utils.atomic_path(figures / "metrics.png") as temporary:
        draw_metrics(runs, temporary, utils.COLOURS)
    with utils.atomic_path(figures / "confusion.png") as temporary:
        draw_confusion(runs, temporary)
    print(f"saved {figures / 'metrics.png'}\nsaved {figures / 'confusion.png'}")


def look_at_images(args: argparse.Namespace, judged: Judged, categories: list[dict]) -> dict[int, Look]:
    """What the first run's detector looks at in the images that the report shows, by their numbers."""
    checkpoint = args.checkpoint or args.log[0] / BEST
    if not checkpoint.exists():
        print(f"no attention maps: there is no {checkpoint}")
        return {}
    from detr.detector import Detector

    try:
        detector = Detector(checkpoint, args.device, categories=categories)
    except UserError as error:  # everything else needs no detector
        print(f"no attention maps: {error}")
        return {}
    numbers = spread(len(judged.images), MOST_IMAGES)
    looks = {}
    with utils.Progress(len(numbers), "attention") as bar:
        for number in numbers:
            look = detector.look(judged.folder / judged.images[number]["file_name"])
            looks[number] = Look(*(None if field is None else field.cpu().numpy() for field in look))
            bar.update()
    return looks


def show_images(judged: Judged, looks: dict[int, Look], threshold: float, figures: Path) -> None:
    """Save validation images with what is right and wrong in them, and what the detector looks at."""
    from detr.report.image_figures import draw_attention, draw_gallery, draw_queries

    pictures = {"gallery": lambda path: draw_gallery(judged, threshold, path)}
    if looks:
        pictures["attention"] = lambda path: draw_attention(judged, looks, threshold, path)
        pictures["queries"] = lambda path: draw_queries(list(looks.values()), path)
    for name, draw in pictures.items():
        with utils.atomic_path(figures / f"{name}.png") as temporary:
            draw(temporary)
        print(f"saved {figures / name}.png")


def write_report(
    runs: list[Run], measured: dict[str, Measured | None], judged: Judged | None, looks: dict[int, Look], figures: Path
) -> None:
    """Save everything as one page, which needs nothing beside it."""
    from detr.report.page import build_page

    metrics = {name: run and run.metrics for name, run in measured.items()}
    images = len(spread(len(judged.images), MOST_IMAGES)) if judged else 0
    with utils.Progress(images, "report") as bar:
        page = build_page(runs, metrics, judged, looks, shown=bar.update)
    with utils.atomic_path(figures / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"saved {figures / 'report.html'}: open it in a browser")


def show_photographs(args: argparse.Namespace, figures: Path) -> None:
    """Find objects in any photographs; save each with its boxes drawn, and all detections as JSON and as CSV."""
    from detr.detector import Detector

    paths = find_photographs(args.images)
    categories = find_truth(args, {})[0]["categories"] if args.coco_path else None
    checkpoint = args.checkpoint or args.log[0] / BEST
    detector = Detector(checkpoint, args.device, categories=categories)
    lowest, why = args.threshold, "--threshold"
    if lowest is None:
        lowest, why = best_known_threshold(figures, checkpoint)
    drawings, found = drawing_names(paths), {}
    with utils.Progress(len(paths), "detect") as bar:
        for batch in alike(paths, args.batch_size):
            photographs = [read_rgb(path) for path in batch]
            for path, photograph, detections in zip(
                batch, photographs, detector.detect(photographs, lowest), strict=True
            ):
                found[path] = [{"category": d.category, **to_result(str(path), d)} for d in detections]
                names = {d.category_id: d.category for d in detections}
                drawn = utils.draw_objects(photograph, [to_drawing(result, names) for result in found[path]])
                utils.save_image(drawn, figures / "images" / f"{drawings[path]}.png")
                bar.update()
    results = [result for path in paths for result in found[path]]
    utils.write_json(figures / "images" / PREDICTIONS, results, indent=1)
    write_table(figures / "images" / "predictions.csv", results)
    where = figures / "images"
    print(f"{len(results)} objects in {len(paths)} photographs, score from {lowest:.3g} ({why}); saved in {where}")


def best_known_threshold(figures: Path, checkpoint: Path) -> tuple[float, str]:
    """The threshold of the best F1 of the first run as it was last measured, and where it is from."""
    path = figures / METRICS
    measured = read_json(path) or {"runs": [{"metrics": None}]}
    metrics = measured["runs"][0]["metrics"]
    best = metrics["overall"]["best"]["threshold"] if metrics else None
    if best is None:
        return FALLBACK_THRESHOLD, f"{path} knows no better one"
    is_older = path.stat().st_mtime < checkpoint.stat().st_mtime
    return best, f"best F1 in {path}" + (f", which is older than {checkpoint}" if is_older else "")


def alike(paths: list[Path], batch_size: int) -> list[list[Path]]:
    """Batches of photographs of similar shape: little of a batch is padding then."""
    heights_and_widths = {path: read_size_hw(path) for path in paths}
    ordered = sorted(paths, key=lambda path: heights_and_widths[path][0] / heights_and_widths[path][1])
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def drawing_names(paths: list[Path]) -> dict[Path, str]:
    """What the drawn photographs are called; a.jpg here and a.png there are two of them."""
    names: dict[Path, str] = {}
    taken = set()
    for path in paths:
        candidates = (f"{path.stem}{suffix}" for suffix in itertools.chain([""], (f"_{n}" for n in itertools.count(2))))
        names[path] = next(name for name in candidates if name not in taken)
        taken.add(names[path])
    return names


def write_table(path: Path, results: list[dict]) -> None:
    """Detections as CSV: the corner of each box, its width and its height in pixels."""
    with utils.atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "category_id", "category", "score", "left", "top", "width", "height"))
        for result in results:
            rows.writerow(
                (result["image_id"], result["category_id"], result["category"], result["score"], *result["bbox"])
            )


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
