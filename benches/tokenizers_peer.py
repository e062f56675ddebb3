"""Encoding speed beside gigatoken, Hugging Face tokenizers and tiktoken: same text, same threads, medians.

    pip install gigatoken tokenizers tiktoken
    cargo bench -p tokenizer --bench encode --no-run         # prints the path of the executable
    python3 benches/tokenizers_peer.py EXECUTABLE TOKENIZER TEXT [THREADS [ROUNDS]]

TOKENIZER is a tokenizer.json, or a .tiktoken file of OpenAI (then tiktoken takes part; it wants
TIKTOKEN_CACHE_DIR where there is no network). The documents of TEXT are separated by <|endoftext|>.

The rounds of all are interleaved, so that a busy machine is equally busy for all. Cold: a tokenizer that has
encoded nothing yet; warm: the same one again. Each is given the documents in memory and gives back all ids.
Rates are by the clock and, in brackets, by the processor time of the process, which a busy machine changes
less.
"""

import os
import statistics
import subprocess
import sys
import time

executable, path, text_path = sys.argv[1:4]
threads = int(sys.argv[4]) if len(sys.argv) > 4 else os.cpu_count()
rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 5
os.environ["RAYON_NUM_THREADS"] = str(threads)
os.environ["TOKENIZERS_PARALLELISM"] = str(threads > 1).lower()

import gigatoken
import tiktoken
import tokenizers

data = open(text_path, "rb").read()
documents = [document for document in data.split(b"<|endoftext|>") if document]
strings = [document.decode() for document in documents]
n_bytes = sum(map(len, documents))
is_ranks = path.endswith(".tiktoken")
rates = {}


def measure(name, encode):
    wall, processor = time.perf_counter(), time.process_time()
    result = encode()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    del result
    rates.setdefault(name, []).append((n_bytes / wall / 1e6, n_bytes / processor / 1e6))


def gigatoken_round():
    giga = gigatoken.Tokenizer.from_tiktoken(path) if is_ranks else gigatoken.Tokenizer(path)
    for name in ["gigatoken cold", "gigatoken warm", "gigatoken warm"]:
        measure(name, lambda: giga.encode_batch(documents, parallel=threads > 1))


def ours_round():
    arguments = [executable, path, text_path, str(threads), "1", "2"]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    for line in output.splitlines():
        words = line.replace(";", "").split()
        if words[0] in ("cold", "warm"):
            rates.setdefault(f"cupola {words[0]}", []).append((float(words[1]), float(words[6])))


def peers_round():
    if is_ranks:
        encoding = tiktoken.get_encoding(os.path.basename(path).removesuffix(".tiktoken"))
        measure("tiktoken", lambda: encoding.encode_ordinary_batch(strings, num_threads=threads))
    else:
        tokenizer = tokenizers.Tokenizer.from_file(path)
        measure("tokenizers", lambda: tokenizer.encode_batch_fast(strings, add_special_tokens=False))


for i in range(rounds):
    gigatoken_round()
    ours_round()
    if i < 2:  # they are slow, and vary little
        peers_round()

print(f"{os.path.basename(path)}, {os.path.basename(text_path)}: {n_bytes:,} bytes, {threads} threads, medians of {rounds} rounds")
medians = {name: tuple(statistics.median(rate) for rate in zip(*found)) for name, found in rates.items()}
for name, (wall, processor) in medians.items():
    print(f"{name:16} {wall:7.0f} MB/s ({processor:.0f})")
for kind in ["cold", "warm"]:
    (ours, ours_cpu), (giga, giga_cpu) = medians[f"cupola {kind}"], medians[f"gigatoken {kind}"]
    print(f"{kind}: {ours / giga:.2f} times gigatoken ({ours_cpu / giga_cpu:.2f} by processor time)")
