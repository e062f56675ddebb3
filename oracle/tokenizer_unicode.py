"""Writes crates/tokenizer/tests/golden/unicode.json: what Hugging Face's `tokenizers` makes of every character.

Usage: python oracle/tokenizer_unicode.py

For each normaliser and each cutter, a CRC-32 per 4096 characters (surrogates left out): of the normalised texts, or of the
numbers of pieces into which `a`, the character and `b` are cut, a line each. Sequences of characters with marks follow, each
as it is after NFC, NFD, NFKC and NFKD.
"""

import json
import random
import zlib
from pathlib import Path

import tokenizers
from tokenizers import normalizers, pre_tokenizers

ROOT = Path(__file__).resolve().parent.parent
BLOCK = 4096


def bert(**on):
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**(off | on))


NORMALIZERS = {
    "NFC": normalizers.NFC(), "NFD": normalizers.NFD(), "NFKC": normalizers.NFKC(), "NFKD": normalizers.NFKD(),
    "Lowercase": normalizers.Lowercase(), "StripAccents": normalizers.StripAccents(), "Nmt": normalizers.Nmt(),
    "Strip": normalizers.Strip(), "BertClean": bert(clean_text=True), "BertAccents": bert(strip_accents=True),
    "BertIdeographs": bert(handle_chinese_chars=True),
}
CUTTERS = {
    "Punctuation": pre_tokenizers.Punctuation("isolated"), "BertPreTokenizer": pre_tokenizers.BertPreTokenizer(),
    "Digits": pre_tokenizers.Digits(True), "WhitespaceSplit": pre_tokenizers.WhitespaceSplit(),
}


def blocks(of_char):
    crcs = []
    for first in range(0, 0x110000, BLOCK):
        chars = (chr(c) for c in range(first, first + BLOCK) if not 0xD800 <= c < 0xE000)
        crcs.append(zlib.crc32("".join(of_char(c) + "\n" for c in chars).encode()))
    return crcs


def sequences():
    rng = random.Random(7)
    marks = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and normalizers.StripAccents().normalize_str(chr(c)) == ""]
    bases = [chr(c) for c in [*range(0x41, 0x7B), *range(0xC0, 0x250), *range(0x370, 0x400), *range(0x900, 0x980), *range(0x1100, 0x1200), *range(0xAC00, 0xAD00), *range(0xFB00, 0xFB50), *range(0x11380, 0x113F0), *range(0x105C0, 0x105F0)]]
    common = [chr(c) for c in [*range(0x300, 0x346), 0x3099, 0x309A, 0x1161, 0x11A8, 0x897, 0x1AC1, 0x113C9]]
    for _ in range(300):
        text = "".join(rng.choice(bases) + "".join(rng.choice(rng.choice([common, marks])) for _ in range(rng.randrange(5))) for _ in range(3))
        yield [text] + [NORMALIZERS[form].normalize_str(text) for form in ("NFC", "NFD", "NFKC", "NFKD")]


if __name__ == "__main__":
    golden = {"version": tokenizers.__version__}
    golden["normalized"] = {name: blocks(normalizer.normalize_str) for name, normalizer in NORMALIZERS.items()}
    count = lambda cutter: lambda c: str(len(cutter.pre_tokenize_str(f"a{c}b")))
    golden["cut"] = {name: blocks(count(cutter)) for name, cutter in CUTTERS.items()}
    golden["forms"] = list(sequences())
    path = ROOT / "crates/tokenizer/tests/golden/unicode.json"
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
