"""The study of docs/wild.md: official training scripts, unmodified, with and without a fusion.

`python benchmarks/wild --clones FOLDER --data iemocap.npz --json R.json` runs what `scripts.toml` lists.
"""
