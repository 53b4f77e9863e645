/* The registry: finds an op by domain, name and opset. */
#include "ops/op.h"

#include <string.h>

#define DBT_OP_FOLDER(name) extern const dbt_op dbt_##name##_ops[];
#include "ops/ops.inc"
#undef DBT_OP_FOLDER

static const dbt_op *const folders[] = {
#define DBT_OP_FOLDER(name) dbt_##name##_ops,
#include "ops/ops.inc"
#undef DBT_OP_FOLDER
    NULL,
};

const dbt_op *dbt_op_find(const char *domain, const char *name, int64_t opset, const dbt_op **any) {
    *any = NULL;
    for (size_t f = 0; folders[f]; f++) {
        for (const dbt_op *op = folders[f]; op->name; op++) {
            if (strcmp(op->name, name) != 0 || strcmp(op->domain, domain) != 0) continue;
            *any = op;
            if (opset >= op->since && (op->until == 0 || opset <= op->until)) return op;
        }
    }
    return NULL;
}

const dbt_op *dbt_op_at(size_t index) {
    for (size_t f = 0; folders[f]; f++) {
        for (const dbt_op *op = folders[f]; op->name; op++) {
            if (index-- == 0) return op;
        }
    }
    return NULL;
}

dibit_status dibit_op(uint32_t index, dibit_op_info *info) {
    const dbt_op *const op = dbt_op_at(index);
    if (!op) return DIBIT_NOT_FOUND;
    *info = (dibit_op_info){op->domain, op->name, op->since, op->until};
    return DIBIT_OK;
}
