// The page of one record: reads its id behind the #, loads the file that holds it, and shows it.
"use strict";

(() => {
  const { make, add } = compressbench.recordParts;
  const sections = compressbench.recordSections;
  const evidence = compressbench.recordEvidence;
  const charts = compressbench.recordCharts;
  const page = document.getElementById("record");
  const status = document.getElementById("record-status");
  let shown = null;

  function idOfPage() {
    const text = window.location.hash.slice(1);
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }

  function say(text) {
    status.hidden = !text;
    status.textContent = text;
    page.hidden = Boolean(text);
  }

  async function open() {
    const id = idOfPage();
    if (!id) return say("This address names no record. Choose one in the list of all records.");
    let record;
    try {
      record = await compressbench.record(id, Number(page.dataset.numBuckets) || 1);
    } catch {
      // told below: a record that isn't there and a file that isn't there are one thing to a reader
    }
    if (id !== idOfPage()) return undefined;
    if (!record) return say(`There is no record “${id}” on this site. It may have been left out, or the address was cut.`);
    try {
      show(record);
    } catch (error) {
      say(`The record “${id}” can't be shown: ${error.message}`);
    }
    return undefined;
  }

  // buttons, not anchors: what stands behind the # is the record
  function navigation(parts) {
    const items = parts.map((part) => {
      const heading = part.querySelector("h2");
      const button = make("button", { type: "button" }, part.dataset.short || heading.textContent);
      button.addEventListener("click", () => {
        heading.scrollIntoView({ block: "start" });
        heading.focus({ preventScroll: true });
      });
      return make("li", {}, button);
    });
    return make("nav", { class: "record-nav", "aria-label": "Sections of this record" }, make("ul", {}, items));
  }

  function show({ row, detail }) {
    const parts = [
      ["Numbers", sections.numbers(row)],
      ["Audit", sections.audit(row, detail)],
      ["Latency", sections.latency(row, detail)],
      ["Answers", evidence.answers(row, detail)],
      ["Steps", evidence.made(detail)],
      ["Reproduce", evidence.again(detail)],
      ["Environment", evidence.environment(detail)],
      ["Conditions", evidence.conditions(row, detail)]
    ].filter(([, part]) => part);
    for (const [short, part] of parts) part.dataset.short = short;
    charts.clear();
    page.replaceChildren();
    add(page, sections.head(row, detail, window.location.href), navigation(parts.map(([, part]) => part)), ...parts.map(([, part]) => part));
    document.title = `${row.candidate} · ${row.recipe}`;
    say("");
    shown = { row, detail };
    draw();
  }

  function draw() {
    if (!shown) return;
    const [histogramCanvas, runCanvas] = ["record-histogram", "record-run"].map((id) => document.getElementById(id));
    charts.draw({ histogramCanvas, runCanvas, detail: shown.detail, own: shown.row.role });
  }

  window.addEventListener("hashchange", async () => {
    shown = null;
    await open();
    const title = document.getElementById("record-title");
    window.scrollTo(0, 0);
    if (title && shown) title.focus({ preventScroll: true });
  });
  // charts don't follow the colours of the page by themselves
  document.addEventListener("themechange", draw);
  open();
})();
