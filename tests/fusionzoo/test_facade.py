"""What `import fusionzoo` offers at once: every error and warning by its name, and no torch."""

from __future__ import annotations

import inspect
import subprocess
import sys

import fusionzoo
from fusionzoo import errors


def _own_exceptions() -> dict[str, type]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    }


def test_every_error_and_warning_is_on_the_facade():
    own = _own_exceptions()
    assert {"PatchError", "OutputError", "DataWarning", "MaskWarning"} <= set(own)
    for name, value in own.items():
        assert getattr(fusionzoo, name) is value, name
        assert name in fusionzoo.__all__, name
    assert {n for n in fusionzoo.__all__ if n.endswith(("Error", "Warning"))} <= set(own)


def test_every_name_of_the_facade_can_be_reached():
    assert sorted(set(fusionzoo.__all__)) == sorted(fusionzoo.__all__)
    for name in fusionzoo.__all__:
        assert getattr(fusionzoo, name) is not None, name


def test_importing_it_and_catching_its_errors_imports_no_torch():
    names = ", ".join(f"fusionzoo.{name}" for name in _own_exceptions())
    code = f"import sys, fusionzoo; ({names}); dir(fusionzoo); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
