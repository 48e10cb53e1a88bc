"""Checks of every kind: what the plugin says about itself."""

from __future__ import annotations

import inspect
import re

from fusionzoo._options import accepted_options
from fusionzoo._variants import variant_classes
from fusionzoo.errors import OptionError
from fusionzoo.testing.comparisons import refuses
from fusionzoo.testing.runner import describe_error, fail, rules, skip

rule = rules("fusion", "host", "objective", theme="registration", needs=())

_BASE = {"self", "dims", "out_dim", "missing", "num_classes", "num_speakers", "class_counts", "fusion", "placement"}
_SOURCE = re.compile(r"\b(source|paper|references?)\b *:|\bsource\b", re.IGNORECASE)
_TRACEABLE = re.compile(
    r"https?://|\barxiv\b|\bdoi\b|\b(19|20)\d\d\b|@[0-9a-f]{6,}|\bet al\b|[\w-]+/[\w-]+", re.IGNORECASE
)


def _spec(subject):
    if subject.spec is None:
        skip("a class that no spec registers; check it by name, or register it in its module's fusionzoo_register")
    return subject.spec


def _doc(subject) -> str:
    # vars, not inspect.getdoc: the base class's docstring says nothing about the method.
    text = vars(subject.cls).get("__doc__")
    if not text or not text.strip():
        fail(f"{subject.cls.__name__} has no docstring of its own", "write one: formula, shapes, parameters, source")
    return inspect.cleandoc(text)


@rule()
def subclasses_base(subject):
    """The class derives from fusionzoo's base class of its kind."""
    if not (isinstance(subject.cls, type) and issubclass(subject.cls, subject.base)):
        fail(
            f"{subject.cls!r} does not derive from fusionzoo.{subject.base.__name__}",
            f"write class {getattr(subject.cls, '__name__', 'X')}(fusionzoo.{subject.base.__name__})",
        )


@rule()
def spec_target(subject):
    """The spec has the right kind, and its target is this class."""
    spec = _spec(subject)
    if spec.kind != subject.kind:
        fail(f"the spec says kind={spec.kind!r}", f"say kind={subject.kind!r}")
    attribute = spec.target.partition(":")[2]
    if attribute != subject.cls.__qualname__:
        fail(
            f"the spec's target ends in {attribute!r}, the class is {subject.cls.__qualname__!r}", "correct the target"
        )


@rule()
def spec_summary(subject):
    """The spec has a summary of one line, at most 120 characters."""
    summary = _spec(subject).summary
    if not summary.strip() or "\n" in summary or len(summary) > 120:
        fail(
            f"the summary is {summary!r}", "give Spec(summary=...) one short line; `fusionzoo plugins --long` shows it"
        )


@rule("fusion", "host")
def spec_source(subject):
    """The spec names where the method comes from: a paper or code."""
    spec = _spec(subject)
    if not (spec.paper.strip() or spec.code.strip()):
        fail("the spec has neither paper nor code", "give Spec(paper='authors, title, venue year, link') or code=...")


@rule()
def spec_defaults(subject):
    """Every option that the spec shows or varies is an option of the constructor."""
    spec = _spec(subject)
    accepted = accepted_options(subject.cls)
    named = [*spec.defaults, *(["variant"] if spec.variants else [])]
    unknown = [o for o in named if o not in accepted]
    if unknown:
        fail(f"the spec names the option {unknown[0]!r}, which the constructor does not take", "remove or correct it")


@rule()
def docstring_present(subject):
    """The class has a docstring of its own whose first line says what it is."""
    first = _doc(subject).splitlines()[0].strip()
    if len(first) < 10 or len(first) > 160:
        fail(f"the first line of the docstring is {first!r}", "say in one line what the method does")


@rule("fusion", "host", needs=("docstring_present",))
def docstring_source(subject):
    """The docstring says where the method comes from: a line with Source and a traceable reference."""
    text = _doc(subject)
    named = (text[place.end() : place.end() + 400] for place in _SOURCE.finditer(text))
    if not any(_TRACEABLE.search(after) for after in named):
        fail(
            "the docstring names no source",
            "add 'Source: authors, title, venue year, link', or 'Source: new, <repository>'",
        )


@rule(needs=("docstring_present",))
def docstring_shapes(subject):
    """The docstring states shapes with named axes."""
    if not re.search(r"\bShapes?\b", _doc(subject)) or "(B" not in _doc(subject):
        fail("the docstring states no shapes", "add 'Shapes: streams `(B, T, d_m)` -> ...', with named axes")


@rule(needs=("docstring_present",))
def docstring_options(subject):
    """The docstring, or that of a variant, mentions every option of the constructor."""
    text = _doc(subject) + "".join(c.__doc__ or "" for c in variant_classes(subject.cls))
    own = [o for o in accepted_options(subject.cls) if o not in _BASE]
    silent = [o for o in own if not re.search(rf"\b{re.escape(o)}\b", text)]
    if silent:
        fail(f"the docstring does not mention the options {', '.join(silent)}", "say what each does, with its default")


@rule("fusion", needs=("docstring_present",))
def docstring_parameters(subject):
    """The docstring states the number of parameters."""
    if not re.search(r"\bparameters?\b", _doc(subject), re.IGNORECASE):
        fail(
            "the docstring says nothing about the number of parameters",
            "add 'Parameters: <formula>', or 'Parameters: none'",
        )


@rule(needs=("subclasses_base", "constructs"))
def spec_variants(subject):
    """Every variant that the spec lists can be built, and no other."""
    spec = _spec(subject)
    if not spec.variants:
        skip("the spec lists no variants")
    for variant in spec.variants:
        try:
            subject.build(variant=variant)
        except Exception as error:
            fail(
                f"variant={variant!r} is on the card, but building it raises {describe_error(error)}",
                "correct the spec",
            )
    try:
        subject.build(variant="no-such-variant")
    except Exception:
        return
    fail("variant='no-such-variant' is accepted", "check it with fusionzoo._options.check_choice")


@rule(needs=("subclasses_base", "constructs"))
def unknown_option_refused(subject):
    """An unknown option raises OptionError instead of being swallowed."""
    refuses(
        lambda: subject.build(no_such_option=1), OptionError, "the unknown option no_such_option=1", ("no_such_option",)
    )
