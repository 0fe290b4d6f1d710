"use strict";
// Which rows are shown: by words, by the metric's verdict, by badge, and whether only those on a front.
(() => {
  const { el } = window.compressbench;

  const counted = (values) => {
    const found = new Map();
    values.forEach((value) => found.set(value, (found.get(value) ?? 0) + 1));
    return found;
  };

  function chips(legend, name, counts, onChange) {
    if (counts.size < 2) {
      return null;
    }
    const boxes = [...counts].map(([value, count]) => {
      const box = el("input", { type: "checkbox", name, value });
      box.addEventListener("change", onChange);
      return el("label", { class: "chip" }, box, el("span", {}, value), el("span", { class: "count" }, String(count)));
    });
    return el("fieldset", {}, el("legend", {}, legend), ...boxes);
  }

  class Filters {
    constructor(form, onChange) {
      this.form = form;
      this.onChange = onChange;
      form.addEventListener("submit", (event) => event.preventDefault());
    }

    use(rows, metric, isOnFront) {
      Object.assign(this, { metric, isOnFront });
      const words = this.search?.value ?? "";
      this.search = el("input", { type: "search", placeholder: "name, method or recipe", autocomplete: "off" });
      this.search.value = words;
      this.search.addEventListener("input", this.onChange);
      this.front = el("input", { type: "checkbox" });
      this.front.addEventListener("change", this.onChange);
      const verdicts = counted(rows.map((row) => row.metrics[metric].verdict).filter(Boolean));
      const badges = counted(rows.flatMap((row) => row.badges));
      this.form.replaceChildren(
        el("label", { class: "field" }, "Find ", this.search),
        ...[chips("Verdict", "verdict", verdicts, this.onChange), chips("Badge", "badge", badges, this.onChange)].filter(
          Boolean),
        el("label", { class: "chip" }, this.front, el("span", {}, "only what is on a front")),
      );
    }

    chosen(name) {
      return new Set([...this.form.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value));
    }

    apply(rows) {
      const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const verdicts = this.chosen("verdict");
      const badges = this.chosen("badge");
      return rows.filter(
        (row) =>
          words.every((word) => row.text.includes(word)) &&
          (verdicts.size === 0 || verdicts.has(row.metrics[this.metric].verdict)) &&
          (badges.size === 0 || row.badges.some((badge) => badges.has(badge))) &&
          (!this.front.checked || this.isOnFront(row)),
      );
    }
  }

  Object.assign(window.compressbench, { Filters });
})();
