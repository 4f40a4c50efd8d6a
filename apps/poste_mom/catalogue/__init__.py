"""The catalogue: which services there are, in which versions, and how much of it there may be."""
