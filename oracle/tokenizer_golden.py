"""Writes crates/tokenizer/tests/golden/*.json: ids by Hugging Face's `tokenizers` and by tiktoken.

Usage: python oracle/tokenizer_golden.py [SHARED]

Loads the committed crates/tokenizer/tests/fixtures/*.tokenizer.json, which this project wrote. The
BPE vocabulary is also given to tiktoken, and both must agree. SHARED (default: ../shared beside the
repository) holds tiktoken_gold.jsonl.gz, of which a subset becomes gpt2.json.
"""

import gzip
import json
import sys
from pathlib import Path

import tiktoken
import tokenizers

ROOT = Path(__file__).resolve().parent.parent
CRATE = ROOT / "crates/tokenizer/tests"
SHARED = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared"
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
END = "<|endoftext|>"

TEXTS = [
    "", " ", "  ", "\n", "a", "é", "🙂", "\0\1\x7f",
    "Hello, how are you?",
    "Héllò hôw are ü? 🙃",
    f"Héllò hôw {END}{END} are ü? 🙃{END}",
    f"{END}", f" {END} ", f"a{END}b", f"\n{END}\n\n", "<|endoftext|", "<|endoftext<|endoftext|>|>",
    "it's we'll they've I'm you're he'd can't 'S ''s 'tis",
    "  leading, trailing  ", "tabs\tand\r\nlines\r\n\r\n  indented\n    more\n",
    "x = 3.14e10; y[0] += 42 // 7", "2024-11-24T10:47:00Z", "ⅧⅨ ½ ٣٤٥ 一二三",
    "The quick brown fox jumps over the lazy dog. " * 5,
    "the theme then them there these they thesis", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 5,
    "ababababababab" * 20, "\u00a0nbsp\u3000wide\u2003em\u0085nel\u200bzero", "\u2028\u2029 \u202f",
    "吾輩は猫である。名前はまだ無い。", "Größe ẞ ﬁ ĳ", "Ελληνικά Русский עברית العربية हिन्दी ไทย",
    "e\u0301 decomposed, 👩‍👩‍👧‍👦 family, 🇩🇪 flag", "Ġ Ċ literally", "https://example.com/a?b=c&d=%20#e",
    "---===***___", "\ufffd\ufeff", "𝒳𝔘 𠀀𪛖", "<html>\n\t<p class=\"x\">y</p>\n</html>",
    "iron cement is a ready for use paste which is laid as a fillet by putty knife",
]


def write(name, cases):
    path = CRATE / "golden" / f"{name}.json"
    versions = {"tokenizers": tokenizers.__version__, "tiktoken": tiktoken.__version__}
    head = json.dumps({"versions": versions})[:-1]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    path.write_text(f'{head}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(cases)} cases, {path.stat().st_size} bytes")


def as_tiktoken(fixture):
    """The same vocabulary in tiktoken, with its ids by ours."""
    byte_of_char = tiktoken_byte_of_char()
    model = json.loads(fixture.read_text(encoding="utf-8"))["model"]
    decode = lambda key: bytes(byte_of_char[c] for c in key)
    ranks, ours = {}, []
    ordered = [k for k in model["vocab"] if len(k) == 1] + [m.replace(" ", "") for m in model["merges"]]
    for key in ordered:
        ranks[decode(key)] = len(ranks)
        ours.append(model["vocab"][key])
    special = {END: len(ranks)}
    ours.append(model["vocab"][END])
    return tiktoken.Encoding("ours", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special), ours


def tiktoken_byte_of_char():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


def fixture_cases(name):
    fixture = CRATE / "fixtures" / f"{name}.tokenizer.json"
    huggingface = tokenizers.Tokenizer.from_file(str(fixture))
    other = as_tiktoken(fixture) if name == "corpus-500" else None
    for text in TEXTS:
        try:
            ids = huggingface.encode(text).ids
        except Exception as error:  # what `tokenizers` raises has no class of its own
            print(f"  {name} refuses {text[:20]!r}: {error}")
            yield {"text": text, "ids": None, "decoded": None}
            continue
        if other is not None:
            encoding, ours = other
            by_tiktoken = [ours[id] for id in encoding.encode(text, allowed_special="all")]
            assert ids == by_tiktoken, (text, ids, by_tiktoken)
        decoded = huggingface.decode(ids, skip_special_tokens=False)
        yield {"text": text, "ids": ids, "decoded": decoded}


def gpt2_cases(budget=90_000):
    """The shortest texts of the gold file, as many as fit."""
    with gzip.open(SHARED / "data/02_tokenizer/tiktoken_gold.jsonl.gz", "rt", encoding="utf-8") as lines:
        gold = [json.loads(line) for line in lines]
    cases = []
    for row in sorted(gold, key=lambda row: len(row["text"].encode())):
        case = {"name": row["name"], "text": row["text"], "ids": row["r50k_base"]}
        budget -= len(json.dumps(case, ensure_ascii=False).encode())
        if budget < 0:
            break
        cases.append(case)
    return cases


if __name__ == "__main__":
    print("tokenizers", tokenizers.__version__, "· tiktoken", tiktoken.__version__)
    for name in ["corpus-500", "corpus-characters", "bytes"]:
        write(name, list(fixture_cases(name)))
    write("gpt2", gpt2_cases())
