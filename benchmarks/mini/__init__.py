"""Scores `mini` on held-out clips, beside what needs no listening: other audio, none, the most frequent answer."""
