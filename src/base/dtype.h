/* Element types: sizes, names, classes, and the type in which values are stored between steps. */
#ifndef DBT_BASE_DTYPE_H
#define DBT_BASE_DTYPE_H

#include "base/arena.h"

/* One bit per type, for the sets that ops accept. */
#define DBT_TYPE_BIT(type) (1u << (type))
#define DBT_TYPES_FLOAT                                                                            \
    (DBT_TYPE_BIT(DIBIT_TYPE_FLOAT) | DBT_TYPE_BIT(DIBIT_TYPE_FLOAT16) |                           \
     DBT_TYPE_BIT(DIBIT_TYPE_BFLOAT16) | DBT_TYPE_BIT(DIBIT_TYPE_DOUBLE))
#define DBT_TYPES_SIGNED                                                                           \
    (DBT_TYPE_BIT(DIBIT_TYPE_INT8) | DBT_TYPE_BIT(DIBIT_TYPE_INT16) |                              \
     DBT_TYPE_BIT(DIBIT_TYPE_INT32) | DBT_TYPE_BIT(DIBIT_TYPE_INT64))
#define DBT_TYPES_UNSIGNED                                                                         \
    (DBT_TYPE_BIT(DIBIT_TYPE_UINT8) | DBT_TYPE_BIT(DIBIT_TYPE_UINT16) |                            \
     DBT_TYPE_BIT(DIBIT_TYPE_UINT32) | DBT_TYPE_BIT(DIBIT_TYPE_UINT64))
#define DBT_TYPES_INTEGER (DBT_TYPES_SIGNED | DBT_TYPES_UNSIGNED)
#define DBT_TYPES_NUMBER (DBT_TYPES_FLOAT | DBT_TYPES_INTEGER)
#define DBT_TYPES_BOOL DBT_TYPE_BIT(DIBIT_TYPE_BOOL)
#define DBT_TYPES_SUBBYTE                                                                          \
    (DBT_TYPE_BIT(DIBIT_TYPE_UINT4) | DBT_TYPE_BIT(DIBIT_TYPE_INT4) |                              \
     DBT_TYPE_BIT(DIBIT_TYPE_UINT2) | DBT_TYPE_BIT(DIBIT_TYPE_INT2))
#define DBT_TYPES_INDEX (DBT_TYPE_BIT(DIBIT_TYPE_INT32) | DBT_TYPE_BIT(DIBIT_TYPE_INT64))
/* Everything that a value between steps can have (no strings, complex or 8-bit floats). */
#define DBT_TYPES_VALUE (DBT_TYPES_NUMBER | DBT_TYPES_BOOL | DBT_TYPES_SUBBYTE)

static inline bool dbt_type_in(dibit_type type, uint32_t set) {
    return (unsigned)type < 32 && (set >> type & 1) != 0;
}
static inline bool dbt_type_is_float(dibit_type type) { return dbt_type_in(type, DBT_TYPES_FLOAT); }

/* How values of a type are stored between steps: every float as float, 2- and 4-bit integers one to
 * a byte (int8 or uint8), everything else as it is. */
dibit_type dbt_storage_type(dibit_type type);

/* How a device stores them: every float as float, all else as int32, one word an element. */
static inline dibit_type dbt_device_type(dibit_type type) {
    return dbt_type_is_float(type) ? DIBIT_TYPE_FLOAT : DIBIT_TYPE_INT32;
}
/* Converts `count` integers or bools between their storage type and a device's words, either way;
 * to words false when one does not fit 32 bits. dst and src do not overlap. */
bool dbt_integers_to_words(dibit_type type, const void *storage, int32_t *words, int64_t count);
void dbt_words_to_integers(dibit_type type, const int32_t *words, void *storage, int64_t count);

/* Product of dims; false when a dim is negative or the product overflows int64. Rank 0: 1. */
bool dbt_count(int32_t rank, const int64_t *dims, int64_t *count);
/* Bytes of `count` packed elements: ceil(count * bits / 8); false on overflow. */
bool dbt_packed_bytes(dibit_type type, uint64_t count, uint64_t *bytes);

/* Elements and bytes of a tensor whose dims are known to be sane (a value of a checked plan). */
static inline int64_t dbt_tensor_count(const dibit_tensor *t) {
    int64_t n = 1;
    for (int32_t i = 0; i < t->rank; i++) n *= t->dims[i];
    return n;
}

/* Converts `count` elements between a packed ONNX type and its storage type, either way. Rounds to
 * nearest even; to 2 and 4 bits keeps the low bits. dst and src do not overlap. */
void dbt_unpack_elements(dibit_type type, const void *packed, void *storage, int64_t count);
void dbt_pack_elements(dibit_type type, const void *storage, void *packed, int64_t count);
/* The same to float16 where the CPU has DIBIT_ISA_AVX2 (base/half_avx2.c, on x86-64 alone). */
void dbt_pack_halves_avx2(const float *x, void *packed, int64_t count);

#endif
