"""Asking: the facade, feature extraction, answers, conversations."""
