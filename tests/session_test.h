/* What tests of sessions share: a model from bytes and a session on it, with an allocator that counts. */
#ifndef DBT_TESTS_SESSION_TEST_H
#define DBT_TESTS_SESSION_TEST_H

#include "model_writer.h"
#include "onnx_test.h"

/* Zeroed before it is opened. */
typedef struct fixture {
    pb bytes;
    counter counter;
    dibit_model *model;
    dibit_session *session;
    dibit_error error;
} fixture;

/* graph is used up; close_model is due whatever the status. */
static inline dibit_status try_open(fixture *f, pb *graph, const dibit_session_desc *desc) {
    f->bytes = model_of(graph, NULL);
    const dibit_allocator allocator = counter_allocator(&f->counter);
    const dibit_model_desc model = {
        .data = f->bytes.data, .data_bytes = f->bytes.n, .allocator = &allocator};
    const dibit_status status = dibit_model_load(&model, &f->model, &f->error);
    return status ? status : dibit_session_create(f->model, desc, &f->session, &f->error);
}

static inline void open_model(fixture *f, pb *graph, const dibit_session_desc *desc) {
    if (try_open(f, graph, desc) != DIBIT_OK) fail_msg("%s", f->error.text);
}

static inline void close_model(fixture *f) {
    dibit_session_destroy(&f->session);
    dibit_model_destroy(&f->model);
    assert_int_equal(f->counter.live, 0);
    pb_free(&f->bytes);
}

static inline dibit_status run_with(fixture *f, const dibit_tensor *inputs, uint32_t n,
                                    dibit_tensor *out, dibit_state *const *states,
                                    uint32_t n_states) {
    const dibit_run r = {.inputs = inputs,
                         .n_inputs = n,
                         .outputs = out,
                         .n_outputs = 1,
                         .states = states,
                         .n_states = n_states};
    return dibit_session_run(f->session, &r, &f->error);
}

static inline dibit_status run(fixture *f, const dibit_tensor *inputs, uint32_t n,
                               dibit_tensor *out) {
    return run_with(f, inputs, n, out, NULL, 0);
}

#endif
