"""Show how good a run is and what it detects: metrics, curves, and predicted boxes beside the annotated ones.

python results.py                                     the run in outputs/
python results.py --log outputs other_run             several runs side by side; the folds of a cross-validation as one
python results.py --images one.jpg holiday/           what the detector finds in any image
python results.py --images new/ --via new/via.json    the same as a VIA project to correct and to train on
python results.py --review                            annotations that are probably wrong
python results.py --splash                            with masks: objects in color, everything else in gray
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import utils
from detr.data.coco_json import check_images, fingerprint, match_categories
from detr.data.folds import find_annotations, find_gt
from detr.data.images import find_images, read_rgb
from detr.data.video import is_video
from detr.evaluation.calibration import MIN_SCORE
from detr.evaluation.coco_matching import check_results, match_results, with_masks
from detr.evaluation.metrics import FALLBACK_THRESHOLD, measure
from detr.evaluation.review import find_suspects
from detr.report.gallery import MOST_IMAGES, AttentionMaps, EvaluatedImages, evaluate_images, evenly_spaced
from detr.report.measured import Measured, join_folds
from detr.report.runs import COCO_KEY, MASKS_KEY, Run, read_runs
from detr.training.flags import positive_int
from detr.training.run_files import BEST, CONFIG, PREDICTIONS
from utils import UserError

if TYPE_CHECKING:
    from detr.detector import Detector

METRICS = "metrics.json"
REVIEW = "review.html"
SPLASH = "splash"  # folder of pictures
MOST_SUSPECTS = 40  # of a review
LoadDetector = Callable[[list[dict] | None], "Detector"]  # of the categories that name a file's classes


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = utils.ArgumentParser(description=__doc__)
    add, size = parser.add_argument, {"type": positive_int, "metavar": "PIXELS"}
    text = "run folders; pictures are saved in the first one's figures/ (outputs)"
    add("--log", type=Path, nargs="+", default=[Path("outputs")], metavar="DIR", help=text)
    add("--images", nargs="+", metavar="PATH", help="images, videos, folders, or globs, to detect objects in")
    add("--batch_size", type=positive_int, metavar="N", help="images of --images at once (4 on a GPU, 1 on a CPU)")
    text = "lowest score to show, 0 to 1, or auto: the best F1 on the validation images (%(default)s)"
    add("--threshold", type=threshold, default="auto", metavar="SCORE", help=text)
    add("--checkpoint", type=Path, metavar="FILE", help="detector to use (default: checkpoint_best.pth of the run)")
    add("--device", default="auto", help="auto, cuda, mps or cpu: where a detector runs (%(default)s)")
    add("--coco_path", type=Path, help="the COCO folder (default: the one the run was trained on)")
    add("--scale", **size, help="shorter side of the images for a detector (default: as it was evaluated)")
    add("--max_size", **size, help="longest side (default: as it was evaluated)")
    add("--splash", action="store_true", help="also save images in gray but for the objects (of a detector with masks)")
    add = parser.add_argument_group("annotations to correct").add_argument
    text = (
        "write the detections in --images as a VIA 2 project; the images in which most errors are expected, and "
        "those least like the annotated ones, are first. Corrected, it goes into prep.py --via OLD FILE"
    )
    add("--via", type=Path, metavar="FILE", help=text)
    text = (
        "list the annotations of both splits that are probably wrong, also as a page: as the detector sees it, or "
        "with all folds of a cross-validation in --log, by detectors that have not learnt them; with --via, all as a "
        "project, with notes"
    )
    add("--review", action="store_true", help=text)
    text = f"only the first N images of --images and --via (all), or suspects of --review ({MOST_SUSPECTS})"
    add("--limit", type=positive_int, metavar="N", help=text)
    args = parser.parse_args()
    if (args.scale or args.max_size) and not (args.checkpoint or args.images or args.review):
        parser.error(
            "--scale and --max_size need --checkpoint, --images or --review: saved detections have their size already"
        )
    if args.images and args.review:
        parser.error("--images and --review: one of them; --review is about the images that are annotated")
    if args.via and not (args.images or args.review):
        parser.error("--via needs --images, for what is detected there, or --review, for what is annotated")
    if args.limit and not (args.via or args.review):
        parser.error("--limit needs --via or --review")
    return args


def threshold(text: str) -> float | None:
    """Parse a score; None for `auto`. Raises ArgumentTypeError for what no score can be."""
    if text != "auto" and not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"accepted: 0 to 1, or auto; got {text}")
    return None if text == "auto" else float(text)


if __name__ == "__main__":
    parse_arguments()  # matplotlib takes a second to import: --help comes before

from detr.drawing import figure_fonts, save_image
from detr.predict import Predictor, detect_annotated, novelty
from detr.report.curves import EVERYTHING, FIGURES, draw_curves
from detr.report.detections import picture_names, write_csv
from detr.report.image_figures import draw_attention, draw_gallery, draw_queries
from detr.report.metric_figures import draw_confusion, draw_metrics
from detr.report.outlines import color_splash
from detr.report.page import build_page
from detr.report.suspects import build_review, suspects_table, write_review
from detr.report.tables import class_table, headline_table
from detr.report.via_project import names_in_project, write_detections


def main() -> None:
    """Detect objects in images if asked to, otherwise show curves, metrics and validation images of the runs."""
    args = parse_arguments()
    figures, checkpoint = args.log[0] / "figures", args.checkpoint or args.log[0] / BEST
    load = partial(load_detector, checkpoint, args.device, args.scale, args.max_size)
    if args.images:
        detect_in_images(args, figures, load)
        return
    runs = read_runs(args.log, needs_log=not (args.checkpoint or args.review))
    if args.review and len(runs) == 1:
        coco, folder = find_annotations(args.coco_path, runs[0].config)
        if args.via:
            names_in_project(args.via, [folder / image["file_name"] for image in coco["images"]])
        detections = detect_annotated(load(coco["categories"]), coco, folder, checkpoint, MIN_SCORE)
        show_suspects(coco, folder, detections, figures / REVIEW, args.via, args.limit)
        return
    with figure_fonts():
        if any(run.log for run in runs) and not args.review:
            show_curves(runs, figures)
        measured = {run.name: measure_run(args, run, folder, load) for run, folder in zip(runs, args.log, strict=True)}
        runs, measured = join_folds(runs, measured, args.threshold)
        first = measured[runs[0].name]
        if args.review:
            if len(runs) == len(args.log):
                raise UserError("--review and several runs in --log: they have to be all folds of one cross-validation")
            show_suspects(first.gt, first.image_folder, first.predictions, figures / REVIEW, args.via, args.limit)
            return
        if any(measured.values()):
            show_metrics(measured, figures)
        if args.splash:
            show_splash(first, args.log[0], figures)
        evaluated, attention = None, {}
        if first and first.gt["images"]:
            evaluated = evaluate_images(first.gt, first.predictions, first.image_folder, first.matches)
            if len(runs) == len(args.log):  # joined folds have no detector of their own
                attention = compute_attention(evaluated, checkpoint, partial(load, first.gt["categories"]))
            show_images(evaluated, attention, first.metrics["threshold"], figures)
        metrics = {name: run and run.metrics for name, run in measured.items()}
        utils.write_text(figures / "report.html", build_page(runs, metrics, evaluated, attention))
        print(f"saved {figures / 'report.html'}: open it in a browser")


def load_detector(
    checkpoint: Path, device: str, scale: int | None, max_size: int | None, categories: list[dict] | None
) -> "Detector":
    """Load a detector; `categories` name the classes of files that do not."""
    from detr.detector import Detector  # torch takes seconds to import: only what needs a detector pays for it
    from detr.models.cpu_kernels import share_malloc

    detector = Detector(checkpoint, device, categories=categories, scale=scale, max_size=max_size)
    if detector.device.type == "cpu":
        share_malloc()
    return detector


# ------------------------------------------------------------------------------------------------------ figures of runs


def show_curves(runs: list[Run], figures: Path) -> None:
    """Save the curves of all runs, and print where each stands."""
    for run in runs:
        key, of = (MASKS_KEY, "mask ") if run.series(MASKS_KEY)[1] else (COCO_KEY, "")
        epochs, ap = run.series(key)
        if ap:
            best = max(range(len(ap)), key=ap.__getitem__)
            ap50 = dict(zip(*run.series(key, 1), strict=True)).get(epochs[best])
            known = "" if ap50 is None else f" (AP50 {ap50:.3f})"
            print(f"{run.name}: best {of}AP {ap[best]:.3f}{known}, last {of}AP {ap[-1]:.3f}, {len(run.log)} epochs")
        else:
            evaluated = any(entry.get(COCO_KEY) for entry in run.log)
            why = "AP not defined: no objects to validate on" if evaluated else "none evaluated"
            print(f"{run.name}: {len(run.log)} epochs, {why}")
    for name in (*FIGURES, EVERYTHING):
        draw_curves(runs, name, figures / f"{name}.png")
        print(f"saved {figures / name}.png")


def show_metrics(measured: dict[str, Measured | None], figures: Path) -> None:
    """Save and print the metrics of all runs that have any, side by side."""
    report = [{"name": name, "metrics": run and run.metrics} for name, run in measured.items()]
    utils.write_json(figures / METRICS, {"runs": report})
    runs = [(name, run.metrics) for name, run in measured.items() if run]
    print(f"\n{headline_table(runs)}\n\n{class_table(runs)}\n\nsaved {figures / METRICS}")
    draw_metrics(runs, figures / "metrics.png")
    draw_confusion(runs, figures / "confusion.png")
    print(f"saved {figures / 'metrics.png'}\nsaved {figures / 'confusion.png'}")


def show_images(
    evaluated: EvaluatedImages, attention: dict[int, AttentionMaps], threshold: float, figures: Path
) -> None:
    """Save validation images with their true positives and errors, and what the detector attends to."""
    pictures = {"gallery": lambda path: draw_gallery(evaluated, threshold, path)}
    if attention:
        pictures["attention"] = lambda path: draw_attention(evaluated, attention, threshold, path)
        pictures["queries"] = lambda path: draw_queries(list(attention.values()), path)
    for name, draw in pictures.items():
        draw(figures / f"{name}.png")
        print(f"saved {figures / name}.png")


def show_splash(measured: Measured | None, folder: Path, figures: Path) -> None:
    """Save the validation images in gray, but for the objects that were detected from the threshold on."""
    if not (measured and with_masks(measured.predictions)):
        raise UserError(f"{folder}: no detections with masks; --splash needs a detector that was trained with --masks")
    check_images(measured.gt, measured.image_folder)  # masks are cut out pixel by pixel
    masks: dict[int, list[dict]] = {image["id"]: [] for image in measured.gt["images"]}
    for result in with_masks(measured.predictions):
        if result["score"] >= measured.metrics["threshold"]:
            masks[result["image_id"]].append(result["segmentation"])
    paths = [measured.image_folder / image["file_name"] for image in measured.gt["images"]]
    names = picture_names(paths)
    with utils.Progress(len(paths), "splash") as bar:
        for path, of_image in zip(paths, masks.values(), strict=True):
            save_image(color_splash(read_rgb(path), of_image), figures / SPLASH / f"{names[path]}.png")
            bar.update()
    print(f"saved {figures / SPLASH}: {utils.pluralize(len(paths), 'image')}")


# ------------------------------------------------------------------------------------------------------------- metrics


def measure_run(args: argparse.Namespace, run: Run, folder: Path, load: LoadDetector) -> Measured | None:
    """Return all metrics of a run; None, after saying why, where its detections or its annotations are not known."""
    gt, image_folder = find_gt(args.coco_path, run.config)
    detects = args.checkpoint and folder == args.log[0]
    path = folder / "figures" / PREDICTIONS if detects else folder / PREDICTIONS
    missing = ["does not say where its images are (--coco_path tells)"] if gt is None else []
    if not (detects or path.exists()):
        missing.append(f"has no {PREDICTIONS} (--checkpoint makes them)")
    if missing:
        print(f"no metrics: {folder} {' and '.join(missing)}")
        return None
    if detects:
        predictions = detect_annotated(load(gt["categories"]), gt, image_folder, args.checkpoint)
        utils.write_json(path, predictions)
        print(f"saved {path}")
    elif run.config.get("validation_images", now := fingerprint(gt)) != now:
        print(
            f"no metrics: {folder} was evaluated on other validation images than there are now (--checkpoint "
            f"{folder / BEST} measures on these)"
        )
        return None
    else:
        own = run.config.get("categories", gt["categories"])
        predictions = check_results(utils.read_json(path), gt | {"categories": own}, path)
        gt_ids = match_categories(own, gt["categories"], path)
        predictions = [result | {"category_id": gt_ids[result["category_id"]]} for result in predictions]
    matches, no_masks = match_results(gt, predictions)
    if no_masks and (with_masks(predictions) or run.config.get("config", {}).get("masks")):
        print(f"{folder}: boxes are measured, and no masks: {no_masks}")
    metrics = measure(gt, predictions, args.threshold, matches)
    return Measured(gt, image_folder, predictions, matches, metrics)


def compute_attention(
    evaluated: EvaluatedImages, checkpoint: Path, load: "Callable[[], Detector]"
) -> dict[int, AttentionMaps]:
    """Return the attention maps of the first run's detector in the images that the report shows, by their numbers."""
    if not checkpoint.exists():
        print(f"no attention maps: there is no {checkpoint}")
        return {}
    try:
        detector = load()
    except UserError as error:  # everything else needs no detector
        print(f"no attention maps: {error}")
        return {}
    numbers = evenly_spaced(len(evaluated.images), MOST_IMAGES)
    attention = {}
    with utils.Progress(len(numbers), "attention") as bar:
        for number in numbers:
            attention[number] = detector.attention(evaluated.folder / evaluated.images[number]["file_name"])
            bar.update()
    return attention


def annotated_images(coco_path: Path | None, log: Path) -> list[Path]:
    """Return the images that a run has annotations of; none, after saying why, where they are not known any more."""
    try:
        coco, folder = find_annotations(coco_path, utils.read_json(log / CONFIG) or {})
    except UserError as error:
        print(f"images are not compared with the annotated ones: {error}")
        return []
    return [folder / image["file_name"] for image in coco["images"]]


def show_suspects(
    coco: dict, folder: Path, results: list[dict], page: Path, via: Path | None, limit: int | None
) -> None:
    """List the annotations that are probably wrong, save them as a page, and as a VIA project if asked to."""
    suspects = find_suspects(coco, [result for result in results if result["score"] >= MIN_SCORE])
    suspects = suspects[: limit or MOST_SUSPECTS]
    print(suspects_table(suspects, coco))
    if suspects:
        utils.write_text(page, build_review(suspects, coco, folder))
        print(f"saved {page}: open it in a browser")
    if via:
        write_review(via, suspects, coco, folder)
        print(f"saved {via}: correct it, then python prep.py --via {via} --coco_path NEW")


# ------------------------------------------------------------------------------------------------------------ any image


def detect_in_images(args: argparse.Namespace, figures: Path, load: LoadDetector) -> None:
    """Detect objects in any images and videos; save each with its boxes drawn, and all detections as JSON and CSV."""
    paths = find_images(args.images)
    if args.via:
        names_in_project(args.via, paths)  # before all the work
    checkpoint, folder = args.checkpoint or args.log[0] / BEST, figures / "images"
    gt, _ = find_gt(args.coco_path, {})
    detector = load(gt and gt["categories"])
    if args.splash and not detector.model.config.masks:
        raise UserError(f"{checkpoint}: detects no masks; --splash needs a detector that was trained with --masks")
    measured, lowest, why = utils.read_json(figures / METRICS), args.threshold, "--threshold"
    metrics = measured["runs"][0]["metrics"] if measured else None  # of the first run, as it was last measured
    if lowest is None:
        lowest, why = best_known_threshold(metrics, figures / METRICS, checkpoint)
    predict = Predictor(detector, args.batch_size, lowest, MIN_SCORE if args.via else lowest)
    predictions = predict(paths, folder, figures / SPLASH if args.splash else None)
    in_order = [result for path in paths for result in predictions.results.get(path, ())]
    utils.write_json(folder / PREDICTIONS, in_order, indent=1)
    write_csv(folder / "predictions.csv", in_order)
    files = utils.pluralize(len(predictions.results), "file" if any(map(is_video, paths)) else "image")
    print(f"{len(in_order)} objects in {files}, score from {lowest:.3g} ({why}); saved in {folder}")
    if args.via:
        detected = {path: predictions.detected[path] for path in paths if path in predictions.detected}
        bins = metrics["calibration"]["bins"] if metrics else []
        categories = [category["name"] for category in detector.label_map.categories]
        novelties = novelty(detector, [*detected], annotated_images(args.coco_path, args.log[0]))
        count = write_detections(args.via, detected, categories, lowest, bins, args.limit, novelties)
        print(
            f"saved {args.via}: {utils.pluralize(count, 'image')} to correct; then python prep.py --via OLD {args.via}"
        )
    if problems := predictions.problems:
        raise UserError(f"{len(problems)} of {len(paths)} files could not be read: {'; '.join(problems[:20])}")


def best_known_threshold(metrics: dict | None, path: Path, checkpoint: Path) -> tuple[float, str]:
    """Return the threshold of the best F1 in the metrics of a file, and where it is from."""
    best = metrics["overall"]["best"]["threshold"] if metrics else None
    if best is None:
        return FALLBACK_THRESHOLD, f"{path} knows no better one"
    is_older = path.stat().st_mtime < checkpoint.stat().st_mtime
    return best, f"best F1 in {path}" + (f", which is older than {checkpoint}" if is_older else "")


if __name__ == "__main__":
    utils.run_script(main)
