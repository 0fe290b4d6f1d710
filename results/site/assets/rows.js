"use strict";
// One row of the table: its cells, each with value, interval, and what may be claimed against the baseline.
(() => {
  const { el, svg, kindMark, showNote } = window.compressbench;
  const CELL = ["value", "low", "high", "text", "interval", "claim", "claimInterval", "tone", "verdict", "ratio",
    "ratioLow", "ratioHigh", "reason"];

  function decodeCell(found, strings) {
    const cell = {};
    CELL.forEach((name, at) => (cell[name] = found[at] ?? null));
    cell.reason = cell.reason === null ? "" : strings[cell.reason];
    return cell;
  }

  // rows as they were written, with every cell by name and a text to search in
  function decode(data) {
    return data.rows.map((row) => ({
      ...row,
      metrics: row.metrics.map((cell) => decodeCell(cell, data.strings)),
      costs: row.costs.map((cell) => decodeCell(cell, data.strings)),
      ranks: row.ranks.map((rank) =>
        typeof rank === "number"
          ? { why: data.strings[rank] }
          : { low: rank[0], high: rank[1], letters: rank[2], why: "" },
      ),
      text: [row.name, row.recipe ?? "", row.steps, row.kind].join(" ").toLowerCase(),
    }));
  }

  // the paired ratio on a common scale: the tick is the baseline
  const WIDTH = 104;
  function whisker(cell, span) {
    if (!(cell.ratio > 0) || !(cell.ratioLow > 0) || span === 0) {
      return null;
    }
    const at = (ratio) => {
      const share = (Math.log(ratio) / span + 1) / 2;
      return (3 + (WIDTH - 6) * Math.min(1, Math.max(0, share))).toFixed(1);
    };
    const line = (x1, x2, name) => svg("line", { x1, x2, y1: 6, y2: 6, class: name });
    return svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} 12`, class: `whisker ${cell.tone ?? ""}`, "aria-hidden": "true" },
      line(3, WIDTH - 3, "axis"),
      svg("line", { x1: WIDTH / 2, x2: WIDTH / 2, y1: 1.5, y2: 10.5, class: "tick" }),
      line(at(cell.ratioLow), at(cell.ratioHigh), "bar"),
      svg("circle", { cx: at(cell.ratio), cy: 6, r: 2.8 }),
    );
  }

  function whyButton(label, text, name) {
    const button = el("button", { type: "button", class: name, "aria-label": `${label}: ${text}` }, label);
    button.addEventListener("click", () => showNote(button, text));
    return button;
  }

  function valueCell(cell, quantity, span) {
    const td = el("td", { role: "cell", class: "number", "data-label": quantity.title });
    if (cell.value === null) {
      td.append(el("span", { class: "value" }, whyButton("—", cell.reason, "why")));
    } else {
      const isEstimate = /^(.*) (\((?:est\.|model)\))$/.exec(cell.text);
      const value = el("span", { class: "value" }, isEstimate ? isEstimate[1] : cell.text);
      if (isEstimate) {
        value.append(el("span", { class: "mark" }, ` ${isEstimate[2]}`));
      }
      if (cell.reason) {
        value.append(" ", whyButton("not compared", cell.reason, "why flag"));
      }
      td.append(value);
    }
    if (cell.interval) {
      td.append(el("span", { class: "interval" }, cell.interval));
    }
    const mark = whisker(cell, span);
    if (mark) {
      td.append(mark);
    }
    if (cell.claim) {
      td.append(
        el("span", { class: `claim ${cell.tone ?? ""}` }, cell.claim,
          cell.claimInterval ? el("span", { class: "interval" }, ` ${cell.claimInterval}`) : ""),
      );
    }
    return td;
  }

  function rankCell(rank) {
    const td = el("td", { role: "cell", class: "rank", "data-label": "rank" });
    if (rank.why) {
      td.append(whyButton("—", rank.why, "why"));
      return td;
    }
    td.append(el("span", { class: "value" }, rank.low === rank.high ? String(rank.low) : `${rank.low}–${rank.high}`));
    if (rank.letters) {
      const letters = rank.letters.split(" ");
      const shown = letters.length > 3 ? `${letters[0]}…${letters.at(-1)}` : letters.join(" ");
      td.append(el("span", { class: "letters", title: `shares a letter with rows it can't be told from: ${rank.letters}` },
        shown));
    }
    return td;
  }

  const linkOf = (id) => `record.html#${encodeURIComponent(id)}`;

  function nameCell(row, isOnFront) {
    const th = el("th", { scope: "row", role: "rowheader", class: "name" },
      el("span", { class: "title" }, kindMark(row.kind), el("a", { href: linkOf(row.id) }, row.name || "(no name)")));
    const below = [row.recipe, row.steps === row.name ? "" : row.steps].filter(Boolean).join(" · ");
    if (below) {
      th.append(el("span", { class: "steps" }, below));
    }
    const badges = row.badges.filter((badge) => badge !== "baseline" || row.name !== "baseline");
    const marks = badges.map((badge) =>
      el("span", { class: `badge badge-${badge.replace(" ", "-")}`, title: window.compressbench.board.badges[badge] }, badge));
    if (isOnFront) {
      marks.push(el("span", { class: "badge badge-front", title: "no other row is likely better in both quantities of a plot" },
        "front"));
    }
    th.append(el("span", { class: "badges" }, ...marks));
    return th;
  }

  function linkCell(row) {
    const button = el("button", { type: "button", class: "quiet copy", "aria-label": `Copy the link to ${row.name}`, title: "copy the link" },
      svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" },
        svg("path", { d: "M6.5 9.5l3-3M7 4.5l1.2-1.2a3 3 0 0 1 4.3 4.3L11.3 8.8M9 11.5l-1.2 1.2a3 3 0 0 1-4.3-4.3l1.2-1.2" })));
    button.addEventListener("click", async () => {
      const address = new URL(linkOf(row.id), window.location.href).href;
      try {
        await navigator.clipboard.writeText(address);
        showNote(button, "The link to this row is copied.");
      } catch {
        showNote(button, address);
      }
    });
    return el("td", { role: "cell", class: "action" }, button);
  }

  // `spans` are the widest logarithms of ratios: of the metric first, then of every cost
  function rowElement(row, metric, group, spans, isOnFront) {
    return el(
      "tr",
      { role: "row", class: row.kind === "baseline" ? "is-baseline" : "" },
      rankCell(row.ranks[metric]),
      nameCell(row, isOnFront),
      valueCell(row.metrics[metric], group.metrics[metric], spans[0]),
      ...group.costs.map((cost, at) => valueCell(row.costs[at], cost, spans[at + 1])),
      linkCell(row),
    );
  }

  Object.assign(window.compressbench, { decode, rowElement, linkOf });
})();
