"""What a comparison says, in sentences: one for every row, and one for the table."""

from __future__ import annotations

from collections.abc import Sequence

from fusionzoo.reporting.rows import Row, ranks_of
from fusionzoo.scoring.metrics import MAIN, METRICS
from fusionzoo.scoring.statistics import ALPHA, FEWEST_DIALOGUES, FEWEST_SEEDS, Ranks

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


#: How many rows the headline names before it counts the others.
_MOST_NAMES = 3


def verdict(row: Row) -> str:
    """One sentence: whether the row differs from its baseline, and where that cannot be said, what could have been."""
    if not row.per_seed:
        return "No run has finished." if not row.n else "The test split has no labels."
    if row.baseline is None:
        return "What the others are compared with."
    if row.difference is None:
        return f"Shares no finished seed with {row.baseline}."
    better = "better" if row.gain > 0 else "worse"
    size = f"{better} by {points(row.difference)}"
    if row.clear:
        return (
            f"{better.capitalize()} than {row.baseline} by {points(row.difference)}: over {_count(row.pairs, 'seed')} (p {_p(row.p_holm)}) "
            f"and over {_count(row.dialogues, 'test dialogue')} ({_interval(row)})."
        )
    if row.pairs < FEWEST_SEEDS:
        seeds = "One seed shows" if row.pairs == 1 else "Two seeds show"
        return f"{seeds} no difference: {size} here, which other seeds may turn round."
    if row.over_seeds and row.dialogues < FEWEST_DIALOGUES:
        return (
            f"{size.capitalize()} over {_count(row.pairs, 'seed')}; {_few_dialogues(row)} to say whether on others too."
        )
    if row.over_seeds:
        return f"{size.capitalize()} on these test dialogues; on others no difference can be shown: {_could(row)}."
    return f"No difference can be shown: {_could(row)}."


def _could(row: Row) -> str:
    """What could have been shown: by the seeds, or by the dialogues where they are the ones that tell less."""
    seeds, dialogues = row.smallest_seeds or 0.0, row.smallest_dialogues or 0.0
    what = _count(row.dialogues, "test dialogue") if dialogues > seeds else _count(row.pairs, "seed")
    return f"{what} could not have shown less than {points(max(seeds, dialogues))}"


def _few_dialogues(row: Row) -> str:
    return (
        f"{_count(row.dialogues, 'test dialogue')} are too few"
        if row.dialogues
        else "their test dialogues differ too much"
    )


def headline(rows: Sequence[Row]) -> str:
    """The comparison in a few sentences."""
    return " ".join(sentences(rows))


def sentences(rows: Sequence[Row]) -> list[str]:
    """What there is to say of a whole comparison: first the best row and who differs clearly, then what stays open."""
    done = [r for r in rows if r.test[MAIN]["mean"] is not None]
    if not done:
        return ["No run has finished with labelled test data, so nothing can be compared."]
    clear, left_open = _differences(done)
    ranks = ranks_of(rows)
    first = " ".join([_best(done), *clear])
    return [first, *left_open, *([] if ranks is None else [_ranked(ranks, rows)])]


def _best(done: Sequence[Row]) -> str:
    best = max(done, key=lambda r: METRICS[MAIN].gain(r.test[MAIN]["mean"] or 0.0))
    mean = points(best.test[MAIN]["mean"] or 0.0)
    of = "" if best.ceiling is None else f" of {points(best.ceiling)} that can be reached"
    over = f"over {_count(best.n, 'seed')}"
    if len(done) == 1:
        return f"{best.contestant.title} reaches a test {METRICS[MAIN].short} of {mean}{of}, {over}."
    return f"{best.contestant.title} has the best mean test {METRICS[MAIN].short}: {mean}{of}, {over}."


def _differences(done: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Who differs clearly from the baseline, and what cannot be said."""
    compared = [r for r in done if r.difference is not None]
    against = " and ".join(dict.fromkeys(r.baseline or "" for r in compared))
    clear, rest = [r for r in compared if r.clear], [r for r in compared if not r.clear]
    said = []
    for word, rows in (("better", [r for r in clear if r.gain > 0]), ("worse", [r for r in clear if r.gain < 0])):
        rows = sorted(rows, key=lambda r: -abs(r.gain))
        names = [f"{_name(r, done)} (by {points(r.gain)})" for r in rows[:_MOST_NAMES]]
        names += [f"{len(rows) - _MOST_NAMES} more"] if len(rows) > _MOST_NAMES else []
        said += [f"Clearly {word} than {against}: {_listed(names)}."] if names else []
    if not rest:
        return said, []
    others = f" for the other {len(rest)}" if clear else f" for any of the {len(rest)} others" if len(rest) > 1 else ""
    fewest = min(r.pairs for r in rest)
    if fewest < FEWEST_SEEDS:
        why = f"{_count(fewest, 'seed')} cannot show any; ask for --seeds 5"
    else:
        limits = [max(r.smallest_seeds or 0.0, r.smallest_dialogues or 0.0) for r in rest]
        why = f"with so many seeds and dialogues, one smaller than {_span(limits)} could not have been"
    return said, [f"A difference from {against} cannot be shown{others}: {why}."]


def _ranked(ranks: Ranks, rows: Sequence[Row]) -> str:
    """Friedman's test in words, and who is told apart from the best."""
    several = "combinations of host, data and protocol" if any(r.axes for r in rows) else "hosts"
    over = f"Over {_count(ranks.blocks, 'host', several)}"
    if ranks.p >= ALPHA:
        return f"{over} the fusions' ranks differ no more than by chance (Friedman, p {_p(ranks.p)})."
    behind = [n for n, r in zip(ranks.names, ranks.mean, strict=True) if r - ranks.mean[0] >= ranks.critical]
    said = f"{over} the fusions' ranks differ (Friedman, p {_p(ranks.p)}); {ranks.names[0]} ranks first"
    return f"{said}, clearly before {', '.join(behind)}." if behind else f"{said}, before no other one clearly."


def _name(row: Row, done: Sequence[Row]) -> str:
    """The fusion, and its place where there are several."""
    several = len({r.contestant.contest for r in done}) > 1
    return f"{row.fusion} in {', '.join([row.host, *row.axes.values()])}" if several else row.fusion


def points(value: float) -> str:
    """`.019`, without its sign."""
    return f"{abs(value):.3f}".removeprefix("0")


def _p(value: float | None) -> str:
    return "" if value is None else "< .001" if value < 0.001 else f"= {points(value)}"


def _interval(row: Row) -> str:
    low, high = row.bootstrap or (0.0, 0.0)
    return f"{low:+.3f} to {high:+.3f}"


def _span(values: Sequence[float]) -> str:
    low, high = points(min(values)), points(max(values))
    return low if low == high else f"{low} ({high} where runs spread most)"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), names[-1]])


def _count(number: int, noun: str, several: str = "") -> str:
    word = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
    return f"{word} {noun if number == 1 else several or f'{noun}s'}"
