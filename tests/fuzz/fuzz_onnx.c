/* Fuzz target: the input is a model file. It is read from memory and through a callback that answers
 * PENDING every other time; both must come to the same end, in memory proportional to the input. */
#include "fuzz.h"
#include "onnx/onnx.h"

typedef struct slow_file {
    const uint8_t *data;
    bool pending;
} slow_file;

static dibit_status slow_read(void *user, uint64_t offset, uint64_t bytes, void *dst,
                              dibit_error *error) {
    (void)error;
    slow_file *const f = user;
    f->pending = !f->pending;
    if (f->pending) return DIBIT_PENDING;
    memcpy(dst, f->data + offset, (size_t)bytes);
    return DIBIT_OK;
}

static dibit_status read_model(const dbt_source *source, size_t n) {
    fuzz_memory memory = {.cap = (64 << 10) + n * 64};
    const dibit_allocator allocator = fuzz_allocator(&memory);
    dbt_arena arena;
    dbt_arena_init(&arena, &allocator);
    dbt_onnx_reader *reader = NULL;
    const dbt_onnx_model *model = NULL;
    dibit_error error = {0};
    const dbt_onnx_reader_desc desc = {
        .source = source, .open_external = fuzz_open_zeros, .arena = &arena};
    dibit_status status = dbt_onnx_reader_create(&desc, &reader, &error);
    fuzz_check(status == DIBIT_OK, "a reader can be made");
    do {
        status = dbt_onnx_reader_poll(reader, &model, &error);
    } while (status == DIBIT_PENDING);
    fuzz_check((status == DIBIT_OK) == (model != NULL), "a model comes with success only");
    fuzz_check(status == DIBIT_OK || strlen(error.text) > 10, "a failure comes with a sentence");
    dbt_onnx_reader_destroy(&reader);
    dbt_arena_free(&arena);
    fuzz_check(memory.live == 0, "everything is released");
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    dbt_source source;
    dbt_source_from_buffer(data, n, "fuzz.onnx", &source);
    const dibit_status mapped = read_model(&source, n);
    slow_file file = {data, false};
    const dibit_source callback = {.size = n, .read = slow_read, .user = &file};
    dbt_source_from_callback(&callback, "fuzz.onnx", &source);
    const dibit_status streamed = read_model(&source, n);
    fuzz_check((mapped == DIBIT_OK) == (streamed == DIBIT_OK), "both ways of reading agree");
    return 0;
}
