"""Imports by the module names of version 0.1."""

import importlib
import subprocess
import sys

import pytest

import fusionzoo
from fusionzoo._moved import MOVED
from fusionzoo.errors import MovedWarning


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_module_forwards_to_the_new_one_and_says_so(old: str):
    sys.modules.pop(old, None)
    with pytest.warns(MovedWarning, match=MOVED[old]):
        module = importlib.import_module(old)
    there = importlib.import_module(MOVED[old])
    names = [n for n in vars(there) if not n.startswith("_")]
    assert all(getattr(module, n) is getattr(there, n) for n in names)
    assert dir(module) == dir(there)


def test_old_attributes_of_the_package_are_there():
    sys.modules.pop("fusionzoo.evaluation", None)
    vars(fusionzoo).pop("evaluation", None)
    with pytest.warns(MovedWarning, match="experiments"):
        assert fusionzoo.evaluation.__doc__  # type: ignore[attr-defined]


def test_an_import_of_an_old_name_in_a_fresh_process():
    program = "from fusionzoo.training.models import load_model; from fusionzoo.evaluation.compare import compare"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


def test_what_never_was_is_not_found():
    sys.modules.pop("fusionzoo.evaluation", None)
    with pytest.warns(MovedWarning, match="experiments"), pytest.raises(ModuleNotFoundError):
        importlib.import_module("fusionzoo.evaluation.nothing")
