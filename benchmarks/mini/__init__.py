"""Scores `mini` on held-out clips, beside what needs no listening: shuffled audio, none at all, the most frequent answer."""
