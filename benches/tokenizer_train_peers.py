"""Training a BPE vocabulary: cupola beside gigatoken and Hugging Face's tokenizers, in turn, on the same text.

    python3 benches/tokenizer_train_peers.py CUPOLA TEXT [VOCAB_SIZE] [RUNS]

Each run is a process of its own, so that peak memory is of one trainer alone; times are inside of the process for the
peers (their imports are left out) and of the whole process for cupola. Documents are separated by <|endoftext|>.
Needs: pip install gigatoken tokenizers
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time

END = "<|endoftext|>"

GIGATOKEN = """
import sys, time, gigatoken
start = time.time()
gigatoken.train_bpe(gigatoken.TextFileSource([sys.argv[1]]), int(sys.argv[2]), ["<|endoftext|>"])
print("seconds", time.time() - start)
"""

TOKENIZERS = """
import sys, time
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
trainer = trainers.BpeTrainer(vocab_size=int(sys.argv[2]), special_tokens=["<|endoftext|>"], show_progress=False,
                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
start = time.time()
tokenizer.train([sys.argv[1]], trainer)
print("seconds", time.time() - start)
"""


def run(command):
    """Wall seconds, processor seconds and peak memory in MB of a process."""
    start = time.time()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.time() - start
    if status:
        sys.exit(f"failed: {command[0]} {command[1]}")
    own = [float(line.split()[1]) for line in output.splitlines() if line.startswith("seconds ")]
    return (own or [wall])[0], usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def main():
    cupola, text = sys.argv[1], sys.argv[2]
    size = sys.argv[3] if len(sys.argv) > 3 else "32000"
    runs = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="true")
    os.environ.update(environment)
    folder = tempfile.mkdtemp()
    trainers = {
        "cupola": [cupola, "tokenizer", "train", "--input", text, "--vocab-size", size, "--special-token", END,
                   "--output", os.path.join(folder, "tokenizer.json")],
        "gigatoken": [sys.executable, "-c", GIGATOKEN, text, size],
        "tokenizers": [sys.executable, "-c", TOKENIZERS, text, size],
    }
    print(f"{text}: {os.path.getsize(text):,} bytes, {size} ids, {runs} runs in turn, {os.cpu_count()} processors")
    results = {name: [] for name in trainers}
    for _ in range(runs):
        for name, command in trainers.items():
            results[name].append(run(command))
    for name, of in results.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*of))
        paired = statistics.median(other[0] / ours[0] for other, ours in zip(of, results["cupola"]))
        print(f"{name:11} {wall:6.2f} s wall (median), {cpu:6.2f} s of processors, {memory:6.0f} MB, "
              f"{paired:5.2f} times the wall of cupola (median of pairs)")


main()
