// How numbers and verdicts read on the page of a record: the same words as in the terminal (report/words.py).
"use strict";

compressbench.recordWords = (() => {
  const DASH = "—";
  // the same as TITLES of report/words.py, which a test compares
  const TITLES = {
    "worst_stratum": "worst stratum",
    "latency_p50_s": "latency p50",
    "latency_p95_s": "latency p95",
    "latency_p99_s": "latency p99",
    "ttft_p50_s": "time to first token p50",
    "ttft_p99_s": "time to first token p99",
    "tpot_p50_s": "time per output token p50",
    "itl_p50_s": "gap between tokens p50",
    "itl_p99_s": "gap between tokens p99",
    "throughput_per_s": "throughput",
    "output_tokens_per_s": "output tokens per second",
    "max_rate_per_s": "highest rate within the limit",
    "energy_j_per_inference": "energy per inference",
    "energy_net_j_per_inference": "energy per inference above idle",
    "energy_j_per_output_token": "energy per output token",
    "energy_j_per_total_token": "energy per token in and out",
    "energy_j_per_correct": "energy per correct answer",
    "energy_prefill_j_per_inference": "energy of prefill",
    "energy_decode_j_per_output_token": "energy of decode per token",
    "energy_wh_per_1000_queries": "energy per 1000 queries",
    "mbu": "memory bandwidth used",
    "mfu": "matrix rate used",
    "peak_memory_bytes": "peak memory",
    "peak_reserved_memory_bytes": "peak memory reserved",
    "weights_memory_bytes": "weights in memory",
    "kv_cache_memory_bytes": "KV cache",
    "disk_bytes": "size on disk",
    "num_parameters": "parameters",
    "sparsity": "zeros",
    "effective_bits": "bits per weight",
    "load_seconds": "loading took",
    "first_call_seconds": "first call took",
    "compress_seconds": "compressing took",
    "compress_energy_j": "compressing used",
    "compress_peak_memory_bytes": "memory to compress",
    "resident_memory_bytes": "memory of a process",
    "export_seconds": "exporting took",
    "compile_seconds": "compiling took",
    "open_seconds": "opening took"
  };
  const SHARES = new Set(["sparsity", "mbu", "mfu"]);
  const HIGHER_IS_BETTER = new Set(["throughput_per_s", "output_tokens_per_s", "max_rate_per_s", "mbu", "mfu", "sparsity"]);
  const MARKS = { estimated: " (est.)", modelled: " (model)" };
  const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];

  function significant(value, digits) {
    if (value === 0) return "0";
    // the exponent after rounding: 0.9999 is 1.00
    const exponent = Number(value.toExponential(digits - 1).split("e")[1]);
    return value.toFixed(Math.min(100, Math.max(0, digits - 1 - exponent)));
  }

  function humanize(value, unit) {
    if (value === 0 || !Number.isFinite(value)) return `${value} ${unit}`.trim();
    const base = unit.split("/")[0];
    if (unit === "1/s") return `${significant(value, 3)}/s`;
    if (!base) return significant(value, 3);
    const [scale, prefix] = PREFIXES.find(([each]) => Math.abs(value) >= each * 0.9995) || PREFIXES[PREFIXES.length - 1];
    return `${significant(value / scale, 3)} ${prefix}${base}`;
  }

  const seconds = (nanoseconds) => humanize(nanoseconds / 1e9, "s");

  function title(name) {
    return Object.hasOwn(TITLES, name) ? TITLES[name] : name;
  }

  function plain(name, value, unit) {
    if (value === null || value === undefined) return DASH;
    if (unit === "fraction") return `${(100 * value).toFixed(2)} %`;
    if (SHARES.has(name)) return `${(100 * value).toFixed(1)} %`;
    if (name === "num_parameters") return humanize(value, "B").replace("B", "").trim();
    if (name === "effective_bits") return value.toFixed(2);
    return unit ? humanize(value, unit) : significant(value, 4);
  }

  const valueText = (name, cell) => plain(name, cell.value, cell.unit) + (cell.value === null ? "" : MARKS[cell.kind] || "");

  function intervalText(name, cell) {
    if (cell.value === null || cell.low === null || cell.high === null || cell.low === cell.high) return "";
    return `${plain(name, cell.low, cell.unit)} to ${plain(name, cell.high, cell.unit)}`;
  }

  function signed(value, half) {
    const least = half >= 100 ? 0 : 2;
    const decimals = half > 0 ? Math.min(4, Math.max(least, 1 - Math.floor(Math.log10(half)))) : 2;
    const text = Math.abs(value).toFixed(decimals);
    if (Number(text) === 0) return `±${text}`;
    return `${value < 0 ? "−" : "+"}${text}`;
  }

  // what is said against the baseline: the claim, its interval, how it is coloured
  function claim(name, row) {
    const verdict = row.against_baseline[name];
    if (!verdict) return null;
    const isMetric = row.metrics.includes(name);
    const [text, interval] = isMetric ? difference(verdict, row.cells[name].unit === "fraction" ? 100 : 1) : ratio(name, verdict);
    const power = isMetric ? needed(verdict, row.cells[name].unit === "fraction" ? 100 : 1) : "";
    return { text, interval, power, tone: tone(name, verdict.verdict), reason: verdict.reason };
  }

  // what the samples could have shown, and how many would settle it
  function needed(verdict, scale) {
    const parts = [];
    const least = verdict.smallest_detectable;
    if (least !== null) {
      const unit = verdict.is_log ? " %" : scale === 100 ? " points" : "";
      parts.push(`detectable from ${significant((verdict.is_log ? 100 : scale) * least, 2)}${unit}`);
    }
    if (verdict.num_samples_needed) parts.push(`${verdict.num_samples_needed} samples would settle it`);
    return parts.join("; ");
  }

  function difference(verdict, scale) {
    const [change, low, high] = [verdict.difference, verdict.difference_low, verdict.difference_high];
    if (change === null || low === null || high === null) return [verdict.verdict, ""];
    const half = (scale * (high - low)) / 2;
    const unit = scale === 100 ? " points" : "";
    const texts = [change, low, high].map((each) => signed(scale * each, half));
    return [`${texts[0]}${unit} ${verdict.verdict}`, `${texts[1]} to ${texts[2]}`];
  }

  function ratio(name, verdict) {
    if (verdict.ratio === null || verdict.low === null || verdict.high === null) return [verdict.verdict, ""];
    if (verdict.low === verdict.high) {
      return [verdict.verdict === "same" ? "same" : `${significant(verdict.ratio, 3)}×, ${verdict.verdict}`, ""];
    }
    // a time ratio of 0.4 is read as 2.5 times faster
    const isTime = name.endsWith("_s") && !name.endsWith("_per_s");
    const isSpeed = verdict.verdict !== "slower" && isTime;
    const three = [verdict.ratio, verdict.low, verdict.high];
    const [value, low, high] = isSpeed ? [1 / three[0], 1 / three[2], 1 / three[1]] : three;
    const digits = (low > 0.9 && high < 1.1) || value < 0.1 ? 3 : 2;
    const times = `${value.toFixed(digits)}×`;
    const claims = { faster: `${times} faster`, slower: `${times} slower`, lower: `${times}, lower`, higher: `${times}, higher` };
    const text = Object.hasOwn(claims, verdict.verdict) ? claims[verdict.verdict] : verdict.verdict;
    return [text, `${low.toFixed(digits)} to ${high.toFixed(digits)}`];
  }

  function tone(name, word) {
    if (["faster", "improved", "equivalent"].includes(word)) return "good";
    if (["slower", "degraded"].includes(word)) return "bad";
    if (word !== "higher" && word !== "lower") return "";
    return (word === "higher") === HIGHER_IS_BETTER.has(name) ? "good" : "bad";
  }

  const BADGES = {
    "baseline": "the uncompressed model that every ratio is taken against",
    "measured": "every number was read from a clock, a counter or an instrument",
    "estimated": "a number is an estimate, not a measurement, and marked (est.)",
    "modelled": "a number comes from a model of the hardware, and is marked (model)",
    "contended": "other work ran on the machine: its times and energies are not compared",
    "unsteady": "it did not reach a steady state: its times and energies are not compared",
    "implausible": "its numbers can't be true: nothing of it is ranked",
    "false claim": "the audit found that it isn't what it claims to be",
    "failed": "it could not be measured"
  };

  // those that lead on the page, besides the metrics of the tasks; they decide too what the row is called
  const HEADLINES = new Set([
    "latency_p50_s", "latency_p95_s", "latency_p99_s", "throughput_per_s", "output_tokens_per_s", "ttft_p50_s", "tpot_p50_s",
    "max_rate_per_s", "energy_j_per_inference", "energy_j_per_output_token", "peak_memory_bytes", "disk_bytes", "sparsity",
    "effective_bits"
  ]);
  const isHeadline = (name, row) => row.metrics.includes(name) || HEADLINES.has(name);

  function badges(row) {
    const found = [];
    if (row.role === "baseline") found.push("baseline");
    if (row.status !== "ok") found.push("failed");
    if (row.implausible.length) found.push("implausible");
    if (row.false_claims && row.false_claims.length) found.push("false claim");
    if (row.not_rankable.some((each) => each.startsWith("contended"))) found.push("contended");
    if (row.not_rankable.some((each) => each.includes("did not reach a steady state"))) found.push("unsteady");
    const kinds = new Set(Object.entries(row.cells).filter(([name, cell]) => cell.value !== null && isHeadline(name, row)).map(([, cell]) => cell.kind));
    if (row.status === "ok") {
      if (kinds.has("estimated")) found.push("estimated");
      if (kinds.has("modelled")) found.push("modelled");
      if (kinds.size === 1 && kinds.has("measured")) found.push("measured");
    }
    return found.map((name) => ({ name, meaning: BADGES[name] }));
  }

  return { DASH, title, humanize, significant, seconds, valueText, intervalText, plain, claim, signed, badges, isHeadline };
})();
