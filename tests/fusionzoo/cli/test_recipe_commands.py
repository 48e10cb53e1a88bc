"""Recipes on the command line: protocols, folds, doing it again, and what the refusals say."""

from __future__ import annotations

import json

import pytest
import yaml

from fusionzoo.cli import main

RECIPE = {
    "summary": "a small one",
    "system": "Small",
    "paper": "nobody, nowhere",
    "code": "nobody/nothing@0",
    "features": "made up",
    "published": {
        "scores": {"weighted_f1": 70.5},
        "protocol": "best of all epochs",
        "flaw": "on test",
        "source": "none",
    },
    "data": {"source": "demo", "dialogues": [8, 3, 4], "length": [3, 6]},
    "host": {"name": "text-cnn", "hidden": 8, "head_width": 8},
    "fusion": {"name": "concat"},
    "training": {"epochs": 2, "batch_size": 4, "device": "cpu"},
    "protocols": {
        "published": {"data": {"merge_dev": True, "dev_fraction": 0.0}, "training": {"selection": "test"}},
        "honest": {"training": {"selection": "dev"}},
    },
    "variants": {"sum": {"fusion": {"name": "sum"}, "published": {"scores": {"weighted_f1": 60.0}}}},
}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return path


def call(capfd, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    out, err = capfd.readouterr()
    return int(exit_.value.code or 0), out, err


def test_protocols_decide_what_is_chosen_on_and_every_report_says_so(recipe, capfd):
    status, out, err = call(capfd, "train", recipe, "--protocol", "published", "--out", "paper", "--quiet")
    assert status == 0, err
    assert "published 70.50" in out
    assert "SELECTED ON THE TEST SPLIT" in out
    page = (recipe.parent / "paper" / "report.html").read_text()
    for words in ('class="warning"', "70.50", "best of all epochs", "on test"):
        assert words in page
    result = json.loads((recipe.parent / "paper" / "result.json").read_text())
    assert result["dev"] is None  # the dev dialogues were trained on
    assert result["recipe"]["protocol"] == "published"

    status, out, _ = call(capfd, "train", recipe, "--variant", "sum", "--out", "ours", "--quiet")
    assert status == 0
    assert "protocol honest" in out
    assert "published 60.00" in out
    assert "SELECTED ON THE TEST" not in out
    result = json.loads((recipe.parent / "ours" / "result.json").read_text())
    assert (result["selection"], result["fusion"]) == ("dev", "sum")


def test_several_seeds_beside_the_published_number(recipe, capfd):
    command = [
        "compare",
        recipe,
        "--seeds",
        2,
        "--protocol",
        "published",
        "--out",
        "seeds",
        "--set",
        "training.epochs=1",
        "--jobs",
        "1",
    ]
    status, out, err = call(capfd, *command)
    assert status == 0, err
    for words in ("±", "published 70.50", "Selected on the test split"):
        assert words in out


def test_folds_as_one_command(recipe, capfd):
    command = ["cross-validate", recipe, "--folds", "3", "--out", "cv", "--set", "training.epochs=1", "--jobs", "1"]
    status, out, err = call(capfd, *command)
    assert status == 0, err
    assert "mean ± sd over folds" in out
    assert "fold3" in out
    config = yaml.safe_load((recipe.parent / "cv/runs/fold2__seed0/config.yaml").read_text())
    assert config["data"]["split"].endswith("fold2.json")
    status, out, err = call(capfd, *command)
    assert status == 0
    assert "3 of 3 runs are finished already" in err
    # A fold is a run like any other, and its own configuration runs it again.
    status, out, _ = call(capfd, "train", "--config", "cv/runs/fold2__seed0/config.yaml", "--out", "again", "--quiet")
    assert status == 0
    first, second = (recipe.parent / d / "predictions.csv" for d in ("cv/runs/fold2__seed0", "again"))
    assert first.read_bytes() == second.read_bytes()
    status, out, _ = call(capfd, "reproduce", "cv", "--quiet", "--tolerance", "0", "--jobs", "1")
    assert status == 0
    assert "same to the last digit" in out


def test_a_recipe_with_folds_is_cross_validated_by_train(recipe, capfd):
    recipe.write_text(yaml.safe_dump(RECIPE | {"folds": 2, "training": RECIPE["training"] | {"epochs": 1}}))
    status, out, err = call(capfd, "train", recipe, "--out", "folds", "--quiet")
    assert status == 0, err
    assert "mean ± sd over folds" in out
    status, out, err = call(capfd, "train", recipe, "--folds", "none", "--out", "one", "--quiet")
    assert status == 0, err
    assert (recipe.parent / "one" / "result.json").exists()
    status, _, err = call(capfd, "train", recipe, "--seeds", "3")
    assert status == 2
    assert f"fusionzoo cross-validate {recipe} --seeds 3" in err


def test_a_recipe_beside_what_was_published(recipe, capfd):
    status, out, err = call(capfd, "reproduce", recipe, "--out", "both", "--quiet")
    assert status == 0, err
    for words in (
        "published",
        "here, honest",
        "here, published",
        "70.50",
        "Published flaw: on test",
        "Selected on the",
    ):
        assert words in out
    assert "70.50" in (recipe.parent / "both" / "reproduction.md").read_text()
    assert 'class="warning"' in (recipe.parent / "both" / "report.html").read_text()


def test_what_was_changed_from_the_recipe_is_said(recipe, capfd):
    command = ["reproduce", recipe, "--protocol", "honest", "--quiet"]
    status, out, err = call(capfd, *command, "--out", "as-it-is")
    assert status == 0, err
    assert "nothing is changed from the recipe" in " ".join(out.split())
    changes = ["--set", "training.epochs=1", "--set", "host.dropout=0.3", "--folds", "2"]
    status, out, err = call(capfd, *command, "--out", "changed", *changes)
    assert status == 0, err
    line = next(line for line in out.splitlines() if "changed from the recipe" in line)
    assert "honest: changed from the recipe: " in line
    for words in ("training.epochs 2 -> 1", "host.dropout", "-> 0.3", "folds none -> 2"):
        assert words in " ".join(out.split()), out
    assert "training.epochs 2 -> 1" in (recipe.parent / "changed" / "reproduction.md").read_text()


def test_cards_and_configurations_hold_every_option_with_its_value(recipe, capfd):
    from fusionzoo.runs.options import default_options

    status, _, err = call(capfd, "train", recipe, "--out", "first", "--quiet", "--set", "host.hidden=6")
    assert status == 0, err
    stored = yaml.safe_load((recipe.parent / "first" / "config.yaml").read_text())
    card = json.loads((recipe.parent / "first" / "card.json").read_text())["config"]
    for config in (stored, card):
        assert config["host"]["hidden"] == 6
        assert config["host"]["placement"]
        for section in ("host", "fusion", "objective"):
            chosen = config[section]
            assert chosen.keys() >= default_options(chosen["name"], section).keys(), section
    status, _, _ = call(capfd, "train", "--config", "first/config.yaml", "--out", "again", "--quiet")
    assert status == 0
    first, second = (recipe.parent / d / "predictions.csv" for d in ("first", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_beside_its_card(recipe, capfd):
    assert call(capfd, "train", recipe, "--out", "first", "--quiet")[0] == 0
    card = json.loads((recipe.parent / "first" / "card.json").read_text())
    assert card["config"]["training"]["epochs"] == 2
    assert len(card["data"]["sha256"]) == 64
    assert "torch" in card["packages"]
    status, out, _ = call(capfd, "reproduce", "first", "--quiet", "--tolerance", "0")
    assert status == 0
    assert "same to the last digit" in out
    assert "+0.00" in out
    card["scores"]["test"]["ua"] += 0.1
    card["packages"]["torch"] = "0.4"
    (recipe.parent / "other.json").write_text(json.dumps(card))
    status, out, _ = call(capfd, "reproduce", "other.json", "--quiet", "--tolerance", "0.01")
    assert status == 1
    assert "-10.00" in out
    assert "torch 0.4 then" in out


def test_refusals(recipe, capfd):
    (recipe.parent / "empty").mkdir()
    cases = {
        ("train", "multiemo-iemocap"): "needs data",
        ("train", "--protocol", "honest"): "belong to a recipe",
        ("train", recipe, "--protocol", "publishd"): "did you mean 'published'",
        ("train", recipe, "--variant", "smu"): "did you mean 'sum'",
        ("cross-validate", recipe, "--folds", "sesion"): "Folds can be made by",
        ("cross-validate", recipe, "--folds", "1"): "2 or more",
        ("cross-validate", recipe): "needs folds",
        ("reproduce", "multiemo-iemocpa"): "did you mean 'multiemo-iemocap'",
        ("reproduce", "empty"): "card.json",
        ("reproduce", "empty", "--protocol", "honest"): "done again as it was",
        ("reproduce", "nowhere.json"): "card.json",
    }
    for arguments, words in cases.items():
        status, out, err = call(capfd, *arguments)
        assert status == 2, arguments
        assert words in err, (arguments, err)
        assert "Traceback" not in err + out


def test_looking_at_a_recipe(capfd):
    status, out, _ = call(capfd, "plugins", "--kind", "recipe")
    assert status == 0
    assert "multiemo-meld" in out
    status, out, _ = call(capfd, "info", "multiemo-meld")
    assert status == 0
    for words in ("66.74", "flaw", "protocol published", "variant sound"):
        assert words in out
