"""The door to onnxruntime: options of a session, execution providers by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mu_llama.errors import CheckpointError, ConfigError

Provider = Literal["cpu", "cuda", "coreml", "directml"]
PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime on macOS"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
}
"""Our name to onnxruntime's and to the package that has it. Only `cpu` is tested."""
_ERRORS_ONLY = 3


def open_session(path: Path, *, num_threads: int = 0, provider: str = "cpu") -> Any:
    """Open a graph; the weights beside it are mapped into memory.

    Threads that wait don't spin: with one core busy with something else, spinning makes every step wait for it.

    Args:
        path: the .onnx file.
        num_threads: that compute one operator together; 0 is one for each physical core.
        provider: what runs it, one of `PROVIDERS`.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ConfigError: if the provider is unknown, or this machine's onnxruntime lacks it.
        CheckpointError: if onnxruntime can't load the graph.
    """
    import onnxruntime

    if provider not in PROVIDERS:
        raise ConfigError(f"provider is {provider!r}; expected {', '.join(PROVIDERS)}")
    name, package = PROVIDERS[provider]
    available = onnxruntime.get_available_providers()
    if name not in available:
        known = [ours for ours, (theirs, _) in PROVIDERS.items() if theirs in available]
        raise ConfigError(
            f"the installed onnxruntime has no provider {provider!r}, only {', '.join(known)}; it needs {package}"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    # The graph is written with fused operators: what remains is little and takes no time to find.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[name])
    except Exception as error:  # onnxruntime's errors have no common class
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path}: onnxruntime can't load it ({reason}); build the graph again") from error
