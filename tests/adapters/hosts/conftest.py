"""What the tests of several hosts share lies in modules of their own, importable by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
