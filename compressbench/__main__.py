"""`python -m compressbench` and the command `compressbench`."""

from __future__ import annotations

from compressbench.cli.main import main

if __name__ == "__main__":
    main()
