"""The engine on onnxruntime: a graph built once from a LLaMA of any size, and rows that join and leave."""
