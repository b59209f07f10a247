"""Train adapter and LoRA: phases, rows, orders, rates and the loss as functions of values."""
