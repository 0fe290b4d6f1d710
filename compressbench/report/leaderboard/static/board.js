"use strict";
// The page: which group and metric are chosen, and everything drawn from them. The address says both.
(() => {
  const { el, board, decode, linkOf, Table, Filters, Plot, drawKinds } = window.compressbench;
  const MOST_TABS = 8;
  const $ = (id) => document.getElementById(id);
  const state = { group: 0, metric: 0, rows: [], shown: [] };
  const decoded = new Map();

  const isOnFront = (row) => row.front[state.metric].some((probability) => probability >= board.onFront);
  const isRanked = (row) => row.ranks[state.metric].why === "";

  const ranked = new Table($("ranked"), "Ranked rows", { onSort: showPager });
  const unranked = new Table($("unranked"), "Rows that are not ranked");
  const filters = new Filters($("filters"), showRows);
  const plots = [];
  let redraw = 0;

  function showPager() {
    const left = ranked.numLeft;
    const button = el("button", { type: "button" }, `Show ${Math.min(60, left)} more`);
    button.addEventListener("click", () => {
      const first = ranked.numShown;
      ranked.more();
      showPager();
      ranked.body.rows[first]?.querySelector("a")?.focus(); // where reading goes on
    });
    $("pager").replaceChildren(...(left > 0 ? [button, el("span", { class: "muted" }, `${left} more rows`)] : []));
  }

  function showRows() {
    state.shown = filters.apply(state.rows);
    const [good, others] = [state.shown.filter(isRanked), state.shown.filter((row) => !isRanked(row))];
    ranked.draw(good);
    unranked.draw(others);
    $("ranked").hidden = good.length === 0;
    $("unranked-section").hidden = others.length === 0;
    $("status").textContent = `${state.shown.length} of ${state.rows.length} rows`;
    showPager();
    // plots may come a moment later, the table must follow every key
    clearTimeout(redraw);
    redraw = setTimeout(showPlots, 250);
  }

  // one after the other, so that a key that is pressed meanwhile needn't wait for all of them
  function showPlots(at = 0) {
    const group = board.groups[state.group];
    if (at < group.plots.length) {
      plots[at].draw(group, state.rows, state.shown, state.metric, !$("axes-label").hidden && $("axes").value === "relative");
    } else {
      plots[at].hide();
    }
    redraw = at + 1 < plots.length ? setTimeout(showPlots, 0, at + 1) : 0;
  }

  function showAnswer(group) {
    const parts = [el("p", { class: "label" }, group.answerLabel)];
    if (group.answerId) {
      parts.push(el("p", { class: "choice" }, el("a", { href: linkOf(group.answerId) }, group.answerName)));
    }
    parts.push(el("p", {}, group.answer));
    if (group.answerRule) {
      parts.push(el("p", { class: "rule" }, `${group.answerRule}: `,
        el("code", {}, `compressbench recommend RESULTS --key ${group.key}`)));
    }
    $("answer").replaceChildren(...parts);
  }

  function showGroupHead(group) {
    $("group-title").textContent = group.title;
    $("group-subtitle").textContent = group.subtitle;
    $("conditions").replaceChildren(
      ...group.conditions.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
      el("dt", {}, "comparability key"), el("dd", {}, group.key));
    showAnswer(group);
    $("metric-label").hidden = group.metrics.length < 2;
    $("plots-section").hidden = group.plots.length === 0;
    // offered only where a plot would follow it
    $("axes-label").hidden = !(group.metrics[state.metric]?.isPaired && group.plots.some((at) => group.costs[at].isPaired));
    $("notes").replaceChildren(...group.notes.map((note) => el("p", {}, note)));
    $("metric").replaceChildren(
      ...group.metrics.map((metric, at) => el("option", { value: at, selected: at === state.metric }, metric.title)));
  }

  function showMetric() {
    const group = board.groups[state.group];
    ranked.use(group, state.rows, state.metric, isOnFront);
    unranked.use(group, state.rows, state.metric, isOnFront);
    filters.use(state.rows, state.metric, isOnFront);
    drawKinds($("kinds"), state.rows);
    showRows();
  }

  async function showGroup(at, metric = 0) {
    Object.assign(state, { group: at, metric });
    document.querySelectorAll("#groups [data-group]").forEach((tab) =>
      tab.setAttribute("aria-current", String(Number(tab.dataset.group) === at)));
    const picker = $("group-picker");
    if (picker) {
      picker.value = String(at);
    }
    showGroupHead(board.groups[at]);
    if (!decoded.has(at)) {
      decoded.set(at, decode(await window.compressbench.group(at)));
    }
    if (state.group === at) {
      state.rows = decoded.get(at);
      $("group").hidden = false;
      showMetric();
    }
  }

  const addressOf = (at, metric) => `#group=${board.groups[at].key}${metric ? `&metric=${metric}` : ""}`;

  function fromAddress() {
    const asked = new URLSearchParams(window.location.hash.slice(1));
    const found = board.groups.findIndex((group) => group.key === asked.get("group"));
    const at = found < 0 ? board.first : found;
    const metric = Number(asked.get("metric") ?? 0);
    return showGroup(at, metric in board.groups[at].metrics ? metric : 0);
  }

  const numbered = (group) => `${group.numRows} ${group.numRows === 1 ? "row" : "rows"}${dated(group)}`;

  // of two groups of the same name the date tells which is which
  function dated(group) {
    return board.groups.filter((each) => each.title === group.title).length > 1 ? ` · ${group.newest}` : "";
  }

  function makeTabs() {
    if (board.groups.length < 2) {
      $("groups").hidden = true;
    } else if (board.groups.length <= MOST_TABS) {
      $("groups").append(...board.groups.map((group, at) =>
        el("a", { href: addressOf(at, 0), "data-group": at, class: "tab" },
          el("span", { class: "title" }, group.title),
          el("span", { class: "muted" }, `${group.metrics[0]?.title.split("@")[0] ?? "no metric"} · ${numbered(group)}`))));
    } else {
      const picker = el("select", { id: "group-picker" }, ...board.groups.map((group, at) =>
        el("option", { value: at }, `${group.title} · ${group.subtitle} · ${numbered(group)}`)));
      picker.addEventListener("change", () => (window.location.hash = addressOf(Number(picker.value), 0)));
      $("groups").append(el("label", { class: "field" }, "Group ", picker));
    }
  }

  function makePlots() {
    for (let number = 0; number < 4; number += 1) {
      const box = el("figure", { class: "plot" });
      $("plots").append(box);
      plots.push(new Plot(box, number));
    }
  }

  function makeLegend() {
    const rules = [
      ["rank", "An interval: the row is better than those below it and worse than those above it, as far as the data can tell. Rows that share a letter can't be told apart."],
      ["intervals", "95 %. Those in brackets are of the difference from the baseline or of the ratio to it, paired within one run. The small line under a value shows that ratio; its tick is the baseline. Plots against the baseline show these ratios, which a machine's mood changes least. As measured, a value that has no interval of its own gets that of its ratio."],
      ["—", "There is no number. Press it, and it says why."],
    ];
    const badges = Object.entries(board.badges).map(([badge, meaning]) =>
      [el("span", { class: `badge badge-${badge.replace(" ", "-")}` }, badge), meaning]);
    $("legend").replaceChildren(
      ...[...rules, ...badges].flatMap(([name, meaning]) => [el("dt", {}, name), el("dd", {}, meaning)]));
  }

  makeTabs();
  makePlots();
  makeLegend();
  $("metric").addEventListener("change", () => (window.location.hash = addressOf(state.group, Number($("metric").value))));
  $("axes").addEventListener("change", () => showPlots());
  window.addEventListener("hashchange", () => {
    if (window.location.hash.startsWith("#group=") || window.location.hash === "") {
      fromAddress();
    }
  });
  document.addEventListener("themechange", () => state.rows.length > 0 && showPlots());
  if (board.groups.length > 0) {
    fromAddress();
  }
})();
