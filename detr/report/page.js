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
const colorOf = (position) => (position === 0 ? "var(--accent)" : `var(--run${1 + ((position - 1) % 6)})`);

const measured = data.runs.map((run, position) => ({ ...run, position })).filter((run) => run.metrics);
const first = data.runs[0].metrics;

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
  const best = first.f1;
  const error = first.calibration.expected_error;
  const big = (name, value, detail, range) => make("div", { class: "number" }, make("p", { class: "name" }, name),
    make("p", { class: "value" }, number(value)), value === null ? "" : range || "",
    make("p", { class: "detail" }, detail));
  return make("div", { class: "numbers" },
    ...["AP", "AP50"].map((key) => big(key === "AP" ? "AP, IoU 0.50 to 0.95" : "AP50, IoU 0.50", first.coco[key],
      intervalOf(first, key), rangeOf(first.coco[key], first.interval[key]))),
    big("Best F1", best.f1, best.f1 === null ? "no true positive"
      : `at score ${number(best.threshold)}: precision ${number(best.precision)}, recall ${number(best.recall)}`,
    rangeOf(best.f1)),
    big("Calibration error", error, "mean distance between the scores and precision", rangeOf(error)));
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
        withInterval("AP50"), cellOf(numbers && numbers.f1.f1),
        cellOf(numbers && numbers.f1.threshold),
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

// ----------------------------------------------------------------------------------------------- classes and errors

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
}

function showErrors() {
  if (!measured.length) return;
  byId("errors").hidden = false;
  byId("errors-note").textContent = `${
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
  byId("errors-table").append(table(["Kind", ...heads, "What it is"], rows));
}

/** Sections of charts, which the page already holds. */
function showCharts() {
  for (const id of ["confusion", "quality", "queries", "training", "everything"]) {
    byId(id).hidden = !byId(id).querySelector(".chart");
  }
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
