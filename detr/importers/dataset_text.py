"""The report of a dataset (`dataset.describe`) in words: what looks wrong, and a table for the terminal. No torch."""

import textwrap
from collections.abc import Callable

from detr.importers.notes import TO_LOOK_AT
from utils import pluralize

_FEW_OBJECTS = 10  # training objects of a class below which little can be learnt
_FEW_IMAGES = 10  # validation images below which AP is a lottery
_MANY_TINY, _MANY_EMPTY = 0.2, 0.5  # shares worth a warning
_SHOWN_CLASSES, _SHOWN_EXAMPLES = 15, 3  # on the terminal; report.json has more
_LINE_WIDTH = 110


# ------------------------------------------------------------------------------------------------------------ warnings


def warnings_of(report: dict) -> list[str]:
    """Return what looks wrong, in sentences that say what to do about it; most serious first."""
    return [*_leakage(report), *_noted(report, True), *_classes(report), *_images(report), *_boxes(report)]


def _leakage(report: dict) -> list[str]:
    leaks, count = report["validation_images_in_training"], report["splits"]["val"]["images"]
    if report["validates_on_training"]:
        return [
            f"VALIDATION IS ON THE TRAINING IMAGES ({count:,}): AP will tell how well they are remembered, not how "
            "good the detector is; annotate more images, with --val_fraction above 0"
        ]
    alike = _alikes(leaks, count, "validation", "a training image")
    return [f"{alike}; AP will flatter; keep each scene, and each video, in one split"] if leaks["count"] else []


def _classes(report: dict) -> list[str]:
    train, val = (report["splits"][name]["objects_per_class"] for name in ("train", "val"))
    nowhere = [name for name in train if not train[name] and not val[name]]
    unlearnt = [f"{name} ({val[name]})" for name in train if val[name] and not train[name]]
    unmeasured = [f"{name} ({train[name]})" for name in train if train[name] and not val[name]]
    few = [f"{name} ({train[name]})" for name in train if 0 < train[name] < _FEW_OBJECTS]
    warnings = (
        (nowhere, "without any object: {}; leave them out, or look for a misspelt name"),
        (unlearnt, "with objects in val only, which cannot be learnt: {}; move some of their images to train"),
        (unmeasured, "with objects in train only, which AP says nothing about: {}; move some of their images to val"),
        (few, f"with fewer than {_FEW_OBJECTS} training objects: {{}}; expect little of them"),
    )
    alike, examples = report["similar_classes"]["count"], report["similar_classes"]["examples"]
    pairs = f"{pluralize(alike, 'pair')} of classes with almost the same name: {_listed(examples, alike)}"
    sentences = [f"{pairs}; if they are one, write it in one way"] if alike else []
    return sentences + [f"{pluralize(len(n), 'class')} {text.format(_listed(n, len(n)))}" for n, text in warnings if n]


def _images(report: dict) -> list[str]:
    queries, warnings = report["training"]["num_queries"], []
    for name, split in report["splits"].items():
        counts, empty = split["objects_per_image"], split["images_without_objects"]
        if not split["objects"]:
            warnings.append(f"{name} has no objects at all: nothing can be learnt from it or measured on it")
        elif empty > _MANY_EMPTY * split["images"]:
            warnings.append(f"{empty:,} of {split['images']:,} {name} images have no objects: were all annotated?")
        if over := counts["images_over_queries"]:
            warnings.append(
                f"{pluralize(over, f'{name} image')} {'has' if over == 1 else 'have'} more objects than DETR queries "
                f"({queries}), most in {counts['fullest_image']} ({counts['most']}): the surplus can be neither learnt "
                "nor detected; cut such images into tiles"
            )
        again = report["repeated_images"][name]
        if again["count"] and not (report["validates_on_training"] and name == "val"):
            warnings.append(_alikes(again, split["images"], name, "another"))
    if report["splits"]["val"]["images"] < _FEW_IMAGES:
        few = pluralize(report["splits"]["val"]["images"], "validation image")
        warnings.append(f"only {few}: AP will jump from epoch to epoch; {_FEW_IMAGES} or more tell more")
    return warnings


def _boxes(report: dict) -> list[str]:
    warnings, scale = [], max(report["training"]["scales"])
    for name, split in report["splits"].items():
        if split["objects"] and split["tiny_boxes"] > _MANY_TINY * split["objects"]:
            warnings.append(
                f"{split['tiny_boxes']:,} of {split['objects']:,} {name} objects are smaller than 16x16 pixels even at "
                f"shorter side {scale}, which DETR hardly detects; cut the images into tiles"
            )
        if again := split["repeated_boxes"]["count"]:
            examples = _listed(split["repeated_boxes"]["examples"], again)
            warnings.append(
                f"{pluralize(again, f'{name} object')} {_is_are(again)} annotated twice (x, y, w, h): {examples}"
            )
    return warnings


def _noted(report: dict, is_to_look_at: bool) -> list[str]:
    return [
        f"{name}: {note['what']}: {note['count']:,} ({_listed(note['examples'], note['count'])})"
        for name, split in report["splits"].items()
        for note in split["notes"]
        if (note["what"] in TO_LOOK_AT) is is_to_look_at
    ]


def _alikes(pairs: dict, total: int, split: str, other: str) -> str:
    """Return how many images look like others, as frames of one video do, and how many of them are the same file."""
    count, identical = pairs["count"], pairs["identical"]
    return (
        f"{count:,} of {pluralize(total, f'{split} image')} {'looks' if count == 1 else 'look'} like {other} "
        f"({identical:,} {_is_are(identical)} the same file): {_listed(pairs['examples'], count)}"
    )


def _is_are(number: int) -> str:
    return "is" if number == 1 else "are"


def _listed(examples: list[str], count: int) -> str:
    shown = examples[:_SHOWN_EXAMPLES]
    return "; ".join(shown) + (f" and {count - len(shown):,} more" if count > len(shown) else "")


# ------------------------------------------------------------------------------------------------------- title, table


def title_of(report: dict) -> str:
    """Return the dataset in a line."""
    splits = report["splits"].values()
    images, objects = (sum(split[part] for split in splits) for part in ("images", "objects"))
    classes = len(report["splits"]["train"]["objects_per_class"])
    return ", ".join((pluralize(images, "image"), pluralize(objects, "object"), pluralize(classes, "class")))


def lines_of(report: dict) -> list[str]:
    """Return the report for a terminal: one line per split, a table, what was changed, what looks wrong."""
    splits = report["splits"]
    lines = [f"{name}: {split['images']} images, {split['objects']} objects" for name, split in splits.items()]
    classes = list(splits["train"]["objects_per_class"])
    more = f" and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
    lines.append(f"classes: {', '.join(classes[:_SHOWN_CLASSES])}{more}")
    rows = [("", list(splits)), *_count_rows(report), *_size_rows(report)]
    width = max(len(label) for label, _ in rows)
    lines += ["", *(f"{label:{width}}" + "".join(f"{cell:>16}" for cell in cells) for label, cells in rows)]
    if notes := _noted(report, False):
        lines += ["", "Changed on the way:", *_items(notes)]
    if report["warnings"]:
        lines += ["", "Look at:", *_items(report["warnings"])]
    return lines


def _items(sentences: list[str]) -> list[str]:
    """Return the lines of a list."""
    wrapper = textwrap.TextWrapper(_LINE_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [line for sentence in sentences for line in wrapper.wrap(f"- {sentence}")]


def _count_rows(report: dict) -> list[tuple[str, list[str]]]:
    splits = report["splits"]
    classes = list(splits["train"]["objects_per_class"])
    totals = {name: sum(split["objects_per_class"][name] for split in splits.values()) for name in classes}
    most = sorted(classes, key=lambda name: -totals[name])[:_SHOWN_CLASSES]
    rows: list[tuple[str, Callable[[dict], int | float]]] = [("objects", lambda split: split["objects"])]
    rows += [(f"  {name}", lambda split, name=name: split["objects_per_class"][name]) for name in most]
    if rest := [name for name in classes if name not in most]:
        more = f"  {len(rest)} more classes"
        rows.append((more, lambda split: sum(split["objects_per_class"][name] for name in rest)))
    if any(split["crowd_regions"] for split in splits.values()):
        rows.append(("crowd regions (for evaluation only)", lambda split: split["crowd_regions"]))
    queries = report["training"]["num_queries"]
    rows += [
        ("images without objects", lambda split: split["images_without_objects"]),
        ("objects per image, mean", lambda split: round(split["objects_per_image"]["mean"], 1)),
        (f"objects per image, most (of {queries} possible)", lambda split: split["objects_per_image"]["most"]),
        ("boxes drawn twice", lambda split: split["repeated_boxes"]["count"]),
    ]
    return [
        *((label, [f"{value(split):,}" for split in splits.values()]) for label, value in rows),
        ("images that look like another", [f"{report['repeated_images'][name]['count']:,}" for name in splits]),
        ("validation images like a training one", ["", f"{report['validation_images_in_training']['count']:,}"]),
    ]


def _size_rows(report: dict) -> list[tuple[str, list[str]]]:
    splits = list(report["splits"].values())
    places = splits[0]["box_sizes"]
    return [
        ("small / medium / large boxes (32x32, 96x96 pixels)", []),
        *((f"  {where}", [_shares(split["box_sizes"][where]) for split in splits]) for where in places),
        ("boxes over 2:1 / in between / under 1:2", [_shares(split["box_shapes"]) for split in splits]),
    ]


def _shares(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    return " / ".join(f"{100 * n / total:.0f}" for n in counts.values()) + " %" if total else "-"
