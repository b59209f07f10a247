"""Small models and tokenizers for tests."""
