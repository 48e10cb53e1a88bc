"""Pictures of HTML and CSS alone: they need no matplotlib, fit every width, and print."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fusionzoo._text import markup


@dataclass(frozen=True)
class Strip:
    """One line of `strips`.

    Parameters
    ----------
    name : what it is.
    values : the dots.
    mean : the mark.
    interval : around the mean.
    against : the mark of what it is compared with.
    ceiling : the best that can be reached.
    """

    name: str
    values: Sequence[float]
    mean: float | None = None
    interval: tuple[float, float] | None = None
    against: float | None = None
    ceiling: float | None = None


def strips(groups: Mapping[str, Sequence[Strip]], dots: str, against: str = "") -> str:
    """Values as dots on one axis, a line per name.

    Parameters
    ----------
    groups : heading -> lines; one group alone needs no heading.
    dots : what a dot is.
    against : what the values are compared with.
    """
    every = [s for group in groups.values() for s in group]
    shown = [x for s in every for x in (*s.values, *(s.interval or ()), s.against, s.ceiling) if x is not None]
    low, high, ticks = _axis(shown)

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    out = []
    for heading, group in groups.items():
        out += [f'<div class="group">{markup(heading)}</div>'] if len(groups) > 1 else []
        out += [_strip(line, at, low, high) for line in group]
    axis = "".join(f'<span style="left:{at(t)}">{t:.{_digits(ticks)}f}</span>' for t in ticks)
    used = {"seed": dots, "mean": "mean"}
    used |= {"interval": "95 % interval of the mean"} if any(s.interval for s in every) else {}
    used |= {"against": against} if any(s.against is not None for s in every) else {}
    used |= {"ceiling": "what an optimal reader reaches"} if any(s.ceiling is not None for s in every) else {}
    key = "".join(f"<span>{_sample(kind)}{markup(words)}</span>" for kind, words in used.items())
    return f'<div class="key">{key}</div><div class="strips">{"".join(out)}<div class="ticks">{axis}</div></div>'


def _strip(line: Strip, at: Callable[[float], str], low: float, high: float) -> str:
    """A name and its marks, the dots below the mean."""
    marks = []
    if line.interval is not None:
        left, right = (min(max(x, low), high) for x in line.interval)
        width = 100 * (right - left) / (high - low)
        marks.append(f'<i class="interval" style="left:{at(left)};width:{width:.2f}%"></i>')
    for kind, value in (("ceiling", line.ceiling), ("against", line.against)):
        marks += [] if value is None else [f'<i class="{kind}" style="left:{at(value)}"></i>']
    marks += [f'<i class="seed" style="left:{at(v)}"></i>' for v in line.values]
    marks += [] if line.mean is None else [f'<i class="mean" style="left:{at(line.mean)}"></i>']
    said = ", ".join(f"{v:.3f}" for v in line.values)
    track = f'<div class="track" role="img" aria-label="{markup(said)}">{"".join(marks)}</div>'
    return f'<div class="who">{markup(line.name)}</div>{track}'


def _sample(kind: str) -> str:
    width = ";width:100%" if kind == "interval" else ""
    left = "0" if kind == "interval" else "50%"
    return f'<span class="track"><i class="{kind}" style="left:{left}{width}"></i></span>'


def _axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Ends that hold all values with some room, and two to seven round ticks between them."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.06 * (high - low) or 0.01
    low, high = low - room, high + room
    rough = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    first = math.ceil(low / step - 1e-9)
    return low, high, [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _digits(ticks: Sequence[float]) -> int:
    """So many that neighbouring ticks differ."""
    return max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))


@dataclass(frozen=True)
class Line:
    """One line of `lines`.

    Parameters
    ----------
    name : in the key; lines of one name look the same and stand there once.
    points : x and y, x whole numbers.
    second : it has the second colour.
    dot : a place on it that is marked.
    """

    name: str
    points: Sequence[tuple[int, float]]
    second: bool = False
    dot: tuple[int, float] | None = None


def lines(shown: Sequence[Line], across: str, said: str) -> str:
    """Lines over whole numbers, such as epochs.

    Parameters
    ----------
    shown : with at least one point each.
    across : what the whole numbers are.
    said : what the picture shows, for whoever does not see it.
    """
    left, right = (end(x for line in shown for x, _ in line.points) for end in (min, max))
    low, high, ticks = _axis([y for line in shown for _, y in line.points])
    span = max(right - left, 1)

    def at(x: float, y: float) -> tuple[float, float]:
        return 100 * (x - left) / span, 100 * (high - y) / (high - low)

    drawn, dots = [], []
    for line in shown:
        path = " ".join("{:.2f},{:.2f}".format(*at(x, y)) for x, y in line.points)
        kind = "second" if line.second else "first"
        drawn.append(f'<polyline class="{kind}" points="{path}"/>')
        marked = line.points if len(line.points) == 1 else [line.dot] if line.dot else []
        dots += ['<i class="{}" style="left:{:.2f}%;top:{:.2f}%"></i>'.format(kind, *at(x, y)) for x, y in marked]
    heights = [f'<span class="y" style="top:{at(0, t)[1]:.2f}%">{t:.{_digits(ticks)}f}</span>' for t in ticks]
    heights += [f'<b style="top:{at(0, t)[1]:.2f}%"></b>' for t in ticks]
    step = max(1, math.ceil(span / 6))
    whole = range(math.ceil(left / step) * step, right + 1, step)
    widths = [f'<span class="x" style="left:{at(x, 0)[0]:.2f}%">{x}</span>' for x in whole]
    names = {line.name: "second" if line.second else "first" for line in shown}
    key = "".join(f'<span><b class="{kind}"></b>{markup(name)}</span>' for name, kind in names.items())
    svg = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{"".join(drawn)}</svg>'
    return (
        f'<div class="key">{key}</div><div class="lines" role="img" aria-label="{markup(said)}">'
        f"{''.join(heights)}{svg}{''.join(dots)}{''.join(widths)}<em>{markup(across)}</em></div>"
    )


def bars(values: Mapping[str, float], against: Mapping[str, float] | None = None) -> str:
    """A bar from 0 to 1 per name, with its number.

    Parameters
    ----------
    values : name -> value.
    against : name -> where a mark stands, of what it is compared with.
    """
    out = []
    for name, value in values.items():
        mark = "" if against is None or name not in against else f'<i style="left:{100 * against[name]:.1f}%"></i>'
        bar = f'<div class="bar"><b style="width:{100 * value:.1f}%"></b>{mark}</div>'
        out.append(f"<div>{markup(name)}</div>{bar}<div>{value:.3f}</div>")
    return f'<div class="bars">{"".join(out)}</div>'


def confusion(counts: ArrayLike, names: Sequence[str]) -> str:
    """A confusion matrix, each cell as dark as its share of the true class.

    Parameters
    ----------
    counts : rows true, columns predicted.
    names : of the classes.
    """
    matrix = np.asarray(counts)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    head = "".join(f"<th><span>{markup(n)}</span></th>" for n in names)
    rows = []
    for name, line, shares in zip(names, matrix, share, strict=True):
        cells = "".join(f'<td style="--share:{s:.3f}">{int(n)}</td>' for n, s in zip(line, shares, strict=True))
        rows.append(f"<tr><th>{markup(name)}</th>{cells}</tr>")
    table = f"<thead><tr><th>true \\ given</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="confusion">{table}</table></div>'
