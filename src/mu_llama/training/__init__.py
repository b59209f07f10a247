"""Training of adapter and LoRA: settings, data, sampling, the loop, and the run folder."""
