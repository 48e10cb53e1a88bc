from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import hosts as written_hosts  # under one name, by which tests import them and pickles find the hosts
import meeting_hosts  # noqa: F401
import zoo  # noqa: F401

sys.path.remove(str(Path(__file__).parent))
from zoo.wrapped import MASK


def pytest_generate_tests(metafunc):
    if "style" in metafunc.fixturenames:
        metafunc.parametrize("style", written_hosts.STYLES, ids=lambda c: c.__name__)


@pytest.fixture(scope="session")
def hosts():
    """The module of test hosts."""
    return written_hosts


@pytest.fixture
def build():
    """`build(cls)` gives a seeded model in eval mode and the arguments of a call."""

    def make(cls, training=False):
        torch.manual_seed(0)
        model = cls().train(training)
        args, kwargs = cls.call()
        return model, args, kwargs

    return make


@pytest.fixture
def shake():
    """Moves a patch's parameters, as training would."""

    def move(patch):
        g = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in patch.parameters():
                p.add_((torch.randn(p.shape, generator=g) * 0.3).to(p.dtype))

    return move


@pytest.fixture
def batch():
    """What the hosts of `zoo.wrapped` are called with: text, audio and the mask."""
    g = torch.Generator().manual_seed(1)
    return torch.randn(3, 5, 6, generator=g), torch.randn(3, 5, 5, generator=g), MASK
