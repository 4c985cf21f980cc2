"""Prepare a fine-tuning: annotated images -> COCO folder, public DETR weights -> weights without a class head.

python prep.py                                  the balloon images, downloaded
python prep.py --via PATH ...                   your own: VIA files beside their images, or a folder with some;
                                                or a folder with train/ and val/, images and a VIA file in each
python prep.py --coco DIR                       data that is COCO already, as most tools export it
python prep.py --yolo DIR                       YOLO labels, a text file per image; so --voc DIR (Pascal VOC) and
                                                --labelme DIR (LabelMe)
python prep.py --sample                         drawn party balloons: no network needed
"""

import argparse
import gc
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import utils
from detr.data.coco_json import all_have_outlines, white_in
from detr.data.images import White
from detr.drawing import figure_fonts
from detr.importers.coco import read_coco_folder
from detr.importers.dataset_report import TrainingSizes, describe
from detr.importers.dataset_text import lines_of, title_of
from detr.importers.deep_images import choose_white, eight_bit_copy
from detr.importers.formats import format_hint
from detr.importers.importer import import_labels
from detr.importers.questions import Undecided
from detr.importers.splits import Split
from detr.importers.via.classes import CHECKED, ClassFlags
from detr.models.model_zoo import PUBLIC_URL, PUBLIC_WEIGHTS, SHIPPED_WEIGHTS
from detr.sample.draw import draw_set
from detr.training.flags import MAX_SIZE, NUM_QUERIES, SCALES, positive_int
from utils import UserError

BALLOON_URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip"
DOWNLOADS = Path("data")
FOLDERS = {  # flags that name a folder of another format than VIA -> help
    "coco": "folder that is COCO already, as the official one or as exported by CVAT, Roboflow or Label Studio: "
    "checked, reported and copied to --coco_path",
    "yolo": "folder with a YOLO label file (*.txt) per image and data.yaml or classes.txt, as Ultralytics, Roboflow or "
    "CVAT lay it out, or its data.yaml; an image without a label file has no objects",
    "voc": "folder with a Pascal VOC file (*.xml) per image: a VOCdevkit, one with train/ and valid/, or a flat one; "
    "coordinates are read as written, but for those of the original data sets, which count pixels from 1",
    "labelme": "folder with a LabelMe file (*.json) per image, flat or with train/ and val/",
}
# Flags that say what annotations of these formats say themselves, or what they cannot have.
_EVERY_OBJECT_HAS_A_CLASS = ("attribute", "checked", "skip_unlabelled", "unlabelled")
REFUSED = {
    "coco": ("keep_partial", "background", *_EVERY_OBJECT_HAS_A_CLASS),
    "yolo": _EVERY_OBJECT_HAS_A_CLASS,
    "voc": ("attribute", "checked"),
    "labelme": ("attribute", "checked"),
}
SAMPLE_COUNTS = {"train": 80, "val": 40}  # drawn images; the validation scenes follow the training scenes
SAMPLE_SEED = 20
DEFAULT_WEIGHTS = "detr-r50"
SAMPLE_WEIGHTS = "detr-small"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = utils.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--via",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="VIA annotation files (1.x to 3.x: JSON, CSV, project or COCO export) or a folder with some, which are "
        "merged, or a folder with train/ and val/, each with images and some (default: download the balloon images)",
    )
    for name, what in FOLDERS.items():
        add(f"--{name}", type=Path, metavar="DIR", help=what)
    add(
        "--sample",
        action="store_true",
        help=f"draw {SAMPLE_COUNTS['train']} + {SAMPLE_COUNTS['val']} small pictures of party balloons, annotated in "
        f"VIA format, the same on every run, to {DOWNLOADS / 'sample_via'} and use them",
    )
    add("--coco_path", type=Path, default=Path("data/custom"), metavar="DIR", help="COCO folder to write (%(default)s)")
    add(
        "--weights",
        metavar="NAME",
        help=f"weights to start from: {', '.join(PUBLIC_WEIGHTS)} (downloaded), {', '.join(SHIPPED_WEIGHTS)} (small, "
        "here already, for machines without a GPU), none, or the path of a DETR file; the class head is stripped "
        f"(default: {DEFAULT_WEIGHTS}; with --sample: {SAMPLE_WEIGHTS})",
    )
    add_image_flags(parser.add_argument_group("images"))
    add_class_flags(parser.add_argument_group("what the annotations do not say about classes"))
    return parser.parse_args()


def add_image_flags(group: argparse._ArgumentGroup) -> None:
    """The flags about images and their division."""
    add = group.add_argument
    add("--images", type=Path, metavar="DIR", help="folder of the images, if they are not beside the annotations")
    add(
        "--val_fraction",
        type=float,
        default=0.2,
        metavar="F",
        help="share of the images for validation where there is no train/ and val/, chosen by a hash of the file "
        "name: images added later move none; 0 validates on the training images (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="another number divides otherwise (default: %(default)s)")
    add("--skip_bad_images", action="store_true", help="leave out images that are missing, damaged or resized")
    add(
        "--keep_partial",
        action="store_true",
        help="keep images some of whose regions make no object: points, regions without width or height or outside the "
        "image, and those that --skip_unlabelled leaves out (default: such images are left out, as what these regions "
        "show would be learnt as background; the classes that --categories leaves out are background on purpose)",
    )
    add(
        "--background",
        type=Path,
        nargs="+",
        default=(),
        metavar="DIR",
        help="folders of images that show no object; divided like the others, for training where there is train/ and "
        "val/. What the annotations say about an image comes first",
    )
    add(
        "--white",
        type=positive_int,
        metavar="VALUE",
        help="what becomes white in images of more than 8 bits, which are copied with 8 (default: the largest number "
        "with as many bits as the largest value in any of the images has, such as 4095; 1 for fractions)",
    )


def add_class_flags(group: argparse._ArgumentGroup) -> None:
    """The flags that say what class a region has."""
    add = group.add_argument
    add("--attribute", metavar="NAME", help="region attribute of VIA that holds the class (default: the one there is)")
    add(
        "--checked",
        choices=CHECKED,
        help="a region with several checked boxes is an object of the first of them, or one of each "
        "(default: an error)",
    )
    add(
        "--categories",
        type=category_names,
        default=(),
        metavar="A,B",
        help="the classes to import, in this order (default: all, in alphabetical order); where regions carry no "
        "attribute, the name of the one class (default: the name of the folder)",
    )
    add("--one_class", type=class_name, metavar="NAME", help="the class of every region, whatever its attributes say")
    add("--unlabelled", type=class_name, metavar="NAME", help="the class of regions without one")
    add("--skip_unlabelled", action="store_true", help="leave out regions without a class")


def category_names(text: str) -> tuple[str, ...]:
    """Parse the value of --categories: names between commas. Raises ArgumentTypeError for odd and repeated ones."""
    names = tuple(map(class_name, text.split(",")))
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} has a repeated name; accepted: a,b,c")
    return names


def class_name(text: str) -> str:
    """Parse the name of a class. Raises ArgumentTypeError for what is not a short line of text."""
    if not utils.is_line(text) or len(text) > 200:
        raise argparse.ArgumentTypeError(f"{utils.quote(text)} is not a short line of text, as the name of a class is")
    return text.strip()


def main() -> None:
    """Read images and annotations, report on them, write the COCO folder and the weights, print the next command."""
    args = parse_arguments()
    given = [flag for flag in ("sample", "via", *FOLDERS) if getattr(args, flag)]
    if len(given) > 1:
        raise UserError(f"--{' and --'.join(given)} each name the images to use: give one of them")
    weights = args.weights or (SAMPLE_WEIGHTS if args.sample else DEFAULT_WEIGHTS)
    check_weights_name(weights)
    splits = read_annotated(args)
    choose_white(splits, args.white)
    annotations = args.via or (args.coco.glob("annotations/*.json") if args.coco else ())
    check_overwrites(splits, annotations, args.coco_path)
    command = next_command(args.coco_path, weights, splits["train"].coco)
    shipped = SHIPPED_WEIGHTS.get(weights)  # main.py trains with these sizes and queries, unless told otherwise
    sizes = ((shipped.scale,), shipped.max_size, shipped.num_queries) if shipped else (SCALES, MAX_SIZE, NUM_QUERIES)
    report = describe(splits, TrainingSizes(*sizes)) | {"next": command}
    print("\n".join(lines_of(report)))
    write_folder(splits, report, args.coco_path)
    prepare_weights(weights)
    print(f"\nNext:\n  {command}")


def hint(paths: list[Path] | None, flags: list[str]) -> str:
    """Return the command line with what it lacks, in words; nothing where no flags would do."""
    words = sys.argv[1:]
    if "--via" in flags and "--via" in words:  # instead of those given
        begin = words.index("--via")
        del words[begin : begin + 1 + len(paths)]
    command = utils.command_line(["python", "prep.py", *words, *flags])
    return f"\nThis command goes through:\n  {command}" if flags else ""


def read_annotated(args: argparse.Namespace) -> dict[str, Split]:
    """What is annotated for training and for validation, from wherever the command line says; nothing is written."""
    if not 0 <= args.val_fraction < 1:
        raise UserError(f"--val_fraction {args.val_fraction}: accepted: from 0 to less than 1")
    if args.images and not args.images.is_dir():
        raise UserError(f"--images {args.images}: no such folder")
    given = next((name for name in REFUSED if getattr(args, name)), "via")
    check_class_flags(args, given)
    path = getattr(args, given) or [draw_sample(DOWNLOADS / "sample_via") if args.sample else fetch_balloon(DOWNLOADS)]
    options = {name: getattr(args, name) for name in ("images", "val_fraction", "seed", "skip_bad_images")}
    try:
        if given == "coco":
            return read_coco_folder(path, **options, categories=args.categories, one_class=args.one_class)
        flags = ClassFlags(
            args.attribute, args.checked, args.categories, args.skip_unlabelled, args.one_class, args.unlabelled
        )
        options |= {"keep_partial": args.keep_partial, "background": args.background, "left_out": args.coco_path}
        return import_labels(given, path, **options, class_flags=flags)
    except Undecided as error:
        raise UserError(f"{error}{hint(args.via, error.flags)}") from error
    except UserError as error:
        raise UserError(f"{error}{format_hint(given, path[0] if given == 'via' else path)}") from error


def check_class_flags(args: argparse.Namespace, source: str) -> None:
    """Raise UserError for flags that contradict each other, or that the annotations of `source` have no use for."""
    if refused := [f"--{name}" for name in REFUSED.get(source, ()) if getattr(args, name)]:
        raise UserError(f"--{source} and {', '.join(refused)}: that is for other annotations; leave it out")
    of_classes = ("attribute", "checked", "categories", "skip_unlabelled", "unlabelled")
    if args.one_class and (others := [f"--{name}" for name in of_classes if getattr(args, name)]):
        raise UserError(f"--one_class and {', '.join(others)}: every region is of that class; leave the others out")
    if args.skip_unlabelled and args.unlabelled:
        raise UserError("--skip_unlabelled and --unlabelled: regions without a class are left out, or have that one")


def next_command(coco_path: Path, weights: str, coco: dict) -> str:
    """Return the command that trains on what was prepared, and on its outlines where all objects have them."""
    start = start_path(weights)
    resume = ["--resume", start.as_posix()] if start else []
    known = SHIPPED_WEIGHTS.get(weights) or PUBLIC_WEIGHTS.get(weights, PUBLIC_WEIGHTS[DEFAULT_WEIGHTS])
    flags = [*known.flags, *(known.outline_flags if all_have_outlines(coco) else ())]
    options = ["--dataset_file", "custom", "--coco_path", coco_path.as_posix(), "--output_dir", "outputs", *resume]
    return utils.command_line(["python", "main.py", *options, "--num_classes", str(len(coco["categories"])), *flags])


# ------------------------------------------------------------------------------------------------------------- images


def fetch_balloon(folder: Path) -> Path:
    """Download and unpack the balloon images below `folder`, once; returns the unpacked folder."""
    unpacked = folder / "balloon"
    if unpacked.is_dir():
        return unpacked
    archive = folder / "balloon_dataset.zip"
    if utils.download(BALLOON_URL, archive, otherwise="python prep.py --sample needs no network"):
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
                utils.write_changed(folder / split / name, jpeg)
                entries[f"{name}{len(jpeg)}"] = entry  # as VIA itself names them
                progress.update()
        utils.write_json(folder / split / "via_region_data.json", entries)
        first += count
    print(f"drawn sample: {folder}")
    return folder


# --------------------------------------------------------------------------------------------------------- annotations


def check_overwrites(splits: dict[str, Split], annotations: Iterable[Path], coco_path: Path) -> None:
    """Raise UserError where writing the COCO folder would change an image or an annotation file that was read."""
    read = {path.resolve() for path in annotations}
    read.update(origin.resolve() for split in splits.values() for origin in split.origins)
    for name, split in splits.items():
        file = coco_path / "annotations" / f"custom_{name}.json"
        outputs = [(file, partial(utils.json_bytes, split.coco)), *image_copies(split, coco_path / f"{name}2017")]
        for path, content in outputs:
            if path.resolve() in read and path.read_bytes() != content():
                raise UserError(
                    f"--coco_path {coco_path}: {utils.printable(str(path))} is imported, and would be overwritten; "
                    "name another folder"
                )


def write_folder(splits: dict[str, Split], report: dict, coco_path: Path) -> None:
    """Write the COCO folder: images, annotations, report and its picture; what is there already is left alone."""
    changed = False
    for name, split in splits.items():
        copy_images(split, coco_path / f"{name}2017")
        changed |= utils.write_json(coco_path / "annotations" / f"custom_{name}.json", split.coco)
    changed |= utils.write_json(coco_path / "report.json", report, indent=1)
    picture = coco_path / "report.png"
    if changed or not picture.exists():
        from detr.importers.dataset_figure import draw_dataset  # matplotlib takes a second to import

        with figure_fonts():
            draw_dataset(splits, title_of(report), picture)
    print(f"\nreport: {picture}, {coco_path / 'report.json'}")


def copy_images(split: Split, destination: Path) -> None:
    """Copy a split's images, with 8 bits; those that lie there already, with the same content, are left alone."""
    with utils.Progress(len(split.origins), f"copy {destination.name}") as progress:
        for path, content in image_copies(split, destination):
            utils.write_changed(path, content())
            progress.update()


def image_copies(split: Split, destination: Path) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """Yield where each image of a split is copied to, and what returns the file's content."""
    white = white_in(split.coco)
    for origin, image in zip(split.origins, split.coco["images"], strict=True):
        yield destination / image["file_name"], partial(_copy, origin, white)


def _copy(origin: Path, white: White) -> bytes:
    return eight_bit_copy(origin, white) or origin.read_bytes()


# ------------------------------------------------------------------------------------------------------------- weights


def check_weights_name(weights: str) -> None:
    """Raise UserError for a name that is neither known nor a file, before any work is done."""
    names = (*PUBLIC_WEIGHTS, *SHIPPED_WEIGHTS, "none")
    if weights not in names and not any(map(Path.is_file, (Path(weights), Path(weights) / "model.safetensors"))):
        raise UserError(f"--weights {weights}: no such file; accepted: {', '.join(names)}, or a file")


def start_path(weights: str) -> Path | None:
    """Return the file to start from, without class head unless it is ours; None for `none`.

    Ours are taken whole: the rows of their classes are objects in general, and a better start for any class than none.
    """
    if weights == "none":
        return None
    if weights in SHIPPED_WEIGHTS:
        path = SHIPPED_WEIGHTS[weights].path
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return Path(weights).with_name(f"{Path(weights).stem}_no-class-head.pth")


def prepare_weights(weights: str) -> None:
    """Fetch the weights and write them without their class head, once."""
    stripped = start_path(weights)
    if stripped is None or weights in SHIPPED_WEIGHTS:
        return
    public = PUBLIC_WEIGHTS.get(weights)
    original = Path(public.file_name if public else weights)
    is_current = stripped.exists() and (not original.exists() or stripped.stat().st_mtime >= original.stat().st_mtime)
    if not is_current:
        if public:
            small = f"--weights {SAMPLE_WEIGHTS} is small and needs no network"
            utils.download(PUBLIC_URL + public.file_name, original, public.sha256_prefix, small)
        from detr.models.weights import read_checkpoint, read_config, save_tensors, strip_class_head  # takes seconds

        checkpoint = read_checkpoint(original)
        save_tensors(stripped, strip_class_head(checkpoint, read_config(original, checkpoint)))
    print(f"weights without class head: {stripped}")


if __name__ == "__main__":
    gc.disable()  # annotations have no cycles; over millions of objects the search for them takes as long as the rest
    utils.run_script(main)
