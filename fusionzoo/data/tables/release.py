"""A table of utterances as a release: `fusionzoo extract my.csv --text MODEL` makes features of its words and recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusionzoo.data.raw.corpus import RawCorpus
from fusionzoo.data.readers import ReleaseReader
from fusionzoo.data.tables.reading import roles_of
from fusionzoo.data.tables.rows import ENDINGS, read_rows
from fusionzoo.data.tables.table import read_table
from fusionzoo.errors import FusionZooError
from fusionzoo.plugin import plugin


class TableReader(ReleaseReader):
    """A table of utterances (csv, JSON, JSON lines, subtitles) with words or recordings."""

    precedence = 200
    media = ("text",)  # of the three, what most tables have
    looks_like = f"a table of utterances ({', '.join(f'*{e}' for e in ENDINGS)}) with a column text, audio or video"

    @staticmethod
    def recognise(path: Path, /) -> bool:
        """By a column of words or of recordings."""
        if path.suffix.lower() not in ENDINGS or not path.is_file():
            return False
        try:
            return bool({"text", "audio", "video"} & roles_of(read_rows(path), {}, {}).keys())
        except (FusionZooError, OSError):
            return False

    @staticmethod
    def read(
        root: Path,
        /,
        *,
        dialogue: str | None = None,
        index: str | None = None,
        id: str | None = None,
        speaker: str | None = None,
        text: str | None = None,
        audio: str | None = None,
        video: str | None = None,
        start: str | None = None,
        end: str | None = None,
        label: str | None = None,
        score: str | None = None,
        split: str | None = None,
        audio_file: str | None = None,
        video_file: str | None = None,
        label_names: Sequence[str] | None = None,
        single: bool = False,
        leave_out: bool = False,
    ) -> RawCorpus:
        """The words and recordings.

        Parameters
        ----------
        root : the table.
        dialogue, index, id, speaker, text, audio, video, start, end, label, score, split : columns; None finds them by their names.
        audio_file, video_file : a recording of all rows, of which each has its start and end.
        label_names, single, leave_out : as for `fusionzoo.data.read_table`.
        """
        asked = {"dialogue": dialogue, "index": index, "id": id, "speaker": speaker, "text": text, "audio": audio}
        asked |= {"video": video, "start": start, "end": end, "label": label, "score": score, "split": split}
        return read_table(
            root,
            columns={role: column for role, column in asked.items() if column is not None},
            features={},
            label_names=label_names,
            audio=audio_file,
            video=video_file,
            single=single,
            leave_out=leave_out,
        ).recordings()


fusionzoo_register = plugin(
    TableReader,
    name="table",
    summary="a table of utterances (csv, JSON, JSON lines, subtitles) with words or recordings",
)
