"""What tuning may change: everybody's space, a class's own, and what people ask for."""

from __future__ import annotations

import pytest

import fusionzoo
from fusionzoo.errors import ConfigError
from fusionzoo.experiments.search_space import SHARED, check_asked, space_of
from fusionzoo.runs.models import resolved


@pytest.fixture
def lmam(make_config, corpus):
    return resolved(make_config(fusion="lmam"), corpus)


def test_everybody_begins_with_the_same_space_as_far_as_they_have_the_options(lmam, make_config, corpus):
    space = space_of(lmam)
    assert set(space) == {"training.lr", "host.dropout", "fusion.rank"}
    assert space["training.lr"] == SHARED["training.lr"]
    assert space["fusion.rank"] == [4, 8, 16, 32, None]  # what it has anyway is among them
    assert set(space_of(resolved(make_config(fusion="concat"), corpus))) == {"training.lr", "host.dropout"}
    outside = space_of(lmam.replaced(training__lr=0.05, host__dropout=0.8))
    assert outside["training.lr"] == {**SHARED["training.lr"], "high": 0.05}
    assert outside["host.dropout"]["high"] == 0.8


def test_a_class_and_people_change_it(lmam, monkeypatch):
    monkeypatch.setattr(fusionzoo.get("lmam"), "search_space", {"rank": [1, 2], "training.lr": None})
    monkeypatch.setattr(fusionzoo.get("bc-lstm", kind="host"), "search_space", {"hidden": {"low": 8, "high": 16}})
    space = space_of(lmam)
    assert space["fusion.rank"] == [1, 2, None]
    assert space["host.hidden"] == {"low": 8, "high": 16, "log": False}
    assert "training.lr" not in space
    asked = space_of(lmam, {"host.hidden": None, "fusion.rank": [3], "fusion.heads": [1], "training.ema": [0.0, 0.99]})
    assert asked["fusion.rank"] == [3, None]
    assert asked["training.ema"] == [0.0, 0.99]
    assert not {"host.hidden", "fusion.heads"} & set(asked)
    assert set(space_of(lmam, None, {"fusion.rank"})) == {"host.dropout", "host.hidden"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"fusion.rnak": [1]}, r"no model here has; did you mean 'fusion.rank'"),
        ({"training.lr": 0.1}, "list of choices or"),
        ({"training.lr": {"low": 0.1, "high": 0.01}}, "list of choices or"),
        ({"training.lr": {"low": 0.0, "high": 0.01, "log": True}}, "list of choices or"),
        ({"training.lr": [[1]]}, "list of choices or"),
        ({"training.scheduler": {"low": 1, "high": 2}}, "has 'cosine' there"),
    ],
)
def test_a_space_that_is_none_is_refused(lmam, asked, words):
    def read():
        check_asked(asked, [lmam])
        return space_of(lmam, asked)

    with pytest.raises(ConfigError, match=words):
        read()
