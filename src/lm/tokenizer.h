/* The tokenizer inside: what tokenizer.json says, made ready to run.
 *
 * Encoding: text -> split at added tokens -> normalize -> split at normalized added tokens ->
 * pre-tokenize into words -> BPE each word -> special tokens around it.
 * Decoding: ids -> pieces -> decoder steps -> text.
 * Nested Sequences of the file are flat lists of steps here. */
#ifndef DBT_LM_TOKENIZER_H
#define DBT_LM_TOKENIZER_H

#include "lm/regex.h"

#define DBT_NO_ID UINT32_MAX
/* Ids are refused from here on: the table by id is allocated for the highest. */
#define DBT_MAX_ID (1u << 22)

/* How many slots a table of n entries has: a power of two, more than 2 n. */
size_t dbt_slot_count(size_t n);

/* Pieces to ids: open addressing over entries whose text lies in one pool. */
typedef struct dbt_vocab_entry {
    uint32_t offset; /* in the pool, NUL-terminated there */
    uint32_t bytes;
    uint32_t id;
} dbt_vocab_entry;

typedef struct dbt_vocab {
    dibit_text pool;
    dbt_vocab_entry *entries;
    size_t n_entries, entry_capacity;
    uint32_t *slots; /* index of an entry + 1; 0: empty */
    size_t n_slots;  /* dbt_slot_count(n_entries) or more */
} dbt_vocab;

/* Adds a piece; one that is there gets the new id. */
dibit_status dbt_vocab_put(dbt_vocab *vocab, const char *piece, size_t bytes, uint32_t id,
                           dibit_error *error);
/* Room for n entries at once. */
dibit_status dbt_vocab_reserve(dbt_vocab *vocab, size_t n, dibit_error *error);
uint32_t dbt_vocab_get(const dbt_vocab *vocab, const char *piece, size_t bytes); /* or DBT_NO_ID */
void dbt_vocab_free(dbt_vocab *vocab);

/* ---- BPE ---------------------------------------------------------------------------------- */

typedef struct dbt_merge {
    uint32_t left, right;
    uint32_t id; /* of the pair together */
} dbt_merge;

typedef struct dbt_bpe {
    dbt_vocab vocab;
    dbt_merge *merges;     /* [n_merges], by rank */
    uint32_t *merge_slots; /* by pair: rank + 1; 0: empty. Open addressing, as in dbt_vocab */
    size_t n_merges, n_merge_slots;
    uint32_t ascii[128];    /* ids of one-character pieces */
    uint32_t byte_ids[256]; /* of <0x00> ... <0xFF>, with byte_fallback */
    uint32_t unk;           /* DBT_NO_ID: none */
    char *prefix, *suffix;  /* continuing_subword_prefix, end_of_word_suffix; NULL: none */
    bool byte_fallback, fuse_unk, ignore_merges;
} dbt_bpe;

typedef struct dbt_symbol {
    uint32_t id;
    uint32_t previous, next; /* indices, DBT_NO_ID at the ends */
    bool dead;
} dbt_symbol;

typedef struct dbt_candidate {
    uint32_t rank, position;
} dbt_candidate;

/* Scratch of one call. */
typedef struct dbt_bpe_scratch {
    dbt_symbol *symbols;
    size_t n_symbols, symbol_capacity;
    dbt_candidate *heap;
    size_t n_heap, heap_capacity;
    dibit_text piece;
} dbt_bpe_scratch;

/* Room for n merges; called once. */
dibit_status dbt_bpe_reserve_merges(dbt_bpe *bpe, size_t n, dibit_error *error);
/* Adds the merge of the next rank; of two for one pair the later counts. */
void dbt_bpe_put_merge(dbt_bpe *bpe, dbt_merge merge);
/* Fills the tables that come from the vocabulary. */
void dbt_bpe_finish(dbt_bpe *bpe);
/* Appends the ids of one word. */
dibit_status dbt_bpe_encode(const dbt_bpe *bpe, const char *word, size_t bytes,
                            dbt_bpe_scratch *scratch, dibit_tokens *out, dibit_error *error);
void dbt_bpe_scratch_free(dbt_bpe_scratch *scratch);
void dbt_bpe_free(dbt_bpe *bpe);

/* ---- Text in spans ------------------------------------------------------------------------ */

typedef struct dbt_span {
    size_t begin, end;
} dbt_span;

/* A text and a list of stretches of it: words on the way in, pieces on the way out. */
typedef struct dbt_words {
    dibit_text text;
    dbt_span *spans;
    size_t n_spans, capacity;
} dbt_words;

dibit_status dbt_words_add(dbt_words *words, size_t begin, size_t end, dibit_error *error);
void dbt_words_clear(dbt_words *words);
void dbt_words_free(dbt_words *words);

/* The GPT-2 alphabet: every byte as a printable character. */
dibit_status dbt_byte_level_append(const char *bytes, size_t n, dibit_text *out,
                                   dibit_error *error);
/* The byte that a character stands for, or -1. */
int32_t dbt_byte_level_byte(uint32_t code);

/* ---- Steps -------------------------------------------------------------------------------- */

typedef enum dbt_normalizer_kind {
    DBT_NORMALIZER_NFC,
    DBT_NORMALIZER_NFD,
    DBT_NORMALIZER_NFKC,
    DBT_NORMALIZER_NFKD,
    DBT_NORMALIZER_LOWERCASE,
    DBT_NORMALIZER_PREPEND,
    DBT_NORMALIZER_REPLACE,
    DBT_NORMALIZER_STRIP,
    DBT_NORMALIZER_STRIP_ACCENTS,
    DBT_NORMALIZER_BYTE_LEVEL
} dbt_normalizer_kind;

typedef struct dbt_normalizer {
    dbt_normalizer_kind kind;
    dbt_regex *regex;   /* REPLACE */
    dibit_text content; /* REPLACE, PREPEND */
    bool left, right;   /* STRIP */
} dbt_normalizer;

typedef enum dbt_split_behavior {
    DBT_SPLIT_REMOVED,
    DBT_SPLIT_ISOLATED,
    DBT_SPLIT_MERGED_WITH_PREVIOUS,
    DBT_SPLIT_MERGED_WITH_NEXT,
    DBT_SPLIT_CONTIGUOUS
} dbt_split_behavior;

/* Every pre-tokenizer is a split at a regular expression, or ByteLevel: a split, perhaps, and then
 * the GPT-2 alphabet. */
typedef struct dbt_pre_tokenizer {
    dbt_regex *regex; /* NULL: no split */
    dbt_split_behavior behavior;
    bool invert; /* what does not match counts as the match */
    bool byte_level, add_prefix_space;
} dbt_pre_tokenizer;

typedef enum dbt_decoder_kind {
    DBT_DECODER_BYTE_LEVEL,
    DBT_DECODER_BYTE_FALLBACK,
    DBT_DECODER_FUSE,
    DBT_DECODER_REPLACE,
    DBT_DECODER_STRIP
} dbt_decoder_kind;

typedef struct dbt_decoder {
    dbt_decoder_kind kind;
    dbt_regex *regex;   /* REPLACE */
    dibit_text content; /* REPLACE: the new text. STRIP: one character */
    size_t start, stop; /* STRIP: how many at most */
} dbt_decoder;

typedef struct dbt_added_token {
    dibit_text content;
    dibit_text pattern; /* what is looked for: content, normalized if so */
    uint32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
} dbt_added_token;

/* Added tokens of one kind, to be found leftmost, and of those the longest. */
typedef struct dbt_matcher {
    uint32_t *order; /* indices of added tokens, by first byte, then longest first */
    size_t n;
    uint32_t first[257]; /* those that start with byte b: order[first[b] .. first[b + 1]) */
} dbt_matcher;

struct dibit_tokenizer {
    dbt_bpe bpe;
    dbt_added_token *added;
    size_t n_added;
    dbt_vocab added_vocab; /* content to index in added */
    dbt_matcher raw, normalized;
    dbt_normalizer *normalizers;
    size_t n_normalizers;
    dbt_pre_tokenizer *pre_tokenizers;
    size_t n_pre_tokenizers;
    dbt_decoder *decoders;
    size_t n_decoders;
    bool has_decoder;           /* without one pieces are joined by spaces */
    dibit_tokens before, after; /* what the post-processor puts around the text */
    uint32_t *pieces; /* [n_ids]: 0: the id has none; 1 + i: added[i]; 1 + n_added + i: entry i of
                         the vocabulary */
    uint32_t n_ids;
};

/* tokenizer_load.c: fills an empty tokenizer. `json` is a whole file's text. */
dibit_status dbt_tokenizer_parse(dibit_tokenizer *tokenizer, const char *json, size_t bytes,
                                 dibit_error *error);

/* normalize.c: text [n] through all steps, into *out, which is emptied first; *scratch likewise. */
dibit_status dbt_normalize(const dibit_tokenizer *tokenizer, const char *text, size_t n,
                           dbt_regex_scratch *regex_scratch, dibit_text *out, dibit_text *scratch,
                           dibit_error *error);

/* pretokenize.c: words->text through all steps; spans are the words of the result. */
dibit_status dbt_pre_tokenize(const dibit_tokenizer *tokenizer, dbt_regex_scratch *regex_scratch,
                              dbt_words *words, dbt_words *scratch, dibit_error *error);

/* added_tokens.c */
dibit_status dbt_matcher_build(dibit_tokenizer *tokenizer, bool normalized, dbt_matcher *out,
                               dibit_error *error);

/* Where special tokens written in the text are plain text. */
typedef struct dbt_special_rule {
    bool allow;
    const dbt_span *plain; /* [n_plain], ascending: not inside these either */
    size_t n_plain;
    size_t offset; /* what to add to positions before they are compared with spans */
} dbt_special_rule;

/* Walks over a text in stretches: added tokens, and what lies between them. */
typedef struct dbt_stretches {
    const dibit_tokenizer *tokenizer;
    const dbt_matcher *matcher;
    const dbt_special_rule *rule;
    const char *text;
    size_t bytes;
    size_t position, search; /* where the next stretch begins; where the next token may */
    size_t begin, end;       /* of a stretch that is no token */
    uint32_t token;          /* index of the added token, or DBT_NO_ID */
    bool pending;            /* the token at pending_* comes next */
    size_t pending_begin, pending_end;
    uint32_t pending_token;
} dbt_stretches;

bool dbt_stretches_next(dbt_stretches *stretches);

/* tokenizer.c: the added token of an id, or NULL. */
const dbt_added_token *dbt_tokenizer_added(const dibit_tokenizer *tokenizer, int64_t id);

/* tokenizer.c: encode with the rule. */
dibit_status dbt_tokenizer_encode_with(const dibit_tokenizer *tokenizer, const char *text, size_t n,
                                       const dbt_special_rule *rule, dibit_tokens *out,
                                       dibit_error *error);

#endif
