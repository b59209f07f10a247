"""Weight files: one reader a format, each giving sizes and named tensors."""
