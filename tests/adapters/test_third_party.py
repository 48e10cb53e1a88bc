"""Every adapter for a public repository passes the suite on the stand-in that it brings along."""

from __future__ import annotations

import pytest

import fusionzoo
from fusionzoo.testing import check_adapter


@pytest.mark.parametrize("name", fusionzoo.names("adapter"))
def test_adapter(name):
    check_adapter(name).raise_if_failed()
