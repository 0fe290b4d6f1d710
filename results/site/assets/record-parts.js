// Parts of a page made of elements and text: whatever a record says stays text.
"use strict";

compressbench.recordParts = (() => {
  // make("p", { class: "x" }, "text", node, null): attributes, then children; what is null or "" is left out
  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
    }
    add(node, ...children);
    return node;
  }

  function add(node, ...children) {
    for (const child of children.flat()) {
      if (child !== null && child !== undefined && child !== "") node.append(child);
    }
    return node;
  }

  // a table with a caption, column heads, and a row head in each first cell; a cell is a text, a node, or a list of both
  function table({ caption, heads, rows, className = "", isCaptionShown = false, scrollClass = "" }) {
    const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
    const body = rows.map((cells) =>
      make("tr", {}, cells.map((cell, at) => {
        const isHead = at === 0;
        return make(isHead ? "th" : "td", isHead ? { scope: "row" } : { "data-head": heads[at] }, cell);
      }))
    );
    const captionNode = make("caption", { class: isCaptionShown ? "" : "record-hidden" }, caption);
    const grid = make("table", { class: className }, captionNode, make("thead", {}, head), make("tbody", {}, body));
    return make("div", { class: `record-scroll ${scrollClass}`.trim(), role: "region", "aria-label": caption, tabindex: "0" }, grid);
  }

  function pairs(items, className = "") {
    const list = make("dl", { class: `record-pairs ${className}`.trim() });
    for (const [name, value] of items) {
      const isMissing = value === "not readable";
      add(list, make("div", {}, make("dt", {}, name), make("dd", { class: isMissing ? "record-missing" : null }, value)));
    }
    return list;
  }

  function section(id, title, ...children) {
    const heading = make("h2", { id: `${id}-title`, tabindex: "-1" }, title);
    return make("section", { class: "record-section", id: `section-${id}`, "aria-labelledby": `${id}-title` }, heading, ...children);
  }

  function notice(tone, title, lines) {
    const items = lines.length === 1 ? make("p", {}, lines[0]) : make("ul", {}, lines.map((line) => make("li", {}, line)));
    return make("div", { class: `record-notice record-notice-${tone}` }, make("p", { class: "record-notice-title" }, title), items);
  }

  function details(summary, ...children) {
    return make("details", { class: "record-more" }, make("summary", {}, summary), ...children);
  }

  async function copy(source, said) {
    const text = source.textContent;
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "Copied";
    } catch {
      // no clipboard on this page: what is selected can still be copied by hand
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      said.textContent = "Selected; press Ctrl+C";
    }
    window.setTimeout(() => { said.textContent = ""; }, 4000);
  }

  // a text with a button that copies it; `what` is for those who hear the button only
  function copyable(text, what, { tag = "pre", className = "" } = {}) {
    const isBlock = tag === "pre";
    const code = make("code", {}, text);
    const shown = isBlock ? make("pre", { class: className, tabindex: "0", role: "region", "aria-label": what }, code) : make(tag, { class: className }, code);
    const said = make("span", { class: "record-said", role: "status" });
    const button = make("button", { type: "button", class: "record-copy", "aria-label": `Copy ${what}` }, "Copy");
    button.addEventListener("click", () => copy(code, said));
    return make("div", { class: isBlock ? "record-copyable" : "record-copyable record-inline" }, shown, make("div", { class: "record-copy-bar" }, said, button));
  }

  return { make, add, table, pairs, section, notice, details, copyable };
})();
