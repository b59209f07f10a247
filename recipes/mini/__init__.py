"""Makes `mini`: training clips, an adapter trained on labels, conversations, LoRA, scores."""
