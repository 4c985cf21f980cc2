"use strict";
// Tables, sections and theme. What comes from the data only ever becomes text, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const isDrawn = ["svg", "g", "path", "rect", "circle", "text"].includes(tag);
  const element = isDrawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(element.style, value); // the page's policy forbids the attribute
    else element.setAttribute(name, value);
  }
  element.append(...children.flat());
  return element;
}

const number = (value, digits = 3) => (value === null ? "-" : value.toFixed(digits));
const whole = (value) => value.toLocaleString("en");
const counted = (value, what) => `${whole(value)} ${what}${value === 1 ? "" : "s"}`;
// ------------------------------------------------------------------------------------------------------------- tables

/** Sort a table's rows by `data-value` when its heads are clicked. */
function makeSortable(table) {
  const columns = [...table.querySelectorAll("th")];
  columns.forEach((cell, column) => cell.firstElementChild.addEventListener("click", () => {
    const isDown = cell.ariaSort !== (column ? "descending" : "ascending") === (column > 0);
    for (const other of columns) other.ariaSort = "none";
    cell.ariaSort = isDown ? "descending" : "ascending";
    const value = (row) => row.cells[column].dataset.value;
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => {
      const [one, two] = [value(a), value(b)];
      if (one === undefined || two === undefined) return (one === undefined) - (two === undefined); // comes last
      return (isDown ? -1 : 1) * (Number.isNaN(Number(one)) ? one.localeCompare(two) : one - two);
    }));
  }));
}

/** Show the sections that have something to show. */
function showSections() {
  document.querySelectorAll("main > section:not(#gallery), #coco, #confusion, #everything").forEach((one) => {
    one.hidden = !one.querySelector(".chart, table, .number");
  });
  document.querySelectorAll("table").forEach(makeSortable);
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
  byId("nav").hidden = sections.length < 2;
  byId("nav").append(...sections.map((one) => make("a", { href: `#${one.id}` }, one.querySelector("h2").textContent)));
}
