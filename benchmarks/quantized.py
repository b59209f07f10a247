"""How near torch's int8 and int4 stay to its bf16: cosine of logits on the golden prompts, tiny model and `mini`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.measure import CLIP, ROOT, write_result
from benchmarks.precision import cosines
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.formats.encoder import make_encoder
from mu_llama.checkpoints.load import find_parts, open_tokenizer
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.engine.protocol import Quantization
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.engine.torch.load import Placement, assemble
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.text.prompts import Turn

GOLDEN = ROOT / "tests" / "golden" / "set_a"
KINDS: tuple[Quantization, ...] = ("int8", "int4")


def load(parts: ModelSpec, quantize: Quantization | None) -> MuLlama:
    """Read a model in bf16, its linear layers quantized or not."""
    return assemble(parts, Placement(torch.device("cpu"), torch.bfloat16, quantize=quantize))


@torch.inference_mode()
def logits(model: MuLlama, prompts: Sequence[list[int]], features: torch.Tensor) -> list[torch.Tensor]:
    """Logits (T, V) of each whole prompt, the track in it."""
    conditioning = model.condition(features[None])
    return [model(torch.tensor([prompt]), conditioning=conditioning)[0] for prompt in prompts]


def compare(parts: ModelSpec, audio: Path) -> dict[str, dict[str, float]]:
    """Cosine of each kind with bf16: over all logits, and of the logits that choose the first token."""
    from mu_llama.audio.windows import PLANS

    extractor = FeatureExtractor(lambda: make_encoder(parts, device="cpu"), plan=PLANS[parts.window], cache=None)
    features = torch.from_numpy(extractor.extract(audio).values)
    tokenizer = open_tokenizer(parts.llama, parts.template)
    questions = [case["question"] for case in json.loads((GOLDEN / "expected.json").read_text())["prompts"]]
    prompts = [tokenizer.encode_prompt(parts.template.render([Turn(question)])) for question in questions]
    expected = logits(load(parts, None), prompts, features)
    result = {}
    for kind in KINDS:
        quantized = logits(load(parts, kind), prompts, features)
        result[kind] = cosines([one.numpy() for one in quantized], [one.numpy() for one in expected])
    return result


def main() -> None:
    """Measure and write the result."""
    golden = find_parts(
        GOLDEN / "checkpoint_finetune.pth", llama=GOLDEN / "llama", encoder=GOLDEN / "mert", home=home_folder()
    )
    cosines = {
        "golden tiny model": compare(golden, GOLDEN / "audio_short.wav"),
        "mini (SmolLM2-135M)": compare(find_parts("mini", home=home_folder()), CLIP),
    }
    what = "cosine of quantized logits with bf16, lowest over the golden prompts; mean_position is their mean"
    write_result("quantized", {"what": what, "cosine": cosines})


if __name__ == "__main__":
    main()
