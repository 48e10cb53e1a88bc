"""Tables of utterances that people make themselves: csv, JSON, subtitles, pandas, `datasets`.

`rows` reads any of them as rows of cells, `subtitles` what is said when, `cells` what a cell means, `vectors` features, and
`table` puts them together and tells what is wrong, row by row.
"""
