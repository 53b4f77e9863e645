/* The map from pieces to ids. */
#include "lm/tokenizer.h"

#include <stdlib.h>

size_t dbt_slot_count(size_t n) {
    size_t slots = 16;
    while (slots < 2 * n + 2) slots *= 2;
    return slots;
}

static uint64_t mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

/* Eight bytes at a time; what is left as two words of four that may overlap, or as three bytes. */
static size_t hash_piece(const char *piece, size_t bytes) {
    uint64_t h = bytes, word;
    for (; bytes > 8; bytes -= 8, piece += 8) {
        memcpy(&word, piece, 8);
        h = mix(h, word);
    }
    if (bytes >= 4) {
        uint32_t low, high;
        memcpy(&low, piece, 4);
        memcpy(&high, piece + bytes - 4, 4);
        word = (uint64_t)high << 32 | low;
    } else if (bytes) {
        word = (uint64_t)(unsigned char)piece[0] << 16 |
               (uint64_t)(unsigned char)piece[bytes / 2] << 8 | (unsigned char)piece[bytes - 1];
    } else {
        word = 0;
    }
    return (size_t)mix(h, word);
}

static uint32_t *find_slot(const dbt_vocab *v, const char *piece, size_t bytes) {
    const size_t mask = v->n_slots - 1;
    size_t i = hash_piece(piece, bytes) & mask;
    for (; v->slots[i]; i = (i + 1) & mask) {
        const dbt_vocab_entry *entry = &v->entries[v->slots[i] - 1];
        if (entry->bytes == bytes && !memcmp(v->pool.data + entry->offset, piece, bytes)) break;
    }
    return &v->slots[i];
}

dibit_status dbt_vocab_reserve(dbt_vocab *v, size_t n, dibit_error *error) {
    void *data = v->entries;
    if (n >= UINT32_MAX / 4 || !dbt_lm_reserve(&data, &v->entry_capacity, n, sizeof *v->entries))
        return dbt_lm_fail_memory(error);
    v->entries = data;
    const size_t slots = dbt_slot_count(n);
    if (slots <= v->n_slots) return DIBIT_OK;
    uint32_t *table = calloc(slots, sizeof *table);
    if (!table) return dbt_lm_fail_memory(error);
    free(v->slots);
    v->slots = table;
    v->n_slots = slots;
    for (size_t i = 0; i < v->n_entries; i++)
        *find_slot(v, v->pool.data + v->entries[i].offset, v->entries[i].bytes) = (uint32_t)i + 1;
    return DIBIT_OK;
}

dibit_status dbt_vocab_put(dbt_vocab *v, const char *piece, size_t bytes, uint32_t id,
                           dibit_error *error) {
    DBT_LM_FAIL_IF(bytes >= UINT32_MAX - v->pool.bytes, error, DIBIT_TOO_LARGE,
                   "a vocabulary of more than 4 GB");
    if (v->n_entries == v->entry_capacity || 2 * v->n_entries + 2 > v->n_slots)
        DBT_TRY(dbt_vocab_reserve(v, v->n_entries + v->n_entries / 2 + 8, error));
    uint32_t *slot = find_slot(v, piece, bytes);
    if (*slot) {
        v->entries[*slot - 1].id = id;
        return DIBIT_OK;
    }
    const uint32_t offset = (uint32_t)v->pool.bytes;
    DBT_TRY(dibit_text_append(&v->pool, piece, bytes, error));
    DBT_TRY(dibit_text_append(&v->pool, "", 1, error));
    v->entries[v->n_entries++] = (dbt_vocab_entry){offset, (uint32_t)bytes, id};
    *slot = (uint32_t)v->n_entries;
    return DIBIT_OK;
}

uint32_t dbt_vocab_get(const dbt_vocab *v, const char *piece, size_t bytes) {
    if (!v->n_slots) return DBT_NO_ID;
    const uint32_t slot = *find_slot(v, piece, bytes);
    return slot ? v->entries[slot - 1].id : DBT_NO_ID;
}

void dbt_vocab_free(dbt_vocab *v) {
    dibit_text_free(&v->pool);
    free(v->entries);
    free(v->slots);
}
