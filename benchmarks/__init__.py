"""Measurements behind every figure in the documentation; each file runs alone and writes results/<name>.json."""
