"""The breakers are modules of their own, importable by name, so that their classes can be pickled."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "breakers"))
