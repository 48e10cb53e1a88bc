"""Checks of an encoder: it says what goes in and out, and is built from a model's name with options by name."""

from __future__ import annotations

import inspect
import re
from typing import Any

from torch import nn

from fusionzoo._registry import registry
from fusionzoo.data.raw.corpus import MEDIA
from fusionzoo.encoders import Encoder
from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.testing.comparisons import refuses
from fusionzoo.testing.runner import fail, rules, skip

rule = rules("encoder", theme="encoder", needs=("is_module",))


class EncoderSubject:
    """An encoder by its name or class."""

    kind = "encoder"

    def __init__(self, encoder: Any, *, options: Any = None):
        if options:
            raise OptionError("an encoder is checked as a class; it takes no options")
        self.spec = None
        if isinstance(encoder, str):
            self.spec, _ = registry.spec(encoder, self.kind)
            encoder = registry.get(encoder, self.kind)
        self.cls: Any = encoder
        self.name = self.spec.name if self.spec else getattr(encoder, "__name__", type(encoder).__name__)

    @property
    def label(self) -> str:
        """For the table's title."""
        return f"encoder {self.name}"

    def variants(self) -> list[EncoderSubject]:
        """An encoder is checked as a class: building one may need a model that is not here."""
        return [self]

    def describe(self) -> str:
        """No options."""
        return ""


@rule(needs=())
def is_module(subject):
    """It is a class of torch modules."""
    if not (isinstance(subject.cls, type) and issubclass(subject.cls, nn.Module)):
        fail(f"it is {subject.cls!r}", "register a class derived from fusionzoo.encoders.Encoder or torch.nn.Module")


@rule()
def docstring_shapes(subject):
    """Its docstring states shapes with named axes."""
    text = inspect.cleandoc(vars(subject.cls).get("__doc__") or "")
    if not re.search(r"\bShapes?\b", text) or "(B" not in text:
        fail("the docstring states no shapes", "add 'Shapes: wave `(B, N)` -> states `(B, T, width)`, ...'")


@rule()
def options_by_name(subject):
    """Every option is a keyword argument with a default, or comes first."""
    parameters = list(inspect.signature(subject.cls).parameters.values())
    bad = [p.name for p in parameters[1:] if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if bad:
        fail(f"the constructor takes {', '.join(bad)} without a default", "give each a default")


@rule()
def medium_named(subject):
    """One of a pretrained model says which medium it encodes."""
    if not issubclass(subject.cls, Encoder):
        skip("it is no encoder of pretrained models")
    if subject.cls.medium not in MEDIA:
        fail(f"medium is {subject.cls.medium!r}", f"set it to one of {', '.join(MEDIA)}")


@rule()
def unknown_model_refused(subject):
    """A model's folder that is not there is refused with an error that names it."""
    if not issubclass(subject.cls, Encoder):
        skip("it is no encoder of pretrained models")
    missing = "./no-such-folder/no-such-model"
    refuses(lambda: subject.cls(missing), FusionZooError, "the folder of a model that is not there", ("no-such-model",))
