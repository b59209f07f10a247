"""Text in and out: prompts, tokenizers, facts in prompts, stop strings."""
