"""How long does `compressbench --help` take, next to `import torch`?

    python benchmarks/start_up.py

Both are run as child processes, one after the other, ten times; the ratio is that of the medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

NUM_REPEATS = 10
COMMANDS = {"--help": ["-m", "compressbench", "--help"], "import torch": ["-c", "import torch"]}


def seconds(arguments: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(NUM_REPEATS):
        for name, arguments in COMMANDS.items():
            found[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, median in medians.items():
        print(f"{name}: median {median:.2f} s of {NUM_REPEATS}")
    print(f"ratio: {medians['--help'] / medians['import torch']:.2f}")


if __name__ == "__main__":
    main()
