"""Decoding of 7B shapes through engine and scheduler, for `benchmarks.gpu_check`."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from benchmarks.gpu_target import GIB, Figures, PartFailed, PartSkipped, Target, bandwidth_of
from benchmarks.random_model import LLAMA_7B, LLAMA_TINY, random_spec, size_bytes
from mu_llama.arrays import FloatArray
from mu_llama.engine.prefix import Prompt
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.engine.scheduler import Scheduler
from mu_llama.engine.torch.engine import TorchEngine
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.engine.torch.load import Placement, assemble
from mu_llama.engine.torch.quantize import nf4_fits, nf4_linear


def decode(target: Target) -> Figures:
    """Decode in bf16, one row and 16 rows."""
    spec = random_spec(LLAMA_TINY if target.tiny else LLAMA_7B, narrow_bridge=True)
    rate = bandwidth_of(target)
    target.require(round(1.15 * size_bytes(spec)) + 2 * GIB)
    return _decode_figures(target, assemble(spec, Placement(target.device, torch.bfloat16)), rate)


def nf4(target: Target) -> Figures:
    """Decode with the linear layers in NF4."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise PartSkipped(f"NF4 needs bitsandbytes, which can't be imported: {error}") from error
    spec = random_spec(LLAMA_TINY if target.tiny else LLAMA_7B, narrow_bridge=True)
    rate = bandwidth_of(target)
    target.require(round(0.5 * size_bytes(spec)) + 2 * GIB)
    if target.is_cuda:
        model = assemble(spec, Placement(target.device, torch.bfloat16, quantize="int4"))
    else:  # int4 on a CPU is a kernel of torch
        model = assemble(spec, Placement(target.device, torch.bfloat16))
        layers = model.llama.get_decoder().layers
        for name, linear in [(n, m) for n, m in layers.named_modules() if isinstance(m, nn.Linear)]:
            assert nf4_fits(linear.weight), "the tiny sizes are chosen so"
            parent, _, leaf = name.rpartition(".")
            setattr(layers.get_submodule(parent), leaf, nf4_linear(linear))
    return _decode_figures(target, model, rate)


def _decode_figures(target: Target, model: MuLlama, rate: float) -> Figures:
    """Tokens a second through the scheduler; `rate` is the memory's, in bytes a second."""
    engine = TorchEngine(model)
    sizes = model.adapter.config
    features = np.random.default_rng(0).standard_normal((sizes.num_encoder_layers, sizes.encoder_width), np.float32)
    conditioning = engine.condition(features)
    if not np.isfinite(conditioning).all():
        raise PartFailed("the conditioning isn't finite")
    llama = model.llama
    weights = _bytes(llama) - _bytes(llama.get_input_embeddings())  # of the embedding a token reads one row
    figures: Figures = {"weights_gib": _bytes(model) / GIB, "memory_gb_per_s": rate / 1e9}
    num_tokens = 12 if target.tiny else 48
    _decode(engine, conditioning, num_rows=2, num_tokens=4)  # loads kernels
    for num_rows in (1, 16):
        first_s, step_s = _decode(engine, conditioning, num_rows=num_rows, num_tokens=num_tokens)
        figures |= {
            f"rows_{num_rows}_tokens_per_s": num_rows / step_s,
            f"rows_{num_rows}_share_of_bandwidth": weights / step_s / rate,
            f"rows_{num_rows}_first_token_s": first_s,
        }
    return {**figures, "peak_gib": target.peak_gib()}


def _bytes(module: nn.Module) -> int:
    """Bytes of weights, with the scales that bitsandbytes keeps beside them."""
    tensors = [*module.parameters(), *module.buffers()]
    states = [getattr(value, "quant_state", None) for value in tensors]
    tensors += [state.absmax for state in states if state is not None]
    return sum(value.numel() * value.element_size() for value in tensors)


def _decode(engine: TorchEngine, conditioning: FloatArray, *, num_rows: int, num_tokens: int) -> tuple[float, float]:
    """Answer prompts of different lengths at once; gives seconds to the last row's first token, and of its steps.

    Logits come to the CPU in each step, so that there is nothing to wait for.
    """
    scheduler = Scheduler(engine, max_rows=num_rows)
    options = GenerationOptions(max_new_tokens=num_tokens)
    prompts = [Prompt([1 + index % 50 for index in range(64 + 4 * row)]) for row in range(num_rows)]
    start = time.perf_counter()
    generations = [scheduler.submit(prompt, conditioning, options=options, eos_ids=frozenset()) for prompt in prompts]
    counts, moments = [0] * num_rows, []
    for row, _ in scheduler.stream(generations):
        counts[row] += 1
        if row == num_rows - 1:
            moments.append(time.perf_counter())
    if counts != [num_tokens] * num_rows:
        raise PartFailed(f"rows ended after {min(counts)} to {max(counts)} tokens; expected {num_tokens}")
    # In the first half of the last row's steps all rows run.
    steps = [after - before for before, after in pairwise(moments)][1 : num_tokens // 2]
    return moments[0] - start, statistics.median(steps)
