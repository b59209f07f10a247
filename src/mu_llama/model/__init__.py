"""Features to conditioning, conditioning to a stock LLaMA."""
