"""Datasets and recipes are checked too: sound ones pass, and each broken rule is found by its check."""

from __future__ import annotations

import pytest

import fusionzoo
from fusionzoo.errors import OptionError, UnknownNameError
from fusionzoo.testing import run
from fusionzoo.testing.checks.dataset import DatasetSubject
from fusionzoo.testing.checks.recipe import RecipeSubject
from fusionzoo.testing.runner import Session

DEMO = fusionzoo.get("demo", kind="dataset")
RECIPE = {
    "summary": "a recipe of one's own",
    "host": {"name": "bc-lstm", "hidden": 4},
    "fusion": {"name": "sum"},
    "protocols": {"published": {"training": {"selection": "test"}}},
    "variants": {"words": {"data": {"modalities": ["text"]}, "fusion": {"name": "none"}}},
}


def small(**options):
    """Few conversations. Source: the demo."""
    return DEMO(dialogues=[12, 2, 2], length=[2, 4], **options)


def failed(subject) -> set[str]:
    return {r.check for r in Session(subject).run().failed}


def test_a_sound_dataset_and_a_sound_recipe_pass():
    assert failed(DatasetSubject(small)) == set()
    assert failed(RecipeSubject(RECIPE)) == set()
    assert run("dataset:demo", only=["validates", "described"]).ok
    assert run("lmam-bc-lstm-iemocap", only=["resolves", "published_explained"]).kind == "recipe"


def _changed(change):
    def dataset(**options):
        """Few conversations, with a fault."""
        corpus = small(**options)
        change(corpus)
        return corpus

    return dataset


def _no_test_label(corpus):
    corpus.label = corpus.label.copy()
    corpus.label[corpus.split == "test"] = -1


def _a_class_too_many(corpus):
    corpus.label_names = [*corpus.label_names, "awe"]


def _infinite(corpus):
    corpus.features["text"][0, 0] = float("inf")


def _swallows(no_such_option=None, **options):
    """Few conversations; takes whatever it is given."""
    return small()


def _other_every_time(calls=[]):  # noqa: B006 - the fault
    """Few conversations, others at every call."""
    calls.append(1)
    return small(seed=len(calls))


@pytest.mark.parametrize(
    ("dataset", "check"),
    [
        (lambda: {"text": 1}, "loads"),
        (_changed(_no_test_label), "splits_labelled"),
        (_changed(_a_class_too_many), "classes_used"),
        (_changed(_infinite), "validates"),
        (_swallows, "unknown_option_refused"),
        (_other_every_time, "repeatable"),
        (lambda **options: small(**options), "described"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_found(dataset, check):
    assert check in failed(DatasetSubject(dataset))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"host": {"name": "bc-lstm", "hiden": 4}}, "resolves"),
        ({"summary": ""}, "summary_given"),
        ({"published": {"scores": {"weighted_f1": 70.0}}}, "published_explained"),
        ({"fusion": {"name": "cross-attention", "width": 8, "heads": 3}}, "models_train"),
        ({"objective": {"name": "focal", "class_weights": [1.0, -2.0]}}, "models_train"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_found(change, check):
    assert failed(RecipeSubject({**RECIPE, **change})) == {check}


def test_a_bare_name_is_the_fusion_where_there_is_one():
    both = [n for n in fusionzoo.names() if any(n in fusionzoo.names(k) for k in ("objective", "host", "adapter"))]
    assert len(both) > 5
    assert {run(n, only=["spec_summary"]).kind for n in both} == {"fusion"}
    assert run("host:msaf", only=["spec_summary"]).kind == "host"
    assert run("HOST:fusionzoo:MSAF", only=["spec_summary"]).kind == "host"
    assert run("msaf", "adapter", only=["host_given"]).kind == "adapter"
    assert run("fusionzoo:bc-lstm", only=["spec_summary"]).kind == "host"
    with pytest.raises(UnknownNameError, match=r"no host 'lmam'.*there is a fusion of that name"):
        run("host:lmam")
    with pytest.raises(OptionError, match="give one of them"):
        run("host:msaf", "fusion")
    with pytest.raises(UnknownNameError, match="did you mean"):
        run("conact")
