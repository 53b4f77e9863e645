/* Memory of the whole engine: every allocation is made to fail once, over load, plan, run, states and
 * generation; nothing leaks; a warm run allocates nothing, neither from the caller's allocator nor
 * from malloc; a tokenizer is as small as its tables should be. */
#include "dbt_test.h"

#include <malloc.h>

#include "dibit/dibit.h"
#include "dibit/lm.h"

/* ---- Allocators -------------------------------------------------------------------------------- */

typedef struct counting {
    uint64_t n_allocs, n_live, fail_at; /* fail_at: the number of the one that fails, from 1 */
} counting;

static void *counting_alloc(void *user, size_t bytes, size_t alignment) {
    counting *const c = user;
    if (++c->n_allocs == c->fail_at) return NULL;
    const size_t rounded = (bytes + alignment - 1) & ~(alignment - 1); /* as C11 wants it */
    void *memory = aligned_alloc(alignment, rounded ? rounded : alignment);
    if (!memory) return NULL;
    c->n_live++;
    return memory;
}

static void counting_release(void *user, void *memory, size_t bytes) {
    (void)bytes;
    if (memory) ((counting *)user)->n_live--;
    free(memory);
}

/* The linker sends the library's and this file's calls here (-Wl,--wrap). */
static uint64_t n_mallocs;
static size_t malloc_bytes; /* that are live */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes);
void __wrap_free(void *memory);
static void *count_malloc(void *memory) {
    n_mallocs++;
    malloc_bytes += malloc_usable_size(memory);
    return memory;
}
void *__wrap_malloc(size_t bytes) { return count_malloc(__real_malloc(bytes)); }
void *__wrap_calloc(size_t n, size_t bytes) { return count_malloc(__real_calloc(n, bytes)); }
void *__wrap_realloc(void *memory, size_t bytes) {
    const size_t before = malloc_usable_size(memory);
    void *moved = __real_realloc(memory, bytes);
    if (moved) malloc_bytes -= before;
    return count_malloc(moved);
}
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return count_malloc(__real_aligned_alloc(alignment, bytes));
}
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes) {
    const int error = __real_posix_memalign(memory, alignment, bytes);
    if (!error) count_malloc(*memory);
    return error;
}
void __wrap_free(void *memory) {
    malloc_bytes -= malloc_usable_size(memory);
    __real_free(memory);
}

/* ---- A decoder at work -------------------------------------------------------------------------- */

#define CASES DBT_SOURCE_DIR "/tests/data/cases/"

typedef struct decoder {
    dibit_allocator allocator;
    dibit_device *device;
    dibit_model *model;
    dibit_session *session;
    dibit_generator *generator;
    dibit_state *state, *fork;
} decoder;

static dibit_status open_decoder(decoder *d, const char *path, uint32_t n_threads,
                                 dibit_error *error) {
    const dibit_device_desc device = {.n_threads = n_threads, .allocator = &d->allocator};
    const dibit_model_desc model = {.path = path, .allocator = &d->allocator};
    dibit_status status = dibit_device_create(&device, &d->device, error);
    if (!status) status = dibit_model_load(&model, &d->model, error);
    const dibit_session_desc session = {.device = d->device};
    if (!status) status = dibit_session_create(d->model, &session, &d->session, error);
    return status;
}

static void close_decoder(decoder *d) {
    dibit_state_destroy(&d->fork);
    dibit_state_destroy(&d->state);
    dibit_generator_destroy(&d->generator);
    dibit_session_destroy(&d->session);
    dibit_model_destroy(&d->model);
    dibit_device_destroy(&d->device);
}

static int64_t ones[512];

/* `n` tokens after `past` others, whose states are kept in d->state. */
static dibit_status run_tokens(decoder *d, const int64_t *ids, int64_t n, int64_t past,
                               dibit_error *error) {
    for (size_t i = 0; i < sizeof ones / sizeof ones[0]; i++) ones[i] = 1;
    const dibit_tensor inputs[2] = {
        {.name = "input_ids",
         .type = DIBIT_TYPE_INT64,
         .rank = 2,
         .dims = {1, n},
         .data = (void *)(uintptr_t)ids},
        {.name = "attention_mask",
         .type = DIBIT_TYPE_INT64,
         .rank = 2,
         .dims = {1, past + n},
         .data = ones},
    };
    dibit_tensor logits = {.name = "logits"};
    const dibit_run run = {.inputs = inputs,
                           .n_inputs = 2,
                           .outputs = &logits,
                           .n_outputs = 1,
                           .states = &d->state,
                           .n_states = 1,
                           .last_rows = 1};
    return dibit_session_run(d->session, &run, error);
}

static const int64_t prompt[7] = {5, 17, 300, 42, 42, 1, 511};

/* Everything a program does with a decoder. */
static dibit_status use_decoder(decoder *d, const char *path, dibit_error *error) {
    dibit_status status = open_decoder(d, path, 2, error);
    if (!status)
        status =
            dibit_state_create(d->session, &(dibit_state_desc){.capacity = 8}, &d->state, error);
    if (!status) status = run_tokens(d, prompt, 7, 0, error);
    if (!status) status = run_tokens(d, prompt, 1, 7, error);
    if (!status) status = dibit_state_fork(d->state, &d->fork, error);
    if (!status) status = run_tokens(d, prompt, 5, 8, error); /* the state grows */
    if (status) return status;
    const dibit_generator_desc desc = {
        .model = d->model, .session = d->session, .allocator = &d->allocator};
    status = dibit_generator_create(&desc, &d->generator, error);
    if (status) return status;
    int64_t tokens[4];
    dibit_sequence sequence = {
        .state = d->fork, .prompt = prompt, .n_prompt = 2, .tokens = tokens, .max_tokens = 4};
    return dibit_generator_run(
        d->generator, &(dibit_generation){.sequences = &sequence, .n_sequences = 1}, error);
}

static const char *const decoders[] = {CASES "llama.q2/model.onnx", CASES "lfm2.q2/model.onnx",
                                       CASES "mistral_swa.q2/model.onnx",
                                       CASES "x_tiedgbq4_asym/model.onnx"};
enum { N_DECODERS = sizeof decoders / sizeof decoders[0] };

static void test_every_allocation_fails_once(void **unused) {
    (void)unused;
    for (int i = 0; i < N_DECODERS; i++) {
        uint64_t fail_at = 0;
        for (;;) {
            counting c = {.fail_at = ++fail_at};
            decoder d = {.allocator = {counting_alloc, counting_release, &c}};
            dibit_error error = {.status = DIBIT_OK};
            const dibit_status status = use_decoder(&d, decoders[i], &error);
            close_decoder(&d);
            assert_int_equal(c.n_live, 0);
            if (c.n_allocs < fail_at) { /* it never came to that one: all have had their turn */
                assert_int_equal(status, DIBIT_OK);
                break;
            }
            if (status != DIBIT_OUT_OF_MEMORY) {
                fail_msg("%s: allocation %u failed, and the status is %s: %s", decoders[i],
                         (unsigned)fail_at, dibit_status_name(status), error.text);
            }
            assert_int_equal(error.status, DIBIT_OUT_OF_MEMORY);
            assert_true(error.text[0] != 0);
        }
        assert_true(fail_at > 40);
        print_message("%s: %u allocations\n", decoders[i], (unsigned)fail_at - 1);
    }
}

/* After a failed run the state is as before it, and the session goes on. */
static void test_a_failed_run_changes_nothing(void **unused) {
    (void)unused;
    counting c = {0};
    decoder d = {.allocator = {counting_alloc, counting_release, &c}};
    dibit_error error;
    assert_int_equal(open_decoder(&d, decoders[0], 1, &error), DIBIT_OK);
    assert_int_equal(
        dibit_state_create(d.session, &(dibit_state_desc){.capacity = 8}, &d.state, &error),
        DIBIT_OK);
    assert_int_equal(run_tokens(&d, prompt, 7, 0, &error), DIBIT_OK);
    uint64_t n_failures = 0;
    for (;;) { /* 7 + 5 tokens do not fit: the state has to grow */
        const uint64_t before = c.n_allocs;
        c.fail_at = before + 1 + n_failures;
        const dibit_status status = run_tokens(&d, prompt, 5, 7, &error);
        if (status == DIBIT_OK) break;
        assert_int_equal(status, DIBIT_OUT_OF_MEMORY);
        assert_int_equal(dibit_state_length(d.state), 7);
        n_failures++;
    }
    assert_true(n_failures > 0);
    assert_int_equal(dibit_state_length(d.state), 12);
    c.fail_at = 0;
    close_decoder(&d);
    assert_int_equal(c.n_live, 0);
}

static void test_warm_decoding_allocates_nothing(void **unused) {
    (void)unused;
    for (int i = 0; i < N_DECODERS; i++) {
        counting c = {0};
        decoder d = {.allocator = {counting_alloc, counting_release, &c}};
        dibit_error error;
        assert_int_equal(open_decoder(&d, decoders[i], 2, &error), DIBIT_OK);
        assert_int_equal(dibit_state_create(d.session, NULL, &d.state, &error), DIBIT_OK);
        assert_int_equal(run_tokens(&d, prompt, 7, 0, &error), DIBIT_OK);
        assert_int_equal(run_tokens(&d, prompt, 1, 7, &error), DIBIT_OK);
        assert_int_equal(run_tokens(&d, prompt, 1, 8, &error), DIBIT_OK);
        const uint64_t allocs = c.n_allocs, mallocs = n_mallocs;
        for (int64_t past = 9; past < 127; past++) {
            assert_int_equal(run_tokens(&d, prompt + past % 7, 1, past, &error), DIBIT_OK);
        }
        assert_int_equal(c.n_allocs, allocs);
        assert_int_equal(n_mallocs, mallocs);
        close_decoder(&d);
    }
}

/* The same run again, with tensors that the caller passes and takes. */
static void test_warm_encoder_allocates_nothing(void **unused) {
    (void)unused;
    counting c = {0};
    decoder d = {.allocator = {counting_alloc, counting_release, &c}};
    dibit_error error;
    assert_int_equal(open_decoder(&d, CASES "bert.q2/model.onnx", 2, &error), DIBIT_OK);
    int64_t ids[2][24] = {{1, 2, 3}}, mask[2][24], types[2][24] = {{0}};
    for (int i = 0; i < 48; i++) mask[i / 24][i % 24] = 1;
    dibit_tensor inputs[3];
    const uint32_t n_inputs = dibit_model_input_count(d.model);
    assert_in_range(n_inputs, 2, 3);
    uint64_t allocs = 0, mallocs = 0;
    for (int run_index = 0; run_index < 6; run_index++) {
        const int64_t length = run_index == 0 ? 24 : 7 + run_index; /* shorter ones fit as well */
        for (uint32_t i = 0; i < n_inputs; i++) {
            dibit_value_info info;
            assert_int_equal(dibit_model_input(d.model, i, &info), DIBIT_OK);
            void *data = strstr(info.name, "mask")   ? (void *)mask
                         : strstr(info.name, "type") ? (void *)types
                                                     : (void *)ids;
            inputs[i] = (dibit_tensor){
                .name = info.name, .type = info.type, .rank = 2, .dims = {2, length}, .data = data};
        }
        dibit_value_info out_info;
        assert_int_equal(dibit_model_output(d.model, 0, &out_info), DIBIT_OK);
        dibit_tensor output = {.name = out_info.name};
        const dibit_run run = {
            .inputs = inputs, .n_inputs = n_inputs, .outputs = &output, .n_outputs = 1};
        assert_int_equal(dibit_session_run(d.session, &run, &error), DIBIT_OK);
        if (run_index == 1) {
            allocs = c.n_allocs;
            mallocs = n_mallocs;
        }
    }
    assert_int_equal(c.n_allocs, allocs);
    assert_int_equal(n_mallocs, mallocs);
    close_decoder(&d);
    assert_int_equal(c.n_live, 0);
}

static void test_files_of_tensors_survive_failures(void **unused) {
    (void)unused;
    dibit_error error;
    dibit_tensors *tensors = NULL;
    assert_int_equal(dibit_tensors_load(CASES "llama.q2/nowhere.pb", &tensors, &error), DIBIT_IO);
    assert_null(tensors);
    assert_int_equal(
        dibit_tensors_load(CASES "llama.q2/test_data_set_0/input_0.pb", &tensors, &error),
        DIBIT_OK);
    assert_int_equal(dibit_tensors_count(tensors), 1);
    dibit_tensors_destroy(&tensors);
    assert_null(tensors);
    dibit_tensors_destroy(&tensors);
}

/* What a tokenizer may keep, from its structure. A hash table of n entries has a power of two of
 * 4-byte slots, more than 2 n and so at most 4 n + 4. For each piece: an entry of 12 bytes, slots, 4
 * bytes by id, and its text with a NUL in a pool that grows by half. For each merge, and there are
 * no more than pieces: 12 bytes, and slots. The rest, added tokens and steps, is 16 KB. */
static void test_tokenizer_is_small(void **unused) {
    (void)unused;
    dibit_error error;
    dibit_tokenizer *tokenizer = NULL;
    const dibit_tokenizer_desc desc = {.path = DBT_SOURCE_DIR
                                       "/models/smollm2-135m-instruct-2bit/tokenizer.json"};
    const size_t before = malloc_bytes;
    assert_int_equal(dibit_tokenizer_load(&desc, &tokenizer, &error), DIBIT_OK);
    const size_t bytes = malloc_bytes - before;
    const size_t n = dibit_tokenizer_size(tokenizer), slots = 4 * (4 * n + 4);
    size_t text = 0;
    for (size_t id = 0; id < n; id++)
        text += strlen(dibit_tokenizer_piece(tokenizer, (int64_t)id)) + 1;
    const size_t pieces = 12 * n + slots + 4 * n + text * 3 / 2, merges = 12 * n + slots;
    if (bytes > pieces + merges + 16384)
        fail_msg("%zu bytes for %zu pieces, not at most %zu", bytes, n, pieces + merges + 16384);
    dibit_tokenizer_destroy(&tokenizer);
    assert_int_equal(malloc_bytes, before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_a_failed_run_changes_nothing),
        cmocka_unit_test(test_warm_decoding_allocates_nothing),
        cmocka_unit_test(test_warm_encoder_allocates_nothing),
        cmocka_unit_test(test_files_of_tensors_survive_failures),
        cmocka_unit_test(test_tokenizer_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
