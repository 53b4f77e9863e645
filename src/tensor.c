/* Tensors by themselves: the public function that changes their type. */
#include <string.h>

#include "model.h"

dibit_status dibit_tensor_convert(const dibit_tensor *from, dibit_tensor *to, dibit_error *error) {
    DBT_FAIL_IF(!from || !to, error, DIBIT_BAD_ARGUMENT, "from and to must not be NULL");
    int64_t count;
    uint64_t bytes;
    DBT_FAIL_IF(from->rank < 0 || from->rank > DIBIT_MAX_RANK ||
                    !dbt_count(from->rank, from->dims, &count) ||
                    !dbt_packed_bytes(to->type, (uint64_t)count, &bytes),
                error, DIBIT_BAD_ARGUMENT, "the tensor has a negative or too large dim");
    DBT_FAIL_IF(to->bytes < bytes || (count > 0 && (!from->data || !to->data)), error,
                DIBIT_TOO_LARGE, "%llu bytes are needed, got %llu", (unsigned long long)bytes,
                (unsigned long long)to->bytes);
    const bool integers =
        from->type == DIBIT_TYPE_INT64 && dbt_type_in(to->type, DBT_TYPES_INTEGER | DBT_TYPES_BOOL);
    if (from->type == to->type) {
        if (bytes) memcpy(to->data, from->data, (size_t)bytes);
    } else if (integers) {
        for (int64_t i = 0; i < count; i++) {
            dbt_write_integer(to->type, to->data, i, ((const int64_t *)from->data)[i]);
        }
    } else if (dbt_type_in(to->type, DBT_TYPES_VALUE) && dbt_storage_type(to->type) == from->type) {
        dbt_pack_elements(to->type, from->data, to->data, count);
    } else if (dbt_type_in(from->type, DBT_TYPES_VALUE) &&
               dbt_storage_type(from->type) == to->type) {
        dbt_unpack_elements(from->type, from->data, to->data, count);
    } else {
        return dbt_fail(error, DIBIT_UNSUPPORTED, "%s cannot become %s",
                        dibit_type_name(from->type), dibit_type_name(to->type));
    }
    to->rank = from->rank;
    memcpy(to->dims, from->dims, sizeof to->dims);
    return DIBIT_OK;
}
