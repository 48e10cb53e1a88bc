# ruff: noqa
# fmt: off
"""Functions that the hosts of this folder join with, imported by name and by module."""

import torch as th
from torch import cat


def merge_streams(*xs, dim=-1):
    return cat(xs, dim)  # SITE ImportedByName


class Fuser:
    @staticmethod
    def glue(lst):
        return th.hstack(lst)  # SITE Static

    @classmethod
    def glue2(cls, lst):
        return th.concat(lst, axis=-1)  # SITE ClassM


def outer_level(x, y, z):
    def go(parts):
        return inner_level(parts)

    return go([x, y, z])


def inner_level(parts):
    return th.concatenate(tuple(parts), -1)  # SITE DeepHelpers
