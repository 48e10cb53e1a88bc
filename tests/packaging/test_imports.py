"""The arrows between modules: what `lint-imports` cannot say, that no circle of modules imports itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

grimp = pytest.importorskip("grimp", reason="comes with import-linter (the extra dev)")


def circles(packages: tuple[str, ...]) -> list[list[str]]:
    """Modules that import one another, directly or over others; imports for type checkers alone never run."""
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)
    names = sorted(graph.modules)
    row = {name: i for i, name in enumerate(names)}
    pairs = [(row[n], row[m]) for n in names for m in graph.find_modules_directly_imported_by(n) if m in row]
    links = csr_array((np.ones(len(pairs)), tuple(zip(*pairs, strict=True))), shape=(len(names), len(names)))
    count, home = connected_components(links, connection="strong")
    together: list[list[str]] = [[] for _ in range(count)]
    for name, i in zip(names, home, strict=True):
        together[i].append(name)
    return [t for t in together if len(t) > 1]


#: Circles that the patcher still has.
KNOWN = (
    ["fusionzoo.patching.patcher", "fusionzoo.patching.saving"],
    ["fusionzoo.patching.repairs", "fusionzoo.patching.repositories"],
)


def test_no_circle_of_modules_imports_itself():
    assert [c for c in circles(("fusionzoo", "fusionzoo_plugins", "fusionzoo_adapters")) if c not in KNOWN] == []
