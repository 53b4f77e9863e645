/* NumPy's .npz: a zip archive of .npy files. Found through the central directory at the archive's
 * end; entries are stored or deflated (the latter with zlib, where it is built in):
 *
 *     [local header, name, extra, data] ...  [directory entry, name, extra, comment] ...  [end record]
 *
 * Archives beyond zip's 32-bit limits are refused. Format: PKWARE's APPNOTE.TXT, 4.3 and 4.4. */
#include <string.h>

#include "onnx/tensor_files.h"

#if DBT_HAVE_ZLIB
#include <zlib.h>
#endif

enum { LOCAL_BYTES = 30, ENTRY_BYTES = 46, END_BYTES = 22, MAX_COMMENT = 65535 };

static uint32_t u16(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }

typedef struct entry {
    const char *name; /* in the arena */
    uint32_t flags, method, crc;
    uint64_t packed_bytes, bytes, local_at;
} entry;

static const uint8_t *find_end(const dbt_source *s) {
    if (s->size < END_BYTES) return NULL;
    const uint64_t last = s->size - END_BYTES;
    for (uint64_t back = 0; back <= last && back <= MAX_COMMENT; back++) {
        const uint8_t *const p = s->mapped + (last - back);
        if (memcmp(p, "PK\x05\x06", 4) == 0 && u16(p + 20) == back) return p;
    }
    return NULL;
}

/* The CRC-32 of zip, four bits at a time. */
static uint32_t crc32_of(const uint8_t *data, uint64_t bytes) {
    uint32_t table[16];
    for (uint32_t i = 0; i < 16; i++) {
        table[i] = i;
        for (int bit = 0; bit < 4; bit++) {
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
        }
    }
    uint32_t crc = 0xffffffffu;
    for (uint64_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#if DBT_HAVE_ZLIB
static bool inflate_all(const uint8_t *src, uint64_t src_bytes, uint8_t *dst, uint64_t dst_bytes) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)src,
                  .avail_in = (uInt)src_bytes,
                  .next_out = dst,
                  .avail_out = (uInt)dst_bytes};
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK) return false;
    const int result = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return result == Z_STREAM_END && z.avail_in == 0 && z.avail_out == 0;
}
#endif

/* Deflated data into *out. zlib's ratio is at most 1032, so a small file cannot ask for much. */
static dibit_status read_deflated(const char *name, const uint8_t *data, const entry *e,
                                  const dibit_allocator *allocator, uint8_t **out,
                                  dibit_error *error) {
#if DBT_HAVE_ZLIB
    DBT_FAIL_IF(e->bytes / 1032 > e->packed_bytes, error, DIBIT_BAD_FILE,
                "'%s': entry '%.80s': %llu bytes cannot become %llu", name, e->name,
                (unsigned long long)e->packed_bytes, (unsigned long long)e->bytes);
    *out = dbt_alloc(allocator, e->bytes, 1);
    if (!*out) return dbt_fail_memory(error, e->name, e->bytes);
    if (inflate_all(data, e->packed_bytes, *out, e->bytes)) return DIBIT_OK;
    dbt_release(allocator, *out, e->bytes);
    return dbt_fail(error, DIBIT_BAD_FILE, "'%s': entry '%.80s': malformed deflate data", name,
                    e->name);
#else
    (void)data, (void)allocator, (void)out;
    return dbt_fail(error, DIBIT_UNSUPPORTED,
                    "'%s': entry '%.80s': is deflated, and this build has no zlib", name, e->name);
#endif
}

/* The bytes of an entry as they are stored. */
static dibit_status find_data(const dbt_source *s, const entry *e, const uint8_t **out,
                              dibit_error *error) {
    const uint8_t *const local = s->mapped + e->local_at;
    const bool has_header = e->local_at <= s->size && s->size - e->local_at >= LOCAL_BYTES &&
                            memcmp(local, "PK\x03\x04", 4) == 0;
    const uint64_t skip =
        has_header ? (uint64_t)LOCAL_BYTES + u16(local + 26) + u16(local + 28) : 0;
    DBT_FAIL_IF(!has_header || s->size - e->local_at < skip ||
                    s->size - e->local_at - skip < e->packed_bytes,
                error, DIBIT_BAD_FILE, "'%s': entry '%.80s': is not where the directory says",
                s->name, e->name);
    *out = local + skip;
    return DIBIT_OK;
}

static dibit_status read_entry(const dbt_source *s, const entry *e, dbt_arena *arena,
                               dibit_tensor *out, dibit_error *error) {
    const uint8_t *packed = NULL;
    DBT_FAIL_IF(e->flags & 1, error, DIBIT_UNSUPPORTED, "'%s': entry '%.80s': is encrypted",
                s->name, e->name);
    DBT_FAIL_IF(e->method != 0 && e->method != 8, error, DIBIT_UNSUPPORTED,
                "'%s': entry '%.80s': compression method %u", s->name, e->name, e->method);
    DBT_FAIL_IF(e->method == 0 && e->packed_bytes != e->bytes, error, DIBIT_BAD_FILE,
                "'%s': entry '%.80s': is stored, but in another size", s->name, e->name);
    DBT_TRY(find_data(s, e, &packed, error));
    uint8_t *unpacked = NULL;
    if (e->method == 8) {
        DBT_TRY(read_deflated(s->name, packed, e, &arena->allocator, &unpacked, error));
    }
    const uint8_t *const data = unpacked ? unpacked : packed;
    dibit_status status;
    if (crc32_of(data, e->bytes) != e->crc) {
        status = dbt_fail(error, DIBIT_BAD_FILE, "'%s': entry '%.80s': its checksum is wrong",
                          s->name, e->name);
    } else {
        status = dbt_npy_read(data, e->bytes, e->name, arena, out, error);
        if (status != DIBIT_OK) dbt_error_prefix(error, "'%s'", s->name);
    }
    dbt_release(&arena->allocator, unpacked, e->bytes);
    out->name = e->name;
    return status;
}

/* Parses the directory entry at *at and moves on. */
static dibit_status next_entry(const dbt_source *s, uint64_t *at, uint64_t end, dbt_arena *arena,
                               entry *out, dibit_error *error) {
    const uint8_t *const p = s->mapped + *at;
    const bool is_entry = end - *at >= ENTRY_BYTES && memcmp(p, "PK\x01\x02", 4) == 0;
    const uint64_t name_bytes = is_entry ? u16(p + 28) : 0;
    const uint64_t all = is_entry ? ENTRY_BYTES + name_bytes + u16(p + 30) + u16(p + 32) : 0;
    DBT_FAIL_IF(!is_entry || end - *at < all, error, DIBIT_BAD_FILE,
                "'%s': malformed zip directory at byte %llu", s->name, (unsigned long long)*at);
    *out = (entry){.flags = u16(p + 8),
                   .method = u16(p + 10),
                   .crc = u32(p + 16),
                   .packed_bytes = u32(p + 20),
                   .bytes = u32(p + 24),
                   .local_at = u32(p + 42)};
    const char *const name = (const char *)p + ENTRY_BYTES;
    uint64_t n = name_bytes;
    DBT_FAIL_IF(memchr(name, 0, (size_t)n), error, DIBIT_BAD_FILE,
                "'%s': malformed zip directory at byte %llu: a NUL in a name", s->name,
                (unsigned long long)*at);
    if (n > 4 && memcmp(name + n - 4, ".npy", 4) == 0) n -= 4;
    out->name = dbt_arena_string(arena, name, (size_t)n);
    if (!out->name) return dbt_fail_memory(error, "a name", n);
    DBT_FAIL_IF(out->packed_bytes == UINT32_MAX || out->bytes == UINT32_MAX ||
                    out->local_at == UINT32_MAX,
                error, DIBIT_TOO_LARGE, "'%s': entry '%.80s': is beyond 4 GB", s->name, out->name);
    *at += all;
    return DIBIT_OK;
}

dibit_status dbt_npz_read(const dbt_source *source, dibit_tensors *out, dibit_error *error) {
    const uint8_t *const record = find_end(source);
    DBT_FAIL_IF(!record, error, DIBIT_BAD_FILE, "'%s': is a zip file without its end record",
                source->name);
    const uint64_t end = (uint64_t)(record - source->mapped);
    const uint32_t count = u16(record + 10);
    uint64_t at = u32(record + 16);
    DBT_FAIL_IF(at > end, error, DIBIT_BAD_FILE, "'%s': its zip directory is out of range",
                source->name);
    DBT_FAIL_IF((end - at) / ENTRY_BYTES < count, error, DIBIT_BAD_FILE,
                "'%s': its zip directory is too short for %u entries", source->name, count);
    out->tensors = dbt_arena_array(&out->arena, count, sizeof *out->tensors);
    if (!out->tensors) return dbt_fail_memory(error, "tensors", count * sizeof *out->tensors);
    uint64_t packed_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        entry e = {0};
        DBT_TRY(next_entry(source, &at, end, &out->arena, &e, error));
        packed_bytes += e.packed_bytes;
        DBT_FAIL_IF(packed_bytes > source->size, error, DIBIT_BAD_FILE, "'%s': its entries overlap",
                    source->name);
        DBT_TRY(read_entry(source, &e, &out->arena, &out->tensors[i], error));
        out->count = i + 1;
    }
    return DIBIT_OK;
}
