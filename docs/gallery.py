"""Write the gallery: a page per fusion under docs/fusions/, the tables in docs/fusions.md and docs/hosts.md, docs/objectives.md.

    python docs/gallery.py [--check]

Everything comes from the card, the docstring, `parameter_count` and the costs that `benchmarks/fusions.py --json
docs/fusions/cost.json` measured. `--check` writes nothing and exits with 1 when a page is not what it would write.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import fusionzoo
from fusionzoo._variants import variant_docs
from fusionzoo.errors import FusionZooError
from fusionzoo.specs import Card

HERE = Path(__file__).parent
PAGES = HERE / "fusions"
INDEX = HERE / "fusions.md"
HOSTS = HERE / "hosts.md"
START, END = "<!-- gallery: written by docs/gallery.py -->", "<!-- end of gallery -->"
FIELD = {"text": 1024, "audio": 1582, "visual": 342}
WIDTH = 512
SETTINGS = {
    "text 1024, audio 1582": {"text": 1024, "audio": 1582},
    "text 1024, audio 1582, visual 342": FIELD,
    "the same and 128 of a fourth": {**FIELD, "fourth": 128},
    "three of 256": {"text": 256, "audio": 256, "visual": 256},
}
#: Shown on every page for comparison.
LANDMARKS = ("concat", "lmam", "cross-attention")
LEVELS = {
    "utterance": "acts on one utterance at a time",
    "dialogue": "looks across the utterances of a dialogue",
    "sequence": "made for sequences of frames or tokens; takes the utterances of a dialogue as well",
}
ABILITIES = {
    "masks": "masks: padded steps, whatever they hold, change nothing",
    "missing": "missing modalities, for the whole call or for some items",
    "unaligned": "another length in each modality, with one mask each",
    "attention": "gives attention maps",
    "losses": "gives auxiliary losses",
    "pools": "can give one vector for a whole sequence",
}
HEADINGS = ("Parameters", "Source", "Shapes")


def to_markdown(doc: str) -> str:
    """A docstring's reStructuredText (mathematics, headings, doctests) as GitHub Markdown."""
    out: list[str] = []
    lines = inspect.cleandoc(doc).splitlines()
    while lines:
        line = lines.pop(0)
        if line.startswith(".. math::"):
            body = [line.removeprefix(".. math::").strip()]
            while lines and (not lines[0].strip() or lines[0].startswith(" ")):
                body.append(lines.pop(0).strip())
            formula = "\n".join(b for b in body if b)
            if "&" in formula or r"\\" in formula:
                formula = f"\\begin{{aligned}}\n{formula}\n\\end{{aligned}}"
            out += ["```math", formula, "```", ""]
        elif line.startswith(">>> "):
            body = [line]
            while lines and lines[0].strip():
                body.append(lines.pop(0))
            out += ["```pycon", *body, "```"]
        elif lines and set(lines[0]) == {"-"} and line:
            lines.pop(0)
            out += [f"## {line}", ""]
        elif line.partition(":")[0] in HEADINGS and ":" in line:
            heading, _, rest = line.partition(":")
            out += ["", f"## {heading}", "", rest.strip()]
        else:
            entry = re.sub(r"^(\w+(?:, \w+)*) : ", r"- `\1`: ", line)
            out.append(re.sub(r"^( {4,})", "  ", entry))
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(out).strip())
    return re.sub(r":math:`((?:[^`]|\n)*)`", lambda m: "$" + " ".join(m[1].split()) + "$", text)


def variants(cls: Any, heading: str) -> list[str]:
    """A section per variant: what its class says that it does differently."""
    return [
        f'{heading} `variant="{name}"`\n\n' + re.sub(r"^## ", f"{heading}# ", to_markdown(doc), flags=re.MULTILINE)
        for name, doc in variant_docs(cls).items()
    ]


def count(name: str, dims: dict[str, int]) -> str:
    """Number of parameters, or why there are none to count."""
    try:
        return f"{fusionzoo.get(name).parameter_count(dims, WIDTH):,}"
    except FusionZooError:
        return "does not take them"


def takes(card: Card) -> str:
    """Number of modalities in words."""
    low, high = card.modalities
    return f"{low}" if low == high else f"{low} or more" if high is None else f"{low} to {high}"


def fits(card: Card, dims: dict[str, int]) -> bool:
    """Whether a fusion takes so many modalities."""
    low, high = card.modalities
    return len(dims) >= low and (high is None or len(dims) <= high)


def source(card: Card) -> str:
    """Where a plugin comes from, for a table."""
    return card.paper or "-"


def page(name: str, costs: dict[str, Any]) -> str:
    """The gallery page of one fusion."""
    card = fusionzoo.card(name)
    cls = fusionzoo.get(name)
    parts = [
        "<!-- written by docs/gallery.py; edit the fusion's docstring or its fusionzoo.plugin(...) instead -->",
        f"# {name}",
        f'`fusionzoo.get("{name}")`: {card.summary}. [All fusions](../fusions.md).',
    ]
    if card.diagram:
        parts.append("```mermaid\nflowchart LR\n" + inspect.cleandoc(card.diagram) + "\n```")
    parts += [to_markdown(cls.__doc__ or ""), *variants(cls, "##")]
    abilities = [f"- {ABILITIES[h]}" for h in ABILITIES if h in card.handles]
    parts.append("## What it takes\n\n" + "\n".join([f"- {takes(card)} modalities; {LEVELS[card.level]}", *abilities]))
    if card.variants:
        parts[-1] += "\n- `variant=` " + ", ".join(f'`"{v}"`' for v in card.variants)
    rows = [f"| {what} | {count(name, dims) if fits(card, dims) else '-'} |" for what, dims in SETTINGS.items()]
    parts.append("## Size\n\n" + "\n".join([f"| modalities, to {WIDTH} | parameters |", "|---|---|", *rows]))
    parts.append("## Cost beside others\n\n" + cost_table(name, costs))
    if card.code:
        parts.append(f"Official code: `{card.code}`.")
    return "\n\n".join(parts) + "\n"


def cost_table(name: str, costs: dict[str, Any]) -> str:
    """The fusion, its neighbours in cost and the landmarks, from the cheapest to the dearest."""
    order = sorted(costs, key=lambda n: (costs[n]["ratio"], n))
    near: set[str] = set(LANDMARKS) | {name}
    if name in order:
        at = order.index(name)
        near |= set(order[max(0, at - 2) : at + 3])
    lines = ["| fusion | step, times concat | MFLOPs / utterance | parameters |", "|---|---|---|---|"]
    for n in order:
        if n in near:
            label = f"**{n}**" if n == name else f"[{n}]({n}.md)"
            c = costs[n]
            lines.append(f"| {label} | {c['ratio']:.2f} | {c['mflops']:.2f} | {c['parameters']:,} |")
    return "\n".join(
        [
            f"A training step on CPU, B = 16, dialogues of 20 to 110 utterances, {', '.join(f'{m} {d}' for m, d in FIELD.items())} "
            f"to {WIDTH} (`benchmarks/fusions.py`).",
            "",
            *lines,
        ]
    )


def index_table(costs: dict[str, Any]) -> str:
    """The table of all fusions."""
    lines = [
        "| name | what | modalities | looks at | parameters at the dims above, out 512 | step, times concat | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in fusionzoo.names():
        card = fusionzoo.card(name)
        ratio = f"{costs[name]['ratio']:.1f}" if name in costs else "-"
        size = count(name, FIELD) if fits(card, FIELD) else "-"
        lines.append(
            f"| [`{name}`](fusions/{name}.md) | {card.summary} | {takes(card)} | {card.level} | {size} | {ratio} | {source(card)} |"
        )
    return "\n".join(lines)


def objectives() -> str:
    """The page of all objectives."""
    parts = [
        "<!-- written by docs/gallery.py; edit the objective's docstring or its fusionzoo.plugin(...) instead -->",
        "# Objectives",
        "`objective(out, batch)` is a scalar. The first is chosen with `--set objective.name=swfc`, others join it with a "
        "weight: `--set objective.also.soft-hgr.weight=0.3`. Losses that a fusion or host brings along by itself are weighed "
        "by `objective.auxiliary`.",
    ]
    for name in fusionzoo.names("objective"):
        card, cls = fusionzoo.card(name, kind="objective"), fusionzoo.get(name, kind="objective")
        body = re.sub(r"^## ", "#### ", to_markdown(cls.__doc__ or ""), flags=re.MULTILINE)
        parts += [f"## {name}", f"{card.summary[0].upper()}{card.summary[1:]}.", body, *variants(cls, "####")]
        if card.code:
            parts.append(f"Official code: `{card.code}`.")
    return "\n\n".join(parts) + "\n"


def host_table() -> str:
    """The table of all hosts."""
    lines = ["| name | what | placements (the first is the default) | variants | source |", "|---|---|---|---|---|"]
    for name in fusionzoo.names("host"):
        card = fusionzoo.card(name, kind="host")
        places, variants = (", ".join(f"`{v}`" for v in some) for some in (card.placements, card.variants))
        lines.append(f"| [`{name}`](#{name}) | {card.summary} | {places} | {variants} | {source(card)} |")
    return "\n".join(lines)


def host_text(cls: Any) -> str:
    """A host's docstring below its heading, its options as a list."""
    return re.sub(r"^## ", "#### ", to_markdown(cls.__doc__ or ""), flags=re.MULTILINE)


def host_sections() -> str:
    """A section per host: formula, options, shapes, source, and what its variants do differently."""
    parts = []
    for name in fusionzoo.names("host"):
        card, cls = fusionzoo.card(name, kind="host"), fusionzoo.get(name, kind="host")
        parts += [f"### {name}", host_text(cls), *variants(cls, "####")]
        if card.code:
            parts.append(f"Official code: `{card.code}`.")
    return "\n\n".join(parts)


def between(path: Path, body: str) -> str:
    """A page with what stands between its two marks replaced."""
    before, _, rest = path.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{body}\n\n{END}{after}"


def contents() -> dict[Path, str]:
    """Every file of the gallery with what it should hold."""
    costs = json.loads((PAGES / "cost.json").read_text(encoding="utf-8"))
    files = {PAGES / f"{name}.md": page(name, costs) for name in fusionzoo.names()}
    files[HERE / "objectives.md"] = objectives()
    files[INDEX] = between(INDEX, index_table(costs))
    files[HOSTS] = between(HOSTS, f"{host_table()}\n\n{host_sections()}")
    return files


def main(check: bool) -> int:
    """Write the gallery, or with `check` say which pages are not current."""
    files = contents()
    stale = [p for p, text in files.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    gone = [p for p in PAGES.glob("*.md") if p not in files]
    for path in stale + gone:
        print(f"{'not current' if check else 'written' if path in stale else 'removed'}: {path.relative_to(HERE)}")
    if not check:
        for path in stale:
            path.write_text(files[path], encoding="utf-8")
        for path in gone:
            path.unlink()
    return int(check and bool(stale or gone))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
