"""`demo`: conversations out of thin air, whose best reachable score is known.

A seeded generator with known structure: evidence of emotion is split into redundant, unique and synergistic parts over
the modalities, emotions persist within speakers and pass between them, classes are unbalanced, modalities go missing.
Because it is generated, its own model can be inverted: the Bayes-optimal reader is computed exactly and its scores say
how good is good, and how much there is to lose by ignoring the context, a speaker, a modality or the interaction of
modalities. `fusionzoo.data._demo_bayes` has the mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionzoo.data._demo_bayes import DemoModel
from fusionzoo.data.conventions import SPLITS
from fusionzoo.data.corpus import Corpus
from fusionzoo.errors import DataError, OptionError, close_matches_hint
from fusionzoo.plugin import plugin

DEFAULT_DIALOGUES = (200, 40, 110)
IEMOCAP_LABELS = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
DEFAULT_DIMS = {"text": 32, "audio": 24, "visual": 16}


def demo(
    seed: int = 0,
    dialogues: int | Sequence[int] = DEFAULT_DIALOGUES,
    length: Sequence[int] = (8, 32),
    labels: Sequence[str] = IEMOCAP_LABELS,
    dims: Mapping[str, int] | None = None,
    speakers: int = 2,
    inertia: float = 0.7,
    contagion: float = 0.15,
    stay: float = 0.4,
    imbalance: float = 3.0,
    redundant: float = 1.25,
    unique: float = 1.1,
    synergy: float = 5.0,
    noise: float = 1.0,
    missing: float = 0.05,
    missing_dialogues: float = 0.02,
) -> Corpus:
    """Generate conversations; `info["ceiling"]` of the corpus has the scores of optimal readers (see `ceilings`).

    Parameters
    ----------
    seed : of everything. On one machine the same options give the same corpus, bit for bit; dialogue `i` of a split
        does not depend on how many dialogues there are.
    dialogues : (train, dev, test) dialogues, or their sum, shared out as in the default.
    length : (shortest, longest) dialogue in utterances, all lengths equally likely.
    labels : names of the classes, from the rarest to the most frequent.
    dims : modality -> features; two or more modalities, each wide enough for what it has to show.
    speakers : participants of every dialogue, 1 to 4. The exact reader's cost grows with `(classes + 1) ** speakers`.
    inertia : probability that a speaker keeps their own last emotion.
    contagion : probability that a speaker takes over the last emotion of the most recent other speaker.
    stay : probability that the speaker of an utterance also has the next one.
    imbalance : how many times as frequent as the first class the last one is.
    redundant, unique, synergy : strength of the three kinds of evidence, in standard deviations of the noise at
        `noise=1`: the distance between two classes' means in the cue that all modalities see, between a class and the
        rest in the modality that it belongs to, and between the two values of a hidden sign.
    noise : standard deviation of the noise of every latent direction.
    missing : probability that an utterance lacks a modality, for each modality; one is always left.
    missing_dialogues : probability that a whole dialogue lacks a modality, for each modality; one is always left.

    Returns
    -------
    `Corpus` with features zero and `present` False where a modality is missing.

    Raises
    ------
    OptionError : an option out of range, in a message that names it and what it takes.
    """
    counts, (low, high), names = _counts(dialogues), _length(length), _labels(labels)
    if not sum(counts):
        raise OptionError("demo: dialogues asks for none at all; at least one split needs one")
    model = _model(
        {
            "seed": seed,
            "num_classes": len(names),
            "dims": DEFAULT_DIMS if dims is None else dims,
            "speakers": speakers,
            "inertia": inertia,
            "contagion": contagion,
            "stay": stay,
            "imbalance": imbalance,
            "redundant": redundant,
            "unique": unique,
            "synergy": synergy,
            "noise": noise,
        }
    )
    missing = _within("missing", missing, 0.0, 1.0)
    missing_dialogues = _within("missing_dialogues", missing_dialogues, 0.0, 1.0)

    rows: dict[str, list[Any]] = {"id": [], "index": [], "speaker": [], "emotion": [], "split": []}
    features: dict[str, list[NDArray[np.float32]]] = {m: [] for m in model.dims}
    present: list[NDArray[np.bool_]] = []
    for s, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        for i in range(count):
            rng = np.random.default_rng(np.random.SeedSequence(model.seed, spawn_key=(1, s, i)))
            n = int(rng.integers(low, high + 1))
            speaker, emotion = model.sample_emotions(rng, n)
            there = _sample_present(rng, n, len(model.dims), missing, missing_dialogues)
            for j, (m, x) in enumerate(model.sample_features(rng, emotion).items()):
                features[m].append(np.where(there[:, j : j + 1], x, np.float32(0.0)))
            present.append(there)
            rows["id"].append(np.full(n, f"demo-{split}-{i:04d}"))
            rows["index"].append(np.arange(n))
            rows["speaker"].append(np.array(list("ABCD"))[speaker])
            rows["emotion"].append(emotion)
            rows["split"].append(np.full(n, split))
    columns = {k: np.concatenate(v) for k, v in rows.items()}
    there = np.concatenate(present)
    corpus = Corpus(
        name="demo",
        features={m: np.concatenate(v) for m, v in features.items()},
        dialogue_id=columns["id"],
        utterance_index=columns["index"],
        speaker=columns["speaker"],
        label=columns["emotion"],
        label_names=names,
        split=columns["split"],
        present={m: there[:, j] for j, m in enumerate(model.dims)},
        info={
            "source": "demo",
            "demo": model.options(),
            "missing": missing,
            "missing_dialogues": missing_dialogues,
        },
    )
    corpus.info["ceiling"] = ceilings(corpus)
    return corpus


def bayes_posterior(
    corpus: Corpus,
    modalities: Sequence[str] | None = None,
    context: str = "dialogue",
    speakers: bool = True,
    synergy: bool = True,
) -> NDArray[np.float64]:
    """(N, C) exact posterior probability of each class for every utterance of a `demo` corpus.

    No model can have a better expected log-loss or accuracy with the same evidence. The arguments take evidence away:

    modalities : those that are read; `None` reads all.
    context : `"dialogue"` reads the whole dialogue, `"past"` what was said up to the utterance, `"none"` it alone.
    speakers : whether the reader knows who speaks. Without, all ways to take turns are averaged over.
    synergy : whether modalities are read together. Without, their scores add up, as in an additive late fusion: their
        shared cue is still read once, but no product of their features.

    Raises `DataError` for a corpus that `demo` did not make, `OptionError` for an unknown modality or context.
    """
    options = corpus.info.get("demo")
    if not isinstance(options, Mapping):
        raise DataError(
            f"the corpus {corpus.name!r} was not generated by 'demo', so its optimal reader is not known; "
            "make one with fusionzoo.get('demo', kind='dataset')()"
        )
    model = DemoModel.from_options(options)
    for m in modalities or ():
        if m not in model.dims:
            raise OptionError(
                f"demo: no modality {m!r}{close_matches_hint(m, model.dims) or '.'} It has: {', '.join(model.dims)}."
            )
    if context not in ("dialogue", "past", "none"):
        raise OptionError(f"demo: context must be 'dialogue', 'past' or 'none', not {context!r}")
    evidence = model.log_likelihood(corpus.features, corpus.present, modalities, synergy)
    if context == "none":
        joint = np.log(model.prior) + evidence
        joint = np.exp(joint - joint.max(-1, keepdims=True))
        return joint / joint.sum(-1, keepdims=True)
    starts = np.flatnonzero(np.r_[True, corpus.dialogue_id[1:] != corpus.dialogue_id[:-1]])
    lengths = np.diff(np.r_[starts, len(evidence)])
    real = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros((*real.shape, model.num_classes))
    padded[real] = evidence
    ranks = np.zeros(real.shape, np.int64)
    if speakers:
        local = corpus.speaker_index()
        ranks[real] = np.concatenate([model.ranks(local[a : a + n]) for a, n in zip(starts, lengths, strict=True)])
    return model.posterior(padded, ranks if speakers else None, causal=context == "past")[real]


def evidence(corpus: Corpus) -> dict[str, NDArray[np.float64]]:
    """What each kind of evidence says of every utterance of a `demo` corpus: kind -> (N, C) log-scores of the classes.

    `prior`, `redundant`, `unique` and `synergistic` of the utterance itself, and `context`: all that the rest of its
    dialogue adds. Their sum is, up to a constant per utterance, the logarithm of `bayes_posterior`.
    """
    posterior = np.log(np.maximum(bayes_posterior(corpus), 1e-300))
    model = DemoModel.from_options(corpus.info["demo"])  # type: ignore[arg-type]  # bayes_posterior has looked
    said = (corpus.features, corpus.present)
    full = model.log_likelihood(*said)
    single = model.log_likelihood(*said, synergy=False)
    redundant = replace(model, unique=0.0).log_likelihood(*said, synergy=False)
    prior = np.broadcast_to(np.log(model.prior), full.shape)
    return {
        "prior": prior.copy(),
        "context": posterior - full - prior,
        "redundant": redundant,
        "unique": single - redundant,
        "synergistic": full - single,
    }


def without_evidence(corpus: Corpus, kind: str, rows: NDArray[np.bool_]) -> Corpus:
    """The `demo` corpus with its `redundant`, `unique` or `synergistic` evidence speaking for no class at some rows."""
    model = DemoModel.from_options(corpus.info["demo"])  # type: ignore[arg-type]
    features = dict(corpus.features)
    for m, x in features.items():
        changed = rows & corpus.present.get(m, True)
        features[m] = x.copy()
        features[m][changed] = model.neutral(m, x[changed], kind)
    return replace(corpus, features=features)


def ceilings(corpus: Corpus) -> dict[str, dict[str, dict[str, float]]]:
    """Split -> reader -> {"weighted_f1", "macro_f1", "accuracy"} of optimal readers on the very utterances of the split.

    Readers: `full`; `past` (no future), `no_context` (each utterance alone), `no_speakers` (not told who speaks),
    `no_synergy` (modalities' scores added up); `only_M` and `without_M` for each modality; `majority` (the most
    frequent class, always).

    All predict the class of largest posterior probability, which maximises the expected accuracy. The rule that
    maximises F1 differs a little; and being expectations, neither is a bound for one sample of utterances: a model can
    pass by luck, by about the score's sampling error.
    """
    names = list(corpus.features)
    readers: dict[str, dict[str, Any]] = {
        "full": {},
        "past": {"context": "past"},
        "no_context": {"context": "none"},
        "no_speakers": {"speakers": False},
        "no_synergy": {"synergy": False},
    }
    readers |= {f"only_{m}": {"modalities": [m]} for m in names}
    readers |= {f"without_{m}": {"modalities": [n for n in names if n != m]} for m in names}
    predictions = {name: bayes_posterior(corpus, **given).argmax(-1) for name, given in readers.items()}
    predictions["majority"] = np.full(len(corpus.label), corpus.num_classes - 1)
    out: dict[str, dict[str, dict[str, float]]] = {}
    for split in SPLITS:
        rows = corpus.split == split
        if rows.any():
            out[split] = {k: _scores(corpus.label[rows], p[rows], corpus.num_classes) for k, p in predictions.items()}
    return out


def _scores(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> dict[str, float]:
    """Scores as scikit-learn defines them; without its import, which takes longer than all the rest of this file."""
    confusion = np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)
    hits, support, guessed = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    f1 = 2.0 * hits / np.maximum(support + guessed, 1)
    return {
        "weighted_f1": float((f1 * support).sum() / support.sum()),
        "macro_f1": float(f1[support + guessed > 0].mean()),
        "accuracy": float(hits.sum() / support.sum()),
    }


def _sample_present(
    rng: np.random.Generator, n: int, modalities: int, missing: float, missing_dialogues: float
) -> NDArray[np.bool_]:
    """(n, modalities) where a modality was recorded; every row has at least one, and a spared one was spared at random."""
    recorded = rng.random(modalities) >= missing_dialogues
    recorded[rng.integers(modalities)] |= not recorded.any()
    there = recorded & (rng.random((n, modalities)) >= missing)
    spared = rng.choice(np.flatnonzero(recorded), n)
    empty = np.flatnonzero(~there.any(1))
    there[empty, spared[empty]] = True
    return there


# -- options ----------------------------------------------------------------------------------------------------------

_LARGEST_STATE = 5000


def _model(options: Mapping[str, Any]) -> DemoModel:
    """The generative model, its options checked."""
    dims = options["dims"]
    if not isinstance(dims, Mapping) or len(dims) < 2:
        raise OptionError(f"demo: dims must map two or more modalities to their widths, not {dims!r}")
    speakers = _whole("speakers", options["speakers"], 1, 4)
    classes = options["num_classes"]
    if (classes + 1) ** speakers > _LARGEST_STATE:
        raise OptionError(
            f"demo: {speakers} speakers with {classes} classes are too many for the exact reader; "
            f"(classes + 1) ** speakers must be at most {_LARGEST_STATE}"
        )
    inertia, contagion = (_within(k, options[k], 0.0, 1.0) for k in ("inertia", "contagion"))
    if inertia + contagion > 0.999:
        raise OptionError(
            f"demo: inertia + contagion = {inertia + contagion:g} leaves no chance of a fresh emotion; "
            "their sum must be at most 0.999"
        )
    model = DemoModel(
        seed=_whole("seed", options["seed"], 0),
        num_classes=classes,
        dims={str(m): _whole(f"dims[{m!r}]", d, 1) for m, d in dims.items()},
        speakers=speakers,
        inertia=inertia,
        contagion=contagion,
        stay=_within("stay", options["stay"], 0.0, 1.0),
        imbalance=_within("imbalance", options["imbalance"], 1.0, 1000.0),
        redundant=_within("redundant", options["redundant"], 0.0),
        unique=_within("unique", options["unique"], 0.0),
        synergy=_within("synergy", options["synergy"], 0.0),
        noise=_within("noise", options["noise"], 1e-3),
    )
    for m, width in model.dims.items():
        if width < model.narrowest:
            raise OptionError(
                f"demo: modality {m!r} has {width} features, too few to hold its evidence of {classes} classes; "
                f"give it at least {model.narrowest}"
            )
    return model


def _counts(dialogues: Any) -> tuple[int, ...]:
    if isinstance(dialogues, (int, np.integer)) and not isinstance(dialogues, bool):
        total = _whole("dialogues", dialogues, 3)
        dev, test = (max(1, round(total * n / sum(DEFAULT_DIALOGUES))) for n in DEFAULT_DIALOGUES[1:])
        return total - dev - test, dev, test
    return _wholes("dialogues", dialogues, 3, 0)


def _length(length: Any) -> tuple[int, ...]:
    low, high = _wholes("length", length, 2, 1)
    if low > high:
        raise OptionError(f"demo: length is (shortest, longest), not ({low}, {high})")
    return low, high


def _labels(labels: Any) -> tuple[str, ...]:
    names = () if isinstance(labels, str) or not isinstance(labels, Sequence) else tuple(str(n) for n in labels)
    if len(names) < 2 or len(set(names)) < len(names):
        raise OptionError(f"demo: labels must be two or more different names, not {labels!r}")
    return names


def _wholes(option: str, values: Any, count: int, low: int) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != count:
        raise OptionError(f"demo: {option} takes {count} whole numbers, not {values!r}")
    return tuple(_whole(option, v, low) for v in values)


def _whole(option: str, value: Any, low: int, high: int | None = None) -> int:
    span = f"of at least {low}" if high is None else f"from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= (high or value):
        raise OptionError(f"demo: {option} must be a whole number {span}, not {value!r}")
    return int(value)


def _within(option: str, value: Any, low: float, high: float = math.inf) -> float:
    span = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
    number = not isinstance(value, bool) and isinstance(value, (int, float, np.number)) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise OptionError(f"demo: {option} must be a number {span}, not {value!r}")
    return float(value)


fusionzoo_register = plugin(
    demo,
    kind="dataset",
    summary="seeded conversations of known structure, with the exact score of the Bayes-optimal reader",
)
