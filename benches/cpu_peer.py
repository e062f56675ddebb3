"""PyTorch on the work of `cupola bench cpu`, at its best: oneDNN, bf16 autocast, fused AdamW, clipping, torch.compile.

    python3 benches/cpu_peer.py [all|products|attention|steps]

What torch needs to compile is a C++ compiler; without one the compiled steps are left out.
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

BATCH, CONTEXT, VOCAB, LAYERS, WIDTH, HEADS, FEED_FORWARD = 8, 256, 10_000, 4, 512, 16, 1344


def fastest_ms(work, budget=0.8):
    """Wall time of `work`, the fastest of those that fit into the budget, at least five."""
    work()
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < budget:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e3


def name(dtype):
    return {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]


def products():
    for dtype in (torch.float32, torch.bfloat16):

        def product(label, m, n, k, transposed):
            a = torch.randn(k, m).to(dtype).T if transposed[0] else torch.randn(m, k).to(dtype)
            b = torch.randn(n, k).to(dtype).T if transposed[1] else torch.randn(k, n).to(dtype)
            ms = fastest_ms(lambda: a @ b)
            print(f"{name(dtype)} product {label}: {ms:.3f} ms, {2 * m * n * k / ms / 1e6:.0f} GFLOP/s", flush=True)

        product("2048^3", 2048, 2048, 2048, (False, False))
        rows = BATCH * CONTEXT
        layers = [("qkv", 3 * WIDTH, WIDTH), ("output", WIDTH, WIDTH), ("up", 2 * FEED_FORWARD, WIDTH)]
        for label, o, i in [*layers, ("down", WIDTH, FEED_FORWARD), ("head", VOCAB, WIDTH)]:
            product(f"{label} forward", rows, o, i, (False, True))
            product(f"{label} input gradient", rows, i, o, (False, False))
            product(f"{label} weight gradient", o, i, rows, (True, False))


def attention():
    flops = 2 * BATCH * WIDTH * CONTEXT**2
    for dtype in (torch.float32, torch.bfloat16):
        shape = (BATCH, HEADS, CONTEXT, WIDTH // HEADS)
        q, k, v = (torch.randn(shape).to(dtype).requires_grad_() for _ in range(3))
        forward = fastest_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        dy = torch.randn_like(y)
        backward = fastest_ms(lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True))
        print(
            f"{name(dtype)} attention: forward {forward:.3f} ms, {flops / forward / 1e6:.0f} GFLOP/s, "
            f"backward {backward:.3f} ms, {2.5 * flops / backward / 1e6:.0f} GFLOP/s",
            flush=True,
        )


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return F.rms_norm(x, (WIDTH,), self.gain, 1e-5)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.mlp_norm = RMSNorm(), RMSNorm()
        self.qkv, self.output = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 2 * FEED_FORWARD, bias=False)
        self.down = nn.Linear(FEED_FORWARD, WIDTH, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(b, t, 3, HEADS, WIDTH // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)

        def turned(x):
            first, second = x.chunk(2, -1)
            return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

        y = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + self.output(y.transpose(1, 2).reshape(b, t, WIDTH))
        gate, up = self.up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = RMSNorm(), nn.Linear(WIDTH, VOCAB, bias=False)
        e = WIDTH // HEADS
        angles = torch.outer(torch.arange(CONTEXT), 10_000 ** (-torch.arange(0, e, 2) / e))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, inputs, targets):
        x = self.embedding(inputs)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, VOCAB), targets.view(-1))


def steps():
    for bf16 in (False, True):
        for compiled in (False, True):
            torch._dynamo.reset()
            torch.manual_seed(0)
            model = Model()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
            loss_of = torch.compile(model) if compiled else model
            ids = torch.randint(0, VOCAB, (BATCH, CONTEXT + 1))
            inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

            def step():
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                    loss = loss_of(inputs, targets)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

            try:
                step()
                ms = fastest_ms(step, budget=4.0)
            except torch._dynamo.exc.BackendCompilerFailed as e:
                print(f"compiled step left out: {str(e).splitlines()[0]}", flush=True)
                continue
            print(
                f"{'bf16' if bf16 else 'f32'} step, {'compiled' if compiled else 'eager'}: {ms:.1f} ms, "
                f"{BATCH * CONTEXT / ms * 1e3:,.0f} tokens/s",
                flush=True,
            )


if __name__ == "__main__":
    parts = {"products": products, "attention": attention, "steps": steps}
    wanted = sys.argv[1] if len(sys.argv) > 1 else "all"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    for part, work in parts.items():
        if wanted in ("all", part):
            work()
