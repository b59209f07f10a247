"""Train adapter and LoRA of `mini` together on cached features; writes a model folder.

Run: python recipes/mini/train.py --work DIR --out DIR/model
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import peft
import torch
from questions import conversation
from rich.progress import Progress
from torch import Tensor, nn
from training_data import Example, read_examples, stack, tokenise

from mu_llama.checkpoints.hugging_face import read_llama_folder
from mu_llama.checkpoints.native import ADAPTER_FILE, TUNING_FILE, ModelConfig, write_model_files
from mu_llama.checkpoints.parts import FAST_TOKENIZER_FILE
from mu_llama.checkpoints.placing import place_tensors
from mu_llama.checkpoints.provision import SMOLLM2, provide_llama
from mu_llama.checkpoints.safetensors_files import read_safetensors
from mu_llama.checkpoints.stored import in_memory
from mu_llama.model.config import AdapterConfig
from mu_llama.model.mu_llama import MuLlama, build_mu_llama
from mu_llama.prompts import CHATML_MUSIC
from mu_llama.runtime import home_folder
from mu_llama.tokenizer import Tokenizer, parse_fast_tokenizer

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Share of each group in an epoch: real recordings are mostly electronic and must not dominate.
GROUP_SHARES = {"A": 0.37, "B": 0.13, "C": 0.33, "F": 0.17}


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of the first `mini`."""

    steps: int = 700
    """Updates."""
    batch_size: int = 8
    """Conversations in an update."""
    turns: int = 5
    """Most questions in a conversation."""
    adapter_lr: float = 1e-3
    """Peak learning rate of adapter and conditioner."""
    lora_lr: float = 5e-4
    """Peak learning rate of the LoRA."""
    warmup: int = 30
    """Updates of linear warm-up, before a half cosine to zero."""
    weight_decay: float = 0.02
    """Of AdamW (0.9, 0.95), on matrices."""
    rank: int = 16
    """Of the LoRA, scale 1."""
    num_conditioned_layers: int = 24
    """Q: the last so many layers hear the audio."""
    bridge_width: int = 1152
    """Inner width of the bridge blocks."""
    seed: int = 0
    """Of everything."""


def build(recipe: Recipe, examples: list[Example], llama_folder: Path) -> MuLlama:
    """Make the model: frozen SmolLM2 with a fresh LoRA, and a fresh adapter that knows the features' scale."""
    torch.manual_seed(recipe.seed)
    llama = read_llama_folder(llama_folder)
    llama_config = llama.config
    stacked = torch.stack([example.features() for example in examples])  # (N, 1, D)
    sizes = AdapterConfig(
        num_encoder_layers=stacked.shape[1],
        encoder_width=stacked.shape[2],
        hidden_size=llama_config.hidden_size,
        num_conditioned_layers=recipe.num_conditioned_layers,
        num_heads=llama_config.num_attention_heads,
        bridge_width=recipe.bridge_width,
        input_scaling="standardise",
    )
    fresh = build_mu_llama(llama_config, sizes, dtype=torch.float32, meta=False)
    # Small enough that the untrained audio term hardly disturbs the text (loss 2.9 against 14 at 0.5 and 0.5).
    nn.init.normal_(fresh.adapter.projection.weight, std=0.1)
    nn.init.ones_(fresh.adapter.layer_mix.weight)
    nn.init.zeros_(fresh.adapter.layer_mix.bias)
    fresh.adapter.feature_mean.copy_(stacked.mean(0))
    fresh.adapter.feature_deviation.copy_(stacked.std(0).clamp_min(1e-3))
    nn.init.constant_(fresh.conditioner.gate, 0.1)
    state = {name: value for name, value in fresh.state_dict().items() if not name.startswith("llama.")}
    state |= {f"llama.{name}": stored.read() for name, stored in llama.tensors.items()}
    model = build_mu_llama(llama_config, sizes, dtype=torch.bfloat16)
    place_tensors(model, state, source=llama_folder)
    config = peft.LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules=LINEARS)
    peft.inject_adapter_in_model(config, model.llama)
    for name, parameter in model.llama.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    for part in (model.adapter, model.conditioner):
        part.requires_grad_(True)
    return model


def continue_from(model: MuLlama, folder: Path) -> None:
    """Load adapter and LoRA that an earlier run exported."""
    state = dict(read_safetensors(folder / ADAPTER_FILE))
    for name, stored in read_safetensors(folder / TUNING_FILE).items():
        state["llama." + name.replace(".weight", ".default.weight")] = stored
    unknown = model.load_state_dict({name: stored.read().float() for name, stored in state.items()}, strict=False)
    assert not unknown.unexpected_keys, unknown.unexpected_keys


def optimiser(model: MuLlama, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with a group for each learning rate and for what doesn't decay."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = recipe.lora_lr if "lora_" in name else recipe.adapter_lr
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "weight_decay": decay, "peak": rate} for (rate, decay), p in groups.items()],
        betas=(0.9, 0.95),
    )


def rate_factor(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def balanced(examples: list[Example], rng: random.Random) -> Example:
    """Draw a clip: first its group, then within it a label, so that no instrument or style dominates."""
    present = {example.group for example in examples}
    groups = [group for group in GROUP_SHARES if group in present]
    group = rng.choices(groups, [GROUP_SHARES[name] for name in groups])[0]
    pools: dict[object, list[Example]] = {}
    for example in examples:
        if example.group == group:
            labels = example.clip.labels
            key = labels.get("lead") if group == "C" else (labels.get("style"), labels.get("drums"))
            pools.setdefault(key, []).append(example)
    sizes = {key: len(pool) ** 0.5 for key, pool in pools.items()}
    chosen = rng.choices(list(pools), [sizes[key] for key in pools])[0]
    return rng.choice(pools[chosen])


def loss_of(model: MuLlama, batch: list[Example], rng: random.Random, recipe: Recipe, tokenizer: Tokenizer) -> Tensor:
    """Mean cross-entropy over the answers of a batch of conversations."""
    rows, features = [], []
    for example in batch:
        turns = conversation(example.clip, rng, num_turns=rng.randint(2, recipe.turns))
        rows.append(tokenise(turns, CHATML_MUSIC, tokenizer))
        features.append(example.features(rng))
    ids, labels, mask = stack(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conditioning = model.condition(torch.stack(features))
        logits = model(ids, conditioning=conditioning, attention_mask=mask)
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def train(work: Path, out: Path, recipe: Recipe, *, init: Path | None) -> None:
    """Train, log to metrics.jsonl, and write the model folder; `init` is a model folder to go on from."""
    rng = random.Random(recipe.seed)
    examples = [example for example in read_examples(work) if example.split == "train"]
    usable = [example for example in examples if conversation(example.clip, random.Random(0), num_turns=1)]
    print(f"{len(usable)} clips:", dict(Counter(example.group for example in usable)))
    llama_folder = provide_llama(SMOLLM2, home_folder(), report=print)
    content = (llama_folder / FAST_TOKENIZER_FILE).read_bytes()
    tokenizer = parse_fast_tokenizer(content, eos_tokens=["<|im_end|>"], source=str(llama_folder))
    model = build(recipe, usable, llama_folder)
    if init is not None:
        continue_from(model, init)
    steps = optimiser(model, recipe)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    out.mkdir(parents=True, exist_ok=True)
    with Progress() as progress, (out / "metrics.jsonl").open("w") as log:
        bar, start = progress.add_task("training", total=recipe.steps), time.time()
        for step in range(recipe.steps):
            for group in steps.param_groups:
                group["lr"] = group["peak"] * rate_factor(step, recipe)
            batch = [balanced(usable, rng) for _ in range(recipe.batch_size)]
            loss = loss_of(model, batch, rng, recipe, tokenizer)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(trainable, 1.0)
            steps.step()
            steps.zero_grad()
            seconds = time.time() - start
            row = {"step": step, "loss": loss.item(), "gradient_norm": norm.item(), "seconds": seconds}
            log.write(json.dumps(row) + "\n")
            log.flush()
            progress.update(bar, advance=1, description=f"loss {loss.item():.3f}")
            if step % 100 == 99 or step == recipe.steps - 1:
                export(model, out, recipe)
                print(
                    f"step {step + 1}: loss {loss.item():.3f}, {(step + 1) * recipe.batch_size / seconds:.1f} /s",
                    flush=True,
                )


def export(model: MuLlama, out: Path, recipe: Recipe) -> None:
    """Write adapter and LoRA in fp16, and the recipe beside them."""
    state = model.state_dict()
    adapter = {
        name: in_memory(value.half()) for name, value in state.items() if name.startswith(("adapter.", "conditioner."))
    }
    lora = {
        name.removeprefix("llama.").replace(".default.", "."): in_memory(value.half())
        for name, value in state.items()
        if "lora_" in name
    }
    config = ModelConfig(
        name="mini",
        prompt=CHATML_MUSIC.name,
        adapter=model.adapter.config,
        encoder={"kind": "musicnn"},
        llama={"packaged": SMOLLM2.name},
        licences={
            "adapter and LoRA": "Apache-2.0",
            "SmolLM2-135M-Instruct": SMOLLM2.licence,
            "MusiCNN": "ISC",
        },
    )
    write_model_files(out, config, adapter=adapter, tuning=lora)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    parser.add_argument("--out", type=Path, default=Path("work/mini/model"))
    parser.add_argument("--init", type=Path, help="model folder of an earlier run to go on from")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = vars(_arguments())
    work, out, init = (arguments.pop(name) for name in ("work", "out", "init"))
    train(work, out, Recipe(**arguments), init=init)
