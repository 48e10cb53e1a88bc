"""The stand-ins are a module of its own, importable by name, so that patched ones can be pickled."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
