"""Question-answer pairs and captions about music, made from tags and captions."""
