// The sections of the page of a record, each made of its row and its detail.
"use strict";

compressbench.recordSections = (() => {
  const words = compressbench.recordWords;
  const { make, table, pairs, section, notice, details, copyable } = compressbench.recordParts;
  const { armName } = compressbench.recordCharts;

  function badge({ name, meaning }) {
    return make("li", {}, make("span", { class: `badge badge-${name.replace(" ", "-")}`, title: meaning }, name));
  }

  function head(row, detail, link) {
    const date = row.created_utc.slice(0, 10);
    const subtitle = [row.recipe, row.model, date].filter(Boolean).join(" · ");
    const steps = row.steps || (row.role === "baseline" ? "the model as it is" : "no steps");
    return make("header", { class: "record-head" },
      make("h1", { tabindex: "-1", id: "record-title" }, row.candidate),
      make("p", { class: "record-subtitle" }, subtitle),
      make("p", { class: "record-steps" }, steps),
      make("ul", { class: "record-badges", "aria-label": "Badges" }, words.badges(row).map(badge)),
      make("div", { class: "record-link" }, make("span", { class: "record-label" }, "Permanent link"), copyable(link, "the permanent link", { tag: "span", className: "record-url" })),
      ...faults(row, detail)
    );
  }

  function faults(row, detail) {
    const found = [];
    if (detail.failure) found.push(notice("bad", "It could not be measured", [detail.failure]));
    if (row.false_claims && row.false_claims.length) found.push(notice("bad", "The audit found false claims", row.false_claims));
    if (row.implausible.length) found.push(notice("bad", "It can't be true, and is not ranked", row.implausible));
    const rest = row.not_rankable.filter((each) => !each.startsWith("implausible"));
    if (rest.length) found.push(notice("mind", "Its times and energies are shown, but not ranked", rest));
    if (row.warnings.length) found.push(notice("mind", "Mind", row.warnings));
    return found;
  }

  function toned(text, tone) {
    return make("span", { class: tone ? `record-claim record-${tone}` : "record-claim" }, text);
  }

  function valueCell(row, name) {
    const cell = row.cells[name];
    const interval = words.intervalText(name, cell);
    return [make("span", { class: "record-value" }, words.valueText(name, cell)), interval ? make("span", { class: "record-interval" }, interval) : null];
  }

  function claimCell(row, name) {
    const said = words.claim(name, row);
    if (!said) return "not compared";
    const found = [toned(said.text, said.tone)];
    if (said.interval) found.push(make("span", { class: "record-interval" }, said.interval));
    if (said.power) found.push(make("span", { class: "record-why" }, said.power));
    if (said.reason) found.push(make("span", { class: "record-why" }, said.reason));
    return found;
  }

  const nameCell = (row, name) => [words.title(name), make("code", { class: "record-code" }, name === words.title(name) ? "" : name)];

  function originCell(cell) {
    return [make("span", { class: `record-kind record-kind-${cell.kind}` }, cell.kind), make("span", { class: "record-source" }, cell.source)];
  }

  function grid(row, names, caption) {
    const columns = [
      ["number", (name) => nameCell(row, name)],
      ["value, 95 % interval", (name) => valueCell(row, name)],
      ["against the baseline", (name) => claimCell(row, name)],
      ["how it was obtained", (name) => originCell(row.cells[name])]
    ].filter(([head]) => row.role !== "baseline" || head !== "against the baseline");
    const rows = names.map((name) => columns.map(([, cell]) => cell(name)));
    return table({ caption, heads: columns.map(([each]) => each), rows, className: "record-table record-numbers" });
  }

  function numbers(row) {
    const names = Object.keys(row.cells);
    const there = names.filter((name) => row.cells[name].value !== null);
    const first = there.filter((name) => words.isHeadline(name, row));
    const others = there.filter((name) => !words.isHeadline(name, row));
    const absent = names.filter((name) => row.cells[name].value === null);
    const reasons = new Map();
    for (const name of absent) {
      const reason = row.cells[name].reason || "it was not recorded";
      reasons.set(reason, [...(reasons.get(reason) || []), words.title(name)]);
    }
    return section("numbers", "Numbers",
      first.length ? grid(row, first, "The numbers of this record") : make("p", {}, "There are no numbers."),
      others.length ? details(`${others.length} more numbers`, grid(row, others, "More numbers of this record")) : null,
      absent.length ? details(`${absent.length} numbers that are not there, and why`, pairs([...reasons].map(([reason, which]) => [which.join(", "), reason]), "record-wide")) : null
    );
  }

  function audit(row, detail) {
    if (!detail.audit) {
      const why = row.role === "baseline" ? "Nothing was compressed, so there is nothing to audit." : "This record has no audit: nothing says whether the compression really happened.";
      return section("audit", "Did the compression really happen?", make("p", { class: "record-answer" }, why));
    }
    const [[answer, style], ...rest] = detail.audit;
    const tone = style.includes("red") ? "bad" : style.includes("green") ? "good" : style.includes("yellow") ? "mind" : "plain";
    const lines = rest.filter(([text], at) => text || at > 0);
    const listing = make("div", { class: "record-audit", tabindex: "0", role: "region", "aria-label": "What the audit found" },
      lines.map(([text, how]) => make("div", { class: how ? `record-line ${how.split(" ").map((each) => `record-line-${each}`).join(" ")}` : "record-line" }, text || "\u00a0")));
    return section("audit", "Did the compression really happen?", make("p", { class: `record-answer record-answer-${tone}` }, answer), listing);
  }

  function figure(id, caption, summary, canvasClass) {
    const canvas = make("canvas", { id, role: "img", "aria-label": summary }, summary);
    return make("figure", { class: "record-figure" }, make("figcaption", {}, caption), make("div", { class: canvasClass }, canvas));
  }

  function latency(row, detail) {
    if (detail.latency.reason) return section("latency", "Latency", make("p", {}, `There is no distribution: ${detail.latency.reason}.`));
    const arms = Object.entries(detail.latency.arms);
    const quantile = (value) => (value === null ? [words.DASH, make("span", { class: "record-why" }, "too few calls, or too alike")] : words.seconds(value));
    const rows = arms.map(([arm, found]) => [
      armName(arm, row.role), String(found.num_calls), ...["p50", "p95", "p99"].map((name) => quantile(found.quantiles_ns[name])),
      words.seconds(found.slowest_ns), String(found.above)
    ]);
    const summary = arms.map(([arm, found]) => `${armName(arm, row.role)}: ${found.num_calls} calls, p50 ${found.quantiles_ns.p50 === null ? "not known" : words.seconds(found.quantiles_ns.p50)}, slowest ${words.seconds(found.slowest_ns)}`).join("; ");
    const last = detail.latency.edges_ns[detail.latency.edges_ns.length - 1];
    const blocks = detail.blocks;
    const disturbed = blocks.num_disturbed === null ? "what disturbed them was not recorded" : `${blocks.num_disturbed} disturbed (crosses)`;
    const shown = blocks.every > 1 ? `, every ${blocks.every}th round` : "";
    return section("latency", "Latency",
      make("div", { class: "record-figures" },
        figure("record-histogram", "How long calls took; dashed: medians", `Histogram of latencies. ${summary}`, "record-canvas"),
        figure("record-run", `Block after block: drift and disturbances${shown}`, `Medians of ${blocks.num_blocks} blocks in the order they ran, from ${words.seconds(Math.min(...blocks.median_ns))} to ${words.seconds(Math.max(...blocks.median_ns))}; ${disturbed}.`, "record-canvas")),
      table({ caption: `Latencies; ${blocks.num_blocks} interleaved blocks, ${disturbed}`, heads: ["arm", "calls", "p50", "p95", "p99", "slowest", `above ${words.seconds(last)}`], rows, className: "record-table record-quantiles", isCaptionShown: true })
    );
  }

  return { head, numbers, audit, latency };
})();
