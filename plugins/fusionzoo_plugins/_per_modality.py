"""An option that is one size for all modalities, or one for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError

Sizes = int | Sequence[int] | Mapping[str, int]


def per_modality(value: Sizes, names: Iterable[str], option: str, owner: object) -> list[int]:
    """One positive integer per modality, from one for all, a sequence in their order or a mapping by name."""
    names = tuple(names)
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise OptionError(f"{option} names {', '.join(map(str, value))}; the modalities are {', '.join(names)}")
        value = [value[m] for m in names]
    sizes = list(value) if isinstance(value, Sequence) else [value] * len(names)
    if len(sizes) != len(names):
        raise OptionError(f"{option} gives {len(sizes)} sizes for {len(names)} modalities ({', '.join(names)})")
    return [check_positive(size, option, owner) for size in sizes]
