"""Releases in their authors' layouts with a planted signal, and tiny random models as folders."""

from __future__ import annotations

import importlib.util
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

RATE = 8000


def _tiny():
    path = Path(__file__).parents[1] / "fusionzoo/encoders/models.py"
    spec = importlib.util.spec_from_file_location("tiny_models_of_systems", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, str]:
    """Folders of a tiny BERT, HuBERT, WavLM (8 kHz) and CLIP with random weights."""
    pytest.importorskip("transformers")
    import json

    import torch
    import transformers

    tiny, root = _tiny(), tmp_path_factory.mktemp("tiny-models")
    torch.manual_seed(1)
    wavlm = root / "wavlm"
    transformers.AutoModel.from_config(tiny.audio_config("wavlm")).save_pretrained(wavlm)
    (wavlm / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": RATE, "do_normalize": True}))
    found = {
        "text": tiny.text_model(root / "text"),
        "audio": tiny.audio_model(root / "audio"),
        "wavlm": wavlm,
        "video": tiny.vision_model(root / "video"),
    }
    return {name: str(path) for name, path in found.items()}


def tone(hertz: float, seconds: float, random: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """A tone with random phase and loudness, in noise."""
    t = np.arange(round(seconds * rate)) / rate
    x = random.uniform(0.3, 0.6) * np.sin(2 * np.pi * (hertz * t + random.random()))
    return x + 0.02 * random.standard_normal(len(t))


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 2, rate, 0, "NONE", ""))
        stream.writeframes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
    return path


def write_video(
    path: Path, pictures: list[np.ndarray], fps: int, sound: np.ndarray | None = None, rate: int = 44100
) -> None:
    """mpeg4, and aac where there is a sound."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=fps)
        video.height, video.width, video.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="mono") if sound is not None else None
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            samples = sound.astype(np.float32)[None]
            for i in range(0, samples.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, i : i + 1024]), "fltp", "mono")
                frame.sample_rate, frame.pts = rate, i
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def scene(size: tuple[int, int], colour: tuple[int, int, int], step: int, random: np.random.Generator) -> np.ndarray:
    """A bright square that moves over a background of a colour."""
    height, width = size
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = colour
    picture = (picture + random.integers(-10, 10, picture.shape)).clip(0, 255).astype(np.uint8)
    side = height // 4
    top, left = (3 * step) % (height - side), (5 * step) % (width - side)
    picture[top : top + side, left : left + side] = 255
    return picture


COLOURS = ((200, 30, 30), (30, 30, 200), (30, 180, 30), (190, 180, 20))
TONES = (300.0, 700.0, 1400.0, 2600.0)
WORDS = (("good", "coffee"), ("bad", "god"), ("very", "what"), ("no", "the"))


@pytest.fixture(scope="session")
def iemocap(tmp_path_factory) -> Path:
    """Five sessions of two dialogues of eight turns, 4 classes and a label that no system takes.

    Half of what tells the class is in the voice (high or low), half in the words and in the picture (its colour).
    """
    root = tmp_path_factory.mktemp("iemocap") / "IEMOCAP_full_release"
    random = np.random.default_rng(0)
    labels = ("ang", "hap", "sad", "neu", "ang", "exc", "sad", "neu")
    bits = {"ang": (0, 0), "hap": (0, 1), "exc": (0, 1), "sad": (1, 0), "neu": (1, 1)}
    for session in range(1, 6):
        for who, kind in (("F", "impro01"), ("M", "script01_1")):
            dialogue = f"Ses{session:02d}{who}_{kind}"
            home, pictures = root / f"Session{session}", []
            text, words = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n", ""
            for i, label in enumerate((*labels, "xxx")):
                name = f"{dialogue}_{'FM'[i % 2]}{i:03d}"
                voice, look = bits.get(label, (0, 0))
                text += f"[{0.5 * i:.4f} - {0.5 * i + 0.5:.4f}]\t{name}\t{label}\t[2.5, 3.0, 2.0]\n\n"
                said = " ".join(random.choice(WORDS[look], 3))
                words += f"{name} [{0.5 * i:.4f}-{0.5 * i + 0.5:.4f}]: I {said} [LAUGHTER] you.\n"
                samples = tone(TONES[2 * voice], random.uniform(0.15, 0.25), random)
                write_wav(home / "sentences/wav" / dialogue / f"{name}.wav", samples)
                pictures += [scene((32, 64), COLOURS[look], step, random) for step in range(4)]
            for folder, content in (("EmoEvaluation", text), ("transcriptions", words)):
                (home / "dialog" / folder).mkdir(parents=True, exist_ok=True)
                (home / "dialog" / folder / f"{dialogue}.txt").write_text(content)
            write_video(home / "dialog/avi/DivX" / f"{dialogue}.avi", pictures, fps=8)
    return root


@pytest.fixture(scope="session")
def esd(tmp_path_factory) -> Path:
    """Five speakers; the class is in the voice alone, as in the release, where everybody says the same sentences."""
    root = tmp_path_factory.mktemp("esd") / "ESD"
    random = np.random.default_rng(1)
    for speaker in ("0011", "0012", "0013", "0014", "0015"):
        lines = []
        for i, emotion in enumerate(("Neutral", "Angry", "Happy", "Sad", "Surprise")):
            for sentence in (1, 2, 21, 22, 51, 52, 53):
                name = f"{speaker}_{i * 350 + sentence:06d}"
                samples = tone(TONES[i % 4], random.uniform(0.15, 0.25), random)
                write_wav(root / speaker / emotion / f"{name}.wav", samples)
                lines.append(f"{name}\tI know the coffee.\t{emotion}")
        (root / speaker / f"{speaker}.txt").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="session")
def ravdess(tmp_path_factory) -> Path:
    """Six actors."""
    return make_ravdess(tmp_path_factory.mktemp("ravdess") / "RAVDESS", actors=6)


def make_ravdess(root: Path, actors: int) -> Path:
    """Actors in eight emotions, with landmarks: the colour of the face tells four, the voice the other half."""
    random = np.random.default_rng(2)
    names = ["frame", *(f" x_{i}" for i in range(68)), *(f" y_{i}" for i in range(68))]
    for actor in range(1, actors + 1):
        for emotion in range(1, 9):
            for statement in (1, 2):
                name = f"01-01-{emotion:02d}-01-{statement:02d}-01-{actor:02d}"
                colour, voice = (emotion - 1) % 4, (emotion - 1) // 4
                pictures, rows = [], [",".join(names)]
                for step in range(6):
                    picture = np.full((36, 64, 3), 100, np.uint8)
                    # The face, 16 wide, of which a screen of 1280 x 720 is twenty times as large.
                    top, left = int(random.integers(4, 16)), int(random.integers(4, 40))
                    picture[top : top + 16, left : left + 16] = scene((16, 16), COLOURS[colour], step, random)
                    pictures.append(picture)
                    xs = np.linspace(left, left + 16, 68) * 20
                    ys = np.linspace(top, top + 16, 68) * 20
                    rows.append(",".join(f"{v:.1f}" for v in (step, *xs, *ys)))
                sound = tone(TONES[2 * voice + 1], 0.6, random, 44100)
                write_video(root / f"Actor_{actor:02d}" / f"{name}.mp4", pictures, fps=10, sound=sound)
                (root / "landmarks").mkdir(exist_ok=True)
                (root / "landmarks" / f"{name}.csv").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="session")
def scp(iemocap, tmp_path_factory) -> Path:
    """Foal-Net's lists of one fold with ready frame features: a random map of the class's half that the picture has."""
    root = tmp_path_factory.mktemp("scp")
    random = np.random.default_rng(3)
    ways = random.standard_normal((2, 12))
    lines: dict[str, list[str]] = {"train": [], "valid": []}
    bits = {"ang": 0, "sad": 0, "hap": 1, "exc": 1, "neu": 1}
    for path in sorted(iemocap.glob("Session*/dialog/EmoEvaluation/*.txt")):
        for line in path.read_text().splitlines():
            if line.startswith("[") and "\txxx\t" not in line:
                _, name, label, _ = line.split("\t")
                sound = next(iemocap.glob(f"Session*/sentences/wav/{path.stem}/{name}.wav"))
                lines["valid" if name.startswith("Ses05") else "train"].append(f"{name} {sound} {label}")
                features = ways[bits[label]] + 0.3 * random.standard_normal((int(random.integers(2, 6)), 12))
                folder = root / "clip-large" / f"session{name[3:5]}"
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{name}.npy", features.astype(np.float32))
    for part, content in lines.items():
        (root / f"session5_{part}.scp").write_text("\n".join(content))
    return root
