"use strict";
// The table: sorted by a button in each heading, drawn sixty rows at a time.
(() => {
  const { el, rowElement } = window.compressbench;
  const PAGE = 60;

  function columnsOf(group, metric) {
    const cellOf = (at) => (at < 0 ? (row) => row.metrics[metric] : (row) => row.costs[at]);
    const quantities = [[-1, group.metrics[metric]], ...group.costs.map((cost, at) => [at, cost])];
    return [
      { title: "rank", isFirstAscending: true, key: (row) => row.ranks[metric].low ?? null },
      { title: "candidate", isFirstAscending: true, isText: true, key: (row) => row.name },
      ...quantities.map(([at, quantity]) => ({
        title: quantity.title,
        better: quantity.isHigherBetter ? "more is better" : "less is better",
        arrow: quantity.isHigherBetter ? "↑" : "↓",
        isFirstAscending: !quantity.isHigherBetter,
        key: (row) => cellOf(at)(row).value,
      })),
    ];
  }

  const collator = new Intl.Collator("en", { numeric: true });

  // what has no value stands last in both directions
  function sorted(rows, column, isAscending) {
    const sign = isAscending ? 1 : -1;
    const keyed = rows.map((row, at) => ({ row, at, key: column.key(row) }));
    keyed.sort((one, other) => {
      if (one.key === null || other.key === null) {
        return (one.key === null) - (other.key === null) || one.at - other.at;
      }
      const order = column.isText ? collator.compare(one.key, other.key) : one.key - other.key;
      return sign * order || one.at - other.at;
    });
    return keyed.map((each) => each.row);
  }

  function spanOf(rows, cellOf) {
    let span = 0;
    for (const row of rows) {
      const cell = cellOf(row);
      if (cell.ratioLow > 0 && cell.ratioHigh > 0) {
        span = Math.max(span, Math.abs(Math.log(cell.ratioLow)), Math.abs(Math.log(cell.ratioHigh)));
      }
    }
    return span;
  }

  class Table {
    constructor(box, caption, { onSort } = {}) {
      this.box = box;
      this.caption = caption;
      this.onSort = onSort;
      this.by = 0;
      this.isAscending = true;
    }

    // all rows of the group, for common scales; draw() then shows some of them
    use(group, rows, metric, isOnFront) {
      Object.assign(this, { group, metric, isOnFront });
      this.columns = columnsOf(group, metric);
      this.by = Math.min(this.by, this.columns.length - 1);
      this.spans = [spanOf(rows, (row) => row.metrics[metric]),
        ...group.costs.map((_, at) => spanOf(rows, (row) => row.costs[at]))];
      this.heads = this.columns.map((column, at) => this.head(column, at));
      this.body = el("tbody", { role: "rowgroup" });
      const action = el("th", { scope: "col", role: "columnheader" }, el("span", { class: "visually-hidden" }, "link"));
      this.box.replaceChildren(
        el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": this.caption },
          el("table", { role: "table" },
            el("caption", { class: "visually-hidden" }, this.caption),
            el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...this.heads, action)),
            this.body)),
      );
    }

    head(column, at) {
      const label = [column.title, column.arrow ? el("span", { class: "arrow", "aria-hidden": "true" }, column.arrow) : ""];
      const button = el("button", { type: "button", class: "sort", title: column.better }, ...label.filter(Boolean));
      button.addEventListener("click", () => {
        this.isAscending = this.by === at ? !this.isAscending : column.isFirstAscending;
        this.by = at;
        this.draw(this.rows);
        this.onSort?.();
      });
      const name = at === 0 ? "rank" : at === 1 ? "name" : "number";
      return el("th", { scope: "col", role: "columnheader", class: name, "aria-sort": "none" }, button);
    }

    draw(rows) {
      this.rows = rows;
      this.order = sorted(rows, this.columns[this.by], this.isAscending);
      this.heads.forEach((head, at) =>
        head.setAttribute("aria-sort", at !== this.by ? "none" : this.isAscending ? "ascending" : "descending"));
      this.numShown = 0;
      this.body.replaceChildren();
      this.more();
    }

    more() {
      const next = this.order.slice(this.numShown, this.numShown + PAGE);
      this.body.append(
        ...next.map((row) => rowElement(row, this.metric, this.group, this.spans, this.isOnFront(row))));
      this.numShown += next.length;
    }

    get numLeft() {
      return this.order.length - this.numShown;
    }
  }

  Object.assign(window.compressbench, { Table });
})();
