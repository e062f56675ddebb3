"""PyTorch in bf16 autocast on what `cargo bench -p train --bench cuda_losses` wrote: same weights, same batches.

    python3 benches/gpu_losses_peer.py FOLDER [tf32]

Prints the losses beside each other and ends with status 1 if one differs by more than 0.02. With "tf32", PyTorch computes in
f32 with TF32 products instead: how far bf16 itself is from that is what the differences are to be compared with.
"""

import json
import pathlib
import sys

import torch
from gpu_peer import Model

folder = pathlib.Path(sys.argv[1])
run = json.loads((folder / "losses.json").read_text())
batch, t = run["batch"], run["context"]
ids = torch.frombuffer(bytearray((folder / "batches.bin").read_bytes()), dtype=torch.int32)
ids = ids.view(run["steps"], batch, t + 1).long().cuda()
weights = torch.frombuffer(bytearray((folder / "weights.bin").read_bytes()), dtype=torch.float32)

model = Model(50304, t, 12, 768, 12, 3072, True)
ours = {}
at = 0
for parameter in json.loads((folder / "weights.json").read_text()):
    n = 1
    for size in parameter["shape"]:
        n *= size
    ours[parameter["name"]] = weights[at : at + n].view(parameter["shape"])
    at += n
assert at == len(weights)
names = {
    "tokens": "token_embedding", "positions": "position_embedding", "norm": "final_norm", "norm1": "attention_norm",
    "norm2": "mlp_norm", "qkv": "attention.qkv", "output": "attention.output", "up": "mlp.up", "down": "mlp.down",
}
with torch.no_grad():
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        kind = parts.pop()
        path = ".".join(names.get(part, part) for part in parts)
        if parts[-1] in ("tokens", "positions"):
            parameter.copy_(ours.pop(path))
        elif "norm" in parts[-1]:
            parameter.copy_(ours.pop(f"{path}.{'gain' if kind == 'weight' else 'bias'}"))
        else:
            parameter.copy_(ours.pop(f"{path}.{kind}"))
assert not ours, f"left over: {list(ours)}"
model.cuda()
matrices = [p for p in model.parameters() if p.dim() > 1]
vectors = [p for p in model.parameters() if p.dim() < 2]
groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
is_bf16 = "tf32" not in sys.argv
torch.set_float32_matmul_precision("high")
differences = []
for step, expected in enumerate(run["losses"]):
    for group in optimizer.param_groups:
        group["lr"] = run["learning_rate"] * min((step + 1) / run["warmup"], 1)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=is_bf16):
        loss = model(ids[step, :, :-1].contiguous(), ids[step, :, 1:].contiguous())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    differences.append(abs(loss.item() - expected))
    if (step + 1) % 20 == 0 or step == 0:
        print(f"step {step + 1:3}: PyTorch {loss.item():.4f}, Cupola {expected:.4f}", flush=True)
worst = max(differences)
mean = sum(differences) / len(differences)
print(f"difference over {len(differences)} steps: mean {mean:.4f}, largest {worst:.4f} (step {differences.index(worst) + 1})")
print(f"steps that differ by more than 0.02: {[(i + 1, round(x, 4)) for i, x in enumerate(differences) if x > 0.02]}")
sys.exit(worst > 0.02)
