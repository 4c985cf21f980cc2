"use strict";
// Numbers, tables and curves. What comes from the data only ever becomes text, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const isDrawn = ["svg", "g", "path", "line", "rect", "circle", "text"].includes(tag);
  const element = isDrawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value); // the page's policy forbids the attribute
    else if (![null, undefined, false].includes(value)) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat());
  return element;
}

const number = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const whole = (value) => value.toLocaleString("en");
const counted = (value, one, many = `${one}s`) => `${whole(value)} ${value === 1 ? one : many}`;
const short = (value) => (value === 0 ? "0" : Math.abs(value) >= 1e4 || Math.abs(value) < 1e-3
  ? value.toExponential(1) : String(Number(value.toPrecision(4))));
const colorOf = (position) => (position === 0 ? "var(--accent)" : `var(--run${1 + ((position - 1) % 6)})`);

const measured = data.runs.map((run, position) => ({ ...run, position })).filter((run) => run.metrics);
const first = data.runs[0].metrics;

// ------------------------------------------------------------------------------------------------------------- charts

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) found.push(tick);
  return found.map((tick) => Number(tick.toPrecision(12)));
}

/** A diagram of lines {name, x, y, raw, color, dashed}; the pointer reads values off it. */
function chart({ title, lines, xName = "", yRange = null, xRange = null, small = false, diagonal = false }) {
  const [width, height] = small ? [240, 130] : [360, 220];
  const edge = { left: small ? 42 : 44, right: 10, top: 10, bottom: xName ? 36 : 22 };
  const xs = lines.flatMap((line) => line.x);
  const ys = lines.flatMap((line) => [...line.y, ...(line.raw || [])]).filter((y) => y !== null);
  let [left, right] = xRange || [Math.min(...xs), Math.max(...xs)];
  let [low, high] = yRange || [Math.min(...ys), Math.max(...ys)];
  if (left === right) [left, right] = [left - 1, right + 1];
  if (low === high) [low, high] = [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
  if (!yRange) [low, high] = [low - (high - low) * 0.04, high + (high - low) * 0.04];
  const toX = (x) => edge.left + ((x - left) / (right - left)) * (width - edge.left - edge.right);
  const toY = (y) => height - edge.bottom - ((y - low) / (high - low)) * (height - edge.top - edge.bottom);
  const path = (line, values) => {
    let isDown = false;
    return line.x.map((x, at) => {
      const y = values[at] ?? null;
      if (y === null) { isDown = false; return ""; }
      const step = `${isDown ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`;
      isDown = true;
      return step;
    }).join("");
  };
  const names = lines.map((line) => line.name).filter(Boolean).join(", ");
  const drawing = make("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${title}${names ? `: ${names}` : ""}` });
  for (const y of ticks(low, high, small ? 3 : 4)) {
    drawing.append(make("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: toY(y), y2: toY(y) }),
      make("text", { x: edge.left - 7, y: toY(y) + 4, "text-anchor": "end" }, short(y)));
  }
  for (const x of ticks(left, right, small ? 3 : 5).filter((tick) => xRange || Number.isInteger(tick))) {
    drawing.append(make("text", { x: toX(x), y: height - edge.bottom + 15, "text-anchor": "middle" }, short(x)));
  }
  if (xName) drawing.append(make("text", { x: (edge.left + width - edge.right) / 2, y: height - 4,
    "text-anchor": "middle" }, xName));
  if (diagonal) drawing.append(make("line", { class: "cursor", x1: toX(0), y1: toY(0), x2: toX(1), y2: toY(1) }));
  for (const line of lines) {
    const isPoint = line.x.length === 1;
    if (line.raw) drawing.append(make("path", { class: "raw", d: path(line, line.raw),
      style: { stroke: line.color } }));
    drawing.append(make("path", { class: line.dashed ? "dashed" : "", d: path(line, line.y),
      style: { stroke: line.color } }));
    if (isPoint || line.dots) line.x.forEach((x, at) => line.y[at] !== null && drawing.append(
      make("circle", { cx: toX(x), cy: toY(line.y[at]), r: 3, style: { fill: line.color } })));
  }
  const keys = make("p", { class: "keys" });
  const showKeys = (x = null) => keys.replaceChildren(...(x === null ? [] : [`${xName || "epoch"} ${short(x)}`]),
    ...lines.filter((line) => line.name || x !== null).map((line) => {
      const at = x === null ? -1 : line.x.reduce((best, value, place) =>
        (Math.abs(value - x) < Math.abs(line.x[best] - x) ? place : best), 0);
      const value = at < 0 ? null : (line.raw || line.y)[at];
      const shape = make("i", { class: line.dashed ? "dashed" : "", style: { borderColor: line.color } });
      return make("span", {}, shape, line.name + (value === null ? "" : ` ${short(value)}`));
    }));
  const cursor = make("line", { class: "cursor", y1: edge.top, y2: height - edge.bottom, visibility: "hidden" });
  drawing.append(cursor);
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const at = left + (((event.clientX - box.left) / box.width) * width - edge.left)
      / (width - edge.left - edge.right) * (right - left);
    const x = xs.reduce((best, value) => (Math.abs(value - at) < Math.abs(best - at) ? value : best), xs[0]);
    for (const [name, value] of [["x1", toX(x)], ["x2", toX(x)], ["visibility", "visible"]]) {
      cursor.setAttribute(name, value);
    }
    showKeys(x);
  });
  drawing.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); showKeys(); });
  showKeys();
  return make("figure", {}, make("figcaption", {}, title), drawing, keys);
}

function trainingChart(panel, small) {
  const isOne = data.runs.length === 1;
  const best = (line) => line.y.indexOf(Math.max(...line.y));
  const lines = panel.lines.map((line) => ({
    name: [isOne ? "" : data.runs[line.run].name, panel.share
      ? `best ${number(line.y[best(line)])} in epoch ${line.x[best(line)]}` : line.split].filter(Boolean).join(", "),
    x: line.x, y: line.smooth || line.y, raw: line.smooth && line.y, dashed: line.split === "train",
    color: isOne && line.split === "train" ? "var(--run1)" : colorOf(line.run),
  }));
  return chart({ title: panel.title, lines, small, xName: small ? "" : "epoch", yRange: panel.share ? [0, 1] : null });
}

// ------------------------------------------------------------------------------------------------------------- tables

/** A table of rows of {value, show}; heads sort it. */
function table(heads, rows, { sorts = true } = {}) {
  const body = make("tbody");
  const fill = (order) => body.replaceChildren(...order.map((row) => make("tr", {},
    row.map((cell) => make("td", { class: cell.text ? "text" : null }, ...[cell.show].flat())))));
  const columns = heads.map((head, column) => {
    if (!sorts) return make("th", { scope: "col" }, head);
    const isText = rows[0]?.[column].text;
    const cell = make("th", { scope: "col", class: isText && "text", "aria-sort": "none" });
    const sort = () => {
      const isDown = cell.getAttribute("aria-sort") !== (column ? "descending" : "ascending") === (column > 0);
      for (const other of columns) other.setAttribute("aria-sort", "none");
      cell.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      const sign = isDown ? -1 : 1;
      fill([...rows].sort((a, b) => {
        const [one, two] = [a[column].value, b[column].value];
        if (one === null || two === null) return (one === null) - (two === null); // what is not defined comes last
        return sign * (typeof one === "string" ? one.localeCompare(two) : one - two);
      }));
    };
    cell.append(make("button", { type: "button", onclick: sort }, head));
    return cell;
  });
  fill(rows);
  return make("table", {}, make("thead", {}, make("tr", {}, columns)), body);
}

const cellOf = (value, digits = 3) => ({ value, show: number(value, digits) });
const bar = (share, color) => make("span", { class: "bar", "aria-hidden": "true" },
  make("i", { style: { width: `${100 * Math.max(0, Math.min(1, share))}%`,
    ...(color ? { background: color } : {}) } }));
const barCell = (value) => ({ value, show: value === null ? "–" : [number(value), bar(value)] });

// ------------------------------------------------------------------------------------------------------------ summary

/** Where a number lies between 0 and 1, with its confidence interval. */
function rangeOf(value, ends) {
  const at = (share) => `${100 * share}%`;
  return make("svg", { class: "range", "aria-hidden": "true" },
    make("line", { class: "track", x1: 0, x2: "100%", y1: 6, y2: 6 }),
    make("line", { class: "band", x1: at(ends ? ends[0] : 0), x2: at(ends ? ends[1] : value), y1: 6, y2: 6 }),
    make("circle", { class: "dot", cx: at(value), cy: 6, r: 5 }));
}

const intervalOf = (metrics, key) => {
  const ends = metrics.interval[key];
  return ends ? `${Math.round(metrics.interval.level * 100)} %: ${number(ends[0])} to ${number(ends[1])}` : "";
};

function headline() {
  const { best } = first.overall;
  const error = first.calibration.expected_error;
  const big = (name, value, detail, range) => make("div", { class: "number" }, make("p", { class: "name" }, name),
    make("p", { class: "value" }, number(value)), value === null ? "" : range || "",
    make("p", { class: "detail" }, detail));
  return make("div", { class: "numbers" },
    ...["AP", "AP50"].map((key) => big(key === "AP" ? "AP, IoU 0.50 to 0.95" : "AP50, IoU 0.50", first.coco[key],
      intervalOf(first, key), rangeOf(first.coco[key], first.interval[key]))),
    big("Best F1", best.f1, best.f1 === null ? "nothing right is found"
      : `at score ${number(best.threshold)}: precision ${number(best.precision)}, recall ${number(best.recall)}`,
    rangeOf(best.f1)),
    big("Calibration error", error, "mean distance between the scores and the share that is right", rangeOf(error)));
}

function showSummary() {
  const isOne = data.runs.length === 1;
  document.title = `${data.runs.map((run) => run.name).join(", ")}: detection results`;
  byId("title").textContent = isOne ? data.runs[0].name : `${data.runs.length} runs side by side`;
  const parts = first ? [counted(first.images, "image"), counted(first.objects, "object"),
    counted(first.classes.length, "class", "classes")] : [];
  byId("subtitle").textContent = [...parts, isOne ? counted(data.runs[0].epochs, "epoch") : ""].filter(Boolean)
    .join(" · ");
  byId("summary").hidden = isOne && !first;
  byId("coco").hidden = !measured.length;
  if (isOne && first) byId("headline").append(headline());
  if (!isOne) {
    const rows = data.runs.map((run, position) => {
      const numbers = run.metrics;
      const withInterval = (key) => ({ value: numbers && numbers.coco[key], show: numbers
        ? [make("b", {}, number(numbers.coco[key])), make("br"),
          make("small", { class: "muted" }, intervalOf(numbers, key))]
        : "–" });
      const name = [make("i", { class: "key", style: { borderColor: colorOf(position), background: colorOf(position),
        height: "0.2rem" } }), run.name];
      return [{ value: run.name, show: name }, { value: run.epochs, show: whole(run.epochs) }, withInterval("AP"),
        withInterval("AP50"), cellOf(numbers && numbers.overall.best.f1),
        cellOf(numbers && numbers.overall.best.threshold),
        cellOf(numbers && numbers.calibration.expected_error)];
    });
    byId("headline").append(make("div", { class: "scroll" },
      table(["Run", "Epochs", "AP", "AP50", "Best F1", "at score", "Calibration error"], rows)));
  }
  if (measured.length) {
    const rows = data.coco.map((key) => [{ value: key, show: key },
      ...measured.map((run) => ({ value: run.metrics.coco[key], show: number(run.metrics.coco[key]) }))]);
    byId("coco-table").append(table(["", ...measured.map((run) => run.name)], rows, { sorts: false }));
  }
}

// ----------------------------------------------------------------------------------------------- classes and mistakes

function showClasses() {
  if (!measured.length) return;
  byId("classes").hidden = false;
  const name = (text) => ({ value: text, show: text });
  if (measured.length === 1) {
    const rows = measured[0].metrics.classes.map((one) => [name(one.name),
      { value: one.objects, show: whole(one.objects) },
      barCell(one.AP), cellOf(one.AP50), cellOf(one.AR), cellOf(one.best.f1), cellOf(one.best.threshold)]);
    byId("class-table").append(table(["Class", "Objects", "AP", "AP50", "AR", "Best F1", "at score"], rows));
  } else {
    const names = [...new Set(measured.flatMap((run) => run.metrics.classes.map((one) => one.name)))];
    const rows = names.map((text) => [name(text), ...measured.map((run) => {
      const mine = run.metrics.classes.find((one) => one.name === text);
      return barCell(mine ? mine.AP : null);
    })]);
    byId("class-table").append(table(["AP of", ...measured.map((run) => run.name)], rows));
  }
  if (first && first.confusion) showConfusion();
}

const shadeOf = (share) => `color-mix(in srgb, var(--accent) ${Math.round(8 + 42 * share)}%, transparent)`;

function showConfusion() {
  const names = [...first.classes.map((one) => one.name), "nothing"];
  const rows = first.confusion.map((row, truth) => {
    const total = row.reduce((sum, count) => sum + count, 0) || 1;
    return make("tr", {}, make("th", { scope: "row" }, names[truth]), row.map((count, found) => make("td", {
      class: truth === found && truth < names.length - 1 ? "diagonal" : count ? null : "zero",
      style: { background: count ? shadeOf(count / total) : "" },
    }, truth === found && truth === names.length - 1 ? "" : whole(count))));
  });
  byId("confusion").hidden = false;
  byId("confusion-table").append(make("table", { class: "confusion" }, make("thead", {}, make("tr", {},
    make("th"), names.map((text) => make("th", { scope: "col" }, text)))), make("tbody", {}, rows)));
}

function showMistakes() {
  if (!measured.length) return;
  byId("mistakes").hidden = false;
  byId("mistakes-note").textContent = `${
    measured.map((run) => `${measured.length > 1 ? `${run.name}: ` : ""}from score ${
    number(run.metrics.threshold)} on`).join(", ")}; the gain is what AP50 would be higher by without them.`;
  const most = Math.max(1, ...measured.flatMap((run) => 
    data.kinds.map((kind) => run.metrics.mistakes[kind.key].count)));
  const rows = data.kinds.map((kind) => [{ value: kind.name, show: kind.name },
    ...measured.flatMap((run) => {
      const { count, ap50_gain: gain } = run.metrics.mistakes[kind.key];
      return [{ value: count, show: [whole(count), bar(count / most, colorOf(run.position))] },
        { value: gain, show: gain === null ? "–" : `+${number(Math.max(0, gain))}` }];
    }), { value: kind.meaning, show: kind.meaning, text: true }]);
  const heads = measured.length > 1 ? measured.flatMap((run) => [run.name, "gain"]) : ["Count", "AP50 gain"];
  byId("mistakes-table").append(table(["Kind", ...heads, "What it is"], rows));
}

// -------------------------------------------------------------------------------------------------------------- curves

function meanOf(curves) {
  return curves.length === 0 ? null : curves[0].map((_, at) =>
    curves.reduce((sum, curve) => sum + curve[at], 0) / curves.length);
}

function showQuality() {
  if (!measured.length) return;
  const isOne = measured.length === 1;
  const known = isOne ? measured[0].metrics.classes.filter((one) => one.precision) : [];
  const ended = (curve) => curve.map((value) => (value > 0 ? value : null));
  const precision = isOne && known.length > 1 && known.length <= 6
    ? known.map((one, at) => ({ name: one.name, x: first ? first.recalls : measured[0].metrics.recalls,
      y: ended(one.precision), color: colorOf(at) }))
    : measured.map((run) => ({ name: isOne ? "" : run.name, x: run.metrics.recalls, color: colorOf(run.position),
      y: ended(meanOf(run.metrics.classes.map((one) => one.precision).filter(Boolean)) || [null]) }));
  const unit = { xRange: [0, 1], yRange: [0, 1] };
  const scores = isOne
    ? ["precision", "recall", "f1"].map((key, at) => ({ name: key === "f1" ? "F1" : key,
      x: measured[0].metrics.thresholds,
      y: measured[0].metrics.overall[key], color: colorOf([1, 2, 0][at]), dashed: at < 2 }))
    : measured.map((run) => ({ name: run.name, x: run.metrics.thresholds, y: run.metrics.overall.f1,
      color: colorOf(run.position) }));
  const right = measured.map((run) => {
    const bins = run.metrics.calibration.bins.filter((bin) => bin.count);
    return { name: isOne ? "" : run.name, x: bins.map((bin) => bin.score), y: bins.map((bin) => bin.precision),
      color: colorOf(run.position), dots: true };
  });
  byId("quality").hidden = false;
  byId("quality-charts").append(
    chart({ title: "Precision against recall (IoU 0.50)", lines: precision, xName: "recall", ...unit }),
    chart({ title: isOne ? "Which threshold" : "F1 against the threshold", lines: scores,
      xName: "score from", ...unit }),
    chart({ title: "Share that is right against score", lines: right, xName: "score", diagonal: true, ...unit }));
}

function showTraining() {
  const panels = data.panels.filter((panel) => panel.lines.length);
  if (!data.everything.some((panel) => panel.lines.length)) return;
  byId("training").hidden = false;
  byId("training-charts").append(...panels.map((panel) => trainingChart(panel, false)));
  byId("everything").addEventListener("toggle", (event) => {
    const place = event.target.querySelector(".charts");
    if (!place.children.length) {
      place.append(...data.everything.filter((panel) => panel.lines.length).map((panel) => trainingChart(panel, true)));
    }
  });
}

function showQueries() {
  const places = data.gallery ? data.gallery.queries : [];
  byId("queries").hidden = !places.length;
  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  byId("query-charts").append(...places.map(({ query, boxes, scores }) => {
    const drawing = make("svg", { role: "img", "aria-label": `Query ${query}` });
    boxes.forEach(([x, y, width, height], at) => {
      const isLarge = width * height > 0.02; // of the image's area
      const [kind, wide, high] = !isLarge ? ["small", 4, 4] : width > height ? ["wide", 9, 3] : ["tall", 3, 9];
      drawing.append(make("rect", { class: `shape ${kind}`, x: percent(x), y: percent(y), width: wide,
        height: high, rx: 2,
        transform: `translate(${-wide / 2} ${-high / 2})`, opacity: (0.15 + 0.85 * scores[at]).toFixed(2) }));
    });
    return make("figure", {}, drawing, make("figcaption", {}, `query ${query}`));
  }));
}

const THEME = "detr-report-theme"; // where the browser keeps the choice

function showTheme() {
  const root = document.documentElement;
  const saved = (() => { try { return localStorage.getItem(THEME); } catch { return null; } })();
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.style.colorScheme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { byId("theme-name").textContent = isDark() ? "Light" : "Dark"; };
  if (saved === "dark" || saved === "light") root.style.colorScheme = saved;
  byId("theme").addEventListener("click", () => {
    root.style.colorScheme = isDark() ? "light" : "dark";
    try { localStorage.setItem(THEME, root.style.colorScheme); } catch { /* a file may have no storage */ }
    name();
  });
  system.addEventListener("change", name);
  name();
}

function showNavigation() {
  const sections = [...document.querySelectorAll("main > section:not([hidden])")]
    .filter((one) => one.querySelector("h2"));
  byId("nav").append(...sections.map((one) => make("a", { href: `#${one.id}` }, one.querySelector("h2").textContent)));
}
