"""Somebody else's training script, unmodified, with a fusion in its model: `fusionzoo run`, and the same from Python.

>>> from fusionzoo import wild
>>> done = wild.run("train.py", ["1e-3", "gpu"], fusion="lmam")                     # doctest: +SKIP
"""

from fusionzoo.wild.session import Result as Result
from fusionzoo.wild.session import run as run

__all__ = ["Result", "run"]
