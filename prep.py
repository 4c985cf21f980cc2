"""Prepare a fine-tuning: VIA outlines -> COCO folder, public DETR weights -> weights without a class head.

python prep.py                                  the balloon photographs, downloaded
python prep.py --via DIR                        your own: DIR/train and DIR/val, images and a VIA file in each
python prep.py --sample                         drawn party balloons: no network needed
"""

import argparse
import shutil
import zipfile
from pathlib import Path

import utils
from detr.errors import UserError
from detr.images import read_rgb
from detr.public_weights import PUBLIC_URL, PUBLIC_WEIGHTS, SHIPPED_WEIGHTS
from detr.sample.draw import draw_set
from detr.via.reader import find_annotation_file, read_annotations
from detr.via.record import AnnotatedImage
from detr.via.to_coco import class_names, to_coco

BALLOON_URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip"
DOWNLOADS = Path("data")
SPLITS = {"train": "train2017", "val": "val2017"}  # folder of the VIA data -> image folder of the COCO data
SHOWN_IMAGES = 6
SAMPLE_COUNTS = {"train": 80, "val": 40}  # drawn images; the validation scenes follow the training scenes
SAMPLE_SEED = 20
DEFAULT_WEIGHTS = "detr-r50"
SAMPLE_WEIGHTS = "detr-tiny"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--via",
        type=Path,
        metavar="DIR",
        help="folder with train/ and val/, each holding images and one VIA annotation file "
        "(default: download the balloon photographs)",
    )
    parser.add_argument(
        "--sample",
        action="store_true",
        help=f"draw {SAMPLE_COUNTS['train']} + {SAMPLE_COUNTS['val']} small pictures of party balloons, outlined in "
        f"VIA format, the same on every run, to {DOWNLOADS / 'sample_via'} and use them",
    )
    parser.add_argument(
        "--coco_path",
        type=Path,
        default=Path("data/custom"),
        metavar="DIR",
        help="folder to write the COCO annotations and images to (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help=f"weights to start from: {', '.join(PUBLIC_WEIGHTS)} (downloaded), {', '.join(SHIPPED_WEIGHTS)} (small, "
        "here already, for machines without a GPU), none, or the path of a DETR file; the class head is taken off "
        f"(default: {DEFAULT_WEIGHTS}; with --sample: {SAMPLE_WEIGHTS})",
    )
    parser.add_argument(
        "--categories",
        metavar="NAME",
        help="name of the class where the regions carry no attribute (default: the name of the folder)",
    )
    return parser.parse_args()


def main() -> None:
    """The recipe: photographs, annotations, picture, weights, next command."""
    args = parse_arguments()
    if args.sample and args.via:
        raise UserError(f"--sample draws its own pictures, and --via names {args.via}: give one of the two")
    weights = args.weights or (SAMPLE_WEIGHTS if args.sample else DEFAULT_WEIGHTS)
    check_weights_name(weights)
    source = draw_sample(DOWNLOADS / "sample_via") if args.sample else args.via or fetch_balloon(DOWNLOADS)
    num_classes = convert(source, args.coco_path, args.categories or source.resolve().name)
    stripped = prepare_weights(weights)
    resume = f"--resume {stripped} " if stripped else ""
    print(
        f"\nNext:\n  python main.py --dataset_file custom --coco_path {args.coco_path} --output_dir outputs "
        f"{resume}--num_classes {num_classes} --epochs 100"
    )


# --------------------------------------------------------------------------------------------------------- photographs


def fetch_balloon(folder: Path) -> Path:
    """Download and unpack the balloon photographs below `folder`, once; returns the unpacked folder."""
    unpacked = folder / "balloon"
    if unpacked.is_dir():
        return unpacked
    archive = folder / "balloon_dataset.zip"
    if utils.download(BALLOON_URL, archive):
        print(f"downloaded {archive}")
    unpack(archive, "balloon/", unpacked)
    print(f"unpacked {unpacked}")
    return unpacked


def unpack(archive: Path, prefix: str, destination: Path) -> None:
    """Unpack the members below `prefix` of a zip to `destination`, which appears only once it is whole.

    Raises UserError when the archive is damaged or has nothing there.
    """
    temporary = destination.with_name(f".{destination.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [name for name in file.namelist() if name.startswith(prefix)]
            if not members:
                raise UserError(f"{archive}: holds no {prefix}; delete it and run again")
            file.extractall(temporary, members)  # zipfile itself strips "..", roots and drive letters
        (temporary / prefix).replace(destination)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive}: not a whole zip file ({error}); delete it and run again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def draw_sample(folder: Path) -> Path:
    """Draw the sample to `folder`/train and `folder`/val in VIA format; files that are there already are left alone."""
    first = 0
    for split, count in SAMPLE_COUNTS.items():
        entries = {}
        with utils.Progress(count, f"draw {split}") as progress:
            for name, jpeg, entry in draw_set(SAMPLE_SEED, first, count):
                path = folder / split / name
                if not path.exists() or path.read_bytes() != jpeg:
                    with utils.atomic_path(path) as temporary:
                        temporary.write_bytes(jpeg)
                entries[f"{name}{len(jpeg)}"] = entry  # as VIA itself names them
                progress.update()
        utils.write_json(folder / split / "via_region_data.json", entries)
        first += count
    print(f"drawn sample: {folder}")
    return folder


# --------------------------------------------------------------------------------------------------------- annotations


def convert(source: Path, coco_path: Path, implicit_class: str) -> int:
    """Convert `source`/train and `source`/val to a COCO folder with a picture; returns the number of classes."""
    annotated = {split: read_annotations(find_annotation_file(source / split)) for split in SPLITS}
    classes = class_names(list(annotated.values()), implicit_class)
    # Both splits are checked as a whole before anything is written.
    converted = {split: to_coco(images, source / split, classes, implicit_class) for split, images in annotated.items()}
    changed = False
    for split, folder in SPLITS.items():
        copy_images(annotated[split], source / split, coco_path / folder)
        changed |= utils.write_json(coco_path / "annotations" / f"custom_{split}.json", converted[split])
        print(f"{split}: {len(converted[split]['images'])} images, {len(converted[split]['annotations'])} objects")
    print(f"classes: {', '.join(classes)}")
    picture = coco_path / "annotated_samples.png"
    if changed or not picture.exists():
        draw_samples(converted["train"], coco_path / SPLITS["train"], picture)
    print(f"annotated samples: {picture}")
    return len(classes)


def copy_images(images: list[AnnotatedImage], source: Path, destination: Path) -> None:
    """Copy the annotated images; those that lie there already, same size and time, are left alone."""
    with utils.Progress(len(images), f"copy {destination.name}") as progress:
        for image in images:
            origin, copy = source / image.file_name, destination / image.file_name
            if not copy.exists() or _stamp(copy) != _stamp(origin):
                with utils.atomic_path(copy) as temporary:
                    shutil.copy2(origin, temporary)
            progress.update()


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, int(path.stat().st_mtime)


def draw_samples(coco: dict, folder: Path, path: Path) -> None:
    """Save a figure of a few training images, spread over the file, with outlines and boxes."""
    annotated = {annotation["image_id"] for annotation in coco["annotations"]}
    candidates = [image for image in coco["images"] if image["id"] in annotated] or coco["images"]
    shown = candidates[:: max(1, len(candidates) // SHOWN_IMAGES)][:SHOWN_IMAGES]
    names = {category["id"]: category["name"] for category in coco["categories"]}
    cells = []
    for image in shown:
        objects = []
        for annotation in coco["annotations"]:
            if annotation["image_id"] == image["id"]:
                left, top, width, height = annotation["bbox"]
                objects.append(
                    {
                        "box_xyxy": (left, top, left + width, top + height),
                        "text": names[annotation["category_id"]],
                        "colour": utils.colour_of(annotation["category_id"]),
                        "outlines": [
                            list(zip(flat[::2], flat[1::2], strict=True)) for flat in annotation["segmentation"]
                        ],
                    }
                )
        title = f"{image['file_name']}  {image['width']}x{image['height']}"
        cells.append((read_rgb(folder / image["file_name"]), title, objects))
    if cells:
        utils.save_grid(cells, 3, path)


# ------------------------------------------------------------------------------------------------------------- weights


def check_weights_name(weights: str) -> None:
    """Raise UserError for a name that is neither known nor a file, before any work is done."""
    names = (*PUBLIC_WEIGHTS, *SHIPPED_WEIGHTS, "none")
    if weights not in names and not Path(weights).is_file():
        raise UserError(f"--weights {weights}: no such file; accepted: {', '.join(names)}, or a file")


def prepare_weights(weights: str) -> Path | None:
    """Fetch the weights and write them without their class head, once; returns the stripped file, None for `none`."""
    if weights == "none":
        return None
    if weights in PUBLIC_WEIGHTS:
        original = Path(PUBLIC_WEIGHTS[weights].file_name)
    else:
        original = SHIPPED_WEIGHTS.get(weights, Path(weights))
    if weights in (*PUBLIC_WEIGHTS, *SHIPPED_WEIGHTS):
        stripped = Path(f"{weights}_no-class-head.pth")
    else:
        stripped = original.with_name(f"{original.stem}_no-class-head.pth")
    is_current = stripped.exists() and (not original.exists() or stripped.stat().st_mtime >= original.stat().st_mtime)
    if not is_current:
        if weights in PUBLIC_WEIGHTS:
            public = PUBLIC_WEIGHTS[weights]
            utils.download(PUBLIC_URL + public.file_name, original, public.sha256_prefix)
        strip(original, stripped)
    print(f"weights without class head: {stripped}")
    return stripped


def strip(original: Path, stripped: Path) -> None:
    """Write the weights of a DETR file without their class head."""
    from detr.checkpoint import read_checkpoint, read_config, strip_class_head  # seconds to import

    checkpoint = read_checkpoint(original)
    utils.save_tensors(stripped, strip_class_head(checkpoint, read_config(original, checkpoint)))


if __name__ == "__main__":
    utils.run_script(main)
