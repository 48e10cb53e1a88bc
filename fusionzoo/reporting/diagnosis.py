"""What was found out about a trained model: findings in words, tables, pictures, one page."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fusionzoo._files import write_bytes, write_json, write_text
from fusionzoo._notebook import html_list
from fusionzoo._text import markup
from fusionzoo.reporting import figures, plots
from fusionzoo.reporting.pages import (
    WITHOUT_PICTURES,
    columns,
    heading,
    image,
    links,
    page,
    paragraph,
    picture,
    warning,
)
from fusionzoo.reporting.table import Table
from fusionzoo.scoring.diagnostics.groups import FEWEST
from fusionzoo.scoring.diagnostics.modality_use import ANY
from fusionzoo.scoring.diagnostics.predicted import Finding, between, main_short, points
from fusionzoo.scoring.metrics import MAIN, METRICS

if TYPE_CHECKING:
    from fusionzoo._types import JSON
    from fusionzoo.data.label_leaks import LabelReader
    from fusionzoo.scoring.diagnostics.calibration import Calibration
    from fusionzoo.scoring.diagnostics.evidence import EvidenceUse
    from fusionzoo.scoring.diagnostics.groups import Group, Groups
    from fusionzoo.scoring.diagnostics.inside import Attention
    from fusionzoo.scoring.diagnostics.modality_use import ModalityUse

#: Pictures of so many dots that they would be long as text.
_PIXELS = ("attention", "embedding")
#: Speakers that are shown: the worst and the best.
_SPEAKERS = 12


@dataclass
class Section:
    """One part of a diagnosis.

    Parameters
    ----------
    name : of the part, and of its files.
    heading : on the page.
    words : how it is to be read.
    tables : name -> table.
    pictures : name -> matplotlib figure.
    values : the numbers, for machines.
    """

    name: str
    heading: str
    words: str
    tables: dict[str, Table] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)
    values: Any = None


@dataclass
class Diagnosis:
    """What was found out about one model, or about the models of a comparison.

    Parameters
    ----------
    title : of the page.
    about : sentences: which model, on which data.
    findings : in words, the grave ones first.
    sections : the parts, with their tables and pictures.
    left_out : part -> why there is none.
    folder : where `write` puts everything.
    score : main score of the split; None for several models.
    links : name of a model -> its own page.
    """

    title: str
    about: list[str]
    findings: list[Finding]
    sections: list[Section]
    left_out: dict[str, str]
    folder: Path
    score: float | None = None
    links: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.findings = sorted(self.findings, key=lambda f: not f.grave)

    @property
    def grave(self) -> list[Finding]:
        """The findings that somebody should look at."""
        return [f for f in self.findings if f.grave]

    @property
    def page(self) -> Path:
        """Where the page lies."""
        return self.folder / "diagnosis.html"

    def section(self, name: str) -> Section:
        """A part by its name; `KeyError` where it was left out."""
        return {s.name: s for s in self.sections}[name]

    def __str__(self) -> str:
        lines = [self.title, *self.about, "", *map(str, self.findings)]
        lines += [f"  left out: {part}, {why}" for part, why in self.left_out.items()]
        return "\n".join([*lines, "", f"page: {self.page}"])

    def __repr__(self) -> str:
        return f"Diagnosis({self.title!r}: {len(self.findings)} findings, {len(self.grave)} grave)"

    def _repr_html_(self) -> str:
        return html_list(self.title, [f.words for f in self.grave], [f.words for f in self.findings if not f.grave])

    @property
    def sentence(self) -> str:
        """How it came out, in one sentence."""
        grave, every = len(self.grave), len(self.findings)
        if not grave:
            return f"No fault was found; {every} findings are worth knowing." if every else "Nothing was found."
        return f"{grave} of {every} findings {'is a fault' if grave == 1 else 'are faults'}."

    def write(self) -> None:
        """`diagnosis.html`, `diagnosis.json`, and a folder `diagnosis` with a csv file per table and a PNG per picture."""
        inner = self.folder / "diagnosis"
        parts = [paragraph(self.sentence, "lede"), paragraph(" ".join(self.about), "note")]
        parts += [warning(f.words) for f in self.grave]
        worth = [f for f in self.findings if not f.grave]
        parts += [f"<ul>{''.join(f'<li>{markup(f.words)}</li>' for f in worth)}</ul>"] if worth else []
        for section in self.sections:
            parts += self._section(section, inner)
        if self.links:
            there = {name: os.path.relpath(where, self.folder) for name, where in self.links.items()}
            pairs = [(name, quote(Path(where).as_posix())) for name, where in there.items()]
            parts += [heading("Each model"), links(pairs)]
        parts += [paragraph(f"Left out: {part}, {why}", "note") for part, why in self.left_out.items()]
        if not plots.have_plots():
            parts.append(paragraph(WITHOUT_PICTURES, "note"))
        write_json(self.folder / "diagnosis.json", self.to_dict())
        write_text(self.page, page(self.title, parts))

    def _section(self, section: Section, inner: Path) -> list[str]:
        shown = []
        for name, figure in section.pictures.items():
            data, said = plots.png(figure), f"{section.heading}: {name}"
            write_bytes(inner / f"{name}.png", data)
            shown.append(image(data, said) if name in _PIXELS else picture(figure, said))
        for name, table in section.tables.items():
            write_text(inner / f"{name}.csv", table.csv())
            shown.append(table.html(sortable=True))
        return [heading(section.heading), paragraph(section.words, "note"), columns(shown)]

    def to_dict(self) -> dict[str, JSON]:
        """Plain values, for machines."""
        return {
            "format": 1,
            "title": self.title,
            "about": self.about,
            "score": self.score,
            "findings": [asdict(f) for f in self.findings],
            "left_out": self.left_out,
            "parts": {s.name: s.values for s in self.sections},
        }


# -- one model --------------------------------------------------------------------------------------------------------


def modality_section(use: ModalityUse) -> Section:
    """Ablation, permutation importance and robustness."""
    header = ["modality", "permuted costs", "95 %", "flips", "without", "alone"]
    rows = [
        [
            p.modality,
            p.drop,
            between(p.interval).strip(),
            f"{100 * p.flipped:.0f} %",
            use.without[p.modality],
            use.alone[p.modality],
        ]
        for p in use.permuted
    ]
    rates = sorted({r for curve in use.missing.values() for r in curve})
    lacking = [
        ["any, one is left" if m == ANY else m, *(curve.get(r) for r in rates)] for m, curve in use.missing.items()
    ]
    score = METRICS[MAIN]
    words = (
        f"{score.short} is {score.show(use.scores[MAIN])}, and {score.show(use.majority)} for always the most frequent class. "
        "Permuted: every utterance gets the modality of another one; what that costs is what the model read there "
        "(95 % interval over dialogues; flips: utterances whose class changes). Without, alone: modalities are marked as "
        "missing, which the model may never have been trained for."
    )
    words += f" The model takes no missing modality: {use.refused}" if use.refused else ""
    tables = {"modalities": Table(header, rows)}
    if lacking:
        tables["robustness"] = Table(["utterances without", *(f"{100 * r:.0f} %" for r in rates)], lacking)
    pictures = {}
    if plots.have_plots():
        pictures["ablation"] = figures.ablation(use)
        if lacking:
            pictures["robustness"] = figures.robustness(use)
    return Section("modalities", "What each modality is worth", words, tables, pictures, asdict(use))


def group_section(groups: Groups) -> Section:
    """Scores by class, speaker, length and shift."""
    classes = [
        [
            c.name,
            c.support,
            c.precision,
            c.recall,
            c.f1,
            f"{c.taken_for} ({100 * c.share:.0f} %)" if c.taken_for else "",
        ]
        for c in groups.classes
    ]
    tables = {
        "classes": Table(["class", "utterances", "precision", "recall", "F1", "most taken for"], classes),
        "shifts": _group_table("where", groups.shifts),
        "lengths": _group_table("dialogues of", groups.lengths),
    }
    shown = groups.speakers
    if len(shown) > _SPEAKERS:
        shown = (*shown[: _SPEAKERS // 2], *shown[-_SPEAKERS // 2 :])
    if len(shown) > 1:
        tables["speakers"] = _group_table("speaker", shown)
    words = (
        "The emotion shifts where a speaker's last utterance in the dialogue had another one. Scores of groups also differ "
        f"because their classes do. Speakers with fewer than {FEWEST} utterances are left out"
    )
    hidden = len(groups.speakers) - len(shown)
    words += f", and {hidden} between the worst and the best." if hidden else "."
    if groups.stuck is not None:
        words += f" Where it shifts, {100 * groups.stuck:.0f} % of the utterances are given the emotion before."
    pictures = {}
    if plots.have_plots():
        pictures["per-class"] = figures.per_class({"": {c.name: c.f1 for c in groups.classes}})
    return Section("groups", "Where it is right", words, tables, pictures, asdict(groups))


def _group_table(what: str, groups: Sequence[Group]) -> Table:
    header = [what, "utterances", "dialogues", *(m.short for m in METRICS.values())]
    return Table(header, [[g.name, g.count, g.dialogues, *(g.scores[k] for k in METRICS)] for g in groups])


def calibration_section(found: Calibration) -> Section:
    """ECE and the reliability diagram."""
    rows = [[f"{b.low:.2f} to {b.high:.2f}", b.count, b.confidence, b.accuracy] for b in found.bins]
    words = (
        f"Expected calibration error {found.ece:.3f} in {round(1 / (found.bins[0].high - found.bins[0].low))} bins; a model "
        f"that is calibrated exactly stays below {found.by_chance:.3f} in 95 of 100 samples of this size. Mean confidence minus "
        f"accuracy {points(found.gap, sign=True)}{between(found.interval)}; Brier score {found.brier:.3f}."
    )
    pictures = {"reliability": figures.reliability({"": found})} if plots.have_plots() else {}
    table = Table(["confidence", "utterances", "mean confidence", "accuracy"], rows)
    return Section(
        "calibration", "Is it as right as it is sure", words, {"calibration": table}, pictures, asdict(found)
    )


def evidence_section(use: EvidenceUse) -> Section:
    """Shares of the kinds of evidence of `demo`."""
    rows = [[r.kind, f"{100 * r.share:.0f} %", between(r.interval).strip(), r.worth] for r in use.kinds]
    words = (
        "These data are generated, so that it is known what the optimal reader makes of each kind of evidence. Worth: what it adds "
        "to all others, in nats per utterance. Recovered: how much of that the model's response to it adds, found by putting the "
        "kind's evidence in an utterance where it speaks for no class (95 % interval over dialogues)."
    )
    table = Table(["evidence", "recovered", "95 %", "worth"], rows)
    values = {"kinds": [{**asdict(r), "certain": r.certain} for r in use.kinds]}
    return Section("evidence", "Which evidence it recovers", words, {"evidence": table}, {}, values)


def leak_section(readers: Sequence[LabelReader], shared: Sequence[str]) -> Section:
    """What a linear reader of each modality finds, and rows that splits share."""
    rows = [[r.modality, r.accuracy, r.explained, len(r.columns)] for r in readers]
    words = (
        "A linear map of one modality, fitted on the training split, and the share of the variance of a single column that the "
        "classes explain: honest features stay far below 1. "
        + (
            "; ".join(shared)
            if shared
            else "No more rows of features are shared between splits than recur by themselves."
        )
    )
    table = Table(["modality", "accuracy of a linear reader", "most explained column", "columns made of labels"], rows)
    values = {"readers": [asdict(r) for r in readers], "shared": list(shared)}
    return Section("leaks", "Are the labels in the data", words, {"leaks": table} if rows else {}, {}, values)


def attention_section(found: Attention) -> Section:
    """Attention over one dialogue."""
    words = f"Dialogue {found.dialogue}, {len(found.utterances)} utterances; rows attend to columns, heads and features averaged."
    words += " Evenness is the entropy of a row beside that of attention which is the same everywhere: 100 % chooses nothing."
    pictures = {"attention": figures.attention(found)} if plots.have_plots() and found.maps else {}
    rows = [[name, f"{100 * even:.1f} %"] for name, even in found.evenness().items()]
    values = {
        "dialogue": found.dialogue,
        "evenness": found.evenness(),
        "maps": {k: x.tolist() for k, x in found.maps.items()},
    }
    return Section(
        "attention",
        "Attention over one dialogue",
        words,
        {"attention": Table(["map", "evenness"], rows)},
        pictures,
        values,
    )


def embedding_section(picture: Any, count: int, method: str) -> Section:
    """The fused vectors in the plane."""
    words = f"{count} utterances; neighbours in the picture are neighbours in the fused space, distances between clusters mean nothing."
    return Section("embedding", f"Fused vectors, by {method}", words, {}, {"embedding": picture}, {"utterances": count})


# -- several models ---------------------------------------------------------------------------------------------------


def models_section(diagnoses: Mapping[str, Diagnosis]) -> Section:
    """The diagnoses of several models side by side, one number per cell.

    Parameters
    ----------
    diagnoses : name of a model -> what was found out about one of its runs.
    """
    parts = {name: {s.name: s.values for s in d.sections} for name, d in diagnoses.items()}
    uses = {name: p["modalities"] for name, p in parts.items() if "modalities" in p}
    modalities = list(dict.fromkeys(q["modality"] for u in uses.values() for q in u["permuted"]))
    kinds = list(dict.fromkeys(k["kind"] for p in parts.values() if "evidence" in p for k in p["evidence"]["kinds"]))
    header = [
        "model",
        f"test {main_short()}",
        *(f"permuted {m}" for m in modalities),
        "half of any missing",
        "ECE",
        "shift",
    ]
    rows = []
    for name, diagnosis in diagnoses.items():
        part = parts[name]
        use = uses.get(name)
        drops = {} if use is None else {q["modality"]: q["drop"] for q in use["permuted"]}
        half = None if use is None else use["missing"].get(ANY, {}).get(0.5)
        ece = part["calibration"]["ece"] if "calibration" in part else None
        rows.append([name, diagnosis.score, *(drops.get(m) for m in modalities), half, ece, _shift(part.get("groups"))])
    tables = {"models": Table(header, rows)}
    if kinds:
        shares = {
            n: {k["kind"]: _share(k) for k in p["evidence"]["kinds"]} for n, p in parts.items() if "evidence" in p
        }
        cells = [[n, *(s.get(k) for k in kinds)] for n, s in shares.items()]
        tables["evidence"] = Table(["recovers of the evidence", *kinds], cells, ["?: so few dialogues cannot tell."])
    words = (
        "One run of each model, its first seed; each has a page of its own in its folder. Permuted: what it costs to hand every "
        "utterance another one's modality. Shift: accuracy where the speaker's emotion shifts minus where it stays."
    )
    return Section("models", "The models side by side", words, tables, {}, parts)


def _share(kind: Mapping[str, Any]) -> str:
    return f"{100 * kind['share']:.0f} %" if kind["certain"] else "?"


def _shift(groups: Mapping[str, Any] | None) -> float | None:
    found = [] if groups is None else [d for what, (d, _) in groups["differences"].items() if "shifts" in what]
    return found[0] if found else None


def pareto_section(costed: Mapping[str, Sequence[figures.Costed]]) -> tuple[Section, list[Finding]]:
    """Cost against score.

    Parameters
    ----------
    costed : name of a cost -> the models.
    """
    findings, tables, pictures = [], {}, {}
    for cost, models in costed.items():
        slug = re.sub(r"[^a-z0-9]+", "-", cost.lower()).strip("-")
        rows = []
        for m in sorted(models, key=lambda m: m.cost):
            beat = figures.dominating(m, models)
            shown = f"{m.cost:,.0f}" if m.cost == int(m.cost) else f"{m.cost:,.4g}"
            rows.append([m.name, shown, m.score, "" if beat is None else beat.name])
        tables[f"pareto-{slug}"] = Table(["model", cost, f"test {main_short()}", "beaten by"], rows)
        beaten = [name for name, *_, by in rows if by]
        if beaten:
            choice = ", ".join(str(name) for name, *_, by in rows if not by)
            words = f"{cost} against score: the choice is {choice}; beaten by one that costs no more: {', '.join(map(str, beaten))}"
            findings.append(Finding("pareto", words))
        if plots.have_plots():
            pictures[f"pareto-{slug}"] = figures.pareto(models, cost)
    words = (
        "A model is beaten where another costs no more and scores no less. Mean test score over seeds; whether a difference is more "
        "than chance is said in the comparison's own report."
    )
    values = {cost: [asdict(m) for m in models] for cost, models in costed.items()}
    return Section("pareto", "Cost against score", words, tables, pictures, values), findings
