"""Weights are described and read without torch and transformers; what needs them says so in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SET_A = Path(__file__).parents[2] / "golden" / "set_a"
LACKING = "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\n"
READ_MINI = """
import sys
from mu_llama.arrays import BFLOAT16
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.load import find_parts, open_tokenizer
from mu_llama.checkpoints.lora import merged_adapter, merged_llama
parts = find_parts("mini", home=home_folder())
tokenizer = open_tokenizer(parts.llama, parts.template)
config, llama = merged_llama(parts.llama, parts.tuning, dtype=BFLOAT16, source="mini")
name = "model.layers.0.self_attn.q_proj.weight"
print(config.num_hidden_layers, tokenizer.vocab_size, llama[name].read().shape, llama[name].read().dtype)
print(merged_adapter(parts)["adapter.projection.weight"].read().shape)
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mini_is_read_without_them() -> None:
    assert run(READ_MINI).splitlines()[-3:] == ["30 49152 (576, 576) bfloat16", "(576, 3512)", "[]"]


def test_a_pickle_says_that_it_needs_torch() -> None:
    path = SET_A / "checkpoint_finetune.pth"
    code = f"""{LACKING}
from pathlib import Path
from mu_llama.checkpoints.formats.tensor_files import read_torch_file
from mu_llama.checkpoints.load import find_parts
from mu_llama.errors import CheckpointError
for read in (read_torch_file, lambda path: find_parts(path, llama={str(SET_A / "llama")!r}, home=path)):
    try:
        read(Path({str(path)!r}))
    except CheckpointError as error:
        print(error)
"""
    lines = run(code).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert str(path) in line
        assert "isn't installed; run: pip install 'mu-llama[torch]'" in line


def test_a_folder_is_written_without_them_but_for_sentencepiece(tmp_path: Path) -> None:
    code = f"""{LACKING}
from pathlib import Path
import numpy as np
from mu_llama.checkpoints.formats.hugging_face import read_llama_folder, write_llama_folder
from mu_llama.checkpoints.lazy_tensor import in_memory
from mu_llama.checkpoints.spec import TokenizerFile
from mu_llama.errors import CheckpointError
from mu_llama.model.config import LlamaConfig
config = LlamaConfig(480, 8, 8, 1, 2, 2, 4)
tensors = {{"model.norm.weight": in_memory(np.ones(8, np.float32))}}
folder, original = Path({str(tmp_path)!r}), Path({str(SET_A / "llama" / "tokenizer.model")!r})
words = b'{{"version": "1.0", "added_tokens": [], "model": {{"vocab": {{"a": 0}}}}}}'
write_llama_folder(folder / "one", config, tensors, TokenizerFile("tokenizer.json", "t", lambda: words))
read = read_llama_folder(folder / "one")
print(read.config == config, read.tensors["model.norm.weight"].read().tolist())
try:
    write_llama_folder(folder / "two", config, tensors, TokenizerFile(original.name, "t", original.read_bytes))
except CheckpointError as error:
    print(error)
"""
    lines = run(code).splitlines()
    assert lines[0] == "True [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]"
    assert "is written with transformers, which isn't installed; run: pip install 'mu-llama[torch]'" in lines[1]
    assert not (tmp_path / "two" / "config.json").exists()
