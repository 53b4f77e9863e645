/* See cast.h: a loop for every pair of storage types. */
#include "ops/cast/cast.h"

#include <string.h>

#include "base/half.h"

/* T(name, C type, least, 2^bits beyond the largest, largest) */
#define INTEGERS(T)                                                                                \
    T(i8, int8_t, INT8_MIN, 0x1p7f, INT8_MAX)                                                      \
    T(i16, int16_t, INT16_MIN, 0x1p15f, INT16_MAX)                                                 \
    T(i32, int32_t, INT32_MIN, 0x1p31f, INT32_MAX)                                                 \
    T(i64, int64_t, INT64_MIN, 0x1p63f, INT64_MAX)                                                 \
    T(u8, uint8_t, 0, 0x1p8f, UINT8_MAX)                                                           \
    T(u16, uint16_t, 0, 0x1p16f, UINT16_MAX)                                                       \
    T(u32, uint32_t, 0, 0x1p32f, UINT32_MAX)                                                       \
    T(u64, uint64_t, 0, 0x1p64f, UINT64_MAX)

#define LOOP(name, S, D, expression)                                                               \
    static void name(const void *x_, void *y_, int64_t n) {                                        \
        const S *const x = x_;                                                                     \
        D *const y = y_;                                                                           \
        for (int64_t i = 0; i < n; i++) y[i] = (D)(expression);                                    \
    }

#define TO_INTEGER(d, D, least, beyond, largest)                                                   \
    LOOP(f32_to_##d, float, D,                                                                     \
         x[i] != x[i]             ? 0                                                              \
         : x[i] <= (float)(least) ? least                                                          \
         : x[i] >= beyond         ? largest                                                        \
                                  : (D)x[i])                                                               \
    LOOP(i8_to_##d, int8_t, D, x[i])                                                               \
    LOOP(i16_to_##d, int16_t, D, x[i])                                                             \
    LOOP(i32_to_##d, int32_t, D, x[i])                                                             \
    LOOP(i64_to_##d, int64_t, D, x[i])                                                             \
    LOOP(u8_to_##d, uint8_t, D, x[i])                                                              \
    LOOP(u16_to_##d, uint16_t, D, x[i])                                                            \
    LOOP(u32_to_##d, uint32_t, D, x[i])                                                            \
    LOOP(u64_to_##d, uint64_t, D, x[i])                                                            \
    LOOP(bool_to_##d, uint8_t, D, x[i] != 0)
INTEGERS(TO_INTEGER)

#define FROM_INTEGER(s, S, least, beyond, largest)                                                 \
    LOOP(s##_to_f32, S, float, x[i])                                                               \
    LOOP(s##_to_bool, S, uint8_t, x[i] != 0)
INTEGERS(FROM_INTEGER)
LOOP(f32_to_f32, float, float, x[i])
LOOP(f32_to_bool, float, uint8_t, x[i] != 0)
LOOP(bool_to_f32, uint8_t, float, x[i] != 0)
LOOP(bool_to_bool, uint8_t, uint8_t, x[i] != 0)

enum { F32, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, TYPES };

static int type_index(dibit_type type) {
    switch (type) {
    case DIBIT_TYPE_INT8: return I8;
    case DIBIT_TYPE_INT16: return I16;
    case DIBIT_TYPE_INT32: return I32;
    case DIBIT_TYPE_INT64: return I64;
    case DIBIT_TYPE_UINT8: return U8;
    case DIBIT_TYPE_UINT16: return U16;
    case DIBIT_TYPE_UINT32: return U32;
    case DIBIT_TYPE_UINT64: return U64;
    case DIBIT_TYPE_BOOL: return BOOL;
    default: return F32;
    }
}

#define ROW(s)                                                                                     \
    {[F32] = s##_to_f32, [I8] = s##_to_i8,    [I16] = s##_to_i16, [I32] = s##_to_i32,              \
     [I64] = s##_to_i64, [U8] = s##_to_u8,    [U16] = s##_to_u16, [U32] = s##_to_u32,              \
     [U64] = s##_to_u64, [BOOL] = s##_to_bool}
static void (*const loops[TYPES][TYPES])(const void *x, void *y, int64_t n) = {
    [F32] = ROW(f32), [I8] = ROW(i8),   [I16] = ROW(i16), [I32] = ROW(i32), [I64] = ROW(i64),
    [U8] = ROW(u8),   [U16] = ROW(u16), [U32] = ROW(u32), [U64] = ROW(u64), [BOOL] = ROW(bool),
};

/* Brings stored values into the range of a type that is narrower than its storage. */
static void narrow(dibit_type to, void *y, int64_t n) {
    float *const f = y;
    int8_t *const s = y;
    uint8_t *const u = y;
    switch (to) {
    case DIBIT_TYPE_FLOAT16:
        for (int64_t i = 0; i < n; i++) f[i] = dbt_half_to_float(dbt_float_to_half(f[i]));
        break;
    case DIBIT_TYPE_BFLOAT16:
        for (int64_t i = 0; i < n; i++) f[i] = dbt_bfloat16_to_float(dbt_float_to_bfloat16(f[i]));
        break;
    case DIBIT_TYPE_UINT4:
        for (int64_t i = 0; i < n; i++) u[i] &= 15;
        break;
    case DIBIT_TYPE_UINT2:
        for (int64_t i = 0; i < n; i++) u[i] &= 3;
        break;
    case DIBIT_TYPE_INT4:
        for (int64_t i = 0; i < n; i++) s[i] = (int8_t)(((s[i] + 8) & 15) - 8);
        break;
    case DIBIT_TYPE_INT2:
        for (int64_t i = 0; i < n; i++) s[i] = (int8_t)(((s[i] + 2) & 3) - 2);
        break;
    default: break;
    }
}

void dbt_cast(dibit_type from, const void *x, dibit_type to, void *y, int64_t n) {
    /* Through int8, so that the low bits of negative floats are kept for unsigned types too. */
    const bool is_narrow = dbt_type_in(to, DBT_TYPES_SUBBYTE);
    const int target = is_narrow ? I8 : type_index(dbt_storage_type(to));
    loops[type_index(from)][target](x, y, n);
    narrow(to, y, n);
}
