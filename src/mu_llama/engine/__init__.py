"""What runs the LLaMA: options of an answer and the choice of tokens here, one folder for each engine."""
