"""MERT: settings, weight files, encoder."""
