"""What somebody might write to be ranked first, or to run something in the reader: names, values and files, by name.

A case's text says why it is not ranked, or not read; "" where it is what people write as they like, and the row stays.
"""

from __future__ import annotations

import json

from hostile_records import (
    NASTY,
    POLITE,
    Case,
    a_file,
    add_perplexity,
    best,
    best_changed,
    drop_energy,
    folder_like_a_record,
    forged,
    link_to_itself,
    link_to_nowhere,
    of_blocks,
    of_pair,
    put,
    reading,
    set_at,
)

TEXTS = {
    "script tag": "<script>alert(1)</script>",
    "svg onload": "<svg/onload=alert(1)>",
    "closing script": "</script><script>alert(1)</script>",
    "comment": "<!--",
    "attribute": '" onmouseover="alert(1)',
    "javascript url": "javascript:alert(1)",
    "jinja": "{{7*7}}",
    "jinja statement": "{% include '/etc/passwd' %}",
    "template literal": "${alert(1)}",
    "formula with a command": "=cmd|' /C calc'!A0",
    "formula plus": "+1+1",
    "formula minus": "-2+3=1",
    "formula at": "@SUM(1,1)",
    "formula behind a tab": "\t=1+1",
    "formula behind a line end": "\r=1+1",
    "formula behind a space": " =1+1",
    "line ends": "a\r\nb",
    "nul": "a\x00b",
    "escape sequence": "\x1b[31mred\x1b[2J",
    "terminal link": "\x1b]8;;http://evil.example\x07click\x1b]8;;\x07",
    "one-byte escape": "\x9b31mred",
    "backspaces": "int4\b\b\b\bint8",
    "right-to-left override": "\u202e8tni",
    "isolate": "\u2066int8\u2069",
    "zero width": "int\u200b8",
    "byte order mark": "\ufeffint8",
    "tag letters": "int8\U000e0041",
    "line separator": "a\u2028b",
    "homoglyph": "\u0456nt8",
    "combining storm": "i" + "\u0300" * 200,
    "ten thousand letters": "a" * 10_000,
    "joined emoji": "\U0001f469\u200d\U0001f4bb",
    "markdown link": "[click](javascript:alert(1))",
    "markdown image": "![x](http://evil.example/x.png)",
    "markdown cells": "a|b|c",
    "backticks": "`rm -rf`",
    "entities": "&lt;script&gt;&#x3c;",
    "latex input": "\\input{/etc/passwd}",
    "latex write18": "\\immediate\\write18{id}",
    "latex comment": "a%b",
    "rich markup": "[red]int8[/red]",
    "cdata": "]]>",
    "xml entity": '<!ENTITY x SYSTEM "file:///etc/passwd">',
    "sql": "'; DROP TABLE rows;--",
    "format string": "%s%n{0.__class__}",
    "parent folder": "../../etc/passwd",
    "dots": "..",
    "nothing": "",
    "space": " ",
    "the control": "control",
}

_NAMES = {f"candidate: {name}": put("candidate", text, "name") for name, text in TEXTS.items() if name != "the control"}
_NAMES |= {
    "candidate: the control": put("candidate", "control", "can't be called"),
    "candidate: the baseline": put("candidate", "baseline", "can't be called"),
    "candidate: a Windows device": put("candidate", "CON", ""),
    "candidate: lone surrogate": put("candidate", "\ud800", "not a valid record"),
    "a second baseline": forged(lambda f: f.update(role="baseline", candidate="best"), "can't be called"),
}

_PLACES = {
    "recipe.name": "recipe",
    "recipe.hash": "recipe's hash",
    "key": "key",
    "run_id": "run",
    "created_utc": "no time",
    "recipe.text.model.id": "model",
    "recipe.text.tasks.0.use": "task",
    "recipe.text.meters.0.use": "meter",
    "model.id": "model",
    "model.revision": "revision",
    "model.dtype": "data type",
    "model.architecture": "architecture",
    "steps.0.use": "step",
    "runtime.use": "runtime",
    "device": "machine",
    "scores.0.task": "task",
    "scores.0.label": "task",
    "scores.0.data": "data set",
    "scores.0.split": "split",
    "scores.0.metric": "metric",
    "scores.0.stratum": "stratum",
    "scores.0.samples_file": "no file",
    "scores.0.outputs_file": "no file",
    "environment.cpu_model": "machine",
    "environment.os": "machine",
    "environment.kernel": "machine",
}
_NAMES |= {f"{place}: all at once": put(place, NASTY, said) for place, said in _PLACES.items()}
_NAMES |= {f"{place}: printable": put(place, POLITE, said) for place, said in _PLACES.items()}
_NAMES |= {
    "model id: javascript url": put("model.id", "javascript:alert(1)", "script"),
    "model id: formula": put("recipe.text.model.id", "=HYPERLINK(1)", "formula"),
    "model id: ten thousand letters": put("model.id", "a" * 10_000, "10000 letters"),
    "metric: formula": put("scores.0.metric", "=1+1", "metric"),
    "metric: homoglyph": put("scores.0.metric", "\u0430ccuracy", "metric"),
    "packages: escape sequence": put("environment.packages.torch", "\x1b[2J", "machine"),
    "samples: parent folder": put("scores.0.samples_file", "../../etc/passwd", "no file"),
    "outputs: device": put("scores.0.outputs_file", "NUL", "no file"),
    "artefact: parent folder": put(
        "artefact", {"folder": "../..", "num_bytes": 1, "sha256": "ab", "max_difference": 0.0}, "outside"
    ),
}  # fmt: skip

# where people and libraries write what they like: nothing of it may be run, and the row stays
_REMARKS = {
    "absent": put("absent", {"peak_reserved_memory_bytes": NASTY, NASTY: NASTY}, ""),
    "reading source": put("readings.0.source", NASTY, ""),
    "provenance source": put("measurement.provenance.energy_j.source", NASTY, ""),
    "step note": put("steps.0.notes", {NASTY: NASTY}, ""),
    "step option": put("steps.0.options", {NASTY: [NASTY]}, ""),
    "protocol": put("scores.0.protocol_id", NASTY, ""),
    "extra of the environment": put("environment.extra", {"note": NASTY}, ""),
    "recipe's other keys": put("recipe.text.candidates.0", {"name": NASTY, NASTY: NASTY}, ""),
    "tier": put("workload.tier", NASTY, ""),
    "void window": put("measurement.blocks.1.void", {"energy": NASTY}, ""),
    "unsteady": put("measurement.warm_up.candidate.reason", NASTY, ""),
    "failure": forged(
        lambda f: f.update(status="failed", failure={"type": NASTY, "message": NASTY}, scores=[], measurement=None),
        "failed",
    ),
}  # fmt: skip


_VALUES = {
    "accuracy of 1.2": put("scores.0.value", 1.2, "a proportion of 1.2"),
    "accuracy below 0": put("scores.0.value", -0.1, "a proportion of -0.1"),
    "accuracy that is no number": put("scores.0.value", float("nan"), "not a valid record"),
    "infinite accuracy": put("scores.0.value", float("inf"), "not a valid record"),
    "accuracy of 1e309": put("scores.0.value", "@", "not a valid record", {'"@"': "1e309"}),
    "accuracy as text": put("scores.0.value", "best", "not a valid record"),
    "accuracy of no samples": put("scores.0.num_samples", 0, "no samples"),
    "400 digits in a latency": put("measurement.blocks.1.latencies_ns.0", 10**400, "401 digits"),
    "6000 digits in a latency": put("measurement.blocks.1.latencies_ns.0", "@", "not a valid record", {'"@"': "9" * 6000}),
    "400 digits in a size": put("environment.memory_bytes", 10**400, "401 digits"),
    "1e309 in a workload": put("workload.sequence_length", "@", "not a valid record", {'"@"': "1e309"}),
    "no number in a recipe": put("recipe.text.seed", float("nan"), "not finite"),
    "latency of 1 ns": of_blocks(lambda b: b.update(latencies_ns=[1] * 20), "less than a call takes"),
    "latency of 0": of_blocks(lambda b: b.update(latencies_ns=[0] * 20), "not a valid record"),
    "latency below 0": of_blocks(lambda b: b.update(latencies_ns=[-5] * 20), "not a valid record"),
    "no calls": of_blocks(lambda b: b.update(latencies_ns=[]), "not a valid record"),
    "no blocks": put("measurement.blocks", [], "beyond arithmetic"),
    "calls longer than their block": of_blocks(lambda b: b.update(seconds=1e-6), "longer than the block"),
    "block of no time": of_blocks(lambda b: b.update(seconds=5e-324), "longer than the block"),
    "energy below 0": of_blocks(lambda b: b.update(raw={"energy_j": -1.0}), "less than nothing"),
    "energy of one block below 0": put("measurement.blocks.1.raw.energy_j", -1e-9, "less than nothing"),
    "energy of a city": of_blocks(lambda b: b.update(raw={"energy_j": 1e9}), "kW"),
    "energy of 1e308 J": of_blocks(lambda b: b.update(raw={"energy_j": 1e308}), "beyond arithmetic"),
    "batches of a million": put("measurement.batch_size", 1_000_000, "a batch of"),
    "batches that nobody asked for": put("measurement.batch_size", 64, "batches of 64"),
    "batches below 0": put("measurement.batch_size", -1, "a batch of -1"),
    "loop that costs less than nothing": put("measurement.harness_overhead_ns", -1e9, "the loop costs"),
    "no warm-up": put("measurement.warm_up", {}, "no warm-up"),
    "p99 below p50": forged(
        lambda f: f["readings"].extend(
            {"name": name, "value": value, "kind": "measured", "source": "s", "uncertainty_reason": "none"}
            for name, value in (("latency_p50_s", 0.5), ("latency_p99_s", 0.001))
        ),
        "latency_p99_s stands in the record as a reading",
    ),
    "throughput as a reading": reading("throughput_per_s", 1e9),
    "energy as a reading": forged(
        lambda f: (
            drop_energy(f),
            f["readings"].append(
                {
                    "name": "energy_j_per_inference", "value": -5.0, "kind": "measured", "source": "s", "boundary": "cpu",
                    "window_s": 1.0, "tick_s": 0.1, "uncertainty_reason": "none",
                }
            ),
        ),
        "energy_j_per_inference of -5",
    ),
    "bandwidth as a reading": reading("mbu", 0.9),
    "disk below 0": reading("disk_bytes", -1.0),
    "no disk": reading("disk_bytes", 0.0),
    "peak memory of nothing": reading("peak_memory_bytes", 0.0),
    "peak memory below the weights": reading("peak_memory_bytes", 1.0),
    "more bytes than there are": reading("disk_bytes", 1e30),
    "sparsity of 1.5": reading("sparsity", 1.5),
    "sparsity below 0": reading("sparsity", -0.5),
    "no bits": reading("effective_bits", 0.0),
    "too many bits": reading("effective_bits", 200.0),
    "half a parameter": reading("num_parameters", 22.5),
    "compressed before it began": reading("compress_seconds", -3.0),
    "interval elsewhere": reading("disk_bytes", 5.0, low=6.0, high=7.0) ._replace(said="outside its interval"),
    "interval from below 0": reading("disk_bytes", 5e6, low=-1.0, high=7e6),
    "one reading twice": forged(lambda f: f["readings"].append(dict(f["readings"][0], value=1.0)), "read twice"),
    "more changed than there are": of_pair(num_beneficial=5000),
    "changes that give another difference": of_pair(mean_difference=0.4),
    "difference of proportions of 7": of_pair(mean_difference=7.0),
    "more pairs than samples": of_pair(num_samples=99_999),
    "interval upside down": of_pair(
        resampled={
            "difference": 0.5, "low": 0.9, "high": 0.1, "standard_error": 0.01, "method": "m", "seed": 0,
            "num_resamples": 1, "num_units": 9,
        }
    ),
    "perplexity below 1": forged(lambda f: (add_perplexity(f), set_at(f, "scores.1.value", 0.5)), "below 1"),
    "perplexity beyond arithmetic": forged(lambda f: add_perplexity(f, mean_difference=1e5), "told from infinite"),
    "perplexity of 1e300 nats": forged(lambda f: add_perplexity(f, mean_difference=-1e300), "told from infinite"),
    "spread beyond arithmetic": forged(lambda f: add_perplexity(f, sd_difference=1e300), "beyond arithmetic"),
    "stratum of 7": put("scores.0.strata", {"x": {"num_samples": 10, "value": 7.0}}, "a proportion of 7"),
    "stratum beyond the task": put("scores.0.strata", {"x": {"num_samples": 10**6, "value": 0.9}}, "a stratum has more"),
    "draw of -3": put(
        "scores.0.draws", [{"seed": 0, "value": -3, "samples_file": "a.parquet", "samples_sha256": "0"}], "proportion of -3"
    ),
    "reported accuracy of 2": put("scores.0.reported", {"acc_norm": 2.0}, "is reported"),
    "divergence below 0": put("scores.0.fidelity", {"agreement": 1.0, "kl_mean": -1.0}, "kl_mean"),
    "more cut off than asked": put("scores.0.num_truncated", 10**6, "were cut off"),
    "time of no calendar": put("created_utc", "yesterday", "no time"),
    "step of less than no time": put("steps.0.seconds", -1.0, "not a valid record"),
    "no length": put("workload.sequence_length", "x", "sequence_length"),
    "scenario as a list": put("workload.scenario", ["offline"], "scenario"),
    "batches to try as text": put("workload.batch_sizes", 7, "batch_sizes"),
    "model as a list": put("recipe.text.model", ["x"], "model"),
    "tasks that are none": put("recipe.text.tasks", None, "tasks"),
    "meters as numbers": put("recipe.text.meters", [1], "meters"),
    "candidates without names": put("recipe.text.candidates", [{}], "candidates"),
    "baseline as text": put("recipe.text.baseline", "x", "baseline"),
    "nesting in a recipe": put("recipe.text.deep", json.loads("[" * 100 + "]" * 100), "not a valid record"),
}  # fmt: skip


_FILES = {
    "nothing in it": a_file(b"", "it isn't JSON"),
    "cut off": a_file(best()[:-300], "checksum"),
    "one word changed": a_file(best_changed(b'"ok"', b'"OK"'), "checksum"),
    "byte order mark": a_file(b"\xef\xbb\xbf" + best(), "record"),
    "another encoding": a_file(best().decode().encode("utf-16"), "doesn't start"),
    "bytes of no text": a_file(b'{"sha256":"' + b"\xff" * 500, "it isn't JSON"),
    "a list": a_file(b"[1, 2]", "no schema_version"),
    "null": a_file(b"null", "no schema_version"),
    "a number of 5000 digits": a_file(b"1" * 5000, "it isn't JSON"),
    "deep nesting": a_file(b"[" * 200_000, "it isn't JSON"),
    "no checksum": a_file(b'{"schema_version": 4}', "doesn't start with its checksum"),
    "schema of the future": put("schema_version", 99, "got schema 99"),
    "schema as text": put("schema_version", NASTY * 99, "got schema"),
    "hostile key": forged(lambda fields: fields.update({NASTY * 99: 1}), "not a valid record"),
    "hostile reading": forged(lambda f: f["readings"][0].update(name=NASTY * 99, low=1.0), "not a valid record"),
    "a key that stands twice": put("status", "@", "'status' stands twice", {'"@"': '"failed",\n"status":"ok"'}),
    "nesting that no reader follows": put("absent", "@", "not a valid record", {'"@"': "[" * 5000 + "]" * 5000}),
    "link to itself": Case(link_to_itself, "can't be read"),
    "link to nowhere": Case(link_to_nowhere, "can't be read"),
    "folder with the name of a record": Case(folder_like_a_record, None),
}

CASES: dict[str, Case] = {**_NAMES, **_REMARKS, **_VALUES, **{f"file: {name}": case for name, case in _FILES.items()}}
INJECTING = (*_NAMES, *_REMARKS)
"""The cases that are about text."""
