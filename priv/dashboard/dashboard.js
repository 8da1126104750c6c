// The dashboard's script: fetches what has changed, and draws plots. It talks to the dashboard and nobody else.
"use strict";

const RETRY_MS = 2000;
const KEPT_ROWS = 200;
const MINUTES = 10;
const SVG = "http://www.w3.org/2000/svg";

const clock = (at) => new Date(at).toLocaleTimeString([], { hourCycle: "h23" });

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// While the page cannot be seen nothing is asked.
const seen = () =>
  document.hidden ? new Promise((done) => document.addEventListener("visibilitychange", done, { once: true })) : null;

// -- What is told

function say(text) {
  const line = document.getElementById("say");
  if (line.textContent !== text) line.textContent = text;
}

function connected(yes) {
  const lost = document.getElementById("lost");
  if (lost.hidden !== yes) {
    lost.hidden = yes;
    lost.textContent = yes ? "" : "The dashboard does not answer. Trying again ...";
  }
}

// The text at an address; null when there was none. Without a token any more, the page asks for one.
async function ask(address) {
  try {
    const answer = await fetch(address, { credentials: "same-origin", cache: "no-store" });
    if (answer.status === 401) return location.reload(), null;
    connected(true);
    return answer.ok ? await answer.text() : null;
  } catch {
    connected(false);
    return null;
  }
}

// -- Parts that are fetched again and again

async function refresh(part) {
  for (;;) {
    await sleep(Number(part.dataset.every));
    await seen();
    const html = await ask(part.dataset.live);
    // A link of it that has the focus keeps it until it is left.
    if (html !== null && html !== part.innerHTML && !part.contains(document.activeElement)) part.innerHTML = html;
    tell(part);
  }
}

let told = null;

// Screen readers hear what the state is when it changes, and nothing else.
function tell(part) {
  const state = part.querySelector("[data-say]");
  if (!state || state.dataset.say === told) return;
  if (told !== null) say(state.dataset.say);
  told = state.dataset.say;
}

// -- Changes

async function follow(list) {
  const pause = document.getElementById("pause");
  const watching = document.getElementById("watching");
  let after = list.dataset.after;
  let paused = false;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
  });
  times(list);

  for (;;) {
    await seen();
    const html = paused ? undefined : await ask(`${list.dataset.changes}&after=${after}`);
    if (html) {
      const answer = new DOMParser().parseFromString(html, "text/html").querySelector("[data-after]");
      after = answer.dataset.after;
      watching.textContent = answer.dataset.watching;
      const rows = [...answer.querySelectorAll("li")];
      rows.forEach((row) => row.classList.add("new"));
      list.prepend(...rows);
      times(list);
      while (list.children.length > KEPT_ROWS) list.lastElementChild.remove();
    }
    await sleep(html === null ? RETRY_MS : 250);
  }
}

function times(list) {
  for (const time of list.querySelectorAll("time:not(.local)")) {
    time.textContent = clock(time.dateTime);
    time.classList.add("local");
  }
}

// -- Plots

const units = {
  rate: (value) => (value >= 10 || value === 0 ? Math.round(value).toLocaleString("en") : value.toFixed(1)),
  time: (value) => {
    if (value === 0) return "0";
    if (value >= 1e6) return `${+(value / 1e6).toPrecision(3)} s`;
    if (value >= 1e3) return `${+(value / 1e3).toPrecision(3)} ms`;
    return `${Math.round(value)} µs`;
  },
};

// A round number at or above a value.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

function make(parent, name, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return parent.appendChild(element);
}

class Plot {
  constructor(figure) {
    this.figure = figure;
    this.unit = units[figure.dataset.unit];
    this.columns = figure.dataset.columns.split(" ").map(Number);
    this.outputs = [...figure.querySelectorAll(".now")];
    this.names = [...figure.querySelectorAll(".legend li")].map((item) => item.children[1].textContent);
    this.canvas = figure.querySelector(".canvas");
    this.rows = [];
    // Steps back from the newest row; null without a cursor.
    this.cursor = null;
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  listen() {
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.move(null));
    this.canvas.addEventListener("blur", () => this.move(null));
    this.canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: 10, ArrowRight: -10, Home: 1e6, End: -1e6 }[event.key];
      if (event.key === "Escape") this.move(null);
      if (steps === undefined) return;
      event.preventDefault();
      this.move(Math.min(Math.max((this.cursor ?? 0) + steps, 0), this.rows.length - 1));
      say(this.words());
    });
  }

  point(x) {
    if (!this.rows.length) return;
    const at = this.from + ((x - this.left) / this.width) * MINUTES * 60000;
    const distance = (row) => Math.abs(row[0] - at);
    const nearest = this.rows.reduce((best, row, i) => (distance(row) < distance(this.rows[best]) ? i : best), 0);
    this.move(this.rows.length - 1 - nearest);
  }

  move(cursor) {
    if (cursor === this.cursor) return;
    this.cursor = cursor;
    this.draw();
  }

  row() {
    return this.rows[this.rows.length - 1 - (this.cursor ?? 0)];
  }

  text(value) {
    return value === null || value === undefined ? "–" : this.unit(value);
  }

  words() {
    const row = this.row();
    if (!row) return "";
    const at = this.cursor === null ? "now" : `at ${clock(row[0])}`;
    return `${at}: ${this.columns.map((column, i) => `${this.names[i]} ${this.text(row[column])}`).join("; ")}`;
  }

  draw() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return;
    this.now = this.rows.length ? this.rows[this.rows.length - 1][0] : Date.now();
    this.from = this.now - MINUTES * 60000;
    this.left = 52;
    this.width = clientWidth - this.left - 8;
    this.top = 8;
    this.height = clientHeight - this.top - 20;
    this.scale();

    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${clientWidth} ${clientHeight}`);
    svg.setAttribute("aria-hidden", "true");
    this.axes(svg);
    this.columns.forEach((column, i) => this.curve(svg, column, i));
    if (this.cursor !== null) this.mark(svg);
    this.canvas.replaceChildren(svg);

    this.columns.forEach((column, i) => (this.outputs[i].textContent = this.text(this.row()?.[column])));
    const title = this.figure.querySelector("h2").textContent;
    this.canvas.setAttribute("aria-label", `${title}, the last ten minutes; ${this.words()}. Arrow keys go back in time.`);
  }

  // Rates begin at 0. Times are on a logarithmic scale: one that took long must not hide the others.
  scale() {
    const values = this.rows.flatMap((row) => this.columns.map((column) => row[column])).filter((value) => value > 0);
    if (this.unit === units.time) {
      this.min = 10 ** Math.floor(Math.log10(Math.min(...values, 1e3)));
      this.max = 10 ** Math.ceil(Math.log10(Math.max(...values, this.min * 100)));
      const decades = Math.round(Math.log10(this.max / this.min));
      this.ticks = Array.from({ length: decades + 1 }, (_, i) => this.min * 10 ** i);
    } else {
      this.max = ceiling(Math.max(...values, 1));
      this.ticks = [0, this.max / 2, this.max];
    }
  }

  x(at) {
    return this.left + ((at - this.from) / (MINUTES * 60000)) * this.width;
  }

  y(value) {
    const part =
      this.unit === units.time
        ? Math.log10(Math.max(value, this.min) / this.min) / Math.log10(this.max / this.min)
        : value / this.max;
    return this.top + (1 - part) * this.height;
  }

  axes(svg) {
    for (const tick of this.ticks) {
      const y = this.y(tick);
      make(svg, "line", { class: "grid", x1: this.left, x2: this.left + this.width, y1: y, y2: y });
      make(svg, "text", { x: this.left - 8, y: y + 4, "text-anchor": "end" }, this.unit(tick));
    }
    const bottom = this.top + this.height + 16;
    for (const minutes of [10, 5, 0]) {
      const anchor = { 10: "start", 5: "middle", 0: "end" }[minutes];
      const at = this.x(this.now - minutes * 60000);
      make(svg, "text", { x: at, y: bottom, "text-anchor": anchor }, minutes ? `${minutes} min ago` : "now");
    }
  }

  // Where nothing is known, a curve ends, and begins again behind it.
  curve(svg, column, i) {
    const parts = [[]];
    let before = null;
    for (const row of this.rows) {
      const known = row[column] !== null && row[0] >= this.from;
      if (!known || (before && row[0] - before > 5000)) parts.push([]);
      if (known) parts[parts.length - 1].push([this.x(row[0]).toFixed(1), this.y(row[column]).toFixed(1)]);
      before = row[0];
    }
    for (const part of parts.filter((part) => part.length)) {
      const line = part.map((point) => point.join(" ")).join("L");
      const floor = this.y(0).toFixed(1);
      if (i === 0)
        make(svg, "path", {
          class: `area series-${i}`,
          d: `M${part[0][0]} ${floor}L${line}L${part[part.length - 1][0]} ${floor}Z`,
        });
      if (part.length > 1) make(svg, "path", { class: `curve series-${i}`, d: `M${line}` });
      else make(svg, "circle", { class: `spot series-${i}`, cx: part[0][0], cy: part[0][1], r: 1.5 });
    }
  }

  mark(svg) {
    const row = this.row();
    if (!row) return;
    const x = this.x(row[0]);
    make(svg, "line", { class: "cursor", x1: x, x2: x, y1: this.top, y2: this.top + this.height });
    this.columns.forEach((column, i) => {
      if (row[column] !== null) make(svg, "circle", { class: `spot series-${i}`, cx: x, cy: this.y(row[column]), r: 3.5 });
    });
    const anchor = x > this.left + this.width / 2 ? ["end", x - 6] : ["start", x + 6];
    make(svg, "text", { x: anchor[1], y: this.top + 10, "text-anchor": anchor[0] }, clock(row[0]));
  }
}

async function sample(plots) {
  let rows = [];
  for (;;) {
    await seen();
    const after = rows.length ? rows[rows.length - 1][0] : 0;
    const text = await ask(`/activity/samples?after=${after}`);
    if (text) {
      rows = rows.concat(JSON.parse(text).rows);
      const from = (rows.length ? rows[rows.length - 1][0] : 0) - MINUTES * 60000;
      rows = rows.filter((row) => row[0] >= from);
      plots.forEach((plot) => plot.show(rows));
    }
    await sleep(text === null ? RETRY_MS : 1000);
  }
}

// -- Begin

// On a phone not all views are in sight.
document.querySelector("header [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

for (const part of document.querySelectorAll("[data-live]")) {
  tell(part);
  refresh(part);
}
const changes = document.getElementById("changes");
if (changes) follow(changes);
const plots = [...document.querySelectorAll(".plot")].map((figure) => new Plot(figure));
if (plots.length) sample(plots);
