#!/usr/bin/env python3
"""Makes the tokenizer's test data with Hugging Face's `tokenizers` package.

    tokenizer_oracle.py repo MODEL_DIR       the files of tests/data/tokenizers
    tokenizer_oracle.py fuzz TOKENIZER.json OUT.json --count N --seed S

A golden file has {"tokenizer": path, "cases": [...]}; the path is relative to the golden file, or
to models/. A case is {"text" or "hex", "ids", "plain", "added"}: the ids with special tokens
recognised, with special tokens spelled out, and with those of the post-processor; the last two only
where they differ from the first. Or {"decode": ids, "text", "skip"}: the text with and without
special tokens. tests/test_tokenizer.c reads them.
"""
import argparse
import json
import os
import random

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "tests", "data", "tokenizers")

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# GPT-4o's, as in the tokenizers of newer models: \p{Lu} and friends, possessive by construction.
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# cl100k's with possessive quantifiers.
POSSESSIVE = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|"
              r" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")

TEXTS = [
    "", " ", "  ", "\n", "\n\n\n", " \n \t\r\n  x", "Hello, world!", "Hello  world   !",
    "I'm you're he'd they've WE'LL IT'S don'T x'S 'tis", "The quick brown fox jumps over it.",
    "3.14159 1234567 0x1F 1e-9 ½ ² Ⅷ ٣٤٥ १२३", "naïve café Zürich Ångström İstanbul ŒUVRE ß ſ",
    "été e\u0301te\u0301 a\u030a\u0323 \u212b \ufb01 \u1e9b\u0323", "Привет, мир! Як справи?",
    "Καλημέρα κόσμε", "שלום עולם", "السلام عليكم ٢٠٢٤", "नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก",
    "你好，世界！今天天气很好。", "こんにちは世界、カタカナ ﾊﾝｶｸ", "안녕하세요 세계 각",
    "👋🏽 👨‍👩‍👧‍👦 🇫🇷🇩🇪 ❤️ ☺ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣", "a\u200bb\u200cc\u200dd\ufeffe\u2060f\u180eg\u00adh",
    "x\u00a0y\u2003z\u3000w\u2028v\u2029u\u0085t\u1680s", "\x00\x01\x02\x7f\x1b[0m\x0b\x0c\x1c\x1f",
    "def f(x):\n    return {\n\t'a': x**2,  # über\n    }\n\n\nif __name__ == \"__main__\":\n\tf(1)\n",
    "int main(void) { for (size_t i = 0; i < n; ++i) a[i] <<= 2; return 0; } // done\r\n",
    "<div class=\"a\">&nbsp;</div><!-- x --><script>let y = `${z}`;</script>",
    "https://example.org/a?b=c&d=%20#frag user@host.tld C:\\Temp\\x.txt", "............ !!!??? -- --- ___ ***",
    "$100 €20 £5 ¥7 ₿ ∑∫√∞ ≠≤ ←→ ½¾ §¶†‡ “quoted” ‘single’ «guillemets» …",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "word" * 40, " " * 70 + "x", "\t" * 9 + "y" + "\n" * 9, "ab " * 30,
    "\ufffd \uffff \ue000 \U0010ffff \U0001f9ff", "ǅ ǈ ǲ ᾳ ʰ ˈ ⓐⒷ 🄰 ﹏ ‿ _under_score_",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 ａｂｃ１２３", "Tiếng Việt rất đẹp", "ภาษาไทย 1,234.56 บาท", "ꙮ 𒀀 𐍈 ᚠᛇᚻ",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>b <|endoftext|> c<|im_en",
    "<|im_start|><|im_start|>", "<|im_<|im_end|>end|>", "  <mask>  x<mask>y  <word>z <word> q",
    "Newton's “Opticks” (1704): the light of the Sun consists of rays differently refrangible.",
]

HEX = ["ff", "c3", "e282", "f09f98", "41ff42", "c0af", "eda080", "f4908080", "e28241", "80bfbf",
       "f8888080", "c328", "00ff00", "e0a0", "efbfbdff", "f09f9880f09f98"]

PIECES = ["'s", "'LL", "'ve ", "ing", " the", "\n", "\r\n", "\t", "  ", " ", "'", "-", "_", "0", "42",
          "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<mask>", "<word>", "<0x0A>", "\u0130",
          "\u017f", "\u180e", "\u0085", "\u200d", "\ufe0f", "\u0301", "\u00a0", "\u3000", "☃"]

RANGES = [(0x20, 0x7e), (0x20, 0x7e), (0x20, 0x7e), (0x00, 0x1f), (0x7f, 0xff), (0x100, 0x24f),
          (0x250, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0x97f), (0xe00, 0xe7f),
          (0x1100, 0x11ff), (0x1e00, 0x1fff), (0x2000, 0x206f), (0x2070, 0x24ff), (0x2500, 0x27bf),
          (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xf900, 0xfaff), (0xfb00, 0xfdff),
          (0xfe00, 0xffef), (0x10000, 0x103ff), (0x1d400, 0x1d7ff), (0x1f000, 0x1faff)]


def random_text(rng):
    parts = []
    for _ in range(rng.randint(1, 14)):
        if rng.random() < 0.4:
            parts.append(rng.choice(PIECES))
        else:
            low, high = rng.choice(RANGES)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6))))
    return "".join(parts)


def golden(path, tokenizer_path, rng, n_random, texts=TEXTS, hexes=HEX):
    tok = Tokenizer.from_file(path)
    # The same file with special tokens spelled out.
    plain = Tokenizer.from_file(path)
    plain.encode_special_tokens = True
    cases = []

    def encode_case(case, text):
        ids = tok.encode(text, add_special_tokens=False).ids
        case["ids"] = ids
        for key, other in (("plain", plain.encode(text, add_special_tokens=False).ids),
                           ("added", tok.encode(text, add_special_tokens=True).ids)):
            if other != ids:
                case[key] = other
        cases.append(case)
        return ids

    def decode_case(ids):
        text, skip = (tok.decode(ids, skip_special_tokens=s) for s in (False, True))
        case = {"decode": ids, "text": text}
        if skip != text:
            case["skip"] = skip
        cases.append(case)

    for text in texts + [random_text(rng) for _ in range(n_random)]:
        ids = encode_case({"text": text}, text)
        if rng.random() < 0.3:
            decode_case(ids)
    for h in hexes + [rng.randbytes(rng.randint(1, 24)).hex() for _ in range(n_random // 4)]:
        encode_case({"hex": h}, bytes.fromhex(h).decode("utf-8", "replace"))
    size = tok.get_vocab_size()
    for _ in range(20 + n_random // 4):
        decode_case([rng.randrange(size) for _ in range(rng.randint(1, 12))])
    return {"tokenizer": tokenizer_path, "made_with": "tokenizers " + tokenizers.__version__,
            "cases": cases}


def write(path, data):
    with open(path, "w", encoding="ascii") as f:
        head = {k: v for k, v in data.items() if k != "cases"}
        f.write(json.dumps(head)[:-1] + ', "cases": [\n')
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in data["cases"]))
        f.write("\n]}\n")


def byte_level_bpe(pre, post=None, normalizer=None, special=("<|endoftext|>",), size=420):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    if normalizer:
        tok.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(TEXTS * 3, trainer)
    if post:
        tok.post_processor = post
    return tok


def split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def synthetic():
    chat = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    yield "gpt2", byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False))
    yield "llama3", byte_level_bpe(
        split(LLAMA3), special=("<|begin_of_text|>", "<|eot_id|>"),
        post=processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin_of_text|> $A",
                                          pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                          special_tokens=[("<|begin_of_text|>", 0)])]))
    yield "qwen2", byte_level_bpe(split(QWEN2), normalizer=normalizers.NFC(), special=chat)
    yield "o200k", byte_level_bpe(split(O200K), special=chat)
    yield "possessive", byte_level_bpe(split(POSSESSIVE), special=chat)
    roberta = byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), special=("<s>", "</s>"),
                             post=processors.RobertaProcessing(("</s>", 1), ("<s>", 0)))
    roberta.add_tokens([AddedToken("<mask>", lstrip=True, special=True),
                        AddedToken("<word>", single_word=True, rstrip=True)])
    yield "roberta", roberta

    words = byte_level_bpe(pre_tokenizers.Sequence([
        pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex(r"\n+"), "removed"),
        pre_tokenizers.Split(Regex(r"[aeiou]"), "merged_with_previous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(),
                                         normalizers.Replace(Regex("x+"), "y"),
                                         normalizers.Strip(True, True)]), special=chat)
    words.add_tokens([AddedToken("Hello", normalized=True)])
    yield "pipeline", words

    # A plain BPE with affixes, unknown tokens and byte fallback.
    def plain(name, pre, **options):
        tok = Tokenizer(models.BPE(unk_token="<unk>", **options))
        tok.pre_tokenizer = pre
        keep = {k: v for k, v in options.items()
                if k in ("continuing_subword_prefix", "end_of_word_suffix")}
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False,
                                      limit_alphabet=120, **keep)
        tok.train_from_iterator(TEXTS[:14] * 3, trainer)
        return name, tok
    yield plain("affixes", pre_tokenizers.Whitespace(), continuing_subword_prefix="##",
                end_of_word_suffix="</w>")
    name, fuse = plain("fuse_unk", pre_tokenizers.WhitespaceSplit(), fuse_unk=True)
    fuse.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    yield name, fuse

    # Llama-2's kind without its sentencepiece origin: spaces as U+2581, bytes as <0x..>.
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=520, show_progress=False, limit_alphabet=90, max_token_length=12,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])
    tok.train_from_iterator(TEXTS[:12] * 3, trainer)
    data = json.loads(tok.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    tok = Tokenizer.from_str(json.dumps(data))
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                     decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    yield "byte_fallback", tok

    # Merges as strings, ignore_merges, no decoder.
    data = json.loads(byte_level_bpe(split(LLAMA3), size=400).to_str())
    data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
    data["model"]["ignore_merges"] = True
    data["decoder"] = None
    yield "ignore_merges", Tokenizer.from_str(json.dumps(data)), data


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="verb", required=True)
    repo = sub.add_parser("repo")
    repo.add_argument("model_dir")
    fuzz = sub.add_parser("fuzz")
    fuzz.add_argument("tokenizer")
    fuzz.add_argument("out")
    fuzz.add_argument("--count", type=int, default=20000)
    fuzz.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.verb == "fuzz":
        rng = random.Random(args.seed)
        write(args.out, golden(args.tokenizer, os.path.abspath(args.tokenizer), rng, args.count))
        return
    for name, tok, *data in synthetic():
        path = os.path.join(DATA, name + ".json")
        with open(path, "w", encoding="ascii") as f:
            json.dump(data[0] if data else json.loads(tok.to_str()), f, separators=(",", ":"))
            f.write("\n")
        write(os.path.join(DATA, name + ".golden.json"),
              golden(path, name + ".json", random.Random(1), 8, TEXTS[1::2], HEX[::3]))
    model = os.path.join(args.model_dir, "tokenizer.json")
    name = os.path.basename(os.path.normpath(args.model_dir))
    write(os.path.join(DATA, name + ".golden.json"),
          golden(model, name + "/tokenizer.json", random.Random(1), 300))


if __name__ == "__main__":
    main()
