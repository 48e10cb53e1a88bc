"""Encoders are plugins: hosts of clips ask the registry, and somebody else's encoder is built like ours."""

from __future__ import annotations

import pytest
import torch

import fusionzoo
from fusionzoo._registry import Registry
from fusionzoo.clip_host import make_encoder
from fusionzoo.encoders import Encoded, Encoder
from fusionzoo.errors import ModelError, OptionError
from fusionzoo.testing import run


class Loudness(Encoder):
    """How loud a sound is, block by block.

    Shapes: wave `(B, N)` -> states `(B, T, 1)` and mask `(B, T)`.
    """

    medium = "audio"

    def __init__(self, name, *, block: int = 4):
        if name != "plain":
            raise ModelError(f"there is no model {name!r} of loudness; take 'plain'")
        super().__init__(torch.nn.Identity(), None, False, False)
        self.shortest, self.width = block, 1

    def forward(self, wave, mask=None):
        states = wave.unfold(1, self.shortest, self.shortest).square().mean(-1, keepdim=True)
        return Encoded(states, torch.ones(states.shape[:2], dtype=torch.bool))


class Nameless(torch.nn.Linear):
    """No shapes here."""


@pytest.fixture
def registry(monkeypatch):
    fresh = Registry()
    places = ("_registry", "clip_host", "testing.api", "testing.checks.encoder")
    for where in places:
        monkeypatch.setattr(f"fusionzoo.{where}.registry", fresh)
    return fresh


@pytest.mark.parametrize("name", fusionzoo.names("encoder"))
def test_ours_pass_the_checks(name):
    run(name, "encoder").raise_if_failed()


def test_one_of_somebody_elses_encodes_in_a_host(registry):
    assert fusionzoo.register(fusionzoo.plugin(Loudness, summary="how loud")) == ["loudness"]
    run("loudness").raise_if_failed()
    encoder = make_encoder("audio", {"kind": "loudness", "model": "plain", "block": 2})
    assert isinstance(encoder, Loudness)
    assert encoder(torch.ones(1, 6)).states.shape == (1, 3, 1)
    with pytest.raises(OptionError, match="Loudness has no option 'blokc'; did you mean 'block'"):
        make_encoder("audio", {"kind": "loudness", "model": "plain", "blokc": 2})
    host = fusionzoo.get("memo-cmt", "host")(
        {"text": 8, "audio": 1}, 2, 1, encoders={"audio": {"kind": "loudness", "model": "plain"}}, fusion="concat"
    )
    assert host(host.example()).logits.shape == (1, 1, 2)


def test_an_unknown_encoder_is_refused_with_those_that_are_installed(registry):
    with pytest.raises(OptionError, match=r"kind='adio'; did you mean 'audio'.*: audio, text, video"):
        make_encoder("sound", {"kind": "adio", "model": "x"})
    with pytest.raises(OptionError, match="kind=None; say which encoder"):
        make_encoder("smell", "x")


def test_checks_find_what_is_wrong(registry):
    fusionzoo.register(fusionzoo.plugin(Nameless, kind="encoder", summary="a layer"))
    failed = {r.check: r.reason for r in run("nameless", "encoder") if r.status == "failed"}
    assert set(failed) == {"docstring_shapes", "options_by_name"}
    assert "out_features without a default" in failed["options_by_name"]
