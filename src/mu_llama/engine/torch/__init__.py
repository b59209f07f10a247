"""The LLaMA in PyTorch: modules, kernels, quantization, loading, cache and decode loop."""
