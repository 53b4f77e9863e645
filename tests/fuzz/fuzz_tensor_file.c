/* Fuzz target: the input is a file of tensors (.pb, .npy or .npz). */
#include "fuzz.h"
#include "onnx/tensor_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    /* deflate makes at most 1032 bytes of one, which are unpacked and then copied */
    fuzz_memory memory = {.cap = (64 << 10) + n * 1032 * 2};
    const dibit_allocator allocator = fuzz_allocator(&memory);
    struct dibit_tensors set = {0};
    dbt_source source;
    dibit_error error = {0};
    dbt_source_from_buffer(data, n, "fuzz", &source);
    dbt_arena_init(&set.arena, &allocator);
    const dibit_status status = dbt_tensors_read(&source, &set, &error);
    fuzz_check(status == DIBIT_OK || strlen(error.text) > 10, "a failure comes with a sentence");
    for (uint32_t i = 0; status == DIBIT_OK && i < set.count; i++) {
        const dibit_tensor *const t = &set.tensors[i];
        uint64_t bytes = dibit_type_bits(t->type);
        for (int32_t d = 0; d < t->rank; d++) bytes *= (uint64_t)t->dims[d];
        fuzz_check(t->bytes == (bytes + 7) / 8, "bytes are what type and dims say");
        fuzz_check(t->name && t->data, "name and data are there");
        for (uint64_t b = 0; b < t->bytes; b += 1 + t->bytes / 64) {
            (void)*(volatile uint8_t *)((uint8_t *)t->data + b);
        }
    }
    dbt_arena_free(&set.arena);
    fuzz_check(memory.live == 0, "everything is released");
    return 0;
}
