"""Report and review in a real headless Chromium: they draw, follow filters and keys, and run nothing they are told."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import utils
from detr.evaluation.coco_matching import UNMATCHED, check_results
from detr.evaluation.error_analysis import ERROR_TYPES
from detr.evaluation.metrics import measure
from detr.evaluation.review import KINDS, find_suspects
from detr.report.gallery import MOST_IMAGES, AttentionMaps, evaluate_images, evenly_spaced, queries_of
from detr.report.page import build_page
from detr.report.runs import Run, read_run
from detr.report.suspects import build_review
from tests.browser import CHROMIUM, Browser
from tests.conftest import SHARED, needs_shared

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (`make chromium` on Debian)")

SCRIPT, FILE = "<script>alert(1)</script>", '"><img src=x>.jpg'
CATEGORIES = [{"id": 1, "name": SCRIPT}, {"id": 5, "name": "</script>@DATA@ & $&"}]
# Image 1: TP, background, missed. 2: TP at 0.6, duplicate at 0.4. 3: classification. 4: empty.
OBJECTS = [(1, 1, 10, 10, 40, 40), (1, 1, 60, 60, 30, 20), (2, 1, 20, 20, 50, 50), (3, 5, 30, 30, 40, 30)]
FOUND = [
    (1, 1, 11, 10, 40, 40, 0.9), (1, 5, 60, 5, 30, 20, 0.8), (2, 1, 20, 20, 50, 48, 0.6), (2, 1, 22, 20, 50, 50, 0.4),
    (3, 1, 30, 30, 40, 31, 0.7),
]  # fmt: skip


def truth_of(names: list[str]) -> dict:
    return {
        "images": [{"id": n, "file_name": name, "width": 120, "height": 90} for n, name in enumerate(names, 1)],
        "categories": CATEGORIES,
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b} for n, (i, c, *b) in enumerate(OBJECTS, 1)
        ],
    }


RESULTS = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, *b, s in FOUND]
LOG = [{"epoch": e, "train_loss": 3 / (e + 1), "test_loss": 4 / (e + 1), "note": SCRIPT} for e in range(12)]


def look_of(seed: int) -> AttentionMaps:
    """Queries 0 to 4 have the boxes of `FOUND`; query n looks at cell n only, a point only at itself."""
    boxes = np.array([[x, y, x + w, y + h] for _, _, x, y, w, h, _ in FOUND], dtype=float)
    cross = np.eye(5, 12).reshape(5, 3, 4)
    centres = np.random.default_rng(seed).uniform(0.2, 0.4, (5, 4))
    return AttentionMaps(np.array([f[-1] for f in FOUND]), boxes, centres, cross, np.eye(12).reshape(3, 4, 3, 4))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    names = [FILE, "b.jpg", "c.jpg", "d.jpg"]
    for shade, name in enumerate(names):
        Image.new("RGB", (120, 90), (50 * shade, 90, 120)).save(folder / name)
    truth = truth_of(names)
    metrics = {"run": measure(truth, RESULTS, threshold=0.5)}
    looks = {number: look_of(number) for number in range(4)}
    path = folder / "report.html"
    path.write_text(
        build_page([Run("run", LOG, {})], metrics, evaluate_images(truth, RESULTS, folder), looks), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """A browser that must have had nothing to complain about, and must not have asked anybody for anything."""
    chromium.complaints.clear()
    chromium.requests.clear()
    yield chromium
    assert chromium.complaints == []
    assert [url for url in chromium.requests if not url.startswith(("file:", "data:"))] == []


def drawn(browser: Browser) -> dict[str, int]:
    """How many boxes of each outcome the cards show."""
    outcomes = ("tp", "fp", "missed")
    script = "document.querySelectorAll('#cards .box.{}').length"
    return {name: count for name in outcomes if (count := browser.evaluate(script.format(name)))}


def set_value(browser: Browser, element: str, value: object) -> None:
    browser.evaluate(
        f"(() => {{ const e = document.getElementById('{element}'); e.value = '{value}';"
        "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true})); })()"
    )


@needs_chromium
def test_photographs_are_shown_whole(tmp_path: Path, browser: Browser) -> None:
    truth = truth_of(["tall.jpg"])
    truth["images"] = [truth["images"][0] | {"width": 900, "height": 1200}]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] == truth["images"][0]["id"]]
    Image.new("RGB", (900, 1200), "teal").save(tmp_path / "tall.jpg")
    page = tmp_path / "report.html"
    metrics = {"run": measure(truth, [], threshold=0.5)}
    page.write_text(
        build_page([Run("run", LOG, {})], metrics, evaluate_images(truth, [], tmp_path), {}), encoding="utf-8"
    )
    browser.open(page)
    sides = "(e => [e.offsetWidth, e.offsetHeight])(document.querySelector('.card .picture {}'))"
    width, height = browser.evaluate(sides.format("img"))
    assert width / height == pytest.approx(0.75, abs=0.02)
    assert height <= browser.evaluate("document.querySelector('.card .picture').clientHeight")


@needs_chromium
def test_slider_and_filters_change_what_is_drawn(page: Path, browser: Browser) -> None:
    browser.open(page)
    assert drawn(browser) == {"tp": 2, "fp": 2, "missed": 1}
    text = browser.evaluate("document.getElementById('counts').textContent")
    assert text == "2 TP, 2 FP, 1 missed · precision 0.50, recall 0.50 · 4 images"
    set_value(browser, "threshold", 0.3)
    assert drawn(browser) == {"tp": 2, "fp": 3, "missed": 1}
    set_value(browser, "threshold", 0.95)
    assert drawn(browser) == {"missed": 4}
    browser.evaluate("document.getElementById('best').click()")
    assert drawn(browser) == {"tp": 2, "fp": 2, "missed": 1}
    set_value(browser, "by-class", 1)  # found as it, or annotated as it and found as another
    assert drawn(browser) == {"fp": 2}
    set_value(browser, "by-class", "")
    set_value(browser, "by-kind", [*ERROR_TYPES].index("classification"))
    assert drawn(browser) == {"fp": 1}
    assert browser.evaluate("document.querySelector('#cards .name').textContent") == "c.jpg"
    set_value(browser, "by-kind", [*ERROR_TYPES].index("localization"))
    assert drawn(browser) == {} and not browser.evaluate("document.getElementById('nothing').hidden")
    set_value(browser, "by-kind", "any")
    assert drawn(browser) == {"fp": 2, "missed": 1}
    set_value(browser, "by-kind", "")
    names = "[...document.querySelectorAll('#cards .name')].map((name) => name.textContent)"
    assert browser.evaluate(names) == [FILE, "c.jpg", "b.jpg", "d.jpg"]  # most errors first, then by name
    set_value(browser, "order", "best")
    assert browser.evaluate(names)[-1] == FILE


@needs_chromium
@pytest.mark.parametrize("threshold", [0.0, 0.45, 0.65, 1.0])
def test_the_page_counts_as_the_metrics_do(threshold: float, page: Path, browser: Browser) -> None:
    browser.open(page)
    set_value(browser, "threshold", threshold)
    errors = measure(truth_of(["1", "2", "3", "4"]), RESULTS, threshold)["errors"]
    labels = browser.evaluate("[...document.getElementById('by-kind').options].slice(3).map((one) => one.textContent)")
    assert [int(re.search(r"\((\d+)\)", label)[1]) for label in labels] == [m["count"] for m in errors.values()]


@needs_chromium
def test_names_are_only_ever_text(page: Path, browser: Browser) -> None:
    source = page.read_text(encoding="utf-8")
    assert source.count("<script") == 2 and source.count("</script>") == 2 and "<img" not in source
    browser.open(page)
    browser.evaluate("document.querySelector('.card').click()")
    assert browser.evaluate("document.getElementById('viewer-name').textContent") == FILE
    assert browser.evaluate("document.querySelector('#class-table td').textContent") == SCRIPT
    assert (
        browser.evaluate("document.querySelectorAll('#class-table tr')[2].cells[0].textContent")
        == CATEGORIES[1]["name"]
    )
    assert browser.evaluate("document.querySelectorAll('script, img[src=x]').length") == 2
    # Should a name ever become markup: the page's own policy keeps it from running and from fetching.
    browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.ran = 1\">')")
    assert browser.evaluate("new Promise((go) => setTimeout(() => go(window.ran), 100))") is None
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
    browser.complaints.clear()


@needs_chromium
def test_attention_follows_box_and_point(page: Path, browser: Browser) -> None:
    bright = (
        "(() => { const c = document.querySelector('#stage canvas'); if (c.hidden) return null;"
        "const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return [...p].filter((_, at) => at % 4 === 3).flatMap((alpha, cell) => (alpha < 100 ? [cell] : [])); })()"
    )
    browser.open(page)
    browser.evaluate("document.querySelector('.card').click()")
    assert browser.evaluate(bright) is None
    rows = browser.evaluate("[...document.querySelectorAll('#entries button')].map((row) => row.textContent)")
    assert rows == [f"{CATEGORIES[1]['name']}background 0.80", f"{SCRIPT}missed", f"{SCRIPT}true positive 0.90"]
    for row, cells in ((2, [0]), (0, [1]), (1, None)):  # a missed object has no query
        browser.point(f"#entries li:nth-child({row + 1}) button")
        assert browser.evaluate(bright) == cells
    browser.point("#stage .box.tp", click=True)
    browser.point("#viewer-name")
    assert browser.evaluate(bright) == [0]  # a click keeps it
    browser.point("#mode-points", click=True)
    browser.point("#stage .frame", 0.9, 0.1)
    assert browser.evaluate(bright) == [3]
    browser.press("ArrowDown")
    assert browser.evaluate(bright) == [7]
    browser.press("Escape")
    assert browser.evaluate("document.getElementById('viewer').open") is True
    assert browser.evaluate(bright) is None


@needs_chromium
def test_keys_are_enough(page: Path, browser: Browser) -> None:
    browser.open(page)
    here = "document.activeElement.matches('.card') && document.activeElement.querySelector('.name').textContent"
    for _ in range(40):
        if browser.evaluate(here):
            break
        browser.press("Tab")
    assert browser.evaluate(here) == FILE
    browser.press("ArrowRight")
    assert browser.evaluate(here) == "c.jpg"
    browser.press("Enter")
    assert browser.evaluate("document.getElementById('viewer-name').textContent") == "c.jpg"
    browser.press("ArrowRight")
    assert browser.evaluate("document.getElementById('viewer-name').textContent") == "b.jpg"
    browser.press("Escape")
    assert browser.evaluate("document.getElementById('viewer').open") is False
    browser.wait_for(f"{here} === 'b.jpg'")


@needs_chromium
def test_tables_sort_and_the_theme_turns(page: Path, browser: Browser) -> None:
    first = "document.querySelector('#class-table tbody td').textContent"
    browser.open(page, dark=True)
    objects = "document.querySelectorAll('#class-table th button')[1].click()"
    browser.evaluate(objects)
    assert browser.evaluate(first) == SCRIPT
    browser.evaluate(objects)
    assert browser.evaluate(first) == CATEGORIES[1]["name"]
    assert browser.evaluate("document.querySelectorAll('#class-table th')[1].ariaSort") == "ascending"
    back = "getComputedStyle(document.body).backgroundColor"
    dark = browser.evaluate(back)
    browser.evaluate("document.getElementById('theme').click()")
    light = browser.evaluate(back)
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate(back) == dark != light
    assert sum(map(int, re.findall(r"\d+", dark))) < 150 < 600 < sum(map(int, re.findall(r"\d+", light)))


@needs_chromium
@pytest.mark.parametrize("width", [320, 390, 800])
def test_nothing_is_wider_than_the_window(width: int, page: Path, browser: Browser) -> None:
    browser.open(page, width=width, height=700)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.evaluate("document.querySelector('.card').click()")
    assert browser.evaluate("document.getElementById('viewer').scrollWidth") <= width
    frame = "document.querySelector('#stage .frame').getBoundingClientRect().toJSON()"
    shown_width, shown_height = (browser.evaluate(frame)[side] for side in ("width", "height"))
    assert shown_width > 100 and shown_width / shown_height == pytest.approx(4 / 3, rel=0.02)


@needs_chromium
def test_a_page_of_whatever_there_is(page: Path, browser: Browser, tmp_path: Path) -> None:
    """No detector, nothing found, no images, no metrics, no log, several runs: each a page without complaints."""
    names = [FILE, "b.jpg", "c.jpg", "d.jpg"]
    truth, run, sections = truth_of(names), Run("run", LOG, {}), {}
    empty = {**truth, "annotations": [], "images": truth["images"][:1]}
    full, nothing = measure(truth, RESULTS), measure(truth, [])
    cases = {
        "no_detector": build_page([run], {"run": full}, evaluate_images(truth, RESULTS, page.parent)),
        "nothing_found": build_page([run], {"run": nothing}, evaluate_images(truth, [], page.parent)),
        "nothing_there": build_page([run], {"run": measure(empty, [])}, evaluate_images(empty, [], page.parent)),
        "log_only": build_page([run], {"run": None}),
        "no_log": build_page([Run(SCRIPT, [], {})], {}),
        "several": build_page([run, Run(SCRIPT, LOG[:1], {}), Run("c", [], {})], {"run": full, "c": nothing}),
    }
    for name, text in cases.items():
        path = tmp_path / f"{name}.html"
        path.write_text(text, encoding="utf-8")
        browser.open(path)
        assert browser.complaints == [], name
        shown = "[...document.querySelectorAll('main > section:not([hidden])')].map((one) => one.id)"
        sections[name] = browser.evaluate(shown)
        assert browser.evaluate("/NaN|undefined|null|Infinity/.exec(document.body.innerText)") is None, name
    numbers = ["summary", "gallery", "errors", "classes", "quality", "training"]
    assert sections == {
        "no_detector": numbers, "nothing_found": numbers, "nothing_there": numbers, "log_only": ["training"],
        "no_log": [], "several": ["summary", "errors", "classes", "quality", "training"],
    }  # fmt: skip


@needs_shared
@needs_chromium
def test_the_references_own_log(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(build_page([read_run(SHARED / "reference_run")], {}), encoding="utf-8")
    browser.open(path)
    assert browser.evaluate("document.querySelectorAll('#training-charts .chart').length") == 8
    browser.evaluate("document.getElementById('everything').open = true")
    browser.wait_for("document.querySelectorAll('#everything .chart').length > 40")


def masked_page(folder: Path) -> str:
    """Objects of `truth_of` with masks: image 1 has a right one; of that in image 2 the right half is missing."""
    names = [f"{n}.png" for n in range(4)]
    for name in names:
        Image.new("RGB", (120, 90), "teal").save(folder / name)
    truth = truth_of(names)
    for one in truth["annotations"]:
        x, y, width, height = one["bbox"]
        one["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    results = [
        {**common, "score": 0.9, "segmentation": [[x, y, x + w * share, y, x + w * share, y + h, x, y + h]]}
        for common, share in ((truth["annotations"][0], 1), (truth["annotations"][2], 0.4))
        for x, y, w, h in [common["bbox"]]
    ]
    results = check_results(results, truth, Path("p.json"))
    evaluated, metrics = evaluate_images(truth, results, folder), {"run": measure(truth, results, threshold=0.5)}
    return build_page([Run("run", LOG, {})], metrics, evaluated)


def test_masks_are_outlines_in_whole_numbers(tmp_path: Path) -> None:
    page = masked_page(tmp_path)
    assert "Mask AP" in page and "run, boxes" in page and "measured by masks" in page
    first, second, _, empty = data_of(page)["gallery"]["images"]
    (outline,) = first["detections"][0][-1]
    assert (min(outline[::2]), max(outline[::2]), min(outline[1::2]), max(outline[1::2])) == (83, 417, 111, 556)
    assert [len(entry) for entry in first["gt"]] == [7, 7] and first["gt"][0][-1] == [outline]
    assert len(second["detections"]) == 1 and empty["gt"] == []


def test_boxes_have_no_outlines(page: Path) -> None:
    images = data_of(page.read_text(encoding="utf-8"))["gallery"]["images"]
    assert {len(entry) for image in images for entry in image["gt"]} == {6}
    assert {len(entry) for image in images for entry in image["detections"]} == {9}


@needs_chromium
def test_masks_are_drawn_and_answer_to_the_pointer(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "report.html"
    path.write_text(masked_page(tmp_path), encoding="utf-8")
    browser.open(path)
    assert drawn(browser) == {"tp": 1, "fp": 1, "missed": 2}
    count = "document.querySelectorAll('#cards .box.{} path.edge').length"
    assert [browser.evaluate(count.format(kind)) for kind in ("tp", "fp", "missed", "gt")] == [1, 1, 2, 1]
    browser.evaluate("[...document.querySelectorAll('.card')].find((c) => c.querySelector('.box.fp')).click()")
    order = "[...document.querySelectorAll('#stage .box')].map((one) => one.classList[1])"
    assert browser.evaluate(order) == ["gt", "fp"]  # a poor mask lies on its object's
    mask = "document.querySelector('#stage .box.fp path.edge').getBoundingClientRect().width"
    box = "document.querySelector('#stage .box.fp rect.edge').getBoundingClientRect().width"
    assert browser.evaluate(mask) / browser.evaluate(box) == pytest.approx(0.4, abs=0.02)
    browser.point("#stage .box.fp path.edge")
    assert browser.evaluate("document.querySelectorAll('#stage .box.fp.chosen').length") == 1


# Image 1: an annotation is missing, one is spurious. 2: a loose one, and a right one. 3: one of another class.
TOLD = [
    (1, 1, 10, 10, 40, 40, 0.95), (1, 5, 60, 5, 30, 20, 0.8), (1, 1, 60, 60, 30, 20, 0.25),
    (2, 1, 32, 26, 50, 50, 0.9), (2, 5, 90, 70, 10, 10, 0.95), (3, 1, 30, 30, 40, 31, 0.7),
]  # fmt: skip
RANKS = {"missing": 0.95, "loose": 0.9, "spurious": 0.75, "class": 0.7}


@pytest.fixture(scope="module")
def review(page: Path) -> Path:
    truth = truth_of([FILE, "b.jpg", "c.jpg", "d.jpg"])
    truth["annotations"].append({"id": 9, "image_id": 2, "category_id": 5, "bbox": [90, 70, 10, 10]})
    results = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, *b, s in TOLD]
    path = page.with_name("review.html")
    strongest = {one.kind: one for one in reversed(find_suspects(truth, results))}
    suspects = [strongest[kind]._replace(suspicion=suspicion) for kind, suspicion in RANKS.items()]
    path.write_text(build_review(suspects, truth, page.parent), encoding="utf-8")
    return path


@needs_chromium
def test_a_review_is_filtered_by_the_kinds_of_suspects(review: Path, browser: Browser) -> None:
    browser.open(review)
    texts = "[...document.querySelectorAll('{}')].map((one) => one.textContent)"
    counts = "document.getElementById('counts').textContent"
    assert browser.evaluate(texts.format("#cards .name")) == [FILE, "b.jpg", "c.jpg"]
    assert browser.evaluate(texts.format("#cards .sum")) == ["1. missing · 3. spurious", "2. loose", "4. class"]
    assert drawn(browser) == {"tp": 3, "fp": 3, "missed": 1}
    assert browser.evaluate("document.querySelectorAll('#cards .box.gt').length") == 2
    assert browser.evaluate(texts.format("#by-kind option")) == [
        "everything", "any suspect (4)", *(f"{kind} (1)" for kind in KINDS),
    ]  # fmt: skip
    of_kind = {
        "missing": (FILE, {"missed": 1}), "spurious": (FILE, {"tp": 1, "fp": 1}),
        "class": ("c.jpg", {"tp": 1, "fp": 1}), "loose": ("b.jpg", {"tp": 1, "fp": 1}),
    }  # fmt: skip
    for number, kind in enumerate(KINDS):
        set_value(browser, "by-kind", number)
        shown = *browser.evaluate(texts.format("#cards .name")), drawn(browser)
        assert shown == of_kind[kind] and browser.evaluate(counts) == "4 suspects · 1 image"
    set_value(browser, "by-kind", "any")
    assert drawn(browser) == {"tp": 3, "fp": 3, "missed": 1}
    assert browser.evaluate("document.querySelectorAll('#cards .box.gt').length") == 0
    set_value(browser, "by-kind", "")
    set_value(browser, "by-class", 1)  # is missing; annotated as it, detected as another; what is right has no suspects
    assert browser.evaluate(texts.format("#cards .name")) == [FILE, "c.jpg"]
    assert drawn(browser) == {"tp": 1, "fp": 1, "missed": 1} and browser.evaluate(counts) == "2 suspects · 2 images"
    set_value(browser, "by-class", "")
    set_value(browser, "order", "best")
    assert browser.evaluate(texts.format("#cards .name")) == ["c.jpg", "b.jpg", FILE]


@needs_chromium
def test_a_suspect_is_shown_with_what_tells(review: Path, browser: Browser) -> None:
    browser.open(review, width=390)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    sections = "[...document.querySelectorAll('main > section:not([hidden])')].map((one) => one.id)"
    assert browser.evaluate(sections) == ["gallery"] and browser.evaluate("document.getElementById('slide').hidden")
    assert browser.evaluate("/NaN|undefined|null|Infinity/.exec(document.body.innerText)") is None
    browser.resize(1280, 900)
    browser.evaluate("document.querySelectorAll('.card')[2].click()")
    rows = browser.evaluate("[...document.querySelectorAll('#entries button')].map((row) => row.textContent)")
    annotated, detected = CATEGORIES[1]["name"], SCRIPT
    assert rows == [f"{annotated}4. class: {KINDS['class']}; suspicion 0.70", f"{detected}detected 0.70"]
    texts = "[...document.querySelectorAll('#stage text')].map((one) => [one.textContent, one.getBBox().y])"
    (told, below), (text, above) = sorted(browser.evaluate(texts), reverse=True)
    assert (text, told) == (f"4. class: {annotated}", f"detected: {detected} 0.70") and below > above + 100
    browser.point("#entries li:nth-child(2) button")
    assert browser.evaluate("document.querySelectorAll('#stage .box.chosen').length") == 2
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert browser.evaluate("document.getElementById('viewer-name').textContent") == FILE
    kinds = browser.evaluate("[...document.querySelectorAll('#entries small')].map((one) => one.textContent)")
    assert [kind.partition(":")[0] for kind in kinds] == ["1. missing", "3. spurious", "detected", "annotated"]
    browser.point("#entries li:nth-child(1) button")
    assert browser.evaluate("document.querySelectorAll('#stage .box.chosen').length") == 1


def test_a_review_has_outlines_and_the_first_images(tmp_path: Path) -> None:
    """Of annotations that have them, as polygons or runs, and of detections; and no more images than a report."""
    Image.new("RGB", (120, 90), "teal").save(tmp_path / "a.png")
    truth = truth_of(["a.png"] * 130)
    truth["annotations"] = [truth["annotations"][0] | {"id": n, "image_id": n} for n in range(1, 131)]
    polygon = [10, 10, 50, 10, 50, 50, 10, 50]
    truth["annotations"][0]["segmentation"] = [polygon]
    truth["annotations"][1]["segmentation"] = {"size": [90, 120], "counts": [90 * 60, 90 * 60]}
    mask = {"image_id": 3, "category_id": 1, "bbox": [60, 50, 20, 20], "score": 0.9, "segmentation": [polygon]}
    results = check_results([mask], truth, Path("p.json"))
    page = build_review(find_suspects(truth, results), truth, tmp_path)
    gallery = data_of(page)["gallery"]
    assert (len(gallery["images"]), gallery["of"]) == (MOST_IMAGES, 130) and "131 suspects in 130 of 130 images" in page
    third, first, runs, *_ = (image["entries"] for image in gallery["images"])  # what is missing is told best
    spans = [
        (min(outline[::2]), max(outline[::2]), min(outline[1::2]), max(outline[1::2]))
        for outline in (first[0]["outlines"][0], runs[0]["outlines"][0])
    ]
    assert spans == [(83, 417, 111, 556), (500, 1000, 0, 1000)]
    assert [bool(entry["outlines"]) for entry in third] == [True, False]
    assert [entry["status"] for entry in third] == ["missed", "fp"]
    assert first[0]["box"] == pytest.approx([10 / 120, 10 / 90, 40 / 120, 40 / 90], rel=1e-5)


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def test_large_sets_are_sampled_and_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is the worst that a JPEG can meet; a hundred of them with 100 detections and full attention each."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=60)
    truth, run = truth_of(["noise.jpg"] * 130), Run("run", LOG, {})
    boxes = np.random.default_rng(1).uniform(0, 500, (130, 100, 4)).tolist()
    results = [
        {"image_id": n, "category_id": 1, "bbox": box, "score": 0.7} for n, mine in enumerate(boxes, 1) for box in mine
    ]
    numbers = evenly_spaced(130, MOST_IMAGES)
    assert len({*numbers}) == MOST_IMAGES and (numbers[0], numbers[-1]) == (0, 129)
    maps = np.random.default_rng(2).uniform(size=(244, 12, 12))
    encoder = maps[100:].reshape(12, 12, 12, 12)
    look = AttentionMaps(np.full(100, 0.7), np.array(boxes[0]), np.zeros((100, 4)), maps[:100], encoder)
    metrics, looks, seen = {"run": measure(truth, [])}, dict.fromkeys(numbers, look), []
    monkeypatch.setattr(utils.Progress, "update", lambda bar: seen.append(1))
    page = build_page([run], metrics, evaluate_images(truth, results, tmp_path), looks)
    gallery = data_of(page)["gallery"]
    assert len(seen) == len(gallery["images"]) == MOST_IMAGES and gallery["of"] == 130
    assert len(page) < 15e6


def test_which_query_a_detection_comes_from() -> None:
    look = look_of(0)
    boxes_xywh = np.array([[61, 6, 30, 20], [20, 20, 50, 49], [22, 20, 50, 49], [0, 0, 5, 5]], dtype=float)
    assert [*queries_of(boxes_xywh, np.array([0.8, 0.61, 0.4, 0.5]), look)] == [1, 2, 3, UNMATCHED]
    assert [*queries_of(np.zeros((0, 4)), np.zeros(0), look)] == []
