"""The whole table of encoding speed beside gigatoken: texts, vocabularies, threads, cold and warm; and texts that are hard.

    pip install gigatoken
    cargo bench -p tokenizer --bench encode --no-run         # prints the path of the executable
    python3 benches/encode_table.py EXECUTABLE --texts books=books.txt code=code.txt ...
        --tokenizers GPT-2=gpt2.tokenizer.json cl100k=cl100k_base.tiktoken ... [--rounds 2] [--threads 1 2]

The documents of a text are separated by <|endoftext|>. A round is a fresh process for each of the two, one after the
other, so that a busy machine is equally busy for both: it encodes all documents cold, by a tokenizer that has encoded
nothing yet, and then three times warm. Vocabularies are loaded, and Python's modules imported, before the clock starts.
Each gives back all ids in one piece of memory. Printed are medians of MB/s by the clock, what we are times gigatoken, and
the same by the processor time of the process, which a busy machine changes less.

Hard texts are made here, 10 MB each: one letter, spaces, random bytes. "new" is the first 10 MB of the first text, cold.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

SEPARATOR = b"<|endoftext|>"
N_WARM = 3


def gigatoken_child(tokenizer, text, threads):
    """Prints what the executable prints."""
    import gigatoken

    def load():
        is_ranks = tokenizer.endswith(".tiktoken")
        return gigatoken.Tokenizer.from_tiktoken(tokenizer) if is_ranks else gigatoken.Tokenizer(tokenizer)

    load().encode_batch([b"a b"], parallel=False)  # what is imported on the first call
    documents = [document for document in open(text, "rb").read().split(SEPARATOR) if document]
    n_bytes = sum(map(len, documents))
    giga = load()
    for i in range(1 + N_WARM):
        wall, processor = time.perf_counter(), time.process_time()
        ids = giga.encode_batch(documents, parallel=threads > 1)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        del ids
        name = "warm" if i else "cold"
        print(f"{name} {n_bytes / wall / 1e6:.1f} MB/s, by processor time {n_bytes / processor / 1e6:.1f};")


def run(command, threads, limit):
    """The rates of each kind: pairs by the clock and by processor time. None if it takes too long."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    try:
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=limit).stdout
    except subprocess.TimeoutExpired:
        return None
    rates = {"cold": [], "warm": []}
    for line in output.splitlines():
        words = line.replace(";", "").split()
        if words and words[0] in rates:
            rates[words[0]].append((float(words[1]), float(words[6])))
    return rates


def both(options, tokenizer, text, threads, rounds, limit=60):
    commands = {
        "ours": [options.executable, tokenizer, text, str(threads), "1", str(N_WARM)],
        "gigatoken": [sys.executable, __file__, "--gigatoken", tokenizer, text, str(threads)],
    }
    found = {name: {"cold": [], "warm": []} for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            rates = run(command, threads, limit) if found[name] else None
            if rates is None:
                found[name] = None
                continue
            for kind in rates:
                found[name][kind] += rates[kind]
    return found


def median(rates):
    return [statistics.median(rate) for rate in zip(*rates)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("executable")
    parser.add_argument("--texts", nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--tokenizers", nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    start = time.perf_counter()
    texts = [text.split("=", 1) for text in options.texts]
    tokenizers = [tokenizer.split("=", 1) for tokenizer in options.tokenizers]

    print("| vocabulary, text, threads | gigatoken cold | ours cold | times (by processor) | gigatoken warm | ours warm | times (by processor) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, tokenizer in tokenizers:
        for text_name, text in texts:
            for threads in options.threads:
                found = both(options, tokenizer, text, threads, options.rounds)
                cells = []
                for kind in ["cold", "warm"]:
                    giga, giga_cpu = median(found["gigatoken"][kind])
                    ours, ours_cpu = median(found["ours"][kind])
                    cells += [f"{giga:.0f}", f"{ours:.0f}", f"{ours / giga:.2f} ({ours_cpu / giga_cpu:.2f})"]
                print(f"| {name}, {text_name}, {threads} | " + " | ".join(cells) + " |", flush=True)

    print("\n| 10 MB, cold, 1 thread, MB/s | " + " | ".join(f"{name}: ours / gigatoken" for name, _ in tokenizers) + " |")
    print("| --- |" + " ---: |" * len(tokenizers))
    n_bytes = 10_000_000
    new = open(texts[0][1], "rb").read(n_bytes).replace(SEPARATOR, b"\n")
    random.seed(1)
    hard = {"new": new, "one letter": b"a" * n_bytes, "spaces": b" " * n_bytes, "random bytes": random.randbytes(n_bytes)}
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        for text_name, text in hard.items():
            path = os.path.join(folder, "text")
            with open(path, "wb") as file:
                file.write(text)
            cells = []
            for name, tokenizer in tokenizers:
                found = both(options, tokenizer, path, 1, 1, limit=15)
                ours = found["ours"]["cold"][0][0]
                rates[text_name, name] = ours
                giga = f"{found['gigatoken']['cold'][0][0]:.0f}" if found["gigatoken"] else "over 15 s"
                slower = f" (new is {rates['new', name] / ours:.1f} times as fast)" if text_name != "new" else ""
                cells.append(f"{ours:.0f} / {giga}{slower}")
            print(f"| {text_name} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{options.rounds} rounds, {time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--gigatoken"]:
        gigatoken_child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
