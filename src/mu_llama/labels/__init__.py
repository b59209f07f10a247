"""What is known of a track, and what text may claim about it."""
