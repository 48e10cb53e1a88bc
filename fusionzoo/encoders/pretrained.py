"""Where a pretrained model's files are: a local folder, or Hugging Face's cache, or its hub where there is a network.

Whatever the name, what comes out is a folder, so that everything else is the same offline and online. The cache is asked
before the network: a model that is there is loaded without it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from fusionzoo.errors import MissingDependency, ModelError

_SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "1_Pooling/*")
#: Files of weights in the order of preference; the second kind is read without executing anything (weights_only).
_WEIGHTS = (("model*.safetensors",), ("pytorch_model*.bin",))


@dataclass(frozen=True)
class ModelFiles:
    """The folder that a name stands for.

    name : as it was given.
    folder : where the files are.
    revision : the commit, of a model of the hub.
    """

    name: str
    folder: Path
    revision: str | None = None

    def json(self, *parts: str) -> dict[str, Any]:
        """A JSON file of the folder; empty where there is none."""
        path = self.folder.joinpath(*parts)
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{path}: is not JSON ({error}). Fetch the model again.") from error
        return content if isinstance(content, dict) else {"": content}

    def weights(self) -> list[Path]:
        """The files of weights; empty where there are none."""
        for patterns in _WEIGHTS:
            found = sorted(p for pattern in patterns for p in self.folder.glob(pattern))
            if found:
                return found
        return []

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the weights and of every small file that takes part in what the model gives, by name."""
        small = [p for p in sorted(self.folder.glob("*")) if p.suffix in (".json", ".txt", ".model") and p.is_file()]
        return {p.name: _sha256(p) for p in (*self.weights(), *small)}


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def transformers() -> Any:
    """The package, or an error that names the extra; its own notes are kept to errors."""
    try:
        module = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependency("transformers", "encoders", "an encoder of words, sounds or pictures") from error
    return module


def find_model(name: str | os.PathLike[str], revision: str | None = None) -> ModelFiles:
    """The files of a model: `name` is a folder, or a model of the hub such as `"roberta-large"`.

    revision : a branch, tag or commit of the hub; None is its main branch, as it is in the cache if it is there.

    Raises `ModelError` where they cannot be had, which says what to do about it.
    """
    text = os.fspath(name)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _complete(ModelFiles(text, folder))
    if text.startswith((".", "~", os.sep)) or text.count("/") > 1 or folder.exists():
        raise ModelError(
            f"{text}: there is no such folder. A model is a folder with config.json and model.safetensors, or a name of "
            f"the Hugging Face hub such as roberta-large."
        )
    transformers()
    cached = _snapshot(text, revision, local=True)
    if cached is not None and cached.weights():
        return _complete(cached)
    if reason := _no_network():
        raise ModelError(_unavailable(text, reason))
    try:
        found = _snapshot(text, revision, local=False)
    except Exception as error:  # whatever the network and the hub can answer
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(_unavailable(text, first)) from error
    assert found is not None
    return _complete(found)


def _complete(files: ModelFiles) -> ModelFiles:
    if not (files.folder / "config.json").is_file():
        raise ModelError(
            f"{files.name}: {files.folder} holds no config.json, so it is no transformers model. Make the folder with "
            f"model.save_pretrained(folder) and tokenizer.save_pretrained(folder), or with `hf download`."
        )
    if not files.weights():
        raise ModelError(
            f"{files.name}: {files.folder} holds no weights (model.safetensors or pytorch_model.bin). Fetch it again; "
            f"Git LFS folders need `git lfs pull`."
        )
    for path in files.weights():
        with open(path, "rb") as stream:
            if stream.read(40).startswith(b"version https://git-lfs"):
                raise ModelError(f"{path}: is a Git LFS pointer, not the weights; run `git lfs pull` in its folder.")
    return files


def _snapshot(name: str, revision: str | None, local: bool) -> ModelFiles | None:
    hub = importlib.import_module("huggingface_hub")

    def fetch(patterns: Sequence[str]) -> ModelFiles:
        path = Path(
            hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns), local_files_only=local)
        )
        return ModelFiles(name, path, path.name if path.parent.name == "snapshots" else revision)

    if local:
        try:
            return fetch(_SMALL)
        except Exception:  # not in the cache, or not a name the hub could have: the caller goes on
            return None
    files = fetch(_SMALL)
    for patterns in _WEIGHTS:
        files = fetch((*_SMALL, *patterns))
        if files.weights():
            break
    return files


def _no_network() -> str | None:
    """Why the hub cannot be asked, found out in an instant; None where it may answer."""
    constants = importlib.import_module("huggingface_hub.constants")
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return None
    host = urlparse(constants.ENDPOINT).hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        return f"no network: {host} is not found ({error.strerror or error})"
    return None


def _unavailable(name: str, reason: str) -> str:
    constants = importlib.import_module("huggingface_hub.constants")
    return (
        f"the model {name!r} cannot be had: it is neither a folder here nor in the cache ({constants.HF_HUB_CACHE}), and "
        f"the hub gave nothing: {reason}. Name a local folder instead of {name}; on a machine with a network `hf download "
        f"{name} --local-dir FOLDER` makes one. Or set HF_HOME to a cache that holds it, or HF_ENDPOINT to a mirror."
    )


def load_config(files: ModelFiles) -> Any:
    """The model's transformers configuration."""
    return _load(files, "AutoConfig", "configuration")


def load_model(files: ModelFiles, auto: str = "AutoModel", **options: Any) -> Any:
    """The model in float32, in eval mode; code that comes with a model is never run."""
    return _load(files, auto, "model", **options).float().eval()


def load_tokenizer(files: ModelFiles) -> Any:
    """The model's tokenizer."""
    tokenizer = _load(files, "AutoTokenizer", "tokenizer")
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise ModelError(
            f"{files.name}: its tokenizer has no padding token; take a model for text such as roberta-large."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load(files: ModelFiles, auto: str, what: str, **options: Any) -> Any:
    library = transformers()
    level = library.logging.get_verbosity()
    library.logging.set_verbosity_error()  # heads that are not loaded, which is wanted
    bars = library.utils.logging.is_progress_bar_enabled()
    library.utils.logging.disable_progress_bar()
    try:
        return getattr(library, auto).from_pretrained(files.folder, local_files_only=True, **options)
    except Exception as error:  # transformers fails in many ways on an incomplete folder
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{files.name}: its {what} cannot be loaded from {files.folder} ({type(error).__name__}: {first}). Check that "
            f"the folder is complete and of a model that the installed transformers {library.__version__} knows."
        ) from error
    finally:
        library.logging.set_verbosity(level)
        if bars:
            library.utils.logging.enable_progress_bar()
