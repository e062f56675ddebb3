"""Golden numbers of embedding, normalisations, activations, SwiGLU and AdamW, computed by PyTorch in float64.

Run: python oracle/tensor_norms.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

FOLDER = Path(__file__).parent.parent / "crates" / "tensor" / "golden"
torch.set_default_dtype(torch.float64)


def save(name, tensors, **settings):
    tensors = {k: (t.detach() if t.dtype == torch.uint32 else t.detach().float()).contiguous() for k, t in tensors.items()}
    path = FOLDER / f"{name}.safetensors"
    save_file(tensors, path, {k: str(v) for k, v in settings.items()} | {"torch": torch.__version__})
    print(f"{path.name}: {path.stat().st_size} bytes")


def constant(*shape):
    """Random numbers that survive the cast to float32 unchanged."""
    return torch.randn(shape).float().double()


def leaf(*shape):
    return constant(*shape).requires_grad_()


def embedding():
    torch.manual_seed(1)
    ids, table = torch.randint(0, 11, (2, 9)), leaf(11, 5)
    y = F.embedding(ids, table)
    dy = constant(*y.shape)
    y.backward(dy)
    save("embedding", {"ids": ids.to(torch.uint32), "table": table, "y": y, "dy": dy, "dtable": table.grad})


def rms_norm():
    torch.manual_seed(2)
    x, gain, eps = leaf(2, 5, 24), leaf(24), 1e-5
    y = F.rms_norm(x, (24,), gain, eps)
    dy = constant(*y.shape)
    y.backward(dy)
    save("rms_norm", {"x": x, "gain": gain, "y": y, "dy": dy, "dx": x.grad, "dgain": gain.grad}, eps=eps)


def layer_norm():
    torch.manual_seed(3)
    x, gain, bias, eps = leaf(2, 5, 24), leaf(24), leaf(24), 1e-5
    y = F.layer_norm(x, (24,), gain, bias, eps)
    dy = constant(*y.shape)
    y.backward(dy)
    gradients = {"dx": x.grad, "dgain": gain.grad, "dbias": bias.grad}
    save("layer_norm", {"x": x, "gain": gain, "bias": bias, "y": y, "dy": dy} | gradients, eps=eps)


def activation():
    torch.manual_seed(4)
    grid = torch.linspace(-12, 12, 500).float().double()
    points = torch.cat([grid, torch.tensor([0.0, -1e-4, 1e-4, -40.0, 40.0, -1000.0, 1000.0]).float().double()])
    dy = constant(len(points))
    out = {"x": points, "dy": dy}
    functions = {
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "gelu_erf": F.gelu,
        "silu": F.silu,
        "relu": F.relu,
    }
    for name, function in functions.items():
        x = points.clone().requires_grad_()
        y = function(x)
        y.backward(dy)
        out |= {f"{name}.y": y, f"{name}.dx": x.grad}
    save("activation", out)


def swiglu():
    torch.manual_seed(5)
    gate_up = leaf(2, 5, 34)
    gate, up = gate_up.chunk(2, dim=-1)
    y = F.silu(gate) * up
    dy = constant(*y.shape)
    y.backward(dy)
    save("swiglu", {"gate_up": gate_up, "y": y, "dy": dy, "dgate_up": gate_up.grad})


def adamw():
    torch.manual_seed(6)
    n_steps, settings = 10, {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    parameter, gradients = leaf(7, 13), constant(n_steps, 7, 13)
    gradients[:, 0, 0] = 0  # never touched: decay alone
    out = {"parameter": parameter.detach().clone(), "gradients": gradients}
    optimizer = torch.optim.AdamW([parameter], **settings)
    steps = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        steps.append(parameter.detach().clone())
    state = optimizer.state[parameter]
    out |= {"parameters": torch.stack(steps), "first_moment": state["exp_avg"], "second_moment": state["exp_avg_sq"]}
    save("adamw", out, **settings)


if __name__ == "__main__":
    print("torch", torch.__version__)
    embedding()
    rms_norm()
    layer_norm()
    activation()
    swiglu()
    adamw()
