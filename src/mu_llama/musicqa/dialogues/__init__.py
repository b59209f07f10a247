"""Conversations about tracks: many kinds of questions, asked in many ways, answered from labels alone."""
