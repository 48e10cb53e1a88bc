"""What the user asked for, refused before the script starts where it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import fusionzoo
from fusionzoo._options import accepted_options
from fusionzoo.errors import OptionError, PatchOptionError, close_matches_hint
from fusionzoo.fusion import Fusion
from fusionzoo.host import name_and_options
from fusionzoo.patching.layouts import check_layout
from fusionzoo.patching.patcher import MODES


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    fusion : a name, a name with options, or None for the script as it is.
    site : an index or `"file.py:47"`; None for what an adapter knows, else the best candidate.
    modalities : as for `find_sites`.
    split : `(argument, {modality: width})` of an argument in which the script has joined the modalities.
    model : class name of the model, where a script trains several.
    prove : whether the first call in training is tried out.
    """

    fusion: Any = None
    site: int | str | None = None
    modalities: Any = None
    split: tuple[str, dict[str, int]] | None = None
    layout: str | None = None
    mode: str = "residual"
    model: str | None = None
    prove: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse now what the first call in training would, perhaps hours later, as far as it can be known without the model.

        The names are known; whether a value suits the widths of the site is not.
        """
        if self.mode not in MODES:
            raise PatchOptionError(
                f"mode={self.mode!r} is not one of {', '.join(MODES)}{close_matches_hint(str(self.mode), MODES)}"
            )
        if self.layout is not None:
            check_layout(self.layout)
        if self.fusion is None:
            if self.options:
                raise OptionError(
                    f"options of a fusion ({', '.join(self.options)}) without one; name it: --fusion NAME, of which there are "
                    f"{', '.join(fusionzoo.names())}"
                )
            return
        if isinstance(self.fusion, Fusion):
            if self.options:
                raise PatchOptionError(
                    f"options ({', '.join(self.options)}) go with a fusion's name, not with an instance"
                )
            return
        name, options = _named(self.fusion)
        cls = fusionzoo.get(name)
        accepted = [o for o in accepted_options(cls) if o != "dims"]  # which are the site's
        for option in (*options, *self.options):
            if option not in accepted:
                raise OptionError(
                    f"{name} has no option {option!r}{close_matches_hint(option, accepted) or '.'} It takes: "
                    f"{', '.join(accepted)}; write --option NAME=VALUE"
                )


def _named(fusion: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(fusion, str):
        return fusion, {}
    if isinstance(fusion, Mapping):
        return name_and_options(fusion)
    if isinstance(fusion, tuple) and len(fusion) == 2 and isinstance(fusion[1], Mapping):
        return fusion
    raise OptionError(
        f'fusion must be a name, a mapping such as {{"name": "lmam", "rank": 4}} or a Fusion, not {type(fusion).__name__}'
    )
