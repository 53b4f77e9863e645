/* The other half of op_harness: a case that ran on the CPU runs on the device that the environment names
 * (test_device.h), and its outputs are compared. The null device computes and compares nothing. */
#ifndef DBT_TESTS_OP_DEVICE_H
#define DBT_TESTS_OP_DEVICE_H

#include "op_harness.h"

typedef struct op_device_case {
    const dbt_node *node;
    const void *attrs;
    dbt_arena *arena;
    uint32_t n_inputs, n_outputs;
    const dibit_tensor *const *in; /* as cpu_run got them */
    uint32_t constants;            /* bit i: input i is one */
    /* What the CPU answered, NULL where not wanted; and how far a device may be from it: per element of
     * a float output. */
    const dibit_tensor *const *out;
    const float *const *allowed;
    const dbt_state_row *const *rows; /* as the CPU left them, or NULL */
    dibit_activations activations;
} op_device_case;

/* Whether there is a device to run on. Fails the test when it cannot be opened. */
bool op_device_wanted(void);
/* Fails the test when the device's outputs differ from the CPU's, when it writes beyond them, or when the
 * op refuses the node for a reason that tests/device_refusals.inc does not list. */
void op_device_check(const op_device_case *c);

#endif
