"""Tiny releases in the layouts of their authors."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


def put(path: Path, content: str | bytes = b"not empty") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def sound(path: Path, seconds: float = 0.01) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(np.zeros(int(16000 * seconds), np.int16).tobytes())
    return path


EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

"""
# (who and number, label): in every dialogue of the made IEMOCAP.
TURNS = [
    *(("F000", "neu"), ("M000", "hap"), ("F001", "exc"), ("M001", "sad")),
    *(("F002", "ang"), ("M002", "fru"), ("FXX3", "xxx"), ("M003", "oth")),
]


@pytest.fixture
def iemocap(tmp_path: Path) -> Path:
    """Five sessions of two dialogues of eight turns; everything is there."""
    root = tmp_path / "IEMOCAP_full_release"
    for session in range(1, 6):
        for who, kind in (("F", "impro01"), ("M", "script01_1b")):
            dialogue = f"Ses{session:02d}{who}_{kind}"
            home = root / f"Session{session}"
            text, words = EVALUATION, ""
            for i, (turn, label) in enumerate(TURNS):
                name = f"{dialogue}_{turn}"
                text += f"[{i}.2500 - {i + 1}.0000]\t{name}\t{label}\t[2.5000, 3.0000, {i}.5000]\n"
                text += "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
                words += f"{name} [00{i}.2500-00{i + 1}.0000]: Word {i}: well.\nM: [LAUGHTER]\n"
                sound(home / "sentences/wav" / dialogue / f"{name}.wav")
            put(home / "dialog/EmoEvaluation" / f"{dialogue}.txt", text)
            put(home / "dialog/EmoEvaluation/Attribute" / f"{dialogue}_atr.txt", "none of ours")
            put(home / "dialog/transcriptions" / f"{dialogue}.txt", words)
            put(home / "dialog/avi/DivX" / f"{dialogue}.avi")
            put(home / "dialog/avi/DivX" / f"._{dialogue}.avi", b"")
    return root


HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


def _meld_row(dialogue: int, utterance: int, emotion: str = "neutral", text: str = "Hi, there") -> str:
    times = '"00:20:57,256","00:20:59,500"'
    return f'1,"{text}",Ross,{emotion},neutral,{dialogue},{utterance},4,7,{times}'


@pytest.fixture
def meld_row() -> Callable[..., str]:
    """A line of MELD's csv files, by its dialogue, utterance, emotion and text; without numbers, the header."""
    return lambda *cells, **named: _meld_row(*cells, **named) if cells else HEADER


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    """Two dialogues of seven utterances a split, with mp4 clips as in MELD.Raw."""
    root = tmp_path / "MELD.Raw"
    places = {"train": "train/train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    for split, place in places.items():
        rows = [_meld_row(d, u, e) for d in (0, 1) for u, e in enumerate(EMOTIONS)]
        put(root / f"{split}_sent_emo.csv", "\r\n".join([HEADER, *rows]) + "\r\n")
        for d in (0, 1):
            for u in range(7):
                put(root / place / f"dia{d}_utt{u}.mp4")
    return root


ESD_EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")


@pytest.fixture
def esd(tmp_path: Path) -> Path:
    """Speakers 0010 (Mandarin) and 0011 to 0013; of each emotion sentences 1, 21 and 51: dev, test and train."""
    root = tmp_path / "ESD"
    for speaker in ("0010", "0011", "0012", "0013"):
        lines = []
        for i, emotion in enumerate(ESD_EMOTIONS):
            for sentence in (1, 21, 51):
                name = f"{speaker}_{i * 350 + sentence:06d}"
                sound(root / speaker / emotion / f"{name}.wav")
                lines.append(f"{name}\tThe nine the eggs, I keep.\t{emotion}")
        put(root / speaker / f"{speaker}.txt", "\n".join(lines))
    return root


@pytest.fixture
def ravdess(tmp_path: Path) -> Path:
    """Six actors, eight emotions, one clip each with landmarks; also silent copies."""
    root = tmp_path / "RAVDESS"
    for actor in range(1, 7):
        for emotion in range(1, 9):
            tail = f"01-{emotion:02d}-01-02-01-{actor:02d}"
            put(root / f"Actor_{actor:02d}" / f"01-{tail}.mp4")
            put(root / f"Actor_{actor:02d}" / f"02-{tail}.mp4")
            put(root / "landmarks" / f"01-{tail}.csv", "frame,x_0\n1,0\n")
    return root


@pytest.fixture
def scp(tmp_path: Path) -> Path:
    """Foal-Net's lists of fold 5, whose paths are those of another machine, and their sounds and features."""
    root = tmp_path / "lists"
    labels = ("hap", "neu", "sad", "ang")
    for part, sessions in (("train", (1, 2, 3, 4)), ("valid", (5,))):
        lines = []
        for s in sessions:
            for i, label in enumerate(labels * 2):
                dialogue = f"Ses0{s}{'FM'[i // 4]}_impro01"
                name = f"{dialogue}_F{i:03d}"
                tail = f"Session{s}/sentences/wav/{dialogue}/{name}.wav"
                sound(tmp_path / "here" / tail)
                (tmp_path / f"clip/session0{s}").mkdir(parents=True, exist_ok=True)
                np.save(tmp_path / f"clip/session0{s}/{name}.npy", np.zeros((3, 4), np.float32))
                lines.append(f"{name} /home/them/IEMOCAP full/{tail} {label}")
        put(root / f"session5_{part}.scp", "\n".join(lines) + "\n")
    return root


@pytest.fixture
def release(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """A release by its fixture's name."""
    return request.getfixturevalue
