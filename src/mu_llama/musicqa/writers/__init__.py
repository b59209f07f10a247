"""Writers: they turn labels into text."""
