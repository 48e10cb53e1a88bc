"""What the tests of several hosts share lies in modules of their own, importable by name."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))
pytest.register_assert_rewrite("dialogue_hosts", "context_encoder_hosts", "modal_graph_hosts", "clip_hosts")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a class that takes an argument `x` runs once for every entry of the class's table `XS`."""
    for argument in metafunc.fixturenames:
        table = getattr(metafunc.cls, f"{argument.upper()}S", None)
        if table is not None:
            # Of a tuple the first and the last say what it is about.
            words = [x if isinstance(x, str) else f"{x[0]} {x[-1]}" for x in table]
            metafunc.parametrize(argument, list(table), ids=[w.replace(" ", "-") for w in words])
