"""Converts MusiCNN's published weights, and writes the answers of the original code for tests."""
