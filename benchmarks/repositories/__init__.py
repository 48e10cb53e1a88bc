"""Public repositories' models, unmodified, patched by one line: what holds, and what the proof says.

`python benchmarks/repositories --clones FOLDER` runs every builder of `builders/`, each in a process of its own.
"""
