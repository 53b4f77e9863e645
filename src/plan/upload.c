/* Brings a constant to the device, straight from the file to its buffer, in pieces: memory here holds one
 * of them. The parts of a stack become one buffer. */
#include <string.h>

#include "plan/plan.h"

enum {
    UPLOAD_ELEMENTS = 1 << 18
}; /* converted at a time; a multiple of 8, so that bytes are whole */

/* Room for a piece of a constant: as in the file, as the CPU stores it, as the device does. */
typedef struct upload_room {
    char *file, *stored, *words;
} upload_room;

static dibit_status reserve_upload(dbt_plan *plan, upload_room *room, dibit_error *error) {
    const uint64_t piece = (uint64_t)UPLOAD_ELEMENTS * 8;
    if (!dbt_block_reserve(&plan->fetched, &plan->arena->allocator, 3 * piece)) {
        return dbt_fail_memory(error, "an upload", 3 * piece);
    }
    room->file = plan->fetched.data;
    room->stored = room->file + piece;
    room->words = room->stored + piece;
    return DIBIT_OK;
}

/* Has the device fetch a piece by itself, all of which there is, to byte `to` of the buffer; UNSUPPORTED when
 * it cannot. */
static dibit_status write_source(dbt_gpu *gpu, const dbt_plan_tensor *t, const dbt_constant *c,
                                 uint64_t to, dibit_error *error) {
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    const dbt_bytes *const from = &c->bytes;
    if (c->data || !t->native || from->source->mapped || !hal->calls->write_source) {
        return DIBIT_UNSUPPORTED;
    }
    return hal->calls->write_source(hal, t->buffer, to, &from->source->callback, from->offset,
                                    from->bytes, error);
}

/* The next elements of a constant, which begin at element `begin` of the buffer, from its bytes in the file. */
static dibit_status upload_piece(dbt_plan *plan, dbt_plan_tensor *t, const dbt_constant *c,
                                 int64_t begin, const upload_room *room, dibit_error *error) {
    dbt_gpu *const gpu = plan->options.gpu;
    const int64_t first = t->n_uploaded, left = c->count - first;
    const int64_t n = left < UPLOAD_ELEMENTS ? left : UPLOAD_ELEMENTS;
    const uint64_t bits = dibit_type_bits(c->type);
    const uint64_t at = (uint64_t)first * bits / 8, to = (uint64_t)(begin + first) * bits / 8;
    uint64_t bytes;
    (void)dbt_packed_bytes(c->type, (uint64_t)n, &bytes);
    const char *from = c->data ? (const char *)c->data + at : room->file;
    if (!c->data) {
        DBT_TRY(dbt_source_read(c->bytes.source, c->bytes.offset + at, bytes, room->file, error));
    }
    if (t->native) {
        DBT_TRY(dbt_gpu_write(gpu, t->buffer, to, from, bytes, error));
    } else {
        dbt_unpack_elements(c->type, from, room->stored, n);
        const char *words = room->stored;
        if (t->t.type == DIBIT_TYPE_INT32) {
            words = room->words;
            DBT_FAIL_IF(!dbt_integers_to_words(dbt_storage_type(c->type), room->stored,
                                               (int32_t *)(void *)room->words, n),
                        error, DIBIT_UNSUPPORTED,
                        "constant '%s' has an element that does not fit the device's 32 bits",
                        c->name);
        }
        DBT_TRY(dbt_gpu_write(gpu, t->buffer, (uint64_t)(begin + first) * 4, words, (uint64_t)n * 4,
                              error));
    }
    t->n_uploaded += n;
    return DIBIT_OK;
}

/* One that is made from another's bytes, which goes to element `begin`. */
static dibit_status upload_matrix(dbt_plan *plan, dbt_plan_tensor *t, const dbt_constant *c,
                                  int64_t begin, dibit_error *error) {
    const dbt_constant *const from = c->matrix->from;
    const uint64_t to = (uint64_t)begin * dibit_type_bits(c->type) / 8;
    const uint64_t made = (c->bytes.bytes + 7) / 8 * 8;
    const uint64_t bytes = made + (from->data ? 0 : from->bytes.bytes);
    if (!dbt_block_reserve(&plan->fetched, &plan->arena->allocator, bytes))
        return dbt_fail_memory(error, c->name, bytes);
    char *const out = plan->fetched.data;
    if (!from->data) {
        DBT_TRY(dbt_source_read(from->bytes.source, from->bytes.offset, from->bytes.bytes,
                                out + made, error));
    }
    dbt_matrix_write(c->matrix, from->data ? from->data : out + made, out);
    return dbt_gpu_write(plan->options.gpu, t->buffer, to, out, c->bytes.bytes, error);
}

/* A whole constant, or a part of a stack. */
static dibit_status upload_part(dbt_plan *plan, dbt_plan_tensor *t, const dbt_constant_part *part,
                                dibit_error *error) {
    const dbt_constant *const c = part->constant;
    if (c->matrix) return upload_matrix(plan, t, c, part->begin, error);
    const uint64_t to = (uint64_t)part->begin * dibit_type_bits(c->type) / 8;
    const dibit_status status = write_source(plan->options.gpu, t, c, to, error);
    if (status != DIBIT_UNSUPPORTED) return status;
    upload_room room = {0};
    DBT_TRY(reserve_upload(plan, &room, error));
    while (t->n_uploaded < c->count) {
        DBT_TRY(upload_piece(plan, t, c, part->begin, &room, error));
    }
    t->n_uploaded = 0; /* of the next part */
    return DIBIT_OK;
}

dibit_status dbt_plan_upload(dbt_plan *plan, dbt_plan_tensor *t, uint32_t part,
                             dibit_error *error) {
    const dbt_constant *const c = t->value->constant;
    memcpy(t->t.dims, c->dims, sizeof t->t.dims);
    t->bytes = t->t.bytes = t->native ? c->bytes.bytes : (uint64_t)c->count * 4;
    if (!t->buffer) { /* the first time */
        const dbt_plan_tensor *const twin = dbt_plan_twin(plan, t);
        if (twin) {
            t->buffer = twin->buffer;
            t->borrows_buffer = true;
        }
        if (c->count == 0 || twin) return DIBIT_OK;
        plan->weight_bytes += c->bytes.bytes;
        DBT_TRY(dbt_gpu_buffer_create(plan->options.gpu, t->t.bytes, &t->buffer, error));
    }
    const dbt_constant_part whole = {.constant = c};
    return upload_part(plan, t, c->parts ? &c->parts[part] : &whole, error);
}
