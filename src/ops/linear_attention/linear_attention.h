/* com.microsoft LinearAttention: attention with a matrix per head as its memory.
 *
 * For every batch row and key/value head, with S of [d_k, d_v], token by token:
 *     S[i, :] *= exp(decay[i])                  gated, gated_delta; one decay a head, or one a row
 *     e = v, or beta * (v - sum_i k[i] S[i, :]) delta, gated_delta
 *     S[i, :] += k[i] * e
 *     output = scale * sum_i q[i] S[i, :]       for each query head of the group
 * There may be more query heads than key/value heads (a group shares S) or fewer (an output for
 * each S), and fewer key heads (which the key's width tells). */
#ifndef DBT_OPS_LINEAR_ATTENTION_H
#define DBT_OPS_LINEAR_ATTENTION_H

#include "ops/op.h"

enum {
    DBT_LINEAR_QUERY,
    DBT_LINEAR_KEY,
    DBT_LINEAR_VALUE,
    DBT_LINEAR_PAST,
    DBT_LINEAR_DECAY,
    DBT_LINEAR_BETA
};

typedef struct dbt_linear_layout {
    int64_t batch, length, q_heads, k_heads, kv_heads, d_k, d_v;
    int64_t slots, slot;             /* of a state, and elements of a slot */
    int64_t decay_width, beta_width; /* elements of a token */
    bool decays, deltas;
    bool decay_by_row; /* one for each row of S, not one a head */
    float scale;
} dbt_linear_layout;

/* BAD_INPUT when the inputs' dims do not fit together; looks at nothing else of them. */
dibit_status dbt_linear_layout_of(const dbt_cpu_call *call, dbt_linear_layout *out);

dibit_status dbt_linear_encode(const dbt_gpu_call *call);

#endif
