from __future__ import annotations

import csv
import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import fusionzoo
from fusionzoo.errors import CheckpointError, ConfigError, TrainingError
from fusionzoo.experiments.single_run import train
from fusionzoo.runs.checkpoint import list_checkpoints
from fusionzoo.runs.config import RunConfig
from fusionzoo.scoring.metrics import evaluate_predictions


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def same_run(a, b) -> None:
    """Two run folders hold the same numbers, bit for bit."""
    one, two = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert (a / "predictions.csv").read_bytes() == (b / "predictions.csv").read_bytes()
    histories = [[{k: v for k, v in r.items() if k != "seconds"} for r in rows(f / "metrics.csv")] for f in (a, b)]
    assert histories[0] == histories[1]
    results = [json.loads((f / "result.json").read_text()) for f in (a, b)]
    for key in ("epoch", "epochs", "dev", "test", "parameters", "fingerprint"):
        assert results[0][key] == results[1][key]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus, make_config):
    """One finished run, all its checkpoints kept."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(make_config("training.ema=0.8", "training.scheduler=cosine"), folder, quiet=True, corpus=corpus)
    return folder


class TestRunFolder:
    def test_holds_everything(self, finished):
        names = {p.name for p in finished.iterdir()}
        assert names == {
            *("config.yaml", "environment.json", "metrics.csv", "checkpoints", "model.safetensors", "model.json"),
            *(
                "predictions.csv",
                "confusion.csv",
                "confusion.png",
                "curves.png",
                "result.json",
                "report.html",
                "card.json",
            ),
        }

    def test_predictions_give_the_scores_of_the_result(self, finished, corpus):
        result = json.loads((finished / "result.json").read_text())
        names = list(corpus.label_names)
        for split in ("dev", "test"):
            mine = [r for r in rows(finished / "predictions.csv") if r["split"] == split]
            assert len(mine) == int((corpus.split == split).sum())
            true = [names.index(r["true"]) for r in mine]
            scores = evaluate_predictions(true, [names.index(r["predicted"]) for r in mine], names)
            for key in ("weighted_f1", "macro_f1", "ua", "wa", "per_class", "confusion"):
                assert scores[key] == result[split][key]
            p = np.array([[float(r[f"p_{n}"]) for n in names] for r in mine])
            assert np.allclose(p.sum(1), 1, atol=1e-5)

    def test_the_best_epoch_on_dev_is_chosen(self, finished):
        result = json.loads((finished / "result.json").read_text())
        scores = [float(r["dev_weighted_f1"]) for r in rows(finished / "metrics.csv")]
        assert result["epoch"] == scores.index(max(scores)) + 1
        assert result["dev"]["weighted_f1"] == max(scores)
        assert result["selection"] == "dev"

    def test_the_effective_config_runs_again_to_the_same_numbers(self, finished, tmp_path):
        train(RunConfig.load(finished / "config.yaml"), tmp_path / "again", quiet=True)
        same_run(finished, tmp_path / "again")

    def test_the_environment_says_what_ran(self, finished, corpus):
        environment = json.loads((finished / "environment.json").read_text())
        # The metadata's, which leave out what a build adds (2.13.0+cu130).
        assert environment["packages"]["torch"] == importlib.metadata.version("torch")
        assert environment["packages"]["fusionzoo"] == fusionzoo.__version__
        assert environment["threads"] == 1
        assert len(environment["data"]["sha256"]) == 64
        assert environment["data"]["summary"]["utterances"] == len(corpus)

    def test_the_report_is_one_file_without_a_warning(self, finished):
        text = (finished / "report.html").read_text()
        assert "<svg" in text  # the curves, drawn in the page
        assert "Confusion" in text or "confusion" in text
        assert "http" not in text  # nothing is fetched from elsewhere
        assert 'class="warning"' not in text
        assert "Best reachable" in text

    def test_the_moving_average_is_what_is_kept(self, finished):
        epoch = json.loads((finished / "result.json").read_text())["epoch"]
        kept = load_file(finished / "model.safetensors")
        folder = dict(list_checkpoints(finished))[epoch]
        average, live = (load_file(folder / f"{n}.safetensors") for n in ("average", "model"))
        assert all(torch.equal(kept[k], average[k]) for k in kept)
        assert any(not torch.equal(kept[k], live[k]) for k in kept)


class TestSeeds:
    def test_another_seed_is_another_run(self, finished, tmp_path, corpus, make_config):
        result = train(make_config("training.ema=0.8", seed=1), tmp_path / "other", quiet=True, corpus=corpus)
        first = json.loads((finished / "result.json").read_text())
        assert result.result["dev"]["log_loss"] != first["dev"]["log_loss"]

    def test_the_callers_threads_and_determinism_come_back(self, tmp_path, corpus, make_config):
        torch.set_num_threads(2)
        train(
            make_config("training.epochs=1", "training.deterministic=true"), tmp_path / "r", quiet=True, corpus=corpus
        )
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()


class TestResume:
    @pytest.mark.parametrize(
        "sets", [("training.scheduler=cosine", "training.ema=0.8"), ("training.scheduler=plateau",)]
    )
    def test_continues_to_the_same_numbers(self, tmp_path, corpus, make_config, sets):
        config = make_config(*sets)
        train(config, tmp_path / "whole", quiet=True, corpus=corpus)
        cut = tmp_path / "cut"
        shutil.copytree(tmp_path / "whole", cut)
        # What a run killed in its third epoch leaves: two checkpoints, nothing final.
        for epoch, folder in list_checkpoints(cut):
            if epoch > 2:
                shutil.rmtree(folder)
        for name in ("result.json", "predictions.csv", "report.html", "model.safetensors"):
            (cut / name).unlink()
        train(config, cut, resume=True, quiet=True, corpus=corpus)
        same_run(tmp_path / "whole", cut)

    def test_a_damaged_newest_checkpoint_costs_an_epoch_and_no_digit(self, finished, tmp_path, corpus):
        cut = tmp_path / "cut"
        shutil.copytree(finished, cut)
        (cut / "result.json").unlink()
        newest = list_checkpoints(cut)[-1][1]
        (newest / "model.safetensors").write_bytes(b"")
        with pytest.warns(UserWarning, match="damaged checkpoint"):
            train(RunConfig.load(cut / "config.yaml"), cut, resume=True, quiet=True, corpus=corpus)
        same_run(finished, cut)

    def test_a_finished_run_gives_its_result(self, finished, corpus, monkeypatch):
        before = (finished / "result.json").stat().st_mtime_ns
        result = train(RunConfig.load(finished / "config.yaml"), finished, resume=True, quiet=True)
        assert result.test is not None
        assert (finished / "result.json").stat().st_mtime_ns == before

    def test_nothing_there_yet_starts(self, tmp_path, corpus, make_config):
        result = train(make_config("training.epochs=1"), tmp_path / "new", resume=True, quiet=True, corpus=corpus)
        assert result.result["epochs"] == 1

    def test_a_run_is_not_overwritten(self, finished, make_config, corpus):
        with pytest.raises(ConfigError, match="already holds a run; continue it with --resume"):
            train(make_config(), finished, quiet=True, corpus=corpus)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"host": "dialogue-gcn"}, "host.name was 'bc-lstm' and is 'dialogue-gcn'"),
            ({"seed": 4}, "training.seed was 0"),
        ],
    )
    def test_another_configuration_is_refused(self, finished, corpus, arguments, message):
        config = RunConfig.from_sources(yaml.safe_load((finished / "config.yaml").read_text()), **arguments)
        with pytest.raises(CheckpointError, match=message):
            train(config, finished, resume=True, quiet=True, corpus=corpus)

    def test_other_data_are_refused(self, finished, tmp_path):
        cut = tmp_path / "cut"
        shutil.copytree(finished, cut)
        (cut / "result.json").unlink()
        other = fusionzoo.get("demo", kind="dataset")(seed=5, dialogues=[14, 4, 6], length=[3, 8])
        with pytest.raises(CheckpointError, match="trained on other data"):
            train(RunConfig.load(cut / "config.yaml"), cut, resume=True, quiet=True, corpus=other)

    def test_a_finished_run_says_that_its_data_have_changed(self, finished, corpus):
        before = (finished / "result.json").read_bytes()
        config = RunConfig.load(finished / "config.yaml")
        same = train(config, finished, resume=True, quiet=True, corpus=corpus)
        assert "data_now" not in same.result
        names = list(corpus.label_names)
        other = replace(corpus, label=np.where(corpus.label >= 0, (corpus.label + 1) % len(names), corpus.label))
        with pytest.warns(UserWarning, match="DATA HAVE CHANGED"):
            result = train(config, finished, resume=True, quiet=True, corpus=other)
        assert result.result["data_now"] != result.result["data"]["sha256"] == same.result["data"]["sha256"]
        assert "DATA HAVE CHANGED" in str(result)
        assert "DATA HAVE CHANGED" not in str(same)
        assert (finished / "result.json").read_bytes() == before

    def test_weights_of_another_host_are_refused_in_words(self, finished, tmp_path):
        from fusionzoo.runs.models import load_model

        mixed = tmp_path / "mixed"
        mixed.mkdir()
        shutil.copy(finished / "model.safetensors", mixed)
        meta = json.loads((finished / "model.json").read_text())
        (mixed / "model.json").write_text(
            json.dumps(meta | {"host": "dialogue-gcn", "host_options": {}, "placement": None})
        )
        with pytest.raises(CheckpointError, match="belong to another model than this DialogueGCN"):
            load_model(mixed)
        (mixed / "model.json").write_text(json.dumps(meta | {"num_classes": 4, "label_names": list("abcd")}))
        with pytest.raises(CheckpointError, match="another shape"):
            load_model(mixed)

    def test_more_epochs_where_the_schedule_allows(self, tmp_path, corpus, make_config):
        schedule = ("training.scheduler=constant", "training.warmup=0")
        train(make_config(*schedule, "training.epochs=2"), tmp_path / "r", quiet=True, corpus=corpus)
        longer = make_config(*schedule, "training.epochs=4")
        train(longer, tmp_path / "r", resume=True, quiet=True, corpus=corpus)
        train(longer, tmp_path / "whole", quiet=True, corpus=corpus)
        same_run(tmp_path / "whole", tmp_path / "r")


class TestSelection:
    def test_on_test_is_said_in_red(self, tmp_path, corpus, make_config):
        result = train(make_config(selection="test", epochs=2), tmp_path / "r", quiet=True, corpus=corpus)
        assert result.result["selection"] == "test"
        assert "SELECTED ON THE TEST SPLIT" in str(result)
        scores = [float(r["test_weighted_f1"]) for r in rows(tmp_path / "r" / "metrics.csv")]
        assert result.result["test"]["weighted_f1"] == max(scores)
        text = (tmp_path / "r" / "report.html").read_text()
        assert '<p class="warning">Selected on the test split.' in text

    def test_patience_ends_the_run(self, tmp_path, corpus, make_config):
        config = make_config("training.lr=0", "training.epochs=30", "training.patience=3")
        result = train(config, tmp_path / "r", quiet=True, corpus=corpus)
        # With a rate of zero nothing ever improves: the first epoch is best, three more are waited for.
        assert (result.result["epoch"], result.result["epochs"]) == (1, 4)

    def test_a_missing_split_says_what_to_do(self, tmp_path, corpus, make_config):
        mapping = {
            d.id: "train" if corpus.split[d.start] == "dev" else str(corpus.split[d.start]) for d in corpus.dialogues()
        }
        with pytest.raises(TrainingError, match=r"no labelled utterance in its dev split; set data.dev_fraction"):
            train(make_config(), tmp_path / "r", quiet=True, corpus=corpus.with_split(mapping))

    def test_without_a_test_split_dev_is_reported(self, tmp_path, corpus, make_config):
        mapping = {
            d.id: "train" if corpus.split[d.start] == "test" else str(corpus.split[d.start]) for d in corpus.dialogues()
        }
        result = train(make_config(epochs=1), tmp_path / "r", quiet=True, corpus=corpus.with_split(mapping))
        assert result.test is None
        assert result.dev is not None
        assert (tmp_path / "r" / "confusion.csv").exists()

    def test_the_rate_may_watch_another_split_than_the_choice(self, tmp_path, corpus, make_config):
        config = make_config(
            "training.lr=0", "training.scheduler=plateau", "training.plateau_on=dev_loss", "training.warmup=0",
            "training.decay=0.5", "training.decay_epochs=1", selection="test",
        )  # fmt: skip
        train(config, tmp_path / "r", quiet=True, corpus=corpus)
        history = rows(tmp_path / "r" / "metrics.csv")
        assert {"dev_log_loss", "test_weighted_f1"} <= set(history[0])
        config.training.lr = 1.0
        config.training.weight_decay = 0.0
        result = train(config, tmp_path / "s", quiet=True, corpus=corpus)
        losses = [float(r["dev_log_loss"]) for r in rows(tmp_path / "s" / "metrics.csv")]
        rates = [float(r["lr"]) for r in rows(tmp_path / "s" / "metrics.csv")]
        worse = sum(loss >= min(losses[: i + 1]) for i, loss in enumerate(losses[1:-1]))
        assert rates[-1] == pytest.approx(0.5**worse)
        assert result.dev is not None

    def test_dev_may_count_as_training(self):
        from fusionzoo.data import load

        sizes = {"dialogues": [10, 4, 4], "length": [3, 4]}
        split = {d.id: str(load("demo", **sizes).split[d.start]) for d in load("demo", **sizes).dialogues()}
        merged = load("demo", merge_dev=True, dev_fraction=0.0, **sizes)
        assert {s: len(merged.dialogues(s)) for s in ("train", "dev", "test")} == {"train": 14, "dev": 0, "test": 4}
        drawn = load("demo", merge_dev=True, dev_fraction=0.5, **sizes)
        assert {s: len(drawn.dialogues(s)) for s in ("train", "dev", "test")} == {"train": 7, "dev": 7, "test": 4}
        assert {d.id for d in drawn.dialogues("test")} == {d for d, s in split.items() if s == "test"}

    def test_views_side_by_side_reach_a_host_that_takes_them_apart(self, tmp_path, corpus, make_config):
        from dataclasses import replace

        text = np.tile(corpus.features["text"], (1, 4))
        views = replace(corpus, features={**corpus.features, "text": text}, info={**corpus.info, "text_views": 4})
        train(make_config(epochs=1), tmp_path / "r", quiet=True, corpus=views)
        assert json.loads((tmp_path / "r" / "model.json").read_text())["host_options"]["text_views"] == 4
        train(make_config("host.text_views=1", epochs=1), tmp_path / "s", quiet=True, corpus=views)
        assert json.loads((tmp_path / "s" / "model.json").read_text())["host_options"]["text_views"] == 1


class TestLoop:
    def test_it_learns(self, tmp_path, make_config):
        corpus = fusionzoo.get("demo", kind="dataset")(dialogues=[60, 10, 20], length=[4, 10], noise=0.3)
        config = make_config(
            "training.epochs=15",
            "training.lr=0.01",
            "training.ema=0.9",
            "host.hidden=16",
            "host.dropout=0.1",
            "host.input_dropout=0",
        )
        result = train(config, tmp_path / "r", quiet=True, corpus=corpus)
        majority = corpus.info["ceiling"]["test"]["majority"]["weighted_f1"]
        full = corpus.info["ceiling"]["test"]["full"]["weighted_f1"]
        assert result.test is not None
        assert result.test["weighted_f1"] > majority + 0.5 * (full - majority)

    @pytest.mark.parametrize("sets", [("training.optimizer=sgd",), ("training.precision=bf16", "training.warmup=0.5")])
    def test_other_settings_train(self, tmp_path, corpus, make_config, sets):
        result = train(make_config(*sets, epochs=2), tmp_path / "r", quiet=True, corpus=corpus)
        history = rows(tmp_path / "r" / "metrics.csv")
        assert all(math.isfinite(float(r["train_loss"])) for r in history)
        assert float(history[1]["train_loss"]) < float(history[0]["train_loss"]) + 0.1
        assert result.result["precision"] == ("bf16" if "training.precision=bf16" in sets else "no")

    def test_the_recorded_learning_rate_is_the_schedules(self, tmp_path, corpus, make_config):
        config = make_config("training.scheduler=linear", "training.lr=0.01", "training.warmup=0")
        train(config, tmp_path / "r", quiet=True, corpus=corpus)
        # 14 dialogues in batches of 4 are 4 steps an epoch, 16 in all; the last step of epoch e is number 4e - 1.
        expected = [0.01 * (1 - (4 * e - 1) / 16) for e in range(1, 5)]
        assert [float(r["lr"]) for r in rows(tmp_path / "r" / "metrics.csv")] == pytest.approx(expected)

    def test_clipping_changes_the_path(self, tmp_path, corpus, make_config):
        losses = []
        for clip in (0.001, 0):
            out = tmp_path / f"clip{clip}"
            train(
                make_config(f"training.clip={clip}", "training.optimizer=sgd", "training.lr=0.3"),
                out,
                quiet=True,
                corpus=corpus,
            )
            losses.append(float(rows(out / "metrics.csv")[-1]["train_loss"]))
        assert losses[0] > losses[1]

    def test_a_loss_that_is_not_finite_names_the_epoch(self, tmp_path, corpus, make_config):
        config = make_config("training.lr=1e30", "training.clip=0", "training.optimizer=sgd")
        with pytest.raises(TrainingError, match=r"epoch 1 is not finite .*lower training.lr|have diverged"):
            train(config, tmp_path / "r", quiet=True, corpus=corpus)
        assert list_checkpoints(tmp_path / "r") == []

    def test_an_impossible_device_or_precision(self, tmp_path, corpus, make_config):
        with pytest.raises(TrainingError, match="fp16 needs a GPU"):
            train(make_config("training.precision=fp16"), tmp_path / "a", quiet=True, corpus=corpus)
        with pytest.raises(TrainingError, match="not one of auto, cpu"):
            train(make_config("training.device=gpu"), tmp_path / "b", quiet=True, corpus=corpus)

    def test_an_unknown_tracker(self, tmp_path, corpus, make_config):
        with pytest.raises(TrainingError, match="Accelerate cannot be set up"):
            train(make_config("training.tracker=abacus"), tmp_path / "a", quiet=True, corpus=corpus)

    def test_tensorboard(self, tmp_path, corpus, make_config):
        pytest.importorskip("tensorboard")
        train(make_config("training.tracker=tensorboard", epochs=1), tmp_path / "r", quiet=True, corpus=corpus)
        assert list((tmp_path / "r" / "tracker").rglob("events.out.tfevents.*"))

    def test_a_subset_of_modalities_in_the_given_order(self, tmp_path, corpus, make_config):
        config = make_config("data.modalities=audio,text", epochs=1)
        result = train(config, tmp_path / "r", quiet=True)
        assert json.loads((tmp_path / "r" / "model.json").read_text())["dims"] == {"audio": 24, "text": 32}
        assert result.dev is not None

    @pytest.mark.slow
    def test_progress_is_a_bar_on_a_terminal(self, tmp_path, make_config):
        pty = pytest.importorskip("pty")
        (tmp_path / "c.yaml").write_text(make_config(epochs=2).to_yaml())
        script = "import sys; from fusionzoo.experiments.single_run import train; train(sys.argv[1], sys.argv[2])"
        leader, follower = pty.openpty()
        command = [sys.executable, "-c", script, str(tmp_path / "c.yaml"), str(tmp_path / "r")]
        child = subprocess.Popen(command, stderr=follower, stdout=subprocess.DEVNULL)
        os.close(follower)
        seen = b""
        while True:
            try:
                data = os.read(leader, 4096)
            except OSError:  # what Linux answers when the other side has closed
                break
            if not data:
                break
            seen += data
        os.close(leader)
        assert child.wait(60) == 0
        assert b"2.0/2 epochs" in seen
        assert b"bc-lstm + concat" in seen

    def test_progress_is_one_line_an_epoch_away_from_a_terminal(self, tmp_path, corpus, make_config, capsys):
        train(make_config(epochs=2), tmp_path / "r", corpus=corpus)
        captured = capsys.readouterr()
        assert captured.out == ""
        epochs = [line.split()[1] for line in captured.err.splitlines() if line.startswith("epoch")]
        assert epochs == ["1/2", "2/2"]


class LearntTemperature(fusionzoo.Objective):
    """Cross-entropy at a temperature that is learnt: an objective with weights of its own."""

    def __init__(self, num_classes: int, class_counts: Any = None, *, start: float = 0.0):
        super().__init__(num_classes, class_counts)
        self.log_scale = nn.Parameter(torch.tensor(float(start)))

    def forward(self, out, batch):
        logits = out.logits.flatten(0, 1) * self.log_scale.exp()
        return nn.functional.cross_entropy(logits, batch.labels.flatten(), ignore_index=-100)


class LearntTemperaturePlugin:
    @fusionzoo.hookimpl
    def fusionzoo_register(self, register):
        register(fusionzoo.Spec("learnt-temperature", "objective", f"{__name__}:LearntTemperature"))


@pytest.fixture
def learnt_temperature() -> None:
    sys.modules.setdefault(__name__, sys.modules[LearntTemperature.__module__])
    fusionzoo.register(LearntTemperaturePlugin())


def test_an_objectives_own_weights_are_trained_and_resumed(learnt_temperature, tmp_path, corpus, make_config):
    config = make_config(
        "objective.start=0.5", "objective.also.cross-entropy.weight=0.5", objective="learnt-temperature"
    )
    train(config, tmp_path / "whole", quiet=True, corpus=corpus)
    states = [
        torch.load(folder / "optimizer.pt", weights_only=True)["objective"]["parts.0.log_scale"]
        for _, folder in list_checkpoints(tmp_path / "whole")
    ]
    assert len({float(s) for s in states}) == 4
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    for _, folder in list_checkpoints(cut)[2:]:
        shutil.rmtree(folder)
    (cut / "result.json").unlink()
    train(config, cut, resume=True, quiet=True, corpus=corpus)
    same_run(tmp_path / "whole", cut)
