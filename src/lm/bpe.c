/* Byte-pair encoding of one word: start from characters, and merge the pair of lowest rank, leftmost
 * first, until none is left.
 *
 * Symbols form a linked list; candidates lie in a binary heap ordered by (rank, position). A
 * candidate whose pair has changed meanwhile is dropped when it comes out: n log n in all. */
#include "lm/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

static size_t hash_pair(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ h >> 29);
}

dibit_status dbt_bpe_reserve_merges(dbt_bpe *bpe, size_t n, dibit_error *error) {
    if (n >= UINT32_MAX / 4) return dbt_lm_fail_memory(error);
    bpe->n_merge_slots = dbt_slot_count(n);
    bpe->merges = malloc((n + 1) * sizeof *bpe->merges);
    bpe->merge_slots = calloc(bpe->n_merge_slots, sizeof *bpe->merge_slots);
    return bpe->merges && bpe->merge_slots ? DIBIT_OK : dbt_lm_fail_memory(error);
}

static uint32_t *merge_slot(const dbt_bpe *bpe, uint32_t left, uint32_t right) {
    const size_t mask = bpe->n_merge_slots - 1;
    size_t i = hash_pair(left, right) & mask;
    for (; bpe->merge_slots[i]; i = (i + 1) & mask) {
        const dbt_merge *merge = &bpe->merges[bpe->merge_slots[i] - 1];
        if (merge->left == left && merge->right == right) break;
    }
    return &bpe->merge_slots[i];
}

void dbt_bpe_put_merge(dbt_bpe *bpe, dbt_merge merge) {
    uint32_t *slot = merge_slot(bpe, merge.left, merge.right);
    bpe->merges[bpe->n_merges++] = merge;
    *slot = (uint32_t)bpe->n_merges;
}

void dbt_bpe_finish(dbt_bpe *bpe) {
    for (int i = 0; i < 128; i++) {
        const char c = (char)i;
        bpe->ascii[i] = dbt_vocab_get(&bpe->vocab, &c, 1);
    }
    for (unsigned i = 0; i < 256; i++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", i);
        bpe->byte_ids[i] = dbt_vocab_get(&bpe->vocab, piece, 6);
    }
}

static dibit_status add_symbol(dbt_bpe_scratch *s, uint32_t id, dibit_error *error) {
    void *data = s->symbols;
    if (s->n_symbols >= DBT_NO_ID - 1 ||
        !dbt_lm_reserve(&data, &s->symbol_capacity, s->n_symbols + 1, sizeof *s->symbols))
        return dbt_lm_fail_memory(error);
    s->symbols = data;
    s->symbols[s->n_symbols++] = (dbt_symbol){.id = id};
    return DIBIT_OK;
}

static bool before(dbt_candidate a, dbt_candidate b) {
    return a.rank != b.rank ? a.rank < b.rank : a.position < b.position;
}

/* Pushes the pair that begins at `position` if the file merges it. */
static dibit_status push_candidate(const dbt_bpe *bpe, dbt_bpe_scratch *s, uint32_t position,
                                   dibit_error *error) {
    const dbt_symbol *left = &s->symbols[position];
    const uint32_t slot = *merge_slot(bpe, left->id, s->symbols[left->next].id);
    if (!slot) return DIBIT_OK;
    void *data = s->heap;
    if (!dbt_lm_reserve(&data, &s->heap_capacity, s->n_heap + 1, sizeof *s->heap))
        return dbt_lm_fail_memory(error);
    s->heap = data;
    const dbt_candidate candidate = {slot - 1, position};
    size_t i = s->n_heap++;
    for (; i > 0 && before(candidate, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = candidate;
    return DIBIT_OK;
}

static dbt_candidate pop_candidate(dbt_bpe_scratch *s) {
    const dbt_candidate top = s->heap[0], last = s->heap[--s->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < s->n_heap; i = child) {
        if (child + 1 < s->n_heap && before(s->heap[child + 1], s->heap[child])) child++;
        if (!before(s->heap[child], last)) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = last;
    return top;
}

static dibit_status merge_symbols(const dbt_bpe *bpe, dbt_bpe_scratch *s, dibit_error *error) {
    const uint32_t n = (uint32_t)s->n_symbols;
    for (uint32_t i = 0; i < n; i++) {
        s->symbols[i].previous = i ? i - 1 : DBT_NO_ID;
        s->symbols[i].next = i + 1 < n ? i + 1 : DBT_NO_ID;
    }
    s->n_heap = 0;
    for (uint32_t i = 0; i + 1 < n; i++) DBT_TRY(push_candidate(bpe, s, i, error));
    while (s->n_heap) {
        const dbt_candidate top = pop_candidate(s);
        dbt_symbol *left = &s->symbols[top.position];
        if (left->dead || left->next == DBT_NO_ID) continue;
        dbt_symbol *right = &s->symbols[left->next];
        const uint32_t slot = *merge_slot(bpe, left->id, right->id);
        const uint32_t id = bpe->merges[top.rank].id;
        if (!slot || bpe->merges[slot - 1].id != id) continue;
        left->id = id;
        left->next = right->next;
        right->dead = true;
        if (left->next != DBT_NO_ID) s->symbols[left->next].previous = top.position;
        if (left->previous != DBT_NO_ID) DBT_TRY(push_candidate(bpe, s, left->previous, error));
        if (left->next != DBT_NO_ID) DBT_TRY(push_candidate(bpe, s, top.position, error));
    }
    return DIBIT_OK;
}

/* The id of the character with the word's affixes, or DBT_NO_ID. */
static dibit_status lookup(const dbt_bpe *bpe, dbt_bpe_scratch *s, const char *c, size_t bytes,
                           bool first, bool last, uint32_t *id, dibit_error *error) {
    const char *prefix = first ? NULL : bpe->prefix, *suffix = last ? bpe->suffix : NULL;
    if (!prefix && !suffix) {
        *id = bytes == 1 ? bpe->ascii[(unsigned char)*c] : dbt_vocab_get(&bpe->vocab, c, bytes);
        s->piece.bytes = 0;
        return dibit_text_append(&s->piece, c, bytes, error);
    }
    s->piece.bytes = 0;
    if (prefix) DBT_TRY(dibit_text_append(&s->piece, prefix, strlen(prefix), error));
    DBT_TRY(dibit_text_append(&s->piece, c, bytes, error));
    if (suffix) DBT_TRY(dibit_text_append(&s->piece, suffix, strlen(suffix), error));
    *id = dbt_vocab_get(&bpe->vocab, s->piece.data, s->piece.bytes);
    return DIBIT_OK;
}

/* One symbol for each character, or for each of its bytes, or the unknown token. An unknown token is
 * held back until a known character follows (byte tokens do not count), as the tokenizers package
 * does. */
static dibit_status make_symbols(const dbt_bpe *bpe, const char *word, size_t bytes,
                                 dbt_bpe_scratch *s, dibit_error *error) {
    bool unknown = false;
    s->n_symbols = 0;
    for (size_t i = 0, n; i < bytes; i += n) {
        dbt_utf8_next(word + i, bytes - i, &n);
        uint32_t id;
        DBT_TRY(lookup(bpe, s, word + i, n, i == 0, i + n == bytes, &id, error));
        if (id != DBT_NO_ID) {
            if (unknown) DBT_TRY(add_symbol(s, bpe->unk, error));
            unknown = false;
            DBT_TRY(add_symbol(s, id, error));
            continue;
        }
        if (bpe->byte_fallback) {
            bool all = true;
            for (size_t k = 0; k < s->piece.bytes; k++)
                all = all && bpe->byte_ids[(unsigned char)s->piece.data[k]] != DBT_NO_ID;
            for (size_t k = 0; all && k < s->piece.bytes; k++)
                DBT_TRY(add_symbol(s, bpe->byte_ids[(unsigned char)s->piece.data[k]], error));
            if (all) continue;
        }
        if (bpe->unk == DBT_NO_ID) continue;
        if (unknown && !bpe->fuse_unk) DBT_TRY(add_symbol(s, bpe->unk, error));
        unknown = true;
    }
    return unknown ? add_symbol(s, bpe->unk, error) : DIBIT_OK;
}

dibit_status dbt_bpe_encode(const dbt_bpe *bpe, const char *word, size_t bytes, dbt_bpe_scratch *s,
                            dibit_tokens *out, dibit_error *error) {
    if (bpe->ignore_merges) {
        const uint32_t whole = dbt_vocab_get(&bpe->vocab, word, bytes);
        if (whole != DBT_NO_ID) return dibit_tokens_append(out, &(int64_t){whole}, 1, error);
    }
    DBT_TRY(make_symbols(bpe, word, bytes, s, error));
    DBT_TRY(merge_symbols(bpe, s, error));
    for (size_t i = 0; i < s->n_symbols; i++) {
        if (s->symbols[i].dead) continue;
        DBT_TRY(dibit_tokens_append(out, &(int64_t){s->symbols[i].id}, 1, error));
    }
    return DIBIT_OK;
}

void dbt_bpe_scratch_free(dbt_bpe_scratch *s) {
    free(s->symbols);
    free(s->heap);
    dibit_text_free(&s->piece);
}

void dbt_bpe_free(dbt_bpe *bpe) {
    dbt_vocab_free(&bpe->vocab);
    free(bpe->merges);
    free(bpe->merge_slots);
    free(bpe->prefix);
    free(bpe->suffix);
}
