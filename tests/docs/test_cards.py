"""The cards of the runs behind docs/results.md: of today's defaults, and the table says what they say."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

import fusionzoo
from fusionzoo.runs.card import read_card
from fusionzoo.runs.config import RunConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"
FUSIONS = ("concat", "lmam", "gated")


def cards(fusion):
    return [read_card(f) for f in sorted((DOCS / "cards" / "demo").glob(f"dialogue-gcn__{fusion}__seed*.json"))]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_table_of_demo_is_the_mean_of_its_cards(fusion):
    scores = [card["scores"]["test"]["weighted_f1"] for card in cards(fusion)]
    section = (DOCS / "results.md").read_text("utf-8").split("\n## demo\n")[1].split("\n## ")[0]
    assert f"| dialogue-gcn | {fusion} | {len(scores)} | {statistics.mean(scores):.4f} " in section


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_card_is_of_the_defaults(fusion):
    for card in cards(fusion):
        config = RunConfig.from_dict(card["config"])
        assert config.training.to_dict() == RunConfig.from_sources(seed=card["seed"]).training.to_dict()
        assert config.host.placement == fusionzoo.card("dialogue-gcn", "host").placements[0]
