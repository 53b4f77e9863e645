/* Float to float16 with F16C, for the rows of logits that exec/cpu_exec.c packs. The bits are those of
 * base/half.h's function. */
#include <immintrin.h>

#include "base/dtype.h"

enum { LANES = 8 };

void dbt_pack_halves_avx2(const float *x, void *packed, int64_t count) {
    char *const bytes = packed;
    int64_t i = 0;
    for (; count - i >= LANES; i += LANES) {
        const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(bytes + i * 2), h);
    }
    dbt_pack_elements(DIBIT_TYPE_FLOAT16, x + i, bytes + i * 2, count - i);
}
