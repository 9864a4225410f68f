// The scatter plots: a canvas for each target and kind, zoomed by wheel, drag, buttons and keys. No library.
"use strict";

const data = JSON.parse(document.getElementById("points").textContent);
const chooser = document.getElementById("predictions-of");
const MARGIN = { left: 58, right: 12, top: 14, bottom: 42 };

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const shown = (value) => String(Number(value.toPrecision(4)));

function ticks(low, high, most) {
  const rough = (high - low) / most;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = size * [1, 2, 5, 10].find((factor) => size * factor >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

class Scatter {
  constructor(figure) {
    this.canvas = figure.querySelector("canvas");
    this.output = figure.querySelector("output");
    this.target = Number(figure.dataset.target);
    this.isResidual = figure.dataset.kind === "residual";
    this.place = -1; // among the points by size of their residual
    this.chosen = null;
    for (const button of figure.querySelectorAll("button")) {
      button.addEventListener("click", () => this.act(button.dataset.act));
    }
    this.listen();
    this.load();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  load() {
    const truth = data.truth[this.target];
    const predicted = data.predictions[chooser.value][this.target];
    this.points = [];
    truth.forEach((y, i) => {
      if (y === null || predicted[i] === null) return;
      const residual = y - predicted[i];
      const [px, py] = this.isResidual ? [predicted[i], residual] : [predicted[i], y];
      this.points.push({ i, x: px, y: py, truth: y, predicted: predicted[i], residual });
    });
    this.bySize = [...this.points].sort((a, b) => Math.abs(b.residual) - Math.abs(a.residual));
    this.home = this.extent();
    this.select(null);
    this.act("reset");
  }

  extent() {
    const range = (values) => {
      const low = Math.min(...values), high = Math.max(...values);
      const pad = (high - low || Math.abs(high) || 1) * 0.05;
      return [low - pad, high + pad];
    };
    const xs = this.points.map((p) => p.x), ys = this.points.map((p) => p.y);
    if (!xs.length) return { x: [0, 1], y: [0, 1] };
    if (this.isResidual) return { x: range(xs), y: range([...ys, 0]) };
    const both = range([...xs, ...ys]); // the same scale, so that the diagonal is one
    return { x: [...both], y: [...both] };
  }

  get size() {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  toScreen(x, y) {
    const { width, height } = this.size, { x: [x0, x1], y: [y0, y1] } = this.view;
    return [
      MARGIN.left + ((x - x0) / (x1 - x0)) * (width - MARGIN.left - MARGIN.right),
      height - MARGIN.bottom - ((y - y0) / (y1 - y0)) * (height - MARGIN.top - MARGIN.bottom),
    ];
  }

  toData(left, top) {
    const { width, height } = this.size, { x: [x0, x1], y: [y0, y1] } = this.view;
    return [
      x0 + ((left - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) * (x1 - x0),
      y0 + ((height - MARGIN.bottom - top) / (height - MARGIN.top - MARGIN.bottom)) * (y1 - y0),
    ];
  }

  zoom(factor, centre) {
    const middle = { x: (this.view.x[0] + this.view.x[1]) / 2, y: (this.view.y[0] + this.view.y[1]) / 2 };
    const at = centre ? { x: centre[0], y: centre[1] } : middle;
    for (const axis of ["x", "y"]) {
      const width = (this.view[axis][1] - this.view[axis][0]) * factor;
      const home = this.home[axis][1] - this.home[axis][0];
      if (width > home * 4 || width < home / 5000) return;
    }
    for (const axis of ["x", "y"]) this.view[axis] = this.view[axis].map((end) => at[axis] + (end - at[axis]) * factor);
    this.draw();
  }

  move(dx, dy) {
    const shift = (ends, share) => ends.map((end) => end + share * (ends[1] - ends[0]));
    this.view = { x: shift(this.view.x, dx), y: shift(this.view.y, dy) };
    this.draw();
  }

  act(name) {
    const actions = {
      in: () => this.zoom(0.7),
      out: () => this.zoom(1 / 0.7),
      reset: () => { this.view = { x: [...this.home.x], y: [...this.home.y] }; this.draw(); },
      next: () => this.step(1),
      previous: () => this.step(-1),
    };
    actions[name]();
  }

  step(by) {
    if (!this.bySize.length) return;
    this.place = Math.min(Math.max(this.place + by, 0), this.bySize.length - 1);
    this.select(this.bySize[this.place]);
  }

  select(point) {
    this.chosen = point;
    this.output.textContent = point
      ? `${data.ids[point.i]}: truth ${shown(point.truth)}, prediction ${shown(point.predicted)}, ` +
        `residual ${shown(point.residual)}, fold ${data.folds[point.i]}`
      : "";
    if (this.view) this.draw();
  }

  nearest(left, top) {
    let best = null, least = 14 ** 2;
    for (const point of this.points) {
      const [x, y] = this.toScreen(point.x, point.y);
      const distance = (x - left) ** 2 + (y - top) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  listen() {
    const canvas = this.canvas;
    let from = null;
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // else the page could not be scrolled
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, this.toData(event.offsetX, event.offsetY));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => { from = [event.offsetX, event.offsetY]; });
    canvas.addEventListener("pointermove", (event) => {
      if (from && event.buttons) {
        canvas.setPointerCapture(event.pointerId);
        const { width, height } = this.size;
        this.move(
          (from[0] - event.offsetX) / (width - MARGIN.left - MARGIN.right),
          (event.offsetY - from[1]) / (height - MARGIN.top - MARGIN.bottom),
        );
        from = [event.offsetX, event.offsetY];
      } else {
        const point = this.nearest(event.offsetX, event.offsetY);
        if (point && point !== this.chosen) this.select(point);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { from = null; });
    canvas.addEventListener("click", (event) => {
      const point = this.nearest(event.offsetX, event.offsetY);
      if (point) this.select(point);
    });
    canvas.addEventListener("dblclick", () => this.act("reset"));
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
      const actions = { "+": "in", "=": "in", "-": "out", 0: "reset", n: "next", p: "previous" };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (moves[event.key]) this.move(...moves[event.key]);
      else if (actions[event.key]) this.act(actions[event.key]);
      else return;
      event.preventDefault();
    });
  }

  draw() {
    const { width, height } = this.size, scale = window.devicePixelRatio || 1;
    if (!width) return;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const [ink, quiet, hairline, blue, orange] =
      ["--ink", "--quiet", "--hairline", "--blue", "--orange"].map(colour);
    const right = width - MARGIN.right, bottom = height - MARGIN.bottom;
    pen.font = "12px system-ui, sans-serif";
    pen.lineWidth = 1;
    pen.strokeStyle = hairline;
    pen.fillStyle = quiet;
    pen.textAlign = "center";
    for (const tick of ticks(...this.view.x, width / 90)) {
      const [x] = this.toScreen(tick, 0);
      line(pen, x, MARGIN.top, x, bottom);
      pen.fillText(shown(tick), x, bottom + 16);
    }
    pen.fillText("prediction", (MARGIN.left + right) / 2, height - 6);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const tick of ticks(...this.view.y, height / 60)) {
      const [, y] = this.toScreen(0, tick);
      line(pen, MARGIN.left, y, right, y);
      pen.fillText(shown(tick), MARGIN.left - 6, y);
    }
    pen.save();
    pen.translate(10, (MARGIN.top + bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(this.isResidual ? "truth − prediction" : "truth", 0, 0);
    pen.restore();

    pen.save();
    pen.beginPath();
    pen.rect(MARGIN.left, MARGIN.top, right - MARGIN.left, bottom - MARGIN.top);
    pen.clip();
    pen.strokeStyle = quiet;
    pen.setLineDash([5, 4]);
    const [x0, x1] = this.view.x;
    line(pen, ...this.toScreen(x0, this.isResidual ? 0 : x0), ...this.toScreen(x1, this.isResidual ? 0 : x1));
    pen.setLineDash([]);
    pen.fillStyle = blue;
    pen.globalAlpha = this.points.length > 500 ? 0.4 : 0.6;
    for (const point of this.points) dot(pen, this.toScreen(point.x, point.y), 2.5);
    pen.globalAlpha = 1;
    if (this.chosen) {
      const at = this.toScreen(this.chosen.x, this.chosen.y);
      pen.fillStyle = orange;
      dot(pen, at, 4);
      pen.strokeStyle = ink;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.arc(...at, 8, 0, 2 * Math.PI);
      pen.stroke();
    }
    pen.restore();
    this.canvas.dataset.points = this.points.length;
  }
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

function dot(pen, [x, y], radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

const plots = [...document.querySelectorAll("figure.plot")].map((figure) => new Scatter(figure));
chooser.addEventListener("change", () => plots.forEach((plot) => plot.load()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => plot.draw()));
