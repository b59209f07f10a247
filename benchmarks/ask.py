"""Whole process of `mu-llama ask` with warm caches against plain transformers without any audio.

Both start Python, load the same SmolLM2 in bf16, and write the same number of tokens from a prompt of the same text.
"""

from __future__ import annotations

import json
import sys

from benchmarks.measure import CLIP, COMMAND, alternate, medians, run_process, write_result
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.embedded import SMOLLM2, provide_llama
from mu_llama.text.prompts import CHATML_MUSIC, Turn

QUESTION = "Describe the audio in detail"
RUNS = 5

PLAIN = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
inputs = tokenizer(prompt, return_tensors="pt")
out = model.generate(**inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
print(tokenizer.decode(out[0, inputs["input_ids"].shape[1]:]))
"""


def main() -> None:
    """Measure and write the result."""
    folder = provide_llama(SMOLLM2, home_folder(), report=print)
    ours = [COMMAND, "ask", CLIP, "-q", QUESTION, "--json"]
    num_tokens = int(json.loads(run_process(ours).output)["num_tokens"])
    prompt = CHATML_MUSIC.render([Turn(QUESTION)])
    plain = [sys.executable, "-c", PLAIN, folder, prompt, str(num_tokens)]
    warm = {"PYTHONDONTWRITEBYTECODE": ""}  # compiled modules are one of the caches
    values = alternate(
        RUNS,
        mu_llama=lambda: run_process(ours, **warm).seconds,
        transformers=lambda: run_process(plain, **warm).seconds,
    )
    middle = medians(values)
    write_result(
        "ask",
        {
            "what": "whole process, warm caches, 30 s clip, seconds",
            "num_tokens": num_tokens,
            "median_s": middle,
            "ratio_to_transformers": round(middle["mu_llama"] / middle["transformers"], 3),
            "runs_s": values,
        },
    )


if __name__ == "__main__":
    main()
