"""The generative model behind `demo` and its exact, Bayes-optimal reader. numpy only.

Emotions. Every participant of a dialogue carries the emotion of their last utterance. Whoever speaks keeps their own
last emotion with probability `inertia`, takes over that of the most recent other speaker with probability `contagion`,
and otherwise (or where there is nothing to keep or take over) draws from the unbalanced prior. All copies go back to a
draw from the prior, so the prior is also the distribution of any single utterance. The speaker keeps the floor with
probability `stay` and hands it to any other participant with equal chances otherwise.

Evidence of a class `c`, in each modality `m` along orthogonal directions, with noise of standard deviation `noise`:

- redundant: one noisy cue around a mean of `c`, seen by all modalities, so that it survives the loss of a modality
  and gains little from a second one;
- unique: a mean of `c` for the classes that belong to `m`, else nothing. The modalities take turns, the most frequent
  class goes to the first modality;
- synergistic: a fair hidden sign for each pair of neighbours on the ring of modalities. The first of the two sees the
  sign, the second the sign turned round if `c` is in the pair's block of classes. Each alone is pure chance; whether
  they agree is not.

The reader. Given the emotions' evidence, the state (last emotion of each participant) is a finite Markov chain, and
forward-backward recursions give every utterance's posterior exactly. Readers that leave something out (a modality, the
context, the product of signs) are the same recursions with less evidence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Largest number of float64 values of forward messages held at once.
_CHUNK = 8_000_000


@dataclass(frozen=True)
class DemoModel:
    """The generative model with fixed parameters; `demo` documents them.

    Shapes below: N utterances, B dialogues, T utterances of the longest one, C classes, S participants.
    """

    seed: int
    num_classes: int
    dims: Mapping[str, int]
    speakers: int
    inertia: float
    contagion: float
    stay: float
    imbalance: float
    redundant: float
    unique: float
    synergy: float
    noise: float
    _maps: dict[str, tuple[Array, Array, Array]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_maps", {m: self._map(i, d) for i, (m, d) in enumerate(self.dims.items())})

    def _map(self, index: int, width: int) -> tuple[Array, Array, Array]:
        """Rotation, scale and offset that turn the latent directions of a modality into what looks like features."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, index)))
        rotation, _ = np.linalg.qr(rng.standard_normal((width, width)))
        # Modalities come in units as different as word embeddings and openSMILE functionals.
        scale = (1.0, 100.0, 0.05)[index % 3] * np.exp(0.5 * rng.standard_normal(width))
        return rotation, scale, 2.0 * scale * rng.standard_normal(width)

    def options(self) -> dict[str, Any]:
        """The parameters as plain JSON values, the modalities as pairs because their order counts."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init} | {
            "dims": [list(d) for d in self.dims.items()]
        }

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> DemoModel:
        """The same model again from what `options` gave."""
        return cls(**{**options, "dims": dict(options["dims"])})

    # -- tables -------------------------------------------------------------------------------------------------------

    @cached_property
    def prior(self) -> Array:
        """(C,) geometric from the first class, the rarest, to the last, `imbalance` times as frequent."""
        weights = self.imbalance ** np.linspace(0.0, 1.0, self.num_classes)
        return weights / weights.sum()

    @cached_property
    def transition(self) -> Array:
        """(C+1, C+1, C): P(emotion | own last emotion, last emotion of the most recent other); C stands for none."""
        c = self.num_classes
        keep = np.concatenate([self.inertia * np.eye(c), np.zeros((1, c))])
        take = np.concatenate([self.contagion * np.eye(c), np.zeros((1, c))])
        copied = keep[:, None, :] + take[None, :, :]
        return copied + (1.0 - copied.sum(-1, keepdims=True)) * self.prior

    @cached_property
    def pairs(self) -> list[tuple[str, str, Array]]:
        """(first modality, second modality, (C,) sign code) of each synergistic pair."""
        names = list(self.dims)
        ring = list(zip(names, names[1:] + names[:1], strict=True)) if len(names) > 2 else [(names[0], names[1])]
        block = np.arange(self.num_classes) * len(names) // self.num_classes
        return [(a, b, np.where(block == p, -1.0, 1.0)) for p, (a, b) in enumerate(ring)]

    def unique_means(self, modality: str) -> Array:
        """(C, U) means of the unique part: a direction of its own for each class that belongs to the modality."""
        place, count = list(self.dims).index(modality), len(self.dims)
        means = np.zeros((self.num_classes, -(-self.num_classes // count)))
        rank = np.arange(place, self.num_classes, count)
        means[self.num_classes - 1 - rank, rank // count] = self.unique
        return means

    @property
    def redundant_means(self) -> Array:
        """(C, C) means of the redundant part, any two of them `redundant` apart."""
        return self.redundant / math.sqrt(2.0) * np.eye(self.num_classes)

    def sign_column(self, pair: int, modality: str) -> int:
        """Latent column in which a modality sees its sign of a pair."""
        before = sum(modality in p[:2] for p in self.pairs[:pair])
        return self.num_classes + -(-self.num_classes // len(self.dims)) + before

    @property
    def narrowest(self) -> int:
        """Features that a modality needs at least, to hold all its latent directions."""
        return self.num_classes + -(-self.num_classes // len(self.dims)) + min(2, len(self.dims) - 1)

    # -- sampling -----------------------------------------------------------------------------------------------------

    def sample_emotions(self, rng: np.random.Generator, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Speakers (participant 0 opens) and emotions of one dialogue, both (length,)."""
        draws = rng.random((length, 4))
        fresh = np.searchsorted(np.cumsum(self.prior)[:-1], draws[:, 0], side="right")
        recency = list(range(self.speakers))  # participants, the most recent speaker first
        last: dict[int, int] = {}
        speakers, emotions = np.zeros(length, np.int64), np.zeros(length, np.int64)
        for t in range(length):
            if t and self.speakers > 1 and draws[t, 1] >= self.stay:
                recency.insert(0, recency.pop(1 + int(draws[t, 2] * (self.speakers - 1))))
            who = recency[0]
            own, other = last.get(who), last.get(recency[1]) if self.speakers > 1 else None
            emotion = int(fresh[t])
            if draws[t, 3] < self.inertia:
                emotion = emotion if own is None else own
            elif draws[t, 3] < self.inertia + self.contagion:
                emotion = emotion if other is None else other
            speakers[t], emotions[t], last[who] = who, emotion, emotion
        return speakers, emotions

    def sample_features(self, rng: np.random.Generator, emotions: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Modality -> (N, d) features of utterances with the given emotions (N,)."""
        n, c = len(emotions), self.num_classes
        cue = self.redundant_means[emotions] + self.noise * rng.standard_normal((n, c))
        latent = {m: self.noise * rng.standard_normal((n, d)) for m, d in self.dims.items()}
        for m, z in latent.items():
            means = self.unique_means(m)
            z[:, :c] += cue
            z[:, c : c + means.shape[1]] += means[emotions]
        for p, (first, second, code) in enumerate(self.pairs):
            sign = self.synergy / 2.0 * (1.0 - 2.0 * rng.integers(0, 2, n))
            latent[first][:, self.sign_column(p, first)] += sign
            latent[second][:, self.sign_column(p, second)] += sign * code[emotions]
        out = {}
        for m, z in latent.items():
            rotation, scale, offset = self._maps[m]
            out[m] = (offset + scale * (z @ rotation.T)).astype(np.float32)
        return out

    def neutral(self, modality: str, features: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
        """The features `(N, d)` of a modality with evidence of one kind put where it speaks for no class; the rest as it is."""
        rotation, scale, offset = self._maps[modality]
        z = ((features - offset) / scale) @ rotation
        c, means = self.num_classes, self.unique_means(modality)
        if kind == "redundant":
            z[:, :c] = self.redundant_means.mean(0)
        elif kind == "unique":
            z[:, c : c + means.shape[1]] = means.max(0) / 2.0
        else:
            for p, pair in enumerate(self.pairs):
                if modality in pair[:2]:
                    z[:, self.sign_column(p, modality)] = 0.0
        return (offset + scale * (z @ rotation.T)).astype(np.float32)

    # -- reading ------------------------------------------------------------------------------------------------------

    def log_likelihood(
        self,
        features: Mapping[str, NDArray[np.float32]],
        present: Mapping[str, NDArray[np.bool_]],
        modalities: Collection[str] | None = None,
        synergy: bool = True,
    ) -> Array:
        """(N, C) log-likelihood of each class, up to a constant per utterance.

        modalities : those that are read (`None`: all that there are); rows that are not present are never read.
        synergy : whether products of signs are read; without them each modality's own evidence is all there is.
        """
        wanted = [m for m in (self.dims if modalities is None else modalities) if m in features]
        c, variance = self.num_classes, self.noise**2
        n = len(next(iter(features.values())))
        latent, seen = {}, {}
        for m, (rotation, scale, offset) in self._maps.items():
            seen[m] = np.asarray(present.get(m, np.ones(n, bool))) & (m in wanted)
            rows = np.where(seen[m][:, None], features[m], offset) if m in wanted else offset + np.zeros((n, 1))
            latent[m] = ((rows - offset) / scale) @ rotation
        # The mean of the modalities is sufficient for their shared cue; its noise is the cue's and a share of theirs.
        count = np.sum(list(seen.values()), axis=0)[:, None]
        cue = np.sum([z[:, :c] for z in latent.values()], axis=0) / np.maximum(count, 1)
        total = (count > 0) * _gauss(cue, self.redundant_means) / (variance * (1.0 + 1.0 / np.maximum(count, 1)))
        for m, z in latent.items():
            means = self.unique_means(m)
            total += seen[m][:, None] * _gauss(z[:, c : c + means.shape[1]], means) / variance
        for p, (first, second, code) in enumerate(self.pairs) if synergy else ():
            # Summed over the hidden sign, two Gaussians around +-(a, a * code) give a hyperbolic cosine.
            u, v = latent[first][:, self.sign_column(p, first)], latent[second][:, self.sign_column(p, second)]
            both = (seen[first] & seen[second])[:, None]
            inner = self.synergy / 2.0 / variance * (u[:, None] + v[:, None] * code)
            total += both * np.logaddexp(inner, -inner)
        return total

    def ranks(self, speakers: NDArray[np.int64]) -> NDArray[np.int64]:
        """(T,) how recently each utterance's speaker spoke, from participants' numbers (T,): 0 as before, 1 last other."""
        recency = list(range(self.speakers))
        out = np.zeros(len(speakers), np.int64)
        for t, who in enumerate(speakers.tolist()):
            # Which of those not heard yet comes first does not matter: the reader knows the same of all of them.
            out[t] = recency.index(who)
            recency.insert(0, recency.pop(out[t]))
        return out

    def posterior(self, log_likelihood: Array, ranks: NDArray[np.int64] | None, causal: bool = False) -> Array:
        """(B, T, C) exact posterior of every utterance's emotion given the whole dialogue, or its past (`causal`).

        log_likelihood : (B, T, C), zero at padded steps, which come last.
        ranks : (B, T) how recently the speaker spoke: 0 for the same as before, 1 for the last other, ...; `None` for
            a reader who does not know who speaks and averages over all turn-takings.
        """
        b, t, _ = log_likelihood.shape
        chances = self._turn_chances(b, t) if ranks is None else np.eye(self.speakers)[ranks]
        # An utterance's largest likelihood is set to 1: the forward mass then never falls below the prior's share.
        likelihood = np.exp(log_likelihood - log_likelihood.max(-1, keepdims=True))
        step = max(1, _CHUNK // (t * (self.num_classes + 1) ** self.speakers))
        parts = [self._recursions(likelihood[i : i + step], chances[i : i + step], causal) for i in range(0, b, step)]
        return np.concatenate(parts)

    def _turn_chances(self, b: int, t: int) -> Array:
        """(B, T, S) probability of each rank when the speakers are unknown."""
        chances = np.zeros((b, t, self.speakers))
        chances[:, 0, 0] = 1.0
        chances[:, 1:, 0] = self.stay if self.speakers > 1 else 1.0
        chances[:, 1:, 1:] = (1.0 - self.stay) / max(1, self.speakers - 1)
        return chances

    def _recursions(self, likelihood: Array, chances: Array, causal: bool) -> Array:
        """Forward-backward over the last emotions of all participants, the most recent speaker's on the first axis.

        A message has shape (B, C+1, ..., C+1), S axes of emotions, of which the last value stands for "not heard yet".
        """
        b, t, c = likelihood.shape
        message = np.zeros((b, *[c + 1] * self.speakers))
        message[(slice(None), *[c] * self.speakers)] = 1.0
        forward = np.empty((t, *message.shape))
        for i in range(t):
            message = self._forward(message, chances[:, i]) * _spread(likelihood[:, i], self.speakers)
            message /= message.sum(axis=tuple(range(1, message.ndim)), keepdims=True)
            forward[i] = message
        if not causal:
            message = np.ones_like(message)
            for i in range(t - 1, -1, -1):
                forward[i] *= message
                message = self._backward(message * _spread(likelihood[:, i], self.speakers), chances[:, i])
                message /= message.max(axis=tuple(range(1, message.ndim)), keepdims=True)
                # Long monologues of near-certain emotions could let a message vanish where all forward mass is.
                np.maximum(message, 1e-200, out=message)
        joint = forward.reshape(t, b, c + 1, -1).sum(-1)[:, :, :c].swapaxes(0, 1)
        return joint / joint.sum(-1, keepdims=True)

    def _forward(self, message: Array, chances: Array) -> Array:
        """One step ahead: the speaker's axis gets the new emotion and moves to the front."""
        out = np.zeros_like(message)
        for rank in range(self.speakers):
            rows = np.flatnonzero(chances[:, rank])
            if len(rows):
                # Axes (own, most recent other, rest); for rank 0 the most recent other is the second already.
                moved = self._grouped(np.moveaxis(message[rows], rank + 1, 1))
                new = np.einsum("nohq,ohy->nyhq", moved, self._table)
                new *= chances[rows, rank][:, None, None, None]
                out[rows, : self.num_classes] += new.reshape(len(rows), self.num_classes, *message.shape[2:])
        return out

    def _backward(self, message: Array, chances: Array) -> Array:
        """The transpose of `_forward`."""
        out = np.zeros_like(message)
        for rank in range(self.speakers):
            rows = np.flatnonzero(chances[:, rank])
            if len(rows):
                moved = self._grouped(message[rows])[:, : self.num_classes]
                old = np.einsum("nyhq,ohy->nohq", moved, self._table) * chances[rows, rank][:, None, None, None]
                out[rows] += np.moveaxis(old.reshape(len(rows), *message.shape[1:]), 1, rank + 1)
        return out

    @cached_property
    def _table(self) -> Array:
        """The transition; a monologue has no second axis, so its most recent other is "none"."""
        return self.transition if self.speakers > 1 else self.transition[:, -1:, :]

    def _grouped(self, message: Array) -> Array:
        """(B, own, most recent other, all the rest in one)."""
        e = self.num_classes + 1
        return message.reshape(len(message), e, e if self.speakers > 1 else 1, -1)


def _gauss(x: Array, means: Array) -> Array:
    """(N, C) `-|x - mean|^2 / 2` without the term that all classes share."""
    return x @ means.T - 0.5 * (means**2).sum(-1)


def _spread(likelihood: Array, speakers: int) -> Array:
    """(B, C) as a factor for messages; the speaker of the utterance is never "not heard yet"."""
    padded = np.concatenate([likelihood, np.zeros((len(likelihood), 1))], axis=1)
    return padded.reshape(*padded.shape, *[1] * (speakers - 1))
