/* Fuzz target: the input is a model file, which is loaded, planned for one thread, and, when its
 * inputs are small, run on zeros with every symbolic dimension 2. */
#include "dibit/dibit.h"
#include "fuzz.h"

enum { MAX_VALUES = 16, MAX_INPUT_BYTES = 1 << 16 };

static void ignore_text(void *user, const char *text, size_t n) { (void)user, (void)text, (void)n; }

/* Describes input `index` in *t, with zeros; false when it is too large or of no size. */
static bool make_input(const dibit_model *model, uint32_t index, void *zeros, dibit_tensor *t) {
    dibit_value_info info;
    fuzz_check(dibit_model_input(model, index, &info) == DIBIT_OK, "inputs can be described");
    if (info.rank < 0 || dibit_type_bits(info.type) == 0) return false;
    *t = (dibit_tensor){.name = info.name, .type = info.type, .rank = info.rank, .data = zeros};
    uint64_t bits = dibit_type_bits(info.type);
    for (int32_t i = 0; i < info.rank; i++) {
        t->dims[i] = info.dims[i] < 0 ? 2 : info.dims[i];
        if (t->dims[i] > MAX_INPUT_BYTES) return false;
        bits *= (uint64_t)t->dims[i];
        if (bits > MAX_INPUT_BYTES * 8) return false;
    }
    return true;
}

static void run_session(const dibit_model *model, dibit_session *session) {
    static uint64_t zeros[MAX_INPUT_BYTES / 8];
    dibit_tensor inputs[MAX_VALUES], outputs[MAX_VALUES];
    const uint32_t n_inputs = dibit_model_input_count(model);
    const uint32_t n_outputs = dibit_model_output_count(model);
    if (n_inputs > MAX_VALUES || n_outputs > MAX_VALUES) return;
    for (uint32_t i = 0; i < n_inputs; i++) {
        if (!make_input(model, i, zeros, &inputs[i])) return;
    }
    for (uint32_t i = 0; i < n_outputs; i++) {
        dibit_value_info info;
        fuzz_check(dibit_model_output(model, i, &info) == DIBIT_OK, "outputs can be described");
        outputs[i] = (dibit_tensor){.name = info.name};
    }
    const dibit_run run = {
        .inputs = inputs, .outputs = outputs, .n_inputs = n_inputs, .n_outputs = n_outputs};
    dibit_error error = {0};
    const dibit_status status = dibit_session_run(session, &run, &error);
    fuzz_check(status == DIBIT_OK || strlen(error.text) > 10, "a failure comes with a sentence");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static dibit_device *device;
    dibit_error error = {0};
    if (!device) {
        const dibit_device_desc desc = {.n_threads = 1};
        fuzz_check(dibit_device_create(&desc, &device, &error) == DIBIT_OK, "there is a CPU");
    }
    if (n == 0) return 0;
    fuzz_memory memory = {.refuse_above = 256 << 20};
    const dibit_allocator allocator = fuzz_allocator(&memory);
    const dibit_model_desc desc = {.data = data,
                                   .data_bytes = n,
                                   .open_external = fuzz_open_zeros,
                                   .allocator = &allocator,
                                   .name = "fuzz.onnx"};
    dibit_model *model = NULL;
    dibit_session *session = NULL;
    dibit_status status = dibit_model_load(&desc, &model, &error);
    fuzz_check((status == DIBIT_OK) == (model != NULL), "a model comes with success only");
    if (model) {
        dibit_model_dump(model, ignore_text, NULL);
        const dibit_session_desc session_desc = {.device = device};
        status = dibit_session_create(model, &session_desc, &session, &error);
        fuzz_check((status == DIBIT_OK) == (session != NULL), "a session comes with success only");
        if (session) run_session(model, session);
    }
    fuzz_check(status == DIBIT_OK || strlen(error.text) > 10, "a failure comes with a sentence");
    dibit_session_destroy(&session);
    dibit_model_destroy(&model);
    fuzz_check(memory.live == 0, "everything is released");
    return 0;
}
