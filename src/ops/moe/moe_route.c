/* Which experts a token goes to, and with what weights. */
#include "ops/moe/moe.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* The largest logit that is not taken; of equal ones the last. NaN loses. */
static int64_t largest(const float *logits, int64_t n, const uint8_t *taken) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        if (!taken[i] && (best < 0 || logits[i] >= logits[best] || logits[best] != logits[best])) {
            best = i;
        }
    }
    return best;
}

static float sum_exp(const float *x, int64_t n, float max) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += expf(x[i] - max);
    return sum;
}

/* The two experts of SparseMixer, each weighed by a softmax over those that come close to it: whose
 * distance, relative to the larger of |logit| and the chosen one, is at most 2 * jitter. */
static void sparse_mixer(const float *logits, int64_t n, uint8_t *taken, dbt_moe_route *out) {
    const float jitter = 0.01f;
    for (int r = 0; r < 2; r++) {
        const int64_t best = largest(logits, n, taken);
        const float max = logits[best];
        float sum = 0;
        for (int64_t i = 0; i < n; i++) {
            const float factor = fmaxf(fabsf(logits[i]), max);
            if (!taken[i] && !((max - logits[i]) > 2 * jitter * factor))
                sum += expf(logits[i] - max);
        }
        out[r] = (dbt_moe_route){(int32_t)best, 1 / sum, 0};
        taken[best] = 1;
    }
}

void dbt_moe_route_token(const dbt_moe_attrs *attrs, bool quantized, const float *logits,
                         const float *router_weights, int64_t experts, uint8_t *taken,
                         dbt_moe_route *out) {
    const int64_t k = attrs->k;
    memset(taken, 0, (size_t)experts);
    if (attrs->use_sparse_mixer) {
        sparse_mixer(logits, experts, taken, out);
    } else {
        for (int64_t r = 0; r < k; r++) {
            const int64_t best = largest(logits, experts, taken);
            taken[best] = 1;
            out[r].expert = (int32_t)best;
            out[r].weight =
                router_weights ? router_weights[best] : expf(logits[best] - logits[out[0].expert]);
        }
        float sum = 1;
        if (router_weights ? attrs->normalize_routing_weights != 0
                           : quantized || attrs->normalize_routing_weights != 0) {
            sum = 0;
            for (int64_t r = 0; r < k; r++) sum += out[r].weight;
        } else if (!router_weights) {
            sum = sum_exp(logits, experts, logits[out[0].expert]);
        }
        const float scale = sum == 0 ? 0 : 1 / sum;
        for (int64_t r = 0; r < k; r++) out[r].weight *= scale;
    }
    /* Each exponential is off by its argument's rounding and 2 ulp; the sum by n roundings. */
    const float spread = fabsf(logits[out[0].expert]) + 8;
    for (int64_t r = 0; r < k; r++) {
        const float argument = spread + fabsf(logits[out[r].expert]);
        out[r].error = fabsf(out[r].weight) * FLT_EPSILON * (argument + (float)experts);
        if (!(out[r].weight > (quantized ? 1e-8f : 0))) out[r].weight = 0;
    }
}
