"""Golden models: tiny GPT-2s and Llamas made by `transformers`, with their logits, loss, gradients and ten updates.

Run: python oracle/transformer.py
Each folder crates/nn/golden/NAME holds a model as `save_pretrained` writes it, and expected.safetensors:
ids, targets [2, 17], logits, loss, gradient.NAME for every stored tensor, and of ten AdamW updates from the same
weights train.ids, train.targets [10, 2, 17] and train.losses [10] (each before its update).

Weights are float32 numbers; everything is computed in float64, except that `transformers` itself computes the inside
of Llama's RMSNorm and the tables of rotary embedding in float32.
"""

import shutil
from pathlib import Path

import safetensors
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

FOLDER = Path(__file__).parent.parent / "crates" / "nn" / "golden"
VOCAB_SIZE, BATCH, LENGTH, STEPS = 61, 2, 17, 10
ADAMW = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}

# Every size differs from every other and from the defaults, so that a swap shows. So do base and eps.
LLAMA = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "rms_norm_eps": 1e-3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}


def models():
    gpt2 = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=24,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_inner=72,
        layer_norm_epsilon=1e-3,
        bos_token_id=0,
        eos_token_id=0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    yield "gpt2", GPT2LMHeadModel, gpt2
    yield "llama", LlamaForCausalLM, LlamaConfig(**LLAMA, num_key_value_heads=4, tie_word_embeddings=False)
    yield "llama_grouped", LlamaForCausalLM, LlamaConfig(**LLAMA, num_key_value_heads=2, tie_word_embeddings=True)


def randomise(model):
    """Fresh weights are too regular (gains 1, biases 0): a wrong use of them would not show."""
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.dim() == 1:
                    center = 1.0 if "norm" in type(module).__name__.lower() and name == "weight" else 0.0
                    parameter.copy_(center + 0.4 * torch.rand_like(parameter) - 0.2)
                else:
                    fan_in = parameter.shape[0 if isinstance(module, Conv1D) else 1]
                    parameter.copy_(torch.randn_like(parameter) * fan_in**-0.5)


def loss_of(model, ids, targets):
    logits = model(input_ids=ids, use_cache=False).logits
    return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def tokens(*shape):
    return torch.randint(0, VOCAB_SIZE, shape)


def golden(name, kind, config, seed):
    torch.manual_seed(seed)
    model = kind(config).eval()
    randomise(model)
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()

    model = model.double()
    ids, targets = tokens(BATCH, LENGTH), tokens(BATCH, LENGTH)
    logits, loss = loss_of(model, ids, targets)
    loss.backward()
    out = {"ids": ids, "targets": targets, "logits": logits, "loss": loss}
    # Of tied weights this lists one, as the file does.
    out |= {f"gradient.{name}": x.grad.clone() for name, x in model.named_parameters()}

    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
    # Three batches in turn, so that the loss falls.
    train_ids = tokens(3, BATCH, LENGTH).repeat(4, 1, 1)[:STEPS]
    train_targets = tokens(3, BATCH, LENGTH).repeat(4, 1, 1)[:STEPS]
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        _, loss = loss_of(model, train_ids[step], train_targets[step])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    out |= {"train.ids": train_ids, "train.targets": train_targets, "train.losses": torch.stack(losses)}

    cast = lambda x: x.to(torch.uint32) if x.dtype == torch.int64 else x.detach().float()
    path = folder / "expected.safetensors"
    # One entry, because the order of several differs from run to run.
    save_file({k: cast(x).contiguous() for k, x in out.items()}, path, {"torch": torch.__version__})
    stored = (folder / "model.safetensors").stat().st_size
    print(f"{name}: {stored} + {path.stat().st_size} bytes, losses {[round(x.item(), 4) for x in losses]}")


if __name__ == "__main__":
    print(f"torch {torch.__version__} · transformers {transformers.__version__} · safetensors {safetensors.__version__}")
    for seed, (name, kind, config) in enumerate(models(), start=1):
        golden(name, kind, config, seed)
