"""Fast forms, each beside the plain definition that it must equal.

A file here begins with the plain form, ten to thirty lines that are the definition. The fast form follows, decorated with
`fast_form(plain)`, and has the public name: a call runs the one or the other. `use("plain")`, or the environment
variable `FUSIONZOO_KERNELS=plain`, has everything run by its definition. Kernels of one host or one plugin lie beside
it, in the same form.

How many times longer a training step takes with one kernel plain (`benchmarks/kernels.py`; AMD EPYC (AVX2), 1 thread, torch
2.13.0+cpu; docs/speed.md says more):

    steps (DialogueRNN)   2.2 dialogue-rnn
    both_ways             1.9 bc-lstm          1.4 mmgcn, 4 layers
    propagate             1.7 mmgcn, 64 layers 1.3 mm-dfn            1.2 mmgcn, 4 layers
    band_attention        1.4 corect           1.1 cogmen
    dropout               1.2 mmgcn, 64 layers 1.1 multiemo
    fuse_in_groups        1.15 multiemo
    attend_tokens         1.07 corect          1.05 sdt           .97 cogmen

`attend` and `contrast` save memory, `scan` makes programs of any length, and `attend_tokens` is kept for models narrower
than the published ones. Any other fast form that gains less
than 1.15 in every host is deleted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from fusionzoo.errors import OptionError, close_matches_hint

#: Which form of a kernel runs.
FORMS = ("fast", "plain")
#: The environment variable that says which, read when this is imported.
VARIABLE = "FUSIONZOO_KERNELS"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Pair:
    """A kernel: the plain form and the fast one, of one signature."""

    plain: Callable[..., Any]
    fast: Callable[..., Any]


#: Every kernel that was imported, by name.
PAIRS: dict[str, Pair] = {}

# Names of the kernels that run plain; "*" stands for all of them.
_plain: tuple[str, ...] = ()


def fast_form(plain: Callable[P, R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of the fast form of `plain`: what is called then is the one or the other, see `use`."""

    def pair(fast: Callable[P, R]) -> Callable[P, R]:
        name = fast.__name__
        PAIRS[name] = Pair(plain, fast)

        @wraps(fast)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
            return plain(*args, **kwargs) if runs_plain(name) else fast(*args, **kwargs)

        return chosen

    return pair


def runs_plain(name: str) -> bool:
    """Whether this kernel runs in its plain form now."""
    return name in _plain or "*" in _plain


def use(form: str, *names: str) -> contextlib.AbstractContextManager[None]:
    """Have kernels run in this form, in the whole process, until told otherwise or to the end of a `with` block.

    Parameters
    ----------
    form
        `"fast"` or `"plain"`.
    names
        Of the kernels (see `PAIRS`) that run plain, while the others are fast; every one if there is none.

    Raises
    ------
    OptionError
        The form or a name is unknown.
    """
    global _plain
    before = _plain
    _plain = _chosen(form, names, "use")
    return _restoring(before)


@contextlib.contextmanager
def _restoring(before: tuple[str, ...]) -> Iterator[None]:
    global _plain
    try:
        yield
    finally:
        _plain = before


def _chosen(form: str, names: tuple[str, ...], where: str) -> tuple[str, ...]:
    if form not in FORMS:
        hint = close_matches_hint(str(form), FORMS)
        raise OptionError(f"{where}: kernels run {' or '.join(FORMS)}, not {form!r}{hint}; choose one of the two")
    for name in names:
        if name not in PAIRS:
            known = ", ".join(sorted(PAIRS)) or "none is imported yet"
            raise OptionError(f"{where}: no kernel is called {name!r}{close_matches_hint(name, PAIRS)}; known: {known}")
    return (names or ("*",)) if form == "plain" else ()


_plain = _chosen(os.environ.get(VARIABLE) or "fast", (), f"the environment variable {VARIABLE}")
