"""Who turns labels into text."""
