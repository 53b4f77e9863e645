/* Inputs made up from the names and dims of a model's inputs, as exporters call them: see make_inputs.h. */
#include "make_inputs.h"

#include <string.h>

#include "dibit/debug.h"
#include "model.h"

/* ---- Sets ---------------------------------------------------------------------------------- */

dibit_status dbt_tensors_create(const dibit_allocator *allocator, uint32_t capacity,
                                dibit_tensors **out, dibit_error *error) {
    dibit_tensors *set = dbt_alloc(allocator, sizeof *set, _Alignof(dibit_tensors));
    if (!set) return dbt_fail_memory(error, "a set of tensors", sizeof *set);
    *set = (dibit_tensors){0};
    dbt_arena_init(&set->arena, allocator);
    set->tensors = dbt_arena_array(&set->arena, capacity, sizeof *set->tensors);
    if (!set->tensors) {
        dibit_tensors_destroy(&set);
        return dbt_fail_memory(error, "a set of tensors", capacity * sizeof *set->tensors);
    }
    *out = set;
    return DIBIT_OK;
}

dibit_status dbt_tensors_add(dibit_tensors *set, const char *name, const dibit_tensor *t,
                             dibit_error *error) {
    int64_t count;
    uint64_t bytes;
    DBT_FAIL_IF(!dbt_count(t->rank, t->dims, &count) ||
                    !dbt_packed_bytes(t->type, (uint64_t)count, &bytes),
                error, DIBIT_TOO_LARGE, "'%s' has a negative or too large dim", name);
    dibit_tensor *const added = &set->tensors[set->count];
    *added = *t;
    added->name = dbt_arena_string(&set->arena, name, strlen(name));
    if (!added->name) return dbt_fail_memory(error, "a name", strlen(name));
    DBT_TRY(dbt_tensor_reserve(&set->arena, bytes, added, error));
    set->count++;
    return DIBIT_OK;
}

dibit_status dbt_tensors_add_as(dibit_tensors *set, const char *name, const dibit_tensor *from,
                                dibit_type type, dibit_error *error) {
    dibit_tensor t = *from;
    t.type = type;
    DBT_TRY(dbt_tensors_add(set, name, &t, error));
    return dibit_tensor_convert(from, &set->tensors[set->count - 1], error);
}

/* ---- A prompt ------------------------------------------------------------------------------- */

typedef struct prompt {
    const dibit_session *session;
    int64_t past, tokens, vocabulary;
    uint64_t random;
    dibit_tensors *out;
    dibit_error *error;
} prompt;

static uint64_t draw(prompt *p) { /* xorshift64* */
    p->random ^= p->random >> 12;
    p->random ^= p->random << 25;
    p->random ^= p->random >> 27;
    return p->random * 0x2545f4914f6cdd1du >> 11;
}

/* A dim that the model only names. */
static int64_t size_of(const prompt *p, const char *symbol, int32_t axis) {
    if (strstr(symbol, "batch")) return 1;
    if (strstr(symbol, "total") || strchr(symbol, '+')) return p->past + p->tokens;
    if (strstr(symbol, "past")) return p->past;
    if (strstr(symbol, "seq") || axis > 0) return p->tokens;
    return 1;
}

/* The present output that a past input of the model becomes, or NULL. */
static const char *present_of(const prompt *p, const char *past) {
    const char *a, *b;
    for (uint32_t i = 0; dibit_session_state_pair(p->session, i, &a, &b) == DIBIT_OK; i++) {
        if (strcmp(a, past) == 0) return b;
    }
    return NULL;
}

/* A present output's dim where the past only has a name for it. */
static int64_t known_dim(const prompt *p, const char *output, int32_t axis) {
    dibit_value_info info;
    for (uint32_t i = 0; dibit_model_output(p->session->model, i, &info) == DIBIT_OK; i++) {
        if (strcmp(info.name, output) == 0) return axis < info.rank ? info.dims[axis] : -1;
    }
    return -1;
}

static int64_t integer_for(prompt *p, const char *name, int64_t i) {
    if (strstr(name, "mask")) return 1;
    if (strstr(name, "position")) return p->past + i % p->tokens;
    if (strstr(name, "token_type")) return 0;
    if (strstr(name, "seqlens_k")) return p->past + p->tokens - 1;
    if (strstr(name, "total_seq")) return p->past + p->tokens;
    if (strstr(name, "past_seq")) return p->past;
    return (int64_t)(draw(p) % (uint64_t)p->vocabulary);
}

static dibit_status fill(prompt *p, dibit_tensor *t) {
    const int64_t n = dbt_tensor_count(t);
    const bool floats = dbt_type_is_float(t->type), mask = strstr(t->name, "mask") != NULL;
    dibit_tensor from = *t;
    from.type = floats ? DIBIT_TYPE_FLOAT : DIBIT_TYPE_INT64;
    from.data = dbt_arena_array(&p->out->arena, (uint64_t)n, sizeof(int64_t));
    if (!from.data) return dbt_fail_memory(p->error, t->name, (uint64_t)n * sizeof(int64_t));
    float *const f = from.data;
    int64_t *const v = from.data;
    for (int64_t i = 0; i < n; i++) {
        if (floats) {
            f[i] = mask ? 1.0f : (float)(draw(p) % 4097) / 2048.0f - 1.0f;
        } else {
            v[i] = integer_for(p, t->name, i);
            if (t->type == DIBIT_TYPE_BOOL) v[i] = v[i] == 1;
        }
    }
    return dibit_tensor_convert(&from, t, p->error);
}

static dibit_status add_input(prompt *p, const dibit_value_info *info) {
    DBT_FAIL_IF(info->rank < 0 || dibit_type_bits(info->type) == 0, p->error, DIBIT_BAD_INPUT,
                "input '%s' has no known rank or type: it has to be given", info->name);
    const char *const present = present_of(p, info->name);
    dibit_tensor t = {.type = info->type, .rank = info->rank};
    for (int32_t i = 0; i < info->rank; i++) {
        t.dims[i] = info->dims[i];
        if (t.dims[i] >= 0) continue;
        t.dims[i] = present ? known_dim(p, present, i) : -1;
        if (t.dims[i] < 0) t.dims[i] = size_of(p, info->dim_names[i], i);
    }
    DBT_TRY(dbt_tensors_add(p->out, info->name, &t, p->error));
    /* A past of fixed shape is a convolution's: zeros, as before the first token. */
    return present ? DIBIT_OK : fill(p, &p->out->tensors[p->out->count - 1]);
}

/* The likeliest token of the last row, as greedy decoding would take it. */
static int64_t next_token(const dibit_tensor *logits) {
    const int64_t vocabulary = logits->dims[logits->rank - 1];
    const int64_t first = dbt_tensor_count(logits) - vocabulary;
    int64_t best = 0;
    for (int64_t i = 1; first >= 0 && i < vocabulary; i++) {
        if (dibit_tensor_element(logits, first + i) > dibit_tensor_element(logits, first + best))
            best = i;
    }
    return best;
}

/* With a past: what the session's last run has left. */
static dibit_status add_input_of_step(prompt *p, const dibit_value_info *info) {
    const char *const present = present_of(p, info->name);
    dibit_tensor t;
    if (present) {
        DBT_TRY(dibit_session_value(p->session, present, &t, p->error));
        return dbt_tensors_add_as(p->out, info->name, &t, info->type, p->error);
    }
    DBT_TRY(add_input(p, info));
    if (strcmp(info->name, "input_ids") != 0 ||
        dibit_session_value(p->session, "logits", &t, NULL) != DIBIT_OK || t.rank == 0) {
        return DIBIT_OK;
    }
    int64_t token = next_token(&t);
    const dibit_tensor one = {.type = DIBIT_TYPE_INT64, .rank = 2, .dims = {1, 1}, .data = &token};
    return dibit_tensor_convert(&one, &p->out->tensors[p->out->count - 1], p->error);
}

static dibit_status make(prompt *p, uint64_t seed, dibit_tensors **out) {
    const dibit_model *const model = p->session->model;
    dibit_value_info info;
    p->vocabulary = 32;
    p->random = seed * 0x9e3779b97f4a7c15u + 1;
    if (dibit_model_output(model, 0, &info) == DIBIT_OK && info.rank > 0 &&
        strstr(info.name, "logits") && info.dims[info.rank - 1] > 0) {
        p->vocabulary = info.dims[info.rank - 1];
    }
    DBT_TRY(dbt_tensors_create(&p->session->allocator, dibit_model_input_count(model), &p->out,
                               p->error));
    dibit_status status = DIBIT_OK;
    for (uint32_t i = 0; status == DIBIT_OK && dibit_model_input(model, i, &info) == DIBIT_OK;
         i++) {
        status = p->past ? add_input_of_step(p, &info) : add_input(p, &info);
    }
    if (status != DIBIT_OK) {
        dibit_tensors_destroy(&p->out);
        return status;
    }
    *out = p->out;
    return DIBIT_OK;
}

dibit_status dibit_tensors_make_up(const dibit_session *session, uint32_t tokens, uint64_t seed,
                                   dibit_tensors **out, dibit_error *error) {
    DBT_FAIL_IF(!session || !out, error, DIBIT_BAD_ARGUMENT, "session and out must not be NULL");
    DBT_FAIL_IF(tokens < 1 || tokens > 4096, error, DIBIT_BAD_ARGUMENT,
                "a prompt of %u tokens: 1 to 4096 can be made up", (unsigned)tokens);
    prompt p = {.session = session, .tokens = tokens, .error = error};
    return make(&p, seed, out);
}

dibit_status dbt_tensors_make_step(const dibit_session *session, uint32_t tokens, uint64_t seed,
                                   dibit_tensors **out, dibit_error *error) {
    prompt p = {.session = session, .past = tokens, .tokens = 1, .error = error};
    return make(&p, seed, out);
}
