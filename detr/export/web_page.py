"""A detector as one HTML file that opens with a double click: the page detects by itself, and sends images nowhere.

Everything is inside, compressed and in base64: the model, and ONNX Runtime Web's script and WebAssembly. Beside the
page they would need a web server, as browsers let a page that was opened from a disk fetch nothing. A small detector
makes 13 MB; DETR-R50 makes 210 MB, which Chromium opens in 5 s, and runs on an image of 800 pixels in 7 s: such a page
has one thread. In images of more than 8 bits white is what the browser takes for it, not what the detector learned.
"""

import base64
import gzip
import tarfile
from html import escape
from pathlib import Path

import utils
from detr.drawing import COLORS
from detr.report.page import fill_template

_VERSION = "1.30.0"
RUNTIME = f"onnxruntime-web-{_VERSION}.tgz"  # kept in the working folder, as weights are
RUNTIME_URL = f"https://registry.npmjs.org/onnxruntime-web/-/{RUNTIME}"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
_RUNTIME_FILES = {  # without WebGPU, which takes twice the bytes
    "RUNTIME": "package/dist/ort.wasm.bundle.min.mjs",
    "WASM": "package/dist/ort-wasm-simd-threaded.wasm",
}


def fetch_runtime() -> dict[str, bytes]:
    """Return the runtime's files by their names in the page. Raises UserError where it cannot be downloaded."""
    utils.download(RUNTIME_URL, Path(RUNTIME), RUNTIME_SHA256, "--to onnx needs no network")
    with tarfile.open(RUNTIME) as archive:
        return {part: archive.extractfile(name).read() for part, name in _RUNTIME_FILES.items()}


def build_detector_page(
    title: str, names: list[str], resolution: dict[str, int], model: bytes, runtime: dict[str, bytes]
) -> str:
    """Return the page for a model that `onnx_file.write_onnx` wrote, with the runtime of `fetch_runtime`.

    `names` are the classes in the order of the model's scores; `resolution` has `scale` and `max_size`, in pixels.
    """
    files = runtime | {"MODEL": model}
    classes = f"{utils.pluralize(len(names), 'class')}: {utils.join_names(names)}"
    packed = {part: gzip.compress(content, compresslevel=6, mtime=0) for part, content in files.items()}
    parts = {part: base64.b64encode(content).decode() for part, content in packed.items()}
    parts |= {"TITLE": escape(title), "CLASSES": escape(classes)}
    data = {"names": names, "colors": COLORS, **resolution}
    return fill_template("detect.html", ("page.js", "detect.js"), data, parts)
