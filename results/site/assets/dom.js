"use strict";
// Elements from text: whatever a record says becomes text, never markup.
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) {
        node.setAttribute(name, "");
      } else if (value !== false && value !== null && value !== undefined) {
        node.setAttribute(name, String(value));
      }
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }

  const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  const KINDS = {
    baseline: "baseline",
    quantization: "quantization",
    pruning: "pruning",
    distillation: "distillation",
    combined: "combined",
    other: "other method",
  };
  const SHAPES = {
    baseline: ["path", { d: "M6 1v10M1 6h10", class: "stroke" }],
    quantization: ["circle", { cx: 6, cy: 6, r: 4.4 }],
    pruning: ["path", { d: "M6 1.2 11 10.4H1Z" }],
    distillation: ["rect", { x: 1.8, y: 1.8, width: 8.4, height: 8.4 }],
    combined: ["path", { d: "M6 .6 11.4 6 6 11.4.6 6Z" }],
    other: ["path", { d: "M2 2l8 8M10 2l-8 8", class: "stroke" }],
  };

  // the same shape and colour as in the plots; its name stands beside it or in its label
  function kindMark(kind, isLabelled = true) {
    const [tag, attributes] = SHAPES[kind];
    const label = isLabelled ? { role: "img", "aria-label": KINDS[kind] } : { "aria-hidden": "true" };
    return svg("svg", { viewBox: "0 0 12 12", class: `kind kind-${kind}`, ...label }, svg(tag, attributes));
  }

  // one note for all: a click or a key shows it beside what it is about
  function showNote(anchor, text) {
    const note = document.getElementById("note");
    note.textContent = text;
    if (!note.matches(":popover-open")) {
      note.showPopover();
    }
    const place = anchor.getBoundingClientRect();
    const left = Math.min(place.left, document.documentElement.clientWidth - note.offsetWidth - 12);
    const isBelow = place.bottom + note.offsetHeight + 12 < window.innerHeight;
    note.style.left = `${Math.max(12, left)}px`;
    note.style.top = `${isBelow ? place.bottom + 6 : Math.max(12, place.top - note.offsetHeight - 6)}px`;
  }

  Object.assign(window.compressbench, { el, svg, kindMark, showNote, kindNames: KINDS });
})();
