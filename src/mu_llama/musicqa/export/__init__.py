"""Finished data sets in the formats that others read."""
