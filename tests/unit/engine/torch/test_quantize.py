import sys
import threading

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache

from mu_llama import devices
from mu_llama.engine.protocol import Quantization
from mu_llama.engine.torch import kernels
from mu_llama.engine.torch.kernels import DecodingLinear, fast_linear
from mu_llama.engine.torch.quantize import Int4Linear, Int8Linear, nf4_linear, quantize_linear
from mu_llama.errors import ConfigError


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0))


def random_linear(rows: int, width: int, *, bias: bool = False, dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    torch.manual_seed(rows + width)
    linear = nn.Linear(width, rows, bias=bias)
    return linear.to(dtype).requires_grad_(False)


def random_llama(hidden: int, ffn: int, num_heads: int, *, deviation: float = 0.02) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=3,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads // 2,
        vocab_size=200,
        initializer_range=deviation,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16).eval().requires_grad_(False)


def replace_linears(llama: LlamaForCausalLM, kind: Quantization | None) -> None:
    layers = llama.model.layers
    for name, linear in list(layers.named_modules()):
        if isinstance(linear, nn.Linear):
            layers.set_submodule(name, fast_linear(linear) if kind is None else quantize_linear(linear, kind))


def decode(llama: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Logits of all tokens, given one at a time."""
    cache = DynamicCache(config=llama.config)
    return torch.cat([llama(ids[:, t : t + 1], past_key_values=cache).logits for t in range(ids.shape[1])], dim=1)


def size_bytes(module: nn.Module) -> int:
    return sum(value.nbytes for value in (*module.parameters(), *module.buffers()))


SIZES = {"tiny": (32, 96, 4), "no kernel fits": (40, 72, 4), "middle": (512, 1376, 8)}


# Random weights are the hardest to round: nothing in them is redundant. Their deviation decides how much a rounding
# grows from layer to layer; 0.02 is transformers' own, at 1 / sqrt(hidden) every layer keeps the size of its input.
LEAST = {("int8", "stock"): 0.999, ("int8", "unit"): 0.999, ("int4", "stock"): 0.95, ("int4", "unit"): 0.9}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "weights"), LEAST)
def test_logits_stay_those_of_bf16(size: str, kind: Quantization, weights: str) -> None:
    hidden, ffn, num_heads = SIZES[size]
    llama = random_llama(hidden, ffn, num_heads, deviation=0.02 if weights == "stock" else hidden**-0.5)
    least = LEAST[kind, weights]
    ids = torch.arange(40)[None] * 3
    expected = llama(ids).logits
    replace_linears(llama, kind)
    assert cosine(llama(ids).logits, expected) >= least
    # Decoding takes other kernels than a prompt.
    assert cosine(decode(llama, ids), expected) >= least


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_stock_llama_generates_with_it(kind: Quantization) -> None:
    llama = random_llama(*SIZES["tiny"])
    replace_linears(llama, kind)
    assert llama.dtype == torch.bfloat16
    assert llama.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4, min_new_tokens=4, do_sample=False).shape == (
        1,
        7,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("widths", [(96, 32), (48, 40), (33, 7), (1, 5)], ids=str)
@pytest.mark.parametrize(("kind", "least"), [("int8", 0.9999), ("int4", 0.98)])
def test_any_widths_and_a_bias(widths: tuple[int, int], dtype: torch.dtype, kind: Quantization, least: float) -> None:
    linear = random_linear(*widths, bias=True, dtype=dtype)
    linear.bias += 3  # large, so that losing it can't pass
    quantized = quantize_linear(linear, kind)
    for rows in (1, 3, 20):
        x = torch.randn(rows, widths[1]).to(dtype)
        out = quantized(x)
        assert out.dtype == dtype
        assert out.shape == (rows, widths[0])
        assert cosine(out, linear(x)) >= least


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_leading_dimensions_and_other_layouts(kind: Quantization) -> None:
    quantized = quantize_linear(random_linear(64, 96), kind)
    x = torch.randn(96, 2, 3).bfloat16().permute(2, 1, 0)  # (3, 2, 96), not contiguous
    out = quantized(x)
    assert out.shape == (3, 2, 64)
    torch.testing.assert_close(out, quantized(x.contiguous()))


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_batch_equals_single_rows(kind: Quantization) -> None:
    quantized = quantize_linear(random_linear(96, 64), kind)
    x = torch.randn(20, 64).bfloat16()
    single = torch.cat([quantized(row[None]) for row in x])
    torch.testing.assert_close(quantized(x), single, atol=0.02, rtol=0.02)
    torch.testing.assert_close(quantized(x[:4]), single[:4], atol=0.02, rtol=0.02)


def test_int8_keeps_the_columns_that_would_spoil_the_others() -> None:
    linear = random_linear(64, 128)
    linear.weight[:, [5, 77]] *= 100
    x = torch.randn(1, 128).bfloat16()
    x[:, [5, 77]] = 0  # what remains would be lost in steps of the large columns
    assert cosine(quantize_linear(linear, "int8")(x), linear(x)) >= 0.9999


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_rows_of_zeros_stay_zero(kind: Quantization) -> None:
    linear = random_linear(32, 64)
    linear.weight[3] = 0
    for rows in (1, 20):
        out = quantize_linear(linear, kind)(torch.randn(rows, 64).bfloat16())
        assert torch.isfinite(out).all()
        assert (out[:, 3] == 0).all()


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.53), ("int4", 0.32)])
def test_memory_is_smaller_and_the_linear_is_let_go(kind: Quantization, share: float) -> None:
    linear = random_linear(1024, 2048)
    quantized = quantize_linear(linear, kind)
    assert size_bytes(quantized) <= share * linear.weight.nbytes
    storages = {value.untyped_storage().data_ptr() for value in quantized.buffers()}
    assert linear.weight.untyped_storage().data_ptr() not in storages


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_state_dict_round_trip(kind: Quantization) -> None:
    source = quantize_linear(random_linear(96, 64, bias=True), kind)
    other = random_linear(96, 64, bias=True)
    other.weight.zero_()
    target = quantize_linear(other, kind).to("cpu")
    target.load_state_dict(source.state_dict())
    x = torch.randn(1, 64).bfloat16()
    assert torch.equal(target(x), source(x))


def test_int4_falls_back_to_int8_where_its_groups_do_not_fit() -> None:
    assert isinstance(quantize_linear(random_linear(96, 64), "int4"), Int4Linear)
    assert isinstance(quantize_linear(random_linear(96, 40), "int4"), Int8Linear)
    assert isinstance(quantize_linear(random_linear(24, 64), "int4"), Int8Linear)


def test_missing_bitsandbytes_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"pip install 'mu-llama\[quantize\]'"):
        quantize_linear(nn.Linear(64, 64, device="meta"), "int4")


def test_nf4_of_bitsandbytes() -> None:
    linear = random_linear(128, 256, bias=True)
    quantized = nf4_linear(linear)
    x = torch.randn(3, 256).bfloat16()
    assert cosine(quantized(x), linear(x)) >= 0.98
    assert quantized.weight.nbytes == linear.weight.nbytes // 4


@pytest.fixture
def stock_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with kernels for bf16."""
    monkeypatch.setattr(devices, "is_cpu_slow_at_bf16", lambda: False)
    monkeypatch.setattr(kernels, "_ONEDNN_TAKES_BF16", True)


@pytest.mark.usefixtures("stock_products")
def test_fast_linear_is_the_stock_linear() -> None:
    linear = random_linear(96, 128)
    fast = fast_linear(linear)
    assert fast.weight is linear.weight
    assert list(fast.state_dict()) == list(linear.state_dict())
    x = torch.randn(5, 128).bfloat16()
    assert torch.equal(fast(x), linear(x))
    # Sums in float32: one bf16 rounding away from the exact product at most.
    exact = x[:1].double() @ linear.weight.double().T
    torch.testing.assert_close(fast(x[:1]).double(), exact, atol=1e-3, rtol=2**-8)


@pytest.mark.parametrize("bias", [False, True])
def test_many_rows_go_through_float32_where_bf16_is_slow(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    monkeypatch.setattr(devices, "is_cpu_slow_at_bf16", lambda: True)
    monkeypatch.setattr(kernels, "_FLOATS_NUMEL", 64 * 128)  # several pieces
    monkeypatch.setattr(nn.Linear, "forward", None)
    linear = random_linear(200, 128, bias=bias)
    x = torch.randn(2, 5, 128).bfloat16()
    exact = x.double() @ linear.weight.double().T + (linear.bias.double() if bias else 0)
    fast = fast_linear(linear)
    for trained, most_rows in ((False, 256), (False, 4), (True, 256)):
        monkeypatch.setattr(kernels, "_MAX_PROMPT_ROWS", most_rows)
        product = fast(x.requires_grad_(trained))
        assert product.dtype == torch.bfloat16
        torch.testing.assert_close(product.double(), exact, atol=1e-2, rtol=2**-7)
    product.float().sum().backward()
    expected = linear.weight.float().sum(dim=0).expand(2, 5, 128)
    torch.testing.assert_close(x.grad.float(), expected, atol=2e-2, rtol=2**-6)


def test_fast_linear_with_bias_and_float32() -> None:
    for linear in (random_linear(96, 128, bias=True), random_linear(96, 128, dtype=torch.float32)):
        x = torch.randn(1, 128).to(linear.weight.dtype)
        # the bias is added after the product is rounded, not before
        torch.testing.assert_close(fast_linear(linear)(x), linear(x), rtol=2**-6, atol=2**-7)


@pytest.mark.usefixtures("stock_products")
def test_fast_llama_gives_the_same_logits() -> None:
    llama = random_llama(*SIZES["middle"])
    ids = torch.arange(20)[None]
    expected = llama(ids).logits
    replace_linears(llama, None)
    assert sum(isinstance(module, DecodingLinear) for module in llama.modules()) == 21
    assert torch.equal(llama(ids).logits, expected)
    assert cosine(decode(llama, ids), expected) >= 0.9999


@pytest.mark.usefixtures("stock_products")
def test_fast_linear_takes_weights_assigned_later() -> None:
    fast = fast_linear(nn.Linear(64, 32, bias=False, device="meta", dtype=torch.bfloat16))
    stored = random_linear(32, 64)
    fast.load_state_dict(stored.state_dict(), assign=True)
    x = torch.randn(4, 64).bfloat16()
    assert torch.equal(fast(x), stored(x))


@pytest.mark.usefixtures("stock_products")
def test_threads_leave_onednn_as_it_was() -> None:
    fast = fast_linear(random_linear(512, 512))
    before = torch.backends.mkldnn.enabled
    seen_by_wide_products = []

    stock = nn.Linear.forward

    def watched(self: nn.Linear, input: Tensor) -> Tensor:  # noqa: A002
        if input.shape[0] > 1:
            seen_by_wide_products.append(torch.backends.mkldnn.enabled)
        return stock(self, input)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Linear, "forward", watched)
        inputs = [torch.randn(1 + index % 2 * 15, 512).bfloat16() for index in range(4)]
        threads = [threading.Thread(target=lambda x=x: [fast(x) for _ in range(100)]) for x in inputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert torch.backends.mkldnn.enabled == before
    assert seen_by_wide_products == [before] * 200


@pytest.mark.usefixtures("stock_products")
def test_onednn_comes_back_after_an_error() -> None:
    before = torch.backends.mkldnn.enabled
    with pytest.raises(RuntimeError, match="dtype"):
        fast_linear(random_linear(32, 64))(torch.randn(1, 64))
    assert torch.backends.mkldnn.enabled == before
