// The gallery and the viewer: boxes that follow the threshold and the filters, and attention drawn over the image.

const { gallery, review } = data; // `review` says what the kinds of suspects mean; it is empty in a report
const state = { threshold: 0, label: "", kind: "", order: "worst", isWhole: false, cards: [] };
const AT_FIRST = 12; // images, until all are asked for
const MISSED = data.kinds.length - 1;
const EXPLAINS = ["classification", "localization"].map((name) => data.kinds.indexOf(name));

/** What an image's boxes are from the threshold on: entries {status, label, box, outlines, text, kind, query}.
 * A review has them in its data, whatever the threshold, with a rank where they are about a suspect. */
function entriesOf(image, threshold) {
  if (image.entries) return image.entries;
  const explained = new Map(); // index of an object -> whether a detection matches it
  const entries = [];
  for (const [label, x, y, width, height, score, kind, about, query, outlines] of image.detections) {
    if (score < threshold) continue;
    if (kind === -1) explained.set(about, true);
    else if (EXPLAINS.includes(kind) && !explained.has(about)) explained.set(about, false);
    entries.push({ status: kind === -1 ? "tp" : kind === -2 ? "gt" : "fp", label, score, kind, query,
      outlines, box: [x, y, width, height], other: kind >= 0 && about >= 0 ? image.gt[about][0] : label,
      detail: kind === -1 ? "" : kind === -2 ? "not counted" : data.kinds[kind] });
  }
  image.gt.forEach(([label, x, y, width, height, isCrowd, outlines], at) => {
    if (explained.get(at) === true) return; // its detection is drawn
    const isMissed = !isCrowd && !explained.has(at);
    entries.push({ status: isMissed ? "missed" : "gt", label, other: label, score: null, kind: isMissed ? MISSED : -2,
      query: -1, outlines, box: [x, y, width, height], detail: isMissed ? "missed" : isCrowd ? "crowd" : "annotated" });
  });
  return entries;
}

const passesClass = (entry) => state.label === "" || entry.label === Number(state.label)
  || entry.other === Number(state.label);
const passesKind = ({ kind, status }) =>
  ({ "": true, tp: status === "tp", any: kind >= 0 })[state.kind] ?? kind === Number(state.kind);
const isError = (entry) => ["fp", "missed"].includes(entry.status); // in a review: is suspicious
const counts = (entries) => {
  const sum = { tp: 0, fp: 0, missed: 0, gt: 0 };
  for (const entry of entries) sum[entry.status] += 1;
  return sum;
};
const nameOf = (entry) => gallery.classes[entry.label];
const scoreOf = (entry) => (entry.score === null ? "" : ` ${entry.score.toFixed(2)}`);
const area = (entry) => entry.box[2] * entry.box[3];
const isUnder = (entry) => Boolean(entry.outlines) && entry.status === "gt"; // a poor mask lies on its object's

const byDepth = (a, b) => isUnder(b) - isUnder(a) || area(b) - area(a);

/** A mask; its outlines are x, y, x, y, ... in thousandths of the image's sides. */
function drawMask(outlines) {
  const d = outlines.map((outline) => `M${outline.join(" ")}Z`).join("");
  return make("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none" }, make("path", { class: "halo", d }),
    make("path", { class: "edge", d }));
}

/** The boxes of an image, and masks where there are any, large ones first, so that small ones lie on top. */
function drawBoxes(entries, hasText) {
  const percent = (share) => `${(100 * share).toFixed(2)}%`;
  return make("svg", { "aria-hidden": "true" }, [...entries].sort(byDepth).map((entry) => {
    const [x, y, width, height] = entry.box;
    const place = { x: percent(x), y: percent(y), width: percent(width), height: percent(height) };
    const group = make("g", { class: `box ${entry.status}` }, make("rect", { class: "halo", ...place }),
      make("rect", { class: "edge", ...place }));
    if (entry.outlines) {
      group.classList.add("masked");
      group.append(drawMask(entry.outlines));
    }
    if (hasText && entry.status !== "gt") {
      const isBelow = entry.rank && entry.status === "tp" && y + height < 0.96; // its annotation has a text above
      const [edge, isInside] = isBelow ? [y + height, true] : [Math.max(0, y), y <= 0.04];
      group.append(make("text", { x: percent(Math.max(0, x)), y: percent(edge), dx: 2, dy: isInside ? 14 : -5 },
        `${entry.detail && `${entry.detail}: `}${nameOf(entry)}${scoreOf(entry)}`));
    }
    entry.drawn = group;
    return group;
  }));
}

function frameOf(image) {
  return make("span", { class: "frame", style: { aspectRatio: `${image.width} / ${image.height}` } },
    make("img", { src: `data:image/jpeg;base64,${image.jpeg}`, alt: image.name, decoding: "async" }));
}

// --------------------------------------------------------------------------------------------------------------- cards

function makeCards() {
  state.cards = gallery.images.map((image) => {
    const frame = frameOf(image);
    frame.style[image.width / image.height > 4 / 3 ? "width" : "height"] = "100%";
    const sum = make("span", { class: "sum" });
    const button = make("button", { class: "card", type: "button" }, make("span", { class: "picture" }, frame),
      make("span", { class: "name", title: image.name }, image.name), sum);
    const card = { image, frame, sum, button, entries: [] };
    button.addEventListener("click", () => openViewer(card));
    return card;
  });
}

function redraw() {
  const total = { tp: 0, fp: 0, missed: 0 };
  let objects = 0;
  const kinds = new Map();
  for (const card of state.cards) {
    const all = entriesOf(card.image, state.threshold).filter(passesClass);
    card.entries = all.filter(passesKind);
    const sum = counts(all);
    const suspects = card.entries.filter((entry) => entry.rank && isError(entry));
    card.errors = review ? -Math.min(...suspects.map((entry) => entry.rank)) : sum.fp + sum.missed;
    card.passes = (state.label === "" && state.kind === "") || (review ? suspects : card.entries).length > 0;
    objects += (card.image.gt || []).filter(([label, , , , , isCrowd]) =>
      !isCrowd && (state.label === "" || label === Number(state.label))).length;
    for (const key of Object.keys(total)) total[key] += sum[key];
    for (const entry of all.filter(isError)) kinds.set(entry.kind, (kinds.get(entry.kind) || 0) + 1);
    card.frame.querySelector("svg")?.remove();
    card.frame.append(drawBoxes(card.entries, false));
    card.sum.textContent = review ? suspects.map((entry) => entry.detail).join(" · ")
      : all.length ? `${sum.tp} TP · ${sum.fp} FP · ${sum.missed} missed` : "no objects";
  }
  const shown = passingCards().length;
  byId("threshold-value").textContent = number(state.threshold, state.threshold === gallery.threshold ? 3 : 2);
  const ratio = (above, below) => (below ? number(above / below, 2) : "-");
  const outcomes = [make("b", {}, whole(total.tp)), " TP, ", make("b", {}, whole(total.fp)),
    " FP, ", make("b", {}, whole(total.missed)), " missed · precision ",
    make("b", {}, ratio(total.tp, total.tp + total.fp)), ", recall ", make("b", {}, ratio(total.tp, objects))];
  byId("counts").replaceChildren(...(review ? [counted(total.fp + total.missed, "suspect")] : outcomes), " · ",
    counted(shown, "image"));
  for (const option of byId("by-kind").options) {
    const mine = option.value === "any" ? total.fp + total.missed : option.value === "tp" ? total.tp
      : kinds.get(Number(option.value)) || 0;
    if (option.value !== "") option.textContent = `${option.dataset.name} (${whole(mine)})`;
  }
  byId("nothing").hidden = shown > 0;
}

function sortCards() {
  const byName = (a, b) => a.image.name.localeCompare(b.image.name, "en", { numeric: true });
  const sign = { worst: -1, best: 1 }[state.order] || 0;
  state.cards.sort((a, b) => sign * (a.errors - b.errors) || byName(a, b));
  const passing = passingCards();
  byId("cards").replaceChildren(...passing.slice(0, state.isWhole ? undefined : AT_FIRST).map((card) => card.button));
  byId("more").hidden = state.isWhole || passing.length <= AT_FIRST;
  byId("more").textContent = `Show all ${whole(passing.length)} images`;
}

const passingCards = () => state.cards.filter((card) => card.passes);

function moveInCards(event) {
  const shown = [...byId("cards").children];
  const at = shown.indexOf(document.activeElement);
  if (at < 0) return;
  const columns = shown.filter((one) => one.offsetTop === shown[0].offsetTop).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const to = event.key === "Home" ? 0 : event.key === "End" ? shown.length - 1 : step ? at + step : -1;
  if (!shown[to]) return;
  event.preventDefault();
  shown[to].focus();
}

function showGallery() {
  byId("gallery").hidden = !gallery;
  if (!gallery) return;
  const count = gallery.images.length;
  byId("gallery-note").textContent = `${count < gallery.of
    ? `${whole(count)} of ${whole(gallery.of)} ${review ? "images, the most suspicious"
      : "validation images, evenly sampled"}; counts below are of these. ` : ""}${
    review && `${review}. `}${data.detector && `Detections of ${data.detector}. `}Open one to see ${
    gallery.images.some((image) => image.attention) ? "every box and what the detector attends to." : "every box."}`;
  byId("by-class").append(make("option", { value: "" }, "all classes"),
    ...gallery.classes.map((name, label) => make("option", { value: label }, name)));
  byId("slide").hidden = Boolean(review);
  const filters = [["", "everything"], ["any", review ? "any suspect" : "any error"],
    ...(review ? [] : [["tp", "true positive"]]), ...data.kinds.map((kind, at) => [at, kind])];
  byId("by-kind").append(...filters.map(([value, name]) => make("option", { value, "data-name": name }, name)));
  makeCards();
  const setThreshold = (value) => { state.threshold = value; redraw(); };
  const slider = byId("threshold");
  let isPending = false;
  slider.addEventListener("input", () => {
    if (isPending) return; // one drawing a frame is enough
    isPending = true;
    requestAnimationFrame(() => { isPending = false; setThreshold(Number(slider.value)); });
  });
  slider.addEventListener("change", () => { setThreshold(Number(slider.value)); sortCards(); });
  byId("best").addEventListener("click", () => {
    slider.value = gallery.threshold;
    setThreshold(gallery.threshold);
    sortCards();
  });
  for (const [id, key] of [["by-class", "label"], ["by-kind", "kind"], ["order", "order"]]) {
    byId(id).addEventListener("change", (event) => { state[key] = event.target.value; redraw(); sortCards(); });
  }
  byId("cards").addEventListener("keydown", moveInCards);
  byId("more").addEventListener("click", () => {
    state.isWhole = true;
    sortCards();
    state.cards[AT_FIRST]?.button.focus();
  });
  slider.value = gallery.threshold;
  setThreshold(gallery.threshold);
  sortCards();
}

// -------------------------------------------------------------------------------------------------------------- viewer

const viewer = { card: null, isPoints: false, pinned: null, point: null, canvas: null, mark: null };

function decode(image) {
  const { attention } = image;
  for (const name of ["cross", "encoder"]) {
    if (attention && typeof attention[name] === "string") {
      attention[name] = Uint8Array.from(atob(attention[name]), (letter) => letter.charCodeAt(0));
    }
  }
  return attention;
}

/** Darken the image where a map of `size` values is low; null takes it away. */
function spotlight(maps, position) {
  const { canvas, card } = viewer;
  canvas.hidden = !maps;
  if (!maps) return;
  const { width, height } = card.image.attention;
  const pixels = new ImageData(width, height);
  for (let at = 0; at < width * height; at += 1) {
    const value = maps[position * width * height + at] / 255;
    pixels.data[4 * at + 3] = 215 * (1 - value ** 0.7);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function showAttentionOf(entry) {
  const attention = decode(viewer.card.image);
  for (const one of viewer.card.entries) {
    const isChosen = one === entry || Boolean(entry && entry.rank && one.rank === entry.rank);
    one.drawn.classList.toggle("chosen", isChosen);
    one.row.classList.toggle("chosen", isChosen);
  }
  byId("stage").classList.toggle("attending", Boolean(entry));
  spotlight(entry && entry.query >= 0 && attention ? attention.cross : null, entry && entry.query);
}

function showAttentionAt(x, y) {
  const attention = decode(viewer.card.image);
  const column = Math.max(0, Math.min(attention.width - 1, Math.floor(x * attention.width)));
  const row = Math.max(0, Math.min(attention.height - 1, Math.floor(y * attention.height)));
  viewer.point = [column, row];
  for (const ring of viewer.mark.children) {
    ring.setAttribute("cx", `${(100 * (column + 0.5)) / attention.width}%`);
    ring.setAttribute("cy", `${(100 * (row + 0.5)) / attention.height}%`);
  }
  viewer.mark.style.display = "";
  spotlight(attention.encoder, row * attention.width + column);
}

function pin(entry) {
  viewer.pinned = viewer.pinned === entry ? null : entry;
  showAttentionOf(viewer.pinned);
}

function rowOf(entry) {
  const row = make("button", { type: "button" }, make("i", { class: `key ${entry.status}` }),
    make("span", { class: "what" }, nameOf(entry), make("small", {}, entry.note || entry.detail || "true positive")),
    make("span", {}, scoreOf(entry)));
  entry.row = row;
  row.addEventListener("click", () => { setMode(false); pin(entry); });
  for (const [element, enter, leave] of [[row, "pointerenter", "pointerleave"], [row, "focus", "blur"],
    [entry.drawn, "pointerenter", "pointerleave"]]) {
    element.addEventListener(enter, () => viewer.isPoints || showAttentionOf(entry));
    element.addEventListener(leave, () => viewer.isPoints || showAttentionOf(viewer.pinned));
  }
  entry.drawn.addEventListener("click", () => pin(entry));
  return make("li", {}, row);
}

function setMode(isPoints) {
  viewer.isPoints = isPoints;
  viewer.pinned = null;
  byId("mode-boxes").setAttribute("aria-pressed", !isPoints);
  byId("mode-points").setAttribute("aria-pressed", isPoints);
  byId("stage").classList.toggle("points", isPoints);
  viewer.mark.style.display = "none";
  showAttentionOf(null);
  const { attention } = viewer.card.image;
  if (isPoints) showAttentionAt(0.5, 0.5);
  const boxes = attention ? "Point at a box, here or in the list: bright is what its query attends to. " : "";
  const points = "Point at the image: bright is what the encoder attends to from there. Arrow keys move the point; ";
  byId("viewer-help").textContent = isPoints ? `${points}Esc goes back to the boxes.`
    : `${boxes}Arrow keys turn to the next image.`;
}

function showInViewer(card) {
  const { image } = card;
  const stage = byId("stage");
  viewer.card = card;
  viewer.pinned = null;
  const frame = frameOf(image);
  const { width = 1, height = 1, encoder = null } = image.attention || {};
  viewer.canvas = make("canvas", { width, height, hidden: "", "aria-hidden": "true" });
  viewer.mark = make("g", {}, make("circle", { class: "mark under", r: 7 }), make("circle", { class: "mark", r: 7 }));
  const boxes = drawBoxes(card.entries, true);
  boxes.append(viewer.mark);
  frame.append(viewer.canvas, boxes);
  stage.replaceChildren(frame);
  fitFrame();
  const order = { fp: 0, missed: 1, tp: 2, gt: 3 };
  const rankOf = (entry) => entry.rank || Number.MAX_VALUE; // all are equal in a report
  const entries = [...card.entries].sort((a, b) => rankOf(a) - rankOf(b) || order[a.status] - order[b.status]
    || (b.score || 0) - (a.score || 0));
  byId("entries").replaceChildren(...entries.map(rowOf));
  byId("viewer-name").textContent = image.name;
  const shown = passingCards();
  byId("viewer-place").textContent = `${shown.indexOf(card) + 1} of ${shown.length}`;
  byId("modes").hidden = !encoder;
  const attend = (event) => {
    if (!viewer.isPoints) return;
    const box = frame.getBoundingClientRect();
    showAttentionAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  for (const kind of ["pointermove", "pointerdown"]) frame.addEventListener(kind, attend);
  setMode(viewer.isPoints && Boolean(encoder));
}

/** As large as fits: the aspect ratio alone would let one side overflow. */
function fitFrame() {
  const frame = byId("stage").firstElementChild;
  if (!frame) return;
  const { image } = viewer.card;
  const [wide, high] = [byId("stage").clientWidth - 24, byId("stage").clientHeight - 24];
  const scale = Math.min(wide / image.width, high / image.height);
  Object.assign(frame.style, { width: `${image.width * scale}px`, height: `${image.height * scale}px` });
}

function turn(step) {
  const shown = passingCards();
  const next = shown[shown.indexOf(viewer.card) + step];
  if (next) showInViewer(next);
}

function openViewer(card) {
  viewer.isPoints = false;
  byId("viewer").showModal();
  showInViewer(card);
  byId("stage").focus();
}

function viewerKey(event) {
  if (event.key === "Escape" && viewer.isPoints) { event.preventDefault(); setMode(false); return; }
  const [x, y] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key] || [0, 0];
  if (!x && !y) return;
  if (viewer.isPoints) {
    const { width, height } = viewer.card.image.attention;
    showAttentionAt((viewer.point[0] + x + 0.5) / width, (viewer.point[1] + y + 0.5) / height);
  } else if (x) turn(x);
  else return;
  event.preventDefault();
}

function showViewer() {
  const dialog = byId("viewer");
  dialog.addEventListener("keydown", viewerKey);
  dialog.addEventListener("cancel", (event) => { if (viewer.isPoints) event.preventDefault(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => viewer.card.button.focus());
  byId("before").addEventListener("click", () => turn(-1));
  byId("after").addEventListener("click", () => turn(1));
  byId("close").addEventListener("click", () => dialog.close());
  byId("mode-boxes").addEventListener("click", () => setMode(false));
  byId("mode-points").addEventListener("click", () => setMode(true));
  window.addEventListener("resize", fitFrame);
}

showSections();
showGallery();
showTheme();
showNavigation();
if (gallery) showViewer();
