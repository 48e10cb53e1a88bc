"""Names of version 0.1's modules that went to several homes."""

from __future__ import annotations

import importlib

import pytest

NAMES = [
    ("fusionzoo.evaluation.folds", ("FoldPlan", "groups_of", "make_folds", "cross_validate", "CrossValidation")),
    ("fusionzoo.evaluation.report", ("page", "paragraph", "best_reachable", "write_run_report", "have_plots")),
    ("fusionzoo.evaluation.reproduce", ("read_card", "write_card", "reproduce_recipe", "Reproduction")),
    ("fusionzoo.training.models", ("load_model", "corpus_sha256")),
    ("fusionzoo.training.runfolder", ("load_corpus", "read_result", "package_versions", "flops_per_utterance")),
]


@pytest.mark.filterwarnings("ignore:fusionzoo")
@pytest.mark.parametrize(("old", "names"), NAMES, ids=[old for old, _ in NAMES])
def test_every_name_is_found(old, names):
    module = importlib.import_module(old)
    assert all(callable(getattr(module, name)) for name in names)
    with pytest.raises(AttributeError):
        module.nothing  # noqa: B018


def test_train_and_its_result_are_where_they_were():
    from fusionzoo.experiments.single_run import RunResult, train
    from fusionzoo.training import trainer

    assert (trainer.train, trainer.RunResult) == (train, RunResult)
    assert importlib.import_module("fusionzoo.training").train is train
