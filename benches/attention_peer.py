"""Attention of PyTorch on the shapes of crates/tensor/benches/cuda_attention.rs: FlashAttention-2 and cuDNN.

Run: python3 benches/attention_peer.py [FILE]
With the file that the bench exported, first compares its results with PyTorch's in float64.
Device times of many launches between two events, the median of a few series, as there.
"""

import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# b, t, h, g, e, causal
SHAPES = [
    (16, 1024, 12, 12, 64, True),
    (1, 16384, 16, 16, 64, True),
    (4, 2048, 16, 16, 128, True),
    (4, 4096, 16, 16, 128, True),
    (2, 8192, 16, 16, 128, True),
    (2, 8192, 16, 16, 128, False),
    (4, 4096, 16, 4, 128, True),
]
BACKENDS = {"FA2": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}


def series(launch, launches):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(launches):
        launch()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / launches


def seconds(launch):
    series(launch, 2)
    launches = min(200, max(3, int(0.02 / series(launch, 3))))
    return sorted(series(launch, launches) for _ in range(5))[2]


def relative(x, y):
    return ((x.double() - y).norm() / y.norm()).item()


def compare(path):
    from safetensors import safe_open

    with safe_open(path, "pt", device="cuda") as file:
        h, g, e = (int(file.metadata()[name]) for name in "hge")
        qkv, dy, y, dqkv = (file.get_tensor(name) for name in ("qkv", "dy", "y", "dqkv"))
    b, t, _ = qkv.shape
    x = qkv.double().requires_grad_()
    q, k, v = (part.unflatten(2, (-1, e)).transpose(1, 2) for part in x.split([h * e, g * e, g * e], 2))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2).flatten(2)
    (gradient,) = torch.autograd.grad(expected, x, dy.double())
    print(f"PyTorch float64, b {b} t {t} h {h} g {g} e {e} causal: y {relative(y, expected):.1e}", end="")
    for name, ours, theirs in zip("qkv", dqkv.split([h * e, g * e, g * e], 2), gradient.split([h * e, g * e, g * e], 2)):
        print(f" d{name} {relative(ours, theirs):.1e}", end="")
    print()


def main():
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name()}")
    torch.manual_seed(7)
    if len(sys.argv) > 1:
        compare(sys.argv[1])
    for b, t, h, g, e, causal in SHAPES:
        shape = f"b {b:<2} t {t:<5} h {h:<2} g {g:<2} e {e:<3} {'causal' if causal else 'full':<6}"
        flops = 4 * b * h * t * t * e / (2 if causal else 1)
        make = lambda n: torch.randn(b, t, n, e, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        q, k, v = make(h), make(g), make(g)
        dy = torch.randn_like(q)
        for name, backend in BACKENDS.items():
            try:
                with sdpa_kernel(backend):
                    attend = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=g != h)
                    with torch.no_grad():
                        forward = seconds(attend)
                    y = attend()
                    backward = seconds(lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True))
            except RuntimeError as error:
                print(f"{shape} {name:<6} refused: {str(error).splitlines()[0]}")
                continue
            print(
                f"{shape} {name:<6} forward {forward * 1e3:8.3f} ms {flops / forward / 1e12:6.1f} TFLOP/s"
                f"  backward {backward * 1e3:8.3f} ms {2.5 * flops / backward / 1e12:6.1f} TFLOP/s"
            )


if __name__ == "__main__":
    sys.exit(main())
