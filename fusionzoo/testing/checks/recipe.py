"""Checks of a recipe: every protocol and variant is a configuration that can be run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from fusionzoo._registry import registry
from fusionzoo.batch import Batch
from fusionzoo.clip_host import ClipHost
from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.host import Host
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.models import WeightedObjective, build_host
from fusionzoo.runs.recipes import PROTOCOLS, Recipe, load_recipe
from fusionzoo.testing.batches import SPEAKERS, as_clips, dialogues
from fusionzoo.testing.runner import describe_error, fail, rules

rule = rules("recipe", theme="recipe", needs=("resolves",))

#: Small widths that the usual numbers of heads divide.
WIDTHS = {"text": 48, "audio": 32, "visual": 40}
#: Options of hosts that name files of pretrained models, which no check fetches: the models read features instead.
_PRETRAINED = ("encoders", "weights")


class RecipeSubject:
    """A recipe by its name, a YAML file, a mapping, or a `Recipe`."""

    kind = "recipe"

    def __init__(self, recipe: Any, *, options: Any = None):
        if options:
            raise OptionError("a recipe is checked as it is; it takes no options")
        self.spec = registry.spec(recipe, self.kind)[0] if isinstance(recipe, str) and _installed(recipe) else None
        self.cls: Recipe = load_recipe(recipe)
        self.name = self.cls.name

    @property
    def label(self) -> str:
        """For the table's title."""
        return f"recipe {self.name}"

    def variants(self) -> list[RecipeSubject]:
        """Protocols and variants are walked through by the checks."""
        return [self]

    def describe(self) -> str:
        """No options."""
        return ""

    def configs(self) -> Iterator[tuple[str, RunConfig]]:
        """Every protocol of every variant, in words and as a configuration."""
        for variant in (None, *self.cls.variants):
            for protocol in PROTOCOLS if self.cls.protocols else ("honest",):
                words = protocol if variant is None else f"{protocol}, variant {variant}"
                yield words, RunConfig.from_sources(recipe=self.cls.resolve(protocol, variant))


def _installed(name: str) -> bool:
    return not name.endswith((".yaml", ".yml"))


@rule(needs=())
def resolves(subject):
    """Every protocol and variant resolves to a configuration whose plugins are installed and take its options."""
    try:
        subject.cls.check()
    except FusionZooError as error:
        fail(str(error), "correct the recipe")


@rule(needs=())
def summary_given(subject):
    """The recipe has a summary of one line, at most 120 characters."""
    summary = subject.cls.summary
    if not summary or len(summary) > 120:
        fail(f"the summary is {summary!r}", "say in one line which system on which data it is")


@rule(needs=())
def published_explained(subject):
    """What was published has its system, paper or code, protocol, flaw and source; a recipe of one's own has nothing."""
    recipe = subject.cls
    if not recipe.published:
        return
    absent = [k for k in ("protocol", "flaw", "source") if not str(recipe.published.get(k) or "").strip()]
    absent += [] if recipe.system else ["system"]
    absent += [] if recipe.paper or recipe.code else ["paper or code"]
    if absent:
        fail(f"it has published scores, and says nothing about: {', '.join(absent)}", "say it in the recipe")


@rule()
def models_train(subject):
    """Host, fusion and objectives of every protocol and variant can be built at small widths and give a loss with a gradient.

    Pretrained models are left out, which no check fetches: the hosts then read features in their place.
    """
    for words, config in subject.configs():
        try:
            loss = _loss(config)
            loss.backward()
        except Exception as error:
            fail(f"{words}: {describe_error(error)}", "correct the options")
        if not bool(loss.isfinite()):
            fail(f"{words}: the loss of random features is {float(loss)}", "correct the options")


def _loss(config: RunConfig) -> torch.Tensor:
    """Of one small batch."""
    media: Any = config.data.options.get("media") or {}
    given = config.objective.options.get("class_weights")
    classes = len(given) if isinstance(given, list) else 4
    dims = {m: _width(m, media.get(m), config) for m in config.data.modalities or media or WIDTHS}
    torch.manual_seed(0)
    host = build_host(
        {
            "host": config.host.name,
            "host_options": {k: v for k, v in config.host.options.items() if k not in _PRETRAINED},
            "placement": config.host.placement,
            "fusion": config.fusion.name,
            "fusion_options": copy.deepcopy(config.fusion.options),
            "dims": dims,
            "num_classes": classes,
            "num_speakers": SPEAKERS,
        }
    ).eval()
    objective = WeightedObjective(config, classes, torch.arange(1.0, classes + 1), host)
    batch = _batch(host, dims)
    return objective(host(batch), batch)


def _width(name: str, medium: Any, config: RunConfig) -> int:
    """Of a picture's colours or a frame's coefficients, as the reader gives them, where the host encodes them itself."""
    encoders: Any = config.host.options.get("encoders") or {}
    if medium is None or name in encoders:
        return WIDTHS.get(name, 32)
    return {"frames": 3, "mfcc": medium.get("coefficients", 13)}.get(medium.get("kind"), WIDTHS.get(name, 32))


def _batch(host: Host, dims: dict[str, int]) -> Batch:
    if isinstance(host, ClipHost):
        return host.example() if host.encoders else as_clips(dialogues((5, 3, 4), dims))
    return dialogues((5, 3, 4), dims)
