#!/usr/bin/env python3
"""Make the text that the repository ships: assets/{books.jsonl.zst, held_out_book.txt.zst, tinyshakespeare.txt.zst, README.md}.

    python3 oracle/make_book_pack.py BOOKS.jsonl.zst TINYSHAKESPEARE.txt [OUTPUT_FOLDER]

BOOKS.jsonl.zst has one work per line with the fields id, source, title, author, year, license, text.
Whole works are taken, unaltered; which ones is the list WORKS below, so the same input and the same zstd
give the same bytes. The held-out book is checked against the pack by shared 13-grams of words.
Needs Python 3.11 (standard library) and the command `zstd`.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

# Ids without the leading "classic/" and the trailing ".md". Order of the file: this order.
HELD_OUT = "Jules Verne/Journey to the Center of the Earth"
WORKS = """
Jane Austen/Pride and Prejudice
Emily Bronte/Wuthering Heights
Anne Bronte/Agnes Grey
Charles Dickens/A Christmas Carol
Charles Dickens/Oliver Twist
Charles Dickens/Hard Times
Robert Louis Stevenson/Treasure Island
Robert Louis Stevenson/Kidnapped
Robert Louis Stevenson/The Strange Case of Dr. Jekyll and Mr. Hyde
Arthur Conan Doyle/A Study in Scarlet
Arthur Conan Doyle/The Sign of the Four
Arthur Conan Doyle/The Boscombe Valley Mystery
Arthur Conan Doyle/The Five Orange Pips
Arthur Conan Doyle/The Adventure of the Noble Bachelor
Arthur Conan Doyle/The Adventure of the Copper Beeches
Arthur Conan Doyle/The Gloria Scott
Arthur Conan Doyle/The Musgrave Ritual
Arthur Conan Doyle/The Greek Interpreter
Arthur Conan Doyle/The Naval Treaty
Oscar Wilde/The Picture of Dorian Gray
Oscar Wilde/The Happy Prince & Other Tales
Wilkie Collins/The Moonstone
Thomas Hardy/Tess of the d'Urbervilles
Thomas Hardy/The Return of the Native
Henry James/The Turn of the Screw
Mark Twain/A Connecticut Yankee in King Arthur's Court
Mark Twain/Life on the Mississippi
H. Rider Haggard/She
H.G. Wells/The First Men in the Moon
Jules Verne/Twenty Thousand Leagues Under the Sea
Jules Verne/Robur the Conqueror
Edgar Allan Poe/The Fall of the House of Usher
Edgar Allan Poe/A Descent into the Maelström
Washington Irving/The Legend of Sleepy Hollow
Gustave Flaubert/Madame Bovary
Honoré de Balzac/Father Goriot
Fyodor Dostoyevsky/Notes from Underground
Ivan Turgenev/Fathers and Sons
Alexander Pushkin/The Queen of Spades
Alexandre Dumas/The Man in the Iron Mask
Robert W. Chambers/The King in Yellow
Louisa May Alcott/Jo's Boys
Johanna Spyri/Heidi
Carlo Collodi/The Adventures of Pinocchio
Rudyard Kipling/The Jungle Book
Rudyard Kipling/Kim
Kenneth Grahame/The Wind in the Willows
Jonathan Swift/Gulliver's Travels
Emma Orczy/The Scarlet Pimpernel
G.K. Chesterton/The Man Who Was Thursday
""".strip().splitlines()

N_GRAM = 13  # words; the length that GPT-3 (Brown et al., 2020, appendix C) uses to look for contamination
MAX_OVERLAP = 0.001
MAX_TOTAL_BYTES = 6_000_000
# A window of 8 MiB is what any zstd reader accepts, in 8 MiB of memory.
ZSTD = ["zstd", "--ultra", "-22", "--zstd=wlog=23", "--single-thread", "--no-progress", "-c"]


def compress(data: bytes) -> bytes:
    return subprocess.run(ZSTD, input=data, stdout=subprocess.PIPE, check=True).stdout


def read_books(path: str) -> dict:
    raw = subprocess.run(["zstd", "-dc", "--long=27", path], stdout=subprocess.PIPE, check=True).stdout
    return {book["id"]: book for book in map(json.loads, raw.splitlines())}


def word_n_grams(text: str) -> set:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + N_GRAM]) for i in range(len(words) - N_GRAM + 1)}


def overlap(held_out: dict, works: list) -> tuple:
    """The share of the held-out book's distinct n-grams that occur in the pack, and where most of them do."""
    wanted = word_n_grams(held_out["text"])
    found = [(len(wanted & word_n_grams(work["text"])), work["title"]) for work in works]
    seen = set()
    for work in works:
        seen |= wanted & word_n_grams(work["text"])
    return len(seen) / len(wanted), len(seen), len(wanted), max(found)


def table_row(book: dict) -> str:
    size = len(book["text"].encode())
    return f"| {book['title']} | {book['author']} | {book['year']} | {size:,} |"


def readme(works, held_out, held_out_overlap, tiny, files) -> str:
    fraction, n_shared, n_grams, _ = held_out_overlap
    zstd_version = subprocess.run(["zstd", "--version"], stdout=subprocess.PIPE, check=True).stdout.decode()
    zstd_version = re.search(r"v[0-9.]+[0-9]", zstd_version)[0]
    total = sum(len(w["text"].encode()) for w in works)
    lines = [
        "# Texts that ship with Cupola",
        "",
        "| file | bytes | holds | sha256 |",
        "| --- | ---: | --- | --- |",
        *(f"| `{name}` | {len(data):,} | {holds} | `{hashlib.sha256(data).hexdigest()}` |" for name, holds, data in files),
        "",
        "Made by `python3 oracle/make_book_pack.py BOOKS.jsonl.zst TINYSHAKESPEARE.txt`, which also writes this file, "
        f"with zstd {zstd_version} (level 22, window 2^23). Works are whole and unaltered.",
        "",
        "## Sources and licences",
        "",
        "- Books: github [mlschmitt/classic-books-markdown](https://github.com/mlschmitt/classic-books-markdown) at commit "
        "`944882722e9a`. It is one of three repositories of the collection that the pack was chosen from; the others, "
        "computationalstylistics/100_english_novels at `143e601875d7` and COST-ELTeC/ELTeC-eng at `3db3b6738a83`, "
        "gave no work to it.",
        "  The texts are in the public domain in the United States, where everything published before 1931 is: the year is "
        "that of the work. The source dates no translation into English and names few translators (C. Garnett, C. J. Hogarth, "
        "E. P. Stork, C. Della Chiesa), all of whose versions are from before 1931.",
        "- `tinyshakespeare.txt.zst`: github [karpathy/char-rnn](https://github.com/karpathy/char-rnn) at commit "
        f"`6f9487a6fe5b`, `data/tinyshakespeare/input.txt`, {len(tiny):,} bytes, public domain.",
        "",
        "## Held out for validation",
        "",
        "| title | author | year | bytes of text |",
        "| --- | --- | ---: | ---: |",
        table_row(held_out),
        "",
        f"Of its {n_grams:,} distinct {N_GRAM}-grams of words (case and punctuation ignored) {n_shared:,} occur in the "
        f"training pack: {100 * fraction:.4f} %.",
        "",
        f"## Training pack: {len(works)} works, {total:,} bytes of text",
        "",
        "One JSON object a line: `id`, `title`, `author`, `year`, `source`, `license`, `text` (Markdown: `##` before "
        "chapter headings, `_` or `*` for emphasis).",
        "",
        "| title | author | year | bytes of text |",
        "| --- | --- | ---: | ---: |",
        *map(table_row, works),
        "",
    ]
    return "\n".join(lines)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    output = Path(sys.argv[3]) if len(sys.argv) == 4 else Path(__file__).resolve().parent.parent / "assets"
    books = read_books(sys.argv[1])
    tiny = Path(sys.argv[2]).read_bytes()
    held_out = books[f"classic/{HELD_OUT}.md"]
    works = [books[f"classic/{work}.md"] for work in WORKS]
    assert len(set(WORKS)) == len(WORKS) and HELD_OUT not in WORKS

    held_out_overlap = overlap(held_out, works)
    print(f"overlap of {N_GRAM}-grams: {held_out_overlap}")
    if held_out_overlap[0] > MAX_OVERLAP:
        sys.exit(f"the held-out book is not held out: {held_out_overlap}")

    fields = ["id", "title", "author", "year", "source", "license", "text"]
    lines = [json.dumps({field: work[field] for field in fields}, ensure_ascii=False) for work in works]
    pack = "".join(line + "\n" for line in lines).encode()
    held_out_text = held_out["text"].encode()
    files = [
        ("books.jsonl.zst", f"{len(works)} works, {len(pack):,} bytes of JSON lines", compress(pack)),
        ("held_out_book.txt.zst", f"one novel, {len(held_out_text):,} bytes", compress(held_out_text)),
        ("tinyshakespeare.txt.zst", f"{len(tiny):,} bytes", compress(tiny)),
    ]
    total = sum(len(data) for _, _, data in files)
    print(f"text {len(pack):,} bytes; compressed {[(name, len(data)) for name, _, data in files]}, total {total:,}")
    if total > MAX_TOTAL_BYTES:
        sys.exit(f"{total:,} bytes are more than {MAX_TOTAL_BYTES:,}")
    output.mkdir(parents=True, exist_ok=True)
    for name, _, data in files:
        (output / name).write_bytes(data)
    (output / "README.md").write_text(readme(works, held_out, held_out_overlap, tiny, files), encoding="utf-8")


if __name__ == "__main__":
    main()
