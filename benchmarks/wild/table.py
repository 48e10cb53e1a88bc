"""What `scripts.toml` lists, and the conditions under which each script runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RULES = ("test f1", "test loss", "validation f1")
#: The conditions, in the order in which they run: the control is given lmam's number of parameters.
CONDITIONS = ("none", "lmam", "control", "cross-attention", "gated")
#: Whose number of parameters the control is given.
MODEL_OF_CONTROL = "lmam"


@dataclass(frozen=True)
class Script:
    """One training script; the fields are those of `scripts.toml`."""

    name: str
    repository: str
    commit: str
    file: str
    args: list[str]
    epochs: int
    layout: str
    data: str
    rule: str
    seeds: int
    folder: str = "."
    widths: dict[str, int] = field(default_factory=dict)
    join: dict[str, int] = field(default_factory=dict)
    input: str | None = None
    folders: list[str] = field(default_factory=list)
    printed: str | None = None

    @property
    def clone(self) -> str:
        """Name of the clone's folder."""
        return self.repository.replace("/", "+")

    @property
    def prove(self) -> bool:
        """Whether the patch is tried out in every run; an adapter's site is proved, as this one's reading has to be."""
        return bool(self.join)

    def arguments(self, epochs: int | None) -> list[str]:
        """What stands behind the script's name."""
        return [a.format(epochs=epochs or self.epochs) for a in self.args]


def scripts() -> list[Script]:
    """All of them, in the order of the file."""
    text = Path(__file__).with_name("scripts.toml").read_text(encoding="utf-8")
    return [Script(**entry) for entry in tomllib.loads(text)["script"]]


def fusion_of(condition: str, like: Mapping[str, Any] | None) -> str | dict[str, Any] | None:
    """What `fusionzoo.wild.run` is asked for.

    Parameters
    ----------
    condition : one of `CONDITIONS`.
    like : record of a run of the same script with lmam, whose size the control is given.
    """
    if condition == "none":
        return None
    if condition != "control":
        return condition
    if like is None:
        raise ValueError(f"the control has the size of {MODEL_OF_CONTROL}, which has not run on this script")
    # One hidden layer on the concatenation of the streams: inputs x h + h, then h x outputs + outputs parameters.
    inputs, outputs = sum(like["dims"].values()), like["out_dim"]
    hidden = max(1, round((like["parameters"] - outputs) / (inputs + outputs + 1)))
    return {"name": "concat-fc", "hidden": [hidden], "dropout": 0.0}
