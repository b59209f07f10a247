"""Scores `mini` on held-out clips, beside baselines: another track's audio, none, the most frequent answer."""
