"""The page's headline numbers and tables as HTML; page.js sorts them by `data-value`. No torch."""

from collections.abc import Sequence
from html import escape

from detr.drawing import COLORS
from detr.evaluation.coco_metrics import COCO_NUMBERS
from detr.evaluation.error_analysis import ERROR_TYPES
from detr.report.runs import Run
from detr.report.tables import Named, class_names, number
from utils import pluralize


def headline(runs: list[Run], metrics: dict[str, dict | None]) -> str:
    """Return the headline numbers of one run, or a table of several; the metrics are by name, None if not known."""
    if len(runs) == 1:
        return _big_numbers(only) if (only := metrics.get(runs[0].name)) else ""
    rows = []
    for position, run in enumerate(runs):
        cells = [_cell(None)] * 5
        if own := metrics.get(run.name):
            cells = [_cell(own["coco"][key], f"<br>{_interval(own, key)}") for key in ("AP", "AP50")]
            best, error = own["overall"]["best"], own["calibration"]["expected_error"]
            cells += map(_cell, (best["f1"], best["threshold"], error))
        key = f'<i class="key line" style="color: {_color(position)}"></i>'
        rows.append(_text(run.name, key) + _cell(len(run.log), digits=0) + "".join(cells))
    return _table(("Run", "Epochs", "AP", "AP50", "Best F1", "at score", "Calibration error"), rows)


def subtitle(runs: list[Run], metrics: dict[str, dict | None]) -> str:
    """Return what was measured, in a line."""
    parts = []
    if first := metrics.get(runs[0].name):
        counts = (first["images"], "image"), (first["objects"], "object"), (len(first["classes"]), "class")
        parts = [pluralize(count, what) for count, what in counts]
        parts += ["measured by masks"] if first["iou_type"] == "segm" else []
    return " · ".join(parts + ([pluralize(len(runs[0].log), "epoch")] if len(runs) == 1 else []))


def coco_table(measured: Named) -> str:
    """Return COCO's 12 numbers, a column a run; of masks and of boxes where masks are measured."""
    columns = {}
    for name, metrics in measured:
        if metrics["iou_type"] == "segm":
            columns |= {f"{name}, masks": metrics["coco"], f"{name}, boxes": metrics["coco_boxes"]}
        else:
            columns[name] = metrics["coco"]
    rows = [_text(key) + "".join(_cell(numbers[key]) for numbers in columns.values()) for key in COCO_NUMBERS]
    return _table(["", *columns], rows) if measured else ""


def class_table(measured: Named) -> str:
    """Return the numbers of every class: of one run all there are, of several their AP side by side."""
    if not measured:
        return ""
    if len(measured) == 1:
        rows = [
            _text(one["name"])
            + _cell(one["objects"], digits=0)
            + _cell(one["AP"], _bar(one["AP"]))
            + "".join(map(_cell, (one["AP50"], one["AR"], one["best"]["f1"], one["best"]["threshold"])))
            for one in measured[0][1]["classes"]
        ]
        return _table(("Class", "Objects", "AP", "AP50", "AR", "Best F1", "at score"), rows)
    by_name = [{one["name"]: one["AP"] for one in metrics["classes"]} for _, metrics in measured]
    rows = [
        _text(name) + "".join(_cell(by.get(name), _bar(by.get(name))) for by in by_name)
        for name in class_names(measured)
    ]
    return _table(["AP of", *(name for name, _ in measured)], rows)


def error_table(runs: list[Run], measured: Named) -> str:
    """Return the errors of each type with what AP50 would gain without them, and from which score on they count."""
    if not measured:
        return ""
    most = max(1, *(error["count"] for _, metrics in measured for error in metrics["errors"].values()))
    colors, rows = {run.name: _color(position) for position, run in enumerate(runs)}, []
    for kind, meaning in ERROR_TYPES.items():
        row = _text(kind)
        for name, metrics in measured:
            count, gain = metrics["errors"][kind]["count"], metrics["errors"][kind]["ap50_gain"]
            row += _cell(count, _bar(count / most, colors[name]), digits=0)
            row += _cell(gain if gain is None else max(0.0, gain), sign="+")
        rows.append(f'{row}<td class="text" data-value="{escape(meaning)}">{escape(meaning)}</td>')
    is_one = len(measured) == 1
    names = ["Count", "AP50 gain"] if is_one else [x for name, _ in measured for x in (name, "gain")]
    scores = ", ".join(
        f"{'' if is_one else f'{name}: '}from score {number(metrics['threshold'])} on" for name, metrics in measured
    )
    note = f'<p class="muted">{escape(scores)}; the gain is what AP50 would be higher by without them.</p>'
    return note + _table(["Type", *names, "What it is"], rows)


def _table(heads: Sequence[str], rows: list[str]) -> str:
    columns = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(head)}</button></th>' for head in heads
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(text: str, before: str = "") -> str:
    return f'<td data-value="{escape(text)}">{before}{escape(text)}</td>'


def _cell(value: float | None, more: str = "", digits: int = 3, sign: str = "") -> str:
    """A number, which sorts last where it is not defined, with HTML behind it."""
    if value is None:
        return "<td>-</td>"
    return f'<td data-value="{value}">{sign}{value:,.{digits}f}{more}</td>'


def _bar(share: float | None, color: str = "var(--accent)") -> str:
    width = f"width: {100 * min(1.0, max(0.0, share or 0.0)):.1f}%; background: {color}"
    return f'<span class="bar" aria-hidden="true"><i style="{width}"></i></span>'


def _color(position: int) -> str:
    return f"var(--run{position % len(COLORS)})"


def _interval(metrics: dict, key: str) -> str:
    """Return the interval of a number, and that of boxes where it is of masks."""
    ends, parts = metrics["interval"][key], []
    if ends:
        parts.append(f"{metrics['interval']['level']:.0%}: {ends[0]:.3f} to {ends[1]:.3f}")
    if metrics["iou_type"] == "segm":
        parts.append(f"boxes: {number(metrics['coco_boxes'][key])}")
    return f'<small class="muted">{"; ".join(parts)}</small>' if parts else ""


def _big_numbers(metrics: dict) -> str:
    """AP, AP50, the best F1 and the calibration error of one run, each with what it says."""
    best, error = metrics["overall"]["best"], metrics["calibration"]["expected_error"]
    at = "no true positive"
    if best["f1"] is not None:
        precision, recall = number(best["precision"]), number(best["recall"])
        at = f"at score {number(best['threshold'])}: precision {precision}, recall {recall}"
    of = "Mask " if metrics["iou_type"] == "segm" else ""
    big = (
        (f"{of}AP, IoU 0.50 to 0.95", metrics["coco"]["AP"], _interval(metrics, "AP")),
        (f"{of}AP50, IoU 0.50", metrics["coco"]["AP50"], _interval(metrics, "AP50")),
        ("Best F1", best["f1"], at),
        ("Calibration error", error, "mean distance between the scores and precision"),
    )
    return '<div class="numbers">' + "".join(
        f'<div class="number"><p class="name">{name}</p><p class="value">{number(value)}</p>'
        f'<p class="detail">{detail}</p></div>'
        for name, value, detail in big
    ) + "</div>"  # fmt: skip
