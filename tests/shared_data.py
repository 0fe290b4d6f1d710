"""Where the public data sets lie that some tests are held against, and a mark for those tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("COMPRESSBENCH_SHARED") or Path(__file__).parent.parent.parent / "shared")
DATA = SHARED / "data"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no public data sets in {DATA} (set COMPRESSBENCH_SHARED)")
