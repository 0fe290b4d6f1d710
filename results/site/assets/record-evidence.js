// What stands behind the numbers of a record: answers that changed, what was done, how to make it again, where it ran.
"use strict";

compressbench.recordEvidence = (() => {
  const words = compressbench.recordWords;
  const { make, table, pairs, section, details, copyable } = compressbench.recordParts;

  function strata(row) {
    if (!row.strata.length) return null;
    const rows = row.strata.map((each) => {
      // shares in points, what is on a log scale as a part of the baseline's value, all else in its own unit
      const [scale, unit] = !each.metric ? [100, " points"] : each.verdict.is_log ? [100, " %"] : [1, ""];
      const half = (scale * (each.loss_high - each.loss_low)) / 2;
      const loss = [each.loss, each.loss_low, each.loss_high].map((value) => words.signed(scale * value, half));
      const cell = [`${loss[0]}${unit}`, make("span", { class: "record-interval" }, `${loss[1]} to ${loss[2]}`)];
      return [each.name, each.metric || "share right", String(each.num_samples), each.verdict.verdict, cell];
    });
    return table({ caption: "By capability, the largest loss first", heads: ["capability", "metric", "samples", "verdict", "loss"], rows, className: "record-table", isCaptionShown: true });
  }

  const tokens = (count) => (count === null ? "" : make("span", { class: "record-why" }, `${count} tokens`));

  function answer(text, score, isBinary, count) {
    const mark = isBinary ? (score ? "right" : "wrong") : `score ${words.significant(score, 4)}`;
    return [make("span", { class: "record-text" }, text === "" ? make("em", {}, "empty") : text), make("span", { class: isBinary ? `record-mark record-mark-${mark}` : "record-mark" }, mark), tokens(count)];
  }

  function flipTable(found, kind, total) {
    const rows = found[kind].map(([id, target, before, after, scoreBefore, scoreAfter, tokensBefore, tokensAfter]) => [
      id, make("span", { class: "record-text" }, target), answer(before, scoreBefore, found.is_binary, tokensBefore), answer(after, scoreAfter, found.is_binary, tokensAfter)
    ]);
    const shown = rows.length < total ? `${rows.length} of ${total}, the largest changes first` : `all ${total}`;
    const title = kind === "lost" ? "Lost" : "Won";
    const what = kind === "lost" ? "worse than the baseline" : "better than the baseline";
    return make("div", { class: `record-flips record-flips-${kind}` },
      make("h4", {}, `${title} `, make("span", { class: "record-count" }, `${what}: ${shown}`)),
      rows.length ? table({ caption: `${title}: samples of ${found.task} answered ${what}`, heads: ["sample", "expected", "baseline", "this record"], rows, className: "record-table record-flip-table", scrollClass: "record-tall" }) : make("p", { class: "record-why" }, "None.")
    );
  }

  function flips(found) {
    const share = words.significant((100 * (found.num_lost + found.num_won)) / found.num_samples, 3);
    const text = `${found.num_lost} lost, ${found.num_won} won of ${found.num_samples} samples: ${share} % changed.`;
    const body = found.reason ? [make("p", { class: "record-why" }, `The samples can't be shown: ${found.reason}.`)] : [flipTable(found, "lost", found.num_lost), flipTable(found, "won", found.num_won)];
    return make("section", { class: "record-task" }, make("h3", {}, `${found.task}: ${found.metric}`), make("p", {}, text), ...body);
  }

  function answers(row, detail) {
    if (!detail.scores.length) return null;
    const facts = detail.scores.map((score) => {
      const about = [["data", score.data], ["protocol", score.protocol], ["samples", `${score.num_samples}, in ${words.humanize(score.seconds, "s")}`], ["rows", `${score.samples[0]}, SHA-256 ${score.samples[1]}`]];
      return details(`${score.metric}: how it was asked, and what else changed`, pairs([...score.facts, ...about], "record-wide"));
    });
    const unread = `Samples are shown on boards of few rows only; compressbench show ${detail.file} counts them.`;
    const none = detail.flips === null ? unread : row.role === "baseline" ? "This is the baseline: other records are compared with it." : "No answers were compared.";
    return section("answers", "Answers that changed", strata(row), ...(detail.flips?.length ? detail.flips.map(flips) : [make("p", {}, none)]), ...facts);
  }

  function made(detail) {
    const rows = detail.steps.map((step) => [step.use, step.options || words.DASH, words.humanize(step.seconds, "s"), step.notes || words.DASH]);
    return section("made", "What was done",
      rows.length ? table({ caption: "Steps of compression in their order", heads: ["step", "options", "took", "notes"], rows, className: "record-table record-steps-table" }) : make("p", {}, "Nothing was compressed."),
      pairs(detail.facts, "record-wide"));
  }

  function again(detail) {
    const how = detail.reproduce;
    return section("again", "Make it again",
      make("h3", {}, "1. Install the same versions"), copyable(how.install, "the command that installs"),
      make("h3", {}, `2. Save the recipe as ${how.file}`), copyable(detail.recipe.yaml, "the recipe", { className: "record-yaml" }),
      make("h3", {}, "3. Run it"), copyable(how.run, "the command that runs it"),
      how.pins.length ? pairs(how.pins.map(([what, which, pinned]) => [what, [make("span", { class: "record-text" }, which), make("span", { class: "record-why" }, pinned)]]), "record-wide") : null,
      make("ul", { class: "record-notes" }, how.notes.map((note) => make("li", {}, note))));
  }

  function environment(detail) {
    return section("environment", "Environment", make("div", { class: "record-groups" },
      detail.environment.map(([name, found]) => make("section", {}, make("h3", {}, name), pairs(found)))));
  }

  function conditions(row, detail) {
    const file = [["file", detail.file], ["SHA-256", detail.sha256 || "not readable"], ["schema", String(detail.schema_version)], ["run", row.run_id], ["key", row.key], ["recipe hash", detail.recipe.hash], ["comparability key", row.comparability_key]];
    const shared = Object.entries(row.conditions).map(([name, value]) => [name.replaceAll("_", " "), value]);
    return section("record", "Conditions and record",
      make("p", {}, "Rows that agree in all of these may be ranked together."), pairs(shared, "record-wide"),
      make("h3", {}, "The record"), pairs(file, "record-wide record-hashes"));
  }

  return { answers, made, again, environment, conditions };
})();
