"""Whose code a function is: the model's, or that of a library which the model only calls.

The model decides. The packages in which its own class and those of its modules are written are the model's code wherever they are
installed (`transformers`, a pip package of somebody's lab), and so is whatever is not installed as a package at all: scripts,
checkouts, notebooks. Torch, the standard library and the patcher never are; other installed packages are tools.
"""

from __future__ import annotations

import os
import sysconfig

import torch
from torch import nn

_PATCHER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_STANDARD = sysconfig.get_paths()["stdlib"] + os.sep
_INSTALLED = ("site-packages", "dist-packages")


class HostCode:
    """The files that count as a model's own: `file in HostCode(model)`."""

    def __init__(self, model: nn.Module):
        classes = {c for m in model.modules() for c in type(m).__mro__ if issubclass(c, nn.Module)}
        self.packages = {c.__module__.partition(".")[0] for c in classes} - {"torch"}
        self._known: dict[str, bool] = {}

    def __contains__(self, filename: str) -> bool:
        known = self._known.get(filename)
        if known is None:
            known = self._known[filename] = self._is_own(filename)
        return known

    def _is_own(self, filename: str) -> bool:
        if filename.startswith((_PATCHER, _TORCH)) or (filename.startswith("<") and "frozen" in filename):
            return False
        parts = filename.replace(os.sep, "/").split("/")
        for where in _INSTALLED:
            if where in parts[:-1]:
                return parts[parts.index(where) + 1].removesuffix(".py") in self.packages
        return not filename.startswith(_STANDARD)
