"""An interpreter that stands in for another tool's: it does what a test tells it to, in place of the worker script."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

_BEGINNING = """\
import json, os, shutil, signal, subprocess, sys, time
flags, worker, path = sys.argv[1:-2], sys.argv[-2], sys.argv[-1]
job = json.load(open(path))
def answer(**result):
    versions = {"tool": "1.2", "python": "3.99"}
    json.dump({"checkpoint": job["output"], "versions": versions, **result}, open(job["result"], "w"))
"""


def write_stand_in(folder: Path, body: str) -> str:
    """A program that finds `flags`, `worker` and `job` and may call `answer`; its path, for an environment variable."""
    program = folder / "stand-in-python"
    program.write_text(f"#!{sys.executable} -S\n{_BEGINNING}{textwrap.dedent(body)}")
    program.chmod(0o755)
    return str(program)


def write_tool(folder: Path, checkpoint: Path, **remarks: int) -> str:
    """A stand-in whose result is always `checkpoint`; it leaves its job in `folder` as job.json."""
    body = f"""
    shutil.copytree({str(checkpoint)!r}, job["output"])
    shutil.copy(path, {str(folder / "job.json")!r})
    answer(remarks={remarks!r})
    """
    return write_stand_in(folder, body)
