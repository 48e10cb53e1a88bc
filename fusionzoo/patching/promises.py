"""What a patch promises, and how trying it out ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

APART, PADDING, FITS = "samples stay apart", "padding stays unseen", "other sizes fit"
FELT, COMPLETE, LEARNS = "the first output feels the fusion", "every stream takes part", "the fusion can learn"
#: Promised where the model itself keeps tokens from later ones, as a decoder does.
LATER = "later tokens stay unseen"
PROVED, BROKEN, NOT_TRIED = "proved", "broken", "not tried"
#: What another reading of a site's axes and lengths may mend; the other promises are the site's own.
OF_READING = (APART, PADDING, FITS)
OF_SITE = (FELT, COMPLETE, LEARNS, LATER)
ALWAYS = (*OF_READING, FELT, COMPLETE, LEARNS)
#: Why something cannot be tried with a batch and may be with a later one.
ONE_SAMPLE, NO_PADDING = "the batch holds one sample", "no step of this batch is padding"


@dataclass(frozen=True)
class Promise:
    """One thing that a patch promises.

    Attributes
    ----------
    words : str
        The promise.
    state : str
        `"proved"`, `"broken"` or `"not tried"`.
    why : str
        What was seen, or why it could not be tried.
    """

    words: str
    state: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.state:<9}  {self.words}{f': {self.why}' if self.why else ''}"


@dataclass(frozen=True)
class Proof:
    """What was tried of a patch's promises.

    Attributes
    ----------
    promises : tuple of Promise
        Each with how it ended.
    forwards : int
        How often the model was run for it.
    batch : str
        What it was tried with.
    file : str
        The file that it was read from, where it was not tried on this model; else empty.
    """

    promises: tuple[Promise, ...]
    forwards: int = 0
    batch: str = ""
    file: str = ""

    @classmethod
    def left_out(cls, why: str) -> Proof:
        """Nothing was tried."""
        return cls(tuple(Promise(words, NOT_TRIED, why) for words in ALWAYS))

    def broken(self, among: tuple[str, ...] = (*OF_READING, *OF_SITE)) -> tuple[Promise, ...]:
        """The promises, of those asked for, that do not hold."""
        return tuple(p for p in self.promises if p.state == BROKEN and p.words in among)

    def holds(self, words: str) -> bool:
        """Whether a promise is proved."""
        return any(p.words == words and p.state == PROVED for p in self.promises)

    @property
    def later(self) -> tuple[str, ...]:
        """Promises that another batch may show."""
        return tuple(p.words for p in self.promises if p.state == NOT_TRIED and p.why in (ONE_SAMPLE, NO_PADDING))

    def __str__(self) -> str:
        reasons = {p.why for p in self.promises}
        if len(reasons) == 1 and all(p.state == NOT_TRIED for p in self.promises):
            return f"nothing tried: {reasons.pop()}"
        last = f"in {self.forwards} forwards of the model{f' with {self.batch}' if self.batch else ''}"
        if self.file:
            last += f"; read from {self.file}, not tried on this model"
        return "\n".join([*map(str, self.promises), last])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        promises = [{"words": p.words, "state": p.state, "why": p.why} for p in self.promises]
        return {"promises": promises, "forwards": self.forwards, "batch": self.batch}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str) -> Proof:
        """The proof that `to_dict` wrote down in a file."""
        promises = tuple(Promise(p["words"], p["state"], p["why"]) for p in values["promises"])
        return cls(promises, values["forwards"], values["batch"], file)
