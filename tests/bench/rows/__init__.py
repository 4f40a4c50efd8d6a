"""The scenes: each runs what its rows need side by side, and yields one sample of each row per round."""
