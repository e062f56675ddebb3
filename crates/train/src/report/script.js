// Shows the values under the pointer, or under the arrow keys. Without it the charts still read.
"use strict";

const svgNamespace = "http://www.w3.org/2000/svg";
const format = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });

function show(value) {
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2) : format.format(value);
}

// Index of the point whose x is nearest; points are in order of x.
function nearest(points, x) {
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - points[low - 1][0] < points[low][0] - x ? low - 1 : low;
}

function element(name, attributes) {
  const made = document.createElementNS(svgNamespace, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function attach(figure) {
  const svg = figure.querySelector("svg");
  if (!svg) return;
  const { plot: [left, top, right, bottom], x, y, xLog, log, xName, series } = JSON.parse(figure.dataset.chart);
  const lengthOn = (log) => (log ? (value) => Math.log10(Math.max(value, Number.MIN_VALUE)) : (value) => value);
  const [alongX, along] = [lengthOn(xLog), lengthOn(log)];
  const share = (value) => (alongX(value) - alongX(x[0])) / (alongX(x[1]) - alongX(x[0]));
  const xAt = (value) => left + share(value) * (right - left);
  const valueAt = (px) => {
    const length = alongX(x[0]) + ((px - left) / (right - left)) * (alongX(x[1]) - alongX(x[0]));
    return xLog ? 10 ** length : length;
  };
  const yAt = (value) =>
    bottom - Math.min(1, Math.max(0, (along(value) - along(y[0])) / (along(y[1]) - along(y[0])))) * (bottom - top);

  // A title inside the SVG would pop up over the values.
  svg.setAttribute("aria-label", svg.querySelector("title").textContent);
  svg.setAttribute("aria-describedby", svg.querySelector("desc").id);
  svg.removeAttribute("aria-labelledby");
  svg.querySelector("title").remove();
  svg.setAttribute("tabindex", "0");

  const cursor = svg.querySelector(".cursor");
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  figure.append(tip);
  const longest = series.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points;
  let current = longest.length - 1;

  function hide() {
    tip.hidden = true;
    cursor.replaceChildren();
  }

  function point(at) {
    current = at;
    const [value] = longest[at];
    const px = xAt(value);
    cursor.replaceChildren(element("line", { x1: px, x2: px, y1: top, y2: bottom }));
    const head = document.createElement("b");
    head.textContent = `${xName} ${show(value)}`;
    const list = document.createElement("ul");
    // Sparse series speak up only near one of their own points.
    const reach = 12;
    for (const { name, style, points } of series) {
      const [pointX, pointY] = points[nearest(points, value)];
      if (Math.abs(xAt(pointX) - px) > reach) continue;
      const item = document.createElement("li");
      item.className = style;
      item.textContent = series.length > 1 ? `${name}: ${show(pointY)}` : show(pointY);
      list.append(item);
      if (style !== "raw") cursor.append(element("circle", { class: style, cx: xAt(pointX), cy: yAt(pointY), r: 4 }));
    }
    tip.replaceChildren(head, list);
    tip.hidden = false;

    const box = svg.getBoundingClientRect();
    const frame = figure.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const anchor = box.left - frame.left + figure.scrollLeft + px * scale;
    const flips = anchor + 16 + tip.offsetWidth > figure.scrollLeft + frame.width;
    const offset = flips ? anchor - 16 - tip.offsetWidth : anchor + 16;
    tip.style.transform = `translate(${Math.max(4, offset)}px, ${box.top - frame.top + (top + 4) * scale}px)`;
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    point(nearest(longest, valueAt(px)));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const stride = Math.max(1, Math.round(longest.length / 100));
    const step = { ArrowLeft: -stride, ArrowRight: stride }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    point(Math.min(longest.length - 1, Math.max(0, current + (tip.hidden ? 0 : step))));
  });
}

document.querySelectorAll(".chart").forEach(attach);
