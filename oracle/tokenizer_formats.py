"""Writes crates/tokenizer/tests/golden/formats/: small tokenizers of every kind of file, and what their ids are.

Usage: python oracle/tokenizer_formats.py

Needs `tokenizers`, `sentencepiece`, `tiktoken` and `zstandard`. Each tokenizer is trained on a part of
assets/tinyshakespeare.txt.zst and the texts below, written as a file, read back by the program whose format it is, and asked
for the ids and the decoded text of each text. NAME.json holds the cases of the file beside it. (The trainers of WordPiece do not
give the same vocabulary each time.)
"""

import base64
import io
import json
import subprocess
import tempfile
from pathlib import Path

import sentencepiece
import tiktoken
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tokenizer_golden import TEXTS as PLAIN_TEXTS

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "crates/tokenizer/tests/golden/formats"
TEXTS = PLAIN_TEXTS + [
    "<s>a</s> b</s>", "a <mask> b<mask>c", "x<mask>\n\t<mask>y", "single word wordy awordb word", "Ａ ＡＢＣ ﬁne ﬃ x² ½ ｶﾞ", "İstanbul ǅ ΑΣ",
    "a\u0301\u0301 e\u0301 A\u030a \u1e9b\u0323 \ud55c\uae00 \u1112\u1161\u11ab", "\u200b\u200d\ufeff\u00ad soft", "a\u2581b \u2581 c", "▁ ▁▁a▁",
    "  two  spaces   three    four", "\ttab\n\nnewlines\r\n", "<0x41><0x0A>", "日本語 text 中文 한국어", "don't do not I'm n't 's . , ? !",
    "12345 6 78 ٣٤٥ 1,234.5", "𝒳😀🏳️‍🌈👩‍👩‍👧", "q̇ ộ ﷺ ㎏ ①", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "<extra_id_0> x <extra_id_1>",
    "[CLS] hello [SEP] [MASK] ##ing [UNK]", "HELLO Wörld ÉCOLE", "<unk> <unk><unk> x", "\x00\x01\x02\x1f\x7f\x80\x9f", "word", " word", "word ", "YESTERDAY yesterday",
    "supercalifragilisticexpialidocious " * 3, "x" * 120, "(a)[b]{c}<d>«e»„f“", "don’t—stop…", "line one\nline two\n\n\nline three   ", "ᏣᎳᎩ ⴰⵎⴰⵣⵉⵖ ꦧꦱꦗꦮ",
    "\u0344\u0345\u1fbf ͅα", "\u11382\u113c9 \u0897a", "ünïcödé ñandú", "a<b", "<|", "http://x.y/z?q=1&r=%20",
]


def corpus():
    text = subprocess.run(["zstd", "-dc", ROOT / "assets/tinyshakespeare.txt.zst"], check=True, capture_output=True).stdout.decode()
    return text[:120_000].split("\n") + [text for text in TEXTS if "\0" not in text and text.strip()]


def write(name, encode, decode, pair=None, program=tokenizers, plain=None):
    """`encode`: text to ids without and with the tokens around it; `plain`: to text without special tokens."""
    cases = []
    for text in TEXTS:
        ids, framed = encode(text)
        case = {"text": text, "ids": ids, "framed": framed, "decoded": decode(ids)}
        if plain:
            case["plain"] = plain(framed)
        cases.append(case)
    path = FOLDER / f"{name}.json"
    head = json.dumps({"program": program.__name__, "version": program.__version__, "pair": pair})[:-1]
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    path.write_text(f'{head}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(cases)} cases, {path.stat().st_size} bytes")


def save(name, tokenizer):
    """Writes a tokenizer.json and the ids by the tokenizer that is read back from it."""
    path = FOLDER / f"{name}.tokenizer.json"
    tokenizer.save(str(path), pretty=False)
    tokenizer = Tokenizer.from_file(str(path))
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.encode(text).ids

    pair = tokenizer.encode("first text", "second").ids
    write(name, encode, lambda ids: tokenizer.decode(ids, skip_special_tokens=False), pair, plain=tokenizer.decode)
    return tokenizer


def byte_level(name, pre_tokenizer, normalizer=None, post_processor=None, added=(), ignore_merges=False, vocab_size=500):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>", "<|endoftext|>"], show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = post_processor or processors.ByteLevel(trim_offsets=False)
    tokenizer.add_tokens(list(added))
    tokenizer.model.ignore_merges = ignore_merges
    return save(name, tokenizer)


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def bytes_end(**options):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, **options)


def byte_level_files():
    split = pre_tokenizers.Split
    byte_level("gpt2", pre_tokenizers.ByteLevel(add_prefix_space=False))
    byte_level(
        "neox", pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC(),
        added=[AddedToken("    ", normalized=True), AddedToken("  ", normalized=True), AddedToken("q\u0307", normalized=True), AddedToken("|||MAIL|||", normalized=False)],
    )
    byte_level(
        "roberta", pre_tokenizers.ByteLevel(add_prefix_space=True), post_processor=processors.RobertaProcessing(("</s>", 1), ("<s>", 0)),
        added=[AddedToken("<mask>", lstrip=True, normalized=False, special=True)],
    )
    byte_level(
        "flags", pre_tokenizers.ByteLevel(add_prefix_space=False),
        added=[
            AddedToken("word", single_word=True), AddedToken("<mask>", lstrip=True, rstrip=True), AddedToken("a<", normalized=False),
            AddedToken("<b", normalized=True), AddedToken("two", rstrip=True), AddedToken("newlines", lstrip=True, single_word=True),
        ],
    )
    byte_level(
        "llama3", pre_tokenizers.Sequence([split(Regex(LLAMA3), "isolated"), bytes_end()]), ignore_merges=True,
        post_processor=processors.Sequence([
            processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 0)]),
        ]),
    )
    byte_level("bloom", pre_tokenizers.Sequence([split(Regex(BLOOM), "isolated"), bytes_end()]))
    byte_level("digits", pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]))
    byte_level(
        "sequence",
        pre_tokenizers.Sequence([
            pre_tokenizers.Punctuation("contiguous"), split(" ", "merged_with_next"), split(Regex("[0-9]{2}"), "merged_with_previous"),
            pre_tokenizers.Digits(False), pre_tokenizers.ByteLevel(add_prefix_space=True),
        ]),
        normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    )
    byte_level("whole", bytes_end(), vocab_size=400)


def characters_bpe(name, model, normalizer, pre_tokenizer, decoder, added=(), post_processor=None):
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    if decoder:
        tokenizer.decoder = decoder
    if post_processor:
        tokenizer.post_processor = post_processor
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ["<unk>", "<s>", "</s>"]])
    tokenizer.add_tokens(list(added))
    return save(name, tokenizer)


def sentencepiece_model(name, **options):
    model = io.BytesIO()
    options = {"vocab_size": 600, "num_threads": 1, "hard_vocab_limit": False, "character_coverage": 0.999, "minloglevel": 2} | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus()), model_writer=model, **options)
    path = FOLDER / f"{name}.model"
    path.write_bytes(model.getvalue())
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    write(name, lambda text: (processor.encode(text), None), processor.decode, program=sentencepiece)
    return processor


def rules(path):
    """A few rules of SentencePiece's nmt_nfkc; all of them are 240 kB."""
    table = {"\u00a0": " ", "\t": " ", "\n": " ", "\r": " ", "\u3000": " ", "\ufb01": "fi", "\ufb03": "ffi", "\u00b2": "2", "\uff21": "A", "\uff22": "B", "\uff23": "C", "e\u0301": "\u00e9", "\u200b": "", "\ufeff": " ", "\u00bd": "1/2", "\uff76\uff9e": "\u30ac", "A\u030a": "\u00c5", "\u2460": "1", "\u338f": "kg", "\u00ad": ""}
    code = lambda text: " ".join(f"{ord(c):X}" for c in text)
    path.write_text("".join(f"{code(a)}\t{code(b)}\n" for a, b in table.items()))
    return str(path)


def sentencepiece_files(folder):
    tsv = rules(Path(folder) / "rules.tsv")
    bpe = sentencepiece_model("llama", model_type="bpe", byte_fallback=True, vocab_size=900, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True)
    sentencepiece_model("bpe", model_type="bpe", normalization_rule_tsv=tsv, user_defined_symbols=["<mask>", "word"], control_symbols=["<ctl>"])
    unigram = sentencepiece_model("unigram", model_type="unigram", normalization_rule_tsv=tsv, user_defined_symbols=["<mask>", "word"], byte_fallback=False)
    sentencepiece_model("unigram-bytes", model_type="unigram", vocab_size=900, normalization_rule_name="identity", byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False)
    sentencepiece_model("suffix", model_type="unigram", normalization_rule_name="identity", treat_whitespace_as_suffix=True)
    return bpe, unigram


def vocab_and_merges(processor):
    """As Hugging Face converts a SentencePiece model: every way to cut a piece into two is a merge."""
    pieces = {processor.id_to_piece(id): id for id in range(processor.get_piece_size())}
    merges = []
    for piece, id in pieces.items():
        if processor.is_byte(id) or processor.is_control(id) or processor.is_unknown(id):
            continue
        local = [(piece[:at], piece[at:]) for at in range(1, len(piece)) if piece[:at] in pieces and piece[at:] in pieces]
        merges += [(processor.get_score(id), pieces[a], pieces[b], a, b) for a, b in local]
    merges.sort(key=lambda merge: (-merge[0], merge[1], merge[2]))
    return pieces, [(a, b) for *_, a, b in merges]


def llama_decoder(strip=1):
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", strip, 0)] if strip else []))


def text_files(bpe, unigram):
    vocab, merges = vocab_and_merges(bpe)
    bos = processors.TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 1)])
    model = lambda **options: models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", **options)
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    characters_bpe("llama2", model(fuse_unk=True, byte_fallback=True), spaces, None, llama_decoder(), post_processor=bos, added=[AddedToken("word", normalized=True), AddedToken("<mask>", normalized=False, lstrip=True)])
    characters_bpe("mistral", model(fuse_unk=True, byte_fallback=True), None, pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False), llama_decoder(), post_processor=bos)
    characters_bpe("unfused", model(fuse_unk=False), normalizers.Replace(Regex(" +"), "▁"), None, None)
    characters_bpe("fused", model(fuse_unk=True), None, pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True), decoders.Metaspace())

    pieces = [(unigram.id_to_piece(id), unigram.get_score(id)) for id in range(unigram.get_piece_size())]
    charsmap = charsmap_of(FOLDER / "unigram.model")
    t5 = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    t5.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(False, True)])
    t5.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always")])
    t5.decoder = decoders.Metaspace("▁")
    t5.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 2)])
    t5.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ["<unk>", "</s>", "<extra_id_0>", "<extra_id_1>"]])
    save("t5", t5)

    for name, lowercase in [("bert", True), ("bert-cased", False)]:
        bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        bert.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        bert.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False))
        bert.decoder = decoders.WordPiece("##", cleanup=lowercase)
        bert.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        bert.add_tokens([AddedToken("Yesterday", normalized=True, single_word=True)])
        save(name, bert)

    plain = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    plain.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Nmt(), normalizers.Strip()])
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]"], show_progress=False))
    save("wordpiece-whitespace", plain)


def charsmap_of(path):
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    model = protobuf.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model.normalizer_spec.precompiled_charsmap


def tiktoken_file():
    """Ranks in the order of merges, as OpenAI's files have them, from the tokenizer `gpt2` above."""
    byte_of_char = {c: b for b, c in enumerate_alphabet()}
    model = json.loads((FOLDER / "gpt2.tokenizer.json").read_text())["model"]
    decode = lambda key: bytes(byte_of_char[c] for c in key)
    ordered = [bytes([b]) for b in range(256)] + [decode(a) + decode(b) for a, b in model["merges"]]
    ranks = {token: rank for rank, token in enumerate(ordered)}
    lines = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    (FOLDER / "small.tiktoken").write_text(lines)
    special = {"<|endoftext|>": len(ranks), "<mask>": len(ranks) + 3}
    encoding = tiktoken.Encoding("small", pat_str=GPT2, mergeable_ranks=ranks, special_tokens=special)
    write("small", lambda text: (encoding.encode(text, allowed_special="all"), None), encoding.decode, program=tiktoken)


def enumerate_alphabet():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [(b, chr(b)) for b in printable] + [(b, chr(256 + n)) for n, b in enumerate(others)]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    byte_level_files()
    with tempfile.TemporaryDirectory() as folder:
        text_files(*sentencepiece_files(folder))
    tiktoken_file()
