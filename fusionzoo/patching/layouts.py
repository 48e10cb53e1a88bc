"""The layouts that streams come in, by name."""

from __future__ import annotations

from fusionzoo.errors import LayoutError, close_matches_hint

LAYOUTS = ("(B, T, d)", "(T, B, d)", "(B, d)", "(N, d)", "(T, d)", "(B*T, d)", "(T*B, d)", "(..., d)")
#: Two axes of steps; the rows of a padded batch one below the other.
TIMED, PADDED_ROWS = ("(B, T, d)", "(T, B, d)"), ("(B*T, d)", "(T*B, d)")
#: How many axes stand before the features; any number in "(..., d)".
STEP_AXES = {name: 2 if name in TIMED else 1 for name in LAYOUTS if name != "(..., d)"}
_PLAIN = {name.replace(" ", "").strip("()").lower(): name for name in LAYOUTS}


def check_layout(layout: str) -> str:
    """A layout in its usual spelling; `"TBd"`, `"(t,b,d)"` and `"T B d"` are understood.

    >>> check_layout("tbd")
    '(T, B, d)'
    """
    if not isinstance(layout, str):
        raise LayoutError(f"layout= is one of {'; '.join(LAYOUTS)}, as text, not {type(layout).__name__}")
    key = layout.replace(" ", "").strip("()").lower()
    for plain, name in _PLAIN.items():
        if key in (plain, plain.replace(",", "")):
            return name
    raise LayoutError(
        f"there is no layout {layout!r}{close_matches_hint(layout, LAYOUTS) or '.'} Layouts: {'; '.join(LAYOUTS)}"
    )
