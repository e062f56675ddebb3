"""PyTorch on the work of `cupola bench gpu`, at its best: bf16 autocast, fused AdamW, clipping, torch.compile, the faster of
FlashAttention and cuDNN, and twice the batch.

    python3 benches/gpu_peer.py [all|products|attention|steps|quick]

"quick": the compiled steps alone, in the batch of the table and twice that.
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = "cuda"


def mean_ms(work, n=30, warm=10):
    """Device time of `work`, the mean over launches back to back."""
    for _ in range(warm):
        work()
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(n):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / n


def products():
    for n in (4096, 8192):
        a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
        ms = mean_ms(lambda: a @ b)
        print(f"product {n}: {ms:.3f} ms, {2 * n**3 / ms / 1e9:.0f} TFLOP/s", flush=True)


def attention():
    for b, h, t, d in ((16, 12, 1024, 64), (4, 16, 4096, 128), (2, 16, 8192, 128), (1, 16, 16384, 64)):
        q, k, v = (torch.randn(b, h, t, d, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        flops = 2 * b * h * t * t * d
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            with sdpa_kernel(backend):
                forward = mean_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                dy = torch.randn_like(y)
                backward = mean_ms(lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True))
            print(
                f"attention B{b} H{h} T{t} D{d} {backend.name}: forward {forward:.3f} ms {flops / forward / 1e9:.0f} "
                f"TFLOP/s, backward {backward:.3f} ms {2.5 * flops / backward / 1e9:.0f} TFLOP/s",
                flush=True,
            )


class RMSNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return F.rms_norm(x, (x.size(-1),), self.weight, 1e-5)


class Block(nn.Module):
    def __init__(self, d, h, f, is_gpt2):
        super().__init__()
        norm = nn.LayerNorm if is_gpt2 else RMSNorm
        self.h, self.is_gpt2 = h, is_gpt2
        self.norm1, self.norm2 = norm(d), norm(d)
        self.qkv = nn.Linear(d, 3 * d, bias=is_gpt2)
        self.output = nn.Linear(d, d, bias=is_gpt2)
        self.up = nn.Linear(d, f if is_gpt2 else 2 * f, bias=is_gpt2)
        self.down = nn.Linear(f, d, bias=is_gpt2)

    def forward(self, x, rotation):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.h, d // self.h).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            cos, sin = rotation

            def rotate(x):
                first, second = x.chunk(2, -1)
                return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

            q, k = rotate(q), rotate(k)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + self.output(y)
        hidden = self.up(self.norm2(x))
        if self.is_gpt2:
            hidden = F.gelu(hidden, approximate="tanh")
        else:
            gate, up = hidden.chunk(2, -1)
            hidden = F.silu(gate) * up
        return x + self.down(hidden)


class Model(nn.Module):
    def __init__(self, v, t, layers, d, h, f, is_gpt2):
        super().__init__()
        self.is_gpt2 = is_gpt2
        self.tokens = nn.Embedding(v, d)
        self.positions = nn.Embedding(t, d) if is_gpt2 else None
        self.blocks = nn.ModuleList(Block(d, h, f, is_gpt2) for _ in range(layers))
        self.norm = nn.LayerNorm(d) if is_gpt2 else RMSNorm(d)
        self.head = nn.Linear(d, v, bias=False)
        if is_gpt2:
            self.head.weight = self.tokens.weight
        else:
            e = d // h
            angles = torch.outer(torch.arange(t), 1 / (10000 ** (torch.arange(0, e, 2) / e)))
            self.register_buffer("cos", angles.cos().bfloat16())
            self.register_buffer("sin", angles.sin().bfloat16())
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids, targets):
        x = self.tokens(ids)
        rotation = None
        if self.is_gpt2:
            x = x + self.positions(torch.arange(ids.size(1), device=ids.device))
        else:
            rotation = (self.cos, self.sin)
        for block in self.blocks:
            x = block(x, rotation)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, self.tokens.num_embeddings), targets.view(-1))


def step(name, shape, batch, compiled, backend=None, accumulate=1, n=20):
    v, t, layers, d, h, f, is_gpt2 = shape
    torch.manual_seed(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = Model(*shape).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    forward = torch.compile(model) if compiled else model
    ids = torch.randint(0, v, (batch, t + 1), device=DEVICE)
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def update():
        for _ in range(accumulate):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = forward(inputs, targets)
            (loss / accumulate).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def run():
        start = time.time()
        update()
        torch.cuda.synchronize()
        first = time.time() - start
        for _ in range(4):
            update()
        torch.cuda.synchronize()
        seconds = []
        for _ in range(n):
            start = time.time()
            update()
            torch.cuda.synchronize()
            seconds.append(time.time() - start)
        return first, sorted(seconds)[n // 2]

    try:
        if backend is None:
            first, seconds = run()
        else:
            with sdpa_kernel(backend):
                first, seconds = run()
    except torch.OutOfMemoryError:
        print(f"step {name} batch {batch} compiled={compiled}: out of memory", flush=True)
        return
    parameters = sum(p.numel() for p in model.parameters())
    weights = parameters - (t * d if is_gpt2 else v * d)
    flops = (6 * weights + 6 * layers * d * t) * batch * t * accumulate
    print(
        f"step {name} batch {batch}x{accumulate} compiled={compiled} attention={backend.name if backend else 'own choice'}: "
        f"{seconds * 1e3:.2f} ms, {batch * t * accumulate / seconds:.0f} tok/s, MFU {flops / seconds / 989.4e12:.1%}, "
        f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, first step {first:.1f} s",
        flush=True,
    )


def steps(quick):
    shapes = {
        "gpt2-124m": ((50304, 1024, 12, 768, 12, 3072, True), 32),
        "llama-953m": ((32000, 2048, 16, 2048, 16, 5632, False), 4),
    }
    for name, (shape, batch) in shapes.items():
        if not quick:
            step(name, shape, batch, False)
        step(name, shape, batch, True)
        torch._dynamo.reset()
        step(name, shape, batch, True, SDPBackend.CUDNN_ATTENTION)
        torch._dynamo.reset()
        step(name, shape, 2 * batch, True, SDPBackend.CUDNN_ATTENTION)
        torch._dynamo.reset()


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    print(torch.__version__, torch.cuda.get_device_name(), flush=True)
    if what in ("all", "products"):
        products()
    if what in ("all", "attention"):
        attention()
    if what in ("all", "steps", "quick"):
        steps(what == "quick")
