"""Golden numbers of rotary embedding, attention and cross-entropy, computed by PyTorch in float64.

Run: python oracle/tensor_attention.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

FOLDER = Path(__file__).parent.parent / "crates" / "tensor" / "golden"
torch.set_default_dtype(torch.float64)


def save(name, tensors, **settings):
    tensors = {k: t.detach().float().contiguous() for k, t in tensors.items()}
    path = FOLDER / f"{name}.safetensors"
    # One entry, because the order of several differs from run to run.
    save_file(tensors, path, {"settings": str(settings | {"torch": torch.__version__})})
    print(f"{path.name}: {path.stat().st_size} bytes")


def leaf(*shape):
    """A random leaf that survives the cast to float32 unchanged."""
    return torch.randn(shape).float().double().requires_grad_()


def split(qkv, h, g, e):
    """[b, t, (h + 2g)·e] → [b, heads, t, e] each."""
    b, t, _ = qkv.shape
    parts = qkv.split([h * e, g * e, g * e], dim=-1)
    return [x.reshape(b, t, -1, e).transpose(1, 2) for x in parts]


def merge(x):
    b, heads, t, e = x.shape
    return x.transpose(1, 2).reshape(b, t, heads * e)


def rope():
    torch.manual_seed(1)
    b, t, h, g, e, theta, start = 2, 7, 4, 2, 8, 10000.0, 5
    out = {}
    for layout in ["half_split", "interleaved"]:
        qkv = leaf(b, t, (h + 2 * g) * e)
        q, k, v = split(qkv, h, g, e)
        angle = (start + torch.arange(t))[:, None] * theta ** (-torch.arange(0, e, 2) / e)
        turn = torch.polar(torch.ones_like(angle), angle)  # multiplication by e^{iφ}

        def turned(x):
            if layout == "half_split":
                z = torch.complex(x[..., : e // 2], x[..., e // 2 :]) * turn
                return torch.cat([z.real, z.imag], dim=-1)
            z = torch.view_as_complex(x.reshape(*x.shape[:-1], e // 2, 2).contiguous()) * turn
            return torch.view_as_real(z).reshape(x.shape)

        y = torch.cat([merge(turned(q)), merge(turned(k)), merge(v)], dim=-1)
        dy = leaf(*y.shape)
        y.backward(dy)
        out |= {f"{layout}.qkv": qkv, f"{layout}.y": y, f"{layout}.dy": dy, f"{layout}.dqkv": qkv.grad}
    save("rope", out, theta=theta, start=start)


def attention():
    torch.manual_seed(2)
    out = {}
    cases = {"multi": (2, 13, 3, 3, 8), "grouped": (1, 19, 4, 2, 5), "one": (1, 9, 4, 1, 16)}
    for name, (b, t, h, g, e) in cases.items():
        qkv = leaf(b, t, (h + 2 * g) * e)
        q, k, v = split(qkv, h, g, e)
        y = merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True))
        dy = leaf(*y.shape)
        y.backward(dy)
        out |= {f"{name}.qkv": qkv, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dqkv": qkv.grad}
        out[f"{name}.heads"] = torch.tensor([h, g, e])
    save("attention", out, scale=0.3)
    attention_two_sizes()


def attention_two_sizes():
    torch.manual_seed(5)
    out = {}
    cases = {"multi": (2, 13, 3, 3, 6, 4), "grouped": (1, 19, 4, 2, 5, 3), "latent": (1, 7, 2, 2, 192, 128)}
    for name, (b, t, h, g, e, f) in cases.items():
        qkv = leaf(b, t, (h + g) * e + g * f)
        q, k, v = qkv.split([h * e, g * e, g * f], dim=-1)
        q, k, v = (x.unflatten(-1, (n, -1)).transpose(1, 2) for x, n in ((q, h), (k, g), (v, g)))
        y = merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True))
        dy = leaf(*y.shape)
        y.backward(dy)
        out |= {f"{name}.qkv": qkv, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dqkv": qkv.grad}
        out[f"{name}.heads"] = torch.tensor([h, g, e, f])
    save("attention_two_sizes", out, scale=0.3)


def cross_entropy():
    torch.manual_seed(3)
    n, d, v, divisor = 11, 6, 37, 7.0
    x, weight = leaf(n, d), leaf(v, d)
    targets = torch.randint(0, v, (n,))
    targets[3] = targets[8] = -100
    logits = x @ weight.T
    logits.retain_grad()
    loss = F.cross_entropy(logits, targets, reduction="sum") / divisor
    loss.backward()
    out = {"x": x, "weight": weight, "logits": logits, "targets": targets, "loss": loss}  # target −100 is ignored
    out |= {"dlogits": logits.grad, "dx": x.grad, "dweight": weight.grad}
    save("cross_entropy", out, divisor=divisor)


if __name__ == "__main__":
    print("torch", torch.__version__)
    rope()
    attention()
    cross_entropy()
