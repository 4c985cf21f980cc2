"""Pascal VOC annotations (an XML file per image) -> neutral records. No torch.

The original data sets count pixels from 1 and mean both ends: xmin = 1 is an image's left edge, xmax = its width the
right one. Everything else that writes this format (labelImg, CVAT and others) writes coordinates, from 0. Files tell
which they are: in those of the original data sets <source> has <annotation>PASCAL VOC2007</annotation> or the like.
"""

from pathlib import Path
from xml.etree import ElementTree

from detr.importers.label_folder import CLASS, LabelFolder, split_named, split_of
from detr.importers.splits import SPLITS
from detr.importers.via.fields import LIMIT, corners, file_name
from detr.importers.via.merge import Labels
from detr.importers.via.record import AnnotatedImage, Region
from utils import UserError, is_number, quote

DIFFICULT = "objects marked as difficult, kept"
OTHER_XML = "XML files that are no Pascal VOC annotations, not used"
_MARGINS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path, images: Path | None = None, left_out: Path | None = None) -> Labels:
    """Read the annotations of a folder: a VOCdevkit, one with train/ and valid/, or a flat one.

    Args: the folder; that of the images, if it is another one; a folder that is not searched. Raises UserError.
    """
    folder = LabelFolder(path, images, left_out)
    roots = {label: _parse(path / label) for label in folder.with_suffix(".xml")}
    labels = {label: root for label, root in roots.items() if root.tag == "annotation"}
    if not labels:
        raise UserError(f"{path}: no Pascal VOC annotations (*.xml with <annotation>)")
    remarks = [(OTHER_XML, str(label)) for label in roots if label not in labels]
    listed = _listed_splits(folder)
    by_split: dict[str, list[AnnotatedImage]] = {}
    for label, root in labels.items():
        split = listed.get(label, "") if listed else split_of(label)
        by_split.setdefault(split, []).append(_read(root, label, folder, remarks))
    if missing := [label for label in listed if label not in labels]:
        raise UserError(f"{path}: ImageSets lists {missing[0].stem}, and there is no {missing[0]}")
    return folder.labels(by_split, remarks)


def _parse(path: Path) -> ElementTree.Element:
    content = path.read_bytes()
    if b"<!ENTITY" in content:
        raise UserError(f"{path}: defines entities, which can exhaust the memory and no annotation tool writes")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter for an unknown encoding
        raise UserError(f"{path}: not whole XML ({error})") from error


def _listed_splits(folder: LabelFolder) -> dict[Path, str]:
    """Return annotation file -> train or val, as the lists in ImageSets/Main say; empty where there are none."""
    splits: dict[Path, str] = {}
    for path in folder.files:
        split = split_named(path.stem)
        if path.parts[-3:-1] == ("ImageSets", "Main") and split in SPLITS:
            for line in (folder.root / path).read_text(encoding="utf-8-sig", errors="replace").splitlines():
                if line.strip():
                    splits[path.parents[2] / "Annotations" / f"{line.strip()}.xml"] = split
    return splits


def _read(
    root: ElementTree.Element, label: Path, folder: LabelFolder, remarks: list[tuple[str, str]]
) -> AnnotatedImage:
    where = str(folder.root / label)
    said = root.findtext("filename")
    # By the file's own name first, as other readers do it: what files say about their image is often out of date.
    name = folder.image_of(label, said or "") or file_name(said, where)
    offset = int((root.findtext("source/annotation") or "").upper().startswith("PASCAL VOC"))
    regions = []
    for number, entry in enumerate(root.findall("object")):
        left, top, right, bottom = _box(entry, f"{where}, object {number}")
        attributes = {CLASS: entry.findtext("name") or ""}
        regions.append(Region(corners(left - offset, top - offset, right, bottom), attributes, str(number)))
        if (entry.findtext("difficult") or "").strip() == "1":
            remarks.append((DIFFICULT, f"{name}, region {number}"))
    size = tuple(int(_number(root.findtext(f"size/{side}")) or 0) for side in ("width", "height"))
    return AnnotatedImage(name, regions, size if all(size) else None)


def _box(entry: ElementTree.Element, where: str) -> list[float]:
    if entry.find("bndbox") is None:
        raise UserError(f"{where}: has no <bndbox>")
    box = [_number(entry.findtext(f"bndbox/{margin}")) for margin in _MARGINS]
    for margin, value in zip(_MARGINS, box, strict=True):
        if value is None:
            text = quote(entry.findtext(f"bndbox/{margin}"))
            raise UserError(f"{where}: <bndbox> has <{margin}> {text}; a number up to {LIMIT:,} is needed")
    if box[0] > box[2] or box[1] > box[3]:
        raise UserError(f"{where}: <bndbox> ends before it begins ({', '.join(f'{value:g}' for value in box)})")
    return box


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if is_number(value, LIMIT) else None
