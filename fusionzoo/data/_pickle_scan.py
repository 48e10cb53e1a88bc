"""A look at every instruction of a pickle before any is followed.

Python's unpickler trusts what a pickle states: it reserves memory for a memo index or a length, and hashes whatever is
used as a key. `scan` goes through the instructions without following them, refuses those that the file is too small for,
and says where the ones that hash have to be replaced by calls of ours (`EditedFile`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

#: What a load may take apart from the bytes that the file itself holds: a base, and so many times the file's size.
BASE, TIMES = 64 << 20, 8
_LINE_DIGITS = 160
_LONG_BYTES = 64
_CHUNK = 1 << 20
#: Bytes of memory of what one instruction makes. Every other instruction makes less than eight times its own length.
_MAKES = {b"]": 64, b"l": 64, b"t": 48, b"\x85": 56, b"\x86": 64, b"\x87": 72, b"(": 16}

#: The same of a dict or set with what watches over its keys.
HASHED = 200

# Instructions without an argument that need no closer look, and those with one of a fixed length.
_PLAIN = rb"[()012NQRabelostu\]\x81\x85-\x89\x90\x92-\x94]"
_FIXED = rb"K.|M..|J.{4}|G.{8}|q.|h.|j.{4}|\x80."
_LINES = rb"F[-+.0-9a-zA-Z]{0,160}\n|I[-0-9]{0,160}\n|L[-0-9]{0,160}L?\n|g[0-9]{1,18}\n"
_NO_MAKERS = re.compile(rb"(?:%b|r.{4}|[FILgp][^\n]*\n|[^\]lt\x85-\x87(])+" % _FIXED, re.DOTALL)

#: Length-prefixed arguments: instruction -> bytes of the length.
_COUNTED = {b"X": 4, b"\x8c": 1, b"\x8d": 8, b"T": 4, b"U": 1, b"B": 4, b"C": 1, b"\x8e": 8, b"\x96": 8}
#: Instructions that hash: a call of the unpickler's `persistent_load` takes their place.
_EDITS = {b"}": b"NQ", b"\x8f": b"\x89Q", b"\x91": b"lQ", b"d": b"tQ"}
_EXTENSIONS = {b"\x82": 1, b"\x83": 2, b"\x84": 4}


class Refused(Exception):
    """Something that a pickle of features does not hold; the message completes "The pickle holds ..."."""


class Damaged(Exception):
    """Bytes that are no whole pickle; the message says what is wrong with them."""


Edit = tuple[int, int, bytes]


def scan(data: Any) -> list[Edit]:
    """The edits `(start, end, replacement)` that make a pickle safe to load. `data` has the buffer protocol and `find`.

    Raises `Refused` or `Damaged`.
    """
    scanner = _Scanner(data)
    scanner.run(lambda start, end: None)
    # An upper bound first; where it says too much, every instruction is counted.
    limit = BASE + TIMES * scanner.size
    if (hashed := len(scanner.edits) * HASHED) > limit:
        raise Refused(f"instructions that make {hashed >> 20} MiB of containers, in a file of {scanner.size} bytes")
    if scanner.plain * max(_MAKES.values()) > limit:
        made = 0

        def count(start: int, end: int) -> None:
            nonlocal made
            left = _NO_MAKERS.sub(b"", data[start:end])
            made += sum(left.count(code) * cost for code, cost in _MAKES.items())

        _Scanner(data).run(count)
        if made > limit:
            raise Refused(f"instructions that make {made >> 20} MiB of containers, in a file of {scanner.size} bytes")
    return scanner.edits


class _Scanner:
    """One pass over the instructions."""

    def __init__(self, data: Any):
        self.data, self.size, self.at = data, len(data), 0
        self.edits: list[Edit] = []
        self.plain = 0
        # An honest pickle counts what it remembers, and each takes six bytes and more from the 256th on.
        self.most_remembered = max(1 << 16, self.size // 4)
        self.runs = _runs(self.most_remembered)

    def run(self, seen: Callable[[int, int], None]) -> None:
        data, runs = self.data, self.runs
        while True:
            run = runs.match(data, self.at)
            if run is not None:
                seen(self.at, run.end())
                self.plain += run.end() - self.at
                self.at = run.end()
            if self.at >= self.size:
                raise Damaged("it ends before its last instruction")
            code = data[self.at : self.at + 1]
            if code == b".":
                break
            width = _COUNTED.get(code)
            if width is None:
                self.special(code)
                continue
            start = self.at + 1
            end = start + width + int.from_bytes(data[start : start + width], "little")
            if end > self.size or start + width > self.size:
                raise Damaged(
                    f"byte {self.at} announces {end - start - width} bytes, but the file has {self.size} in all"
                )
            self.at = end
        if bytes(data[self.at + 1 : self.at + 4097]).strip(b"\0 \r\n"):
            raise Damaged(
                f"its pickle ends at byte {self.at + 1} of {self.size}: what follows would not be read. Several pickles in "
                f"one file? Put all values into one"
            )

    def special(self, code: bytes) -> None:
        """An instruction that has to be replaced, looked at closely or refused."""
        data, start = self.data, self.at
        if code in _EDITS:
            self.edits.append((start, start + 1, _EDITS[code]))
            self.at += 1
        elif code == b"\x95":  # a frame: its length would be wrong after the edits, and nothing needs it
            length = int.from_bytes(data[start + 1 : start + 9], "little")
            if length > self.size - start - 9:
                raise Damaged(f"byte {start} announces {length} bytes, but the file has {self.size} in all")
            self.edits.append((start, start + 9, b""))
            self.at += 9
        elif code in (b"\x8a", b"\x8b"):
            width = 1 if code == b"\x8a" else 4
            count = int.from_bytes(data[start + 1 : start + 1 + width], "little")
            if count > _LONG_BYTES:
                raise Refused(f"a whole number of {count} bytes")
            self.at += 1 + width + count
        elif code in (b"r", b"p"):
            self.check_memo(code)
        elif code in (b"I", b"L", b"F", b"g"):
            raise Refused(f"a number of {len(self.line(start + 1))} digits")
        elif code in (b"S", b"V") or code == b"P":
            self.line(start + 1)
        elif code in (b"c", b"i"):
            self.line(start + 1)
            self.line(self.at)
        elif code in _EXTENSIONS:
            number = int.from_bytes(data[start + 1 : start + 1 + _EXTENSIONS[code]], "little")
            raise Refused(f"the extension code {number}")
        elif code in (b"\x97", b"\x98"):
            raise Refused("arrays whose data lie outside the file (buffers of protocol 5)")
        else:
            raise Damaged(f"byte {start} is {code.hex()}, which is no instruction of a pickle, or it is cut off")

    def line(self, start: int) -> bytes:
        end = self.data.find(b"\n", start)
        if end < 0:
            raise Damaged("a line of text does not end")
        self.at = end + 1
        return bytes(self.data[start:end])

    def check_memo(self, code: bytes) -> None:
        if code == b"r":
            index = int.from_bytes(self.data[self.at + 1 : self.at + 5], "little")
            self.at += 5
        else:
            digits = self.line(self.at + 1)
            if len(digits) > _LINE_DIGITS or not digits.strip().isdigit():
                raise Damaged("a place in the memo that is no number")
            index = int(digits)
        if index > self.most_remembered:
            raise Refused(f"a value to be remembered as number {index}, in a file of {self.size} bytes")


def _runs(most: int) -> re.Pattern[bytes]:
    """A run of instructions that need no closer look; memo indices up to about `most` are among them."""
    third, fourth = (most >> 16) & 0xFF, most >> 24
    end = re.escape(bytes([min(fourth or third, 256) - 1]))
    remembered = b"r...[\x00-" + end + b"]" if fourth else b"r..[\x00-" + end + b"]\x00"
    text = b"p[0-9]{1,%d}\n" % (len(str(most)) - 1)
    return re.compile(b"(?:" + b"|".join([remembered, _FIXED, _PLAIN, text, _LINES]) + b")++", re.DOTALL)


class EditedFile(io.RawIOBase):
    """The bytes of `data` with edits, for a reader that takes them in order."""

    def __init__(self, data: Any, edits: list[Edit]):
        self.pieces = self._pieces(data, edits)
        self.piece = memoryview(b"")

    @staticmethod
    def _pieces(data: Any, edits: list[Edit]) -> Iterator[bytes]:
        at, held, waiting = 0, 0, []
        for start, end, new in [*edits, (len(data), len(data), b"")]:
            for here in range(at, start, _CHUNK):
                waiting.append(data[here : min(here + _CHUNK, start)])
                held += len(waiting[-1])
                if held >= _CHUNK:
                    yield b"".join(waiting)
                    held, waiting = 0, []
            waiting.append(new)
            held += len(new)
            at = end
        yield b"".join(waiting)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        filled = 0
        while filled < len(target):
            if not len(self.piece):
                piece = next(self.pieces, None)
                if piece is None:
                    break
                self.piece = memoryview(piece)
            count = min(len(target) - filled, len(self.piece))
            target[filled : filled + count] = self.piece[:count]
            self.piece = self.piece[count:]
            filled += count
        return filled
