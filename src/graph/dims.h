/* Symbolic dims: integer expressions over named symbols, interned so that equal expressions have
 * equal handles, and evaluated once per run.
 *
 * A dim is an index into its table. Expressions are kept in the normal form
 *     c0 + c1 * t1 + c2 * t2 + ...        t: a symbol, a product of symbols, or one of the functions below
 * so past + seq - past is seq, and (batch * seq * 64) / (batch * 64) is seq. */
#ifndef DBT_GRAPH_DIMS_H
#define DBT_GRAPH_DIMS_H

#include "base/arena.h"

typedef int32_t dbt_dim;
#define DBT_DIM_NONE ((dbt_dim) - 1) /* unknown, or out of memory; operations on it give it back */
#define DBT_DIM_UNRESOLVED INT64_MIN /* value of a dim whose symbols are not all known yet */

typedef struct dbt_dims dbt_dims;

typedef enum dbt_dim_op {
    DBT_DIM_ADD,
    DBT_DIM_SUB,
    DBT_DIM_MUL,
    DBT_DIM_DIV, /* truncating, as ONNX's Div on integers */
    DBT_DIM_CEIL_DIV,
    DBT_DIM_MOD, /* sign of the divisor, as ONNX's Mod with fmod = 0 */
    DBT_DIM_MIN,
    DBT_DIM_MAX,
    DBT_DIM_BROADCAST, /* b when a is 1, else a: numpy's rule; at run time the op checks that they fit */
    DBT_DIM_EQUAL, /* comparisons give 0 or 1 */
    DBT_DIM_LESS,
    DBT_DIM_LESS_EQUAL,
} dbt_dim_op;

dbt_dims *dbt_dims_create(dbt_arena *arena); /* NULL: out of memory */
dbt_dim dbt_dim_const(dbt_dims *dims, int64_t value);
/* The symbol of that name; the same handle for the same name. It is a size: never negative, which
 * decides many comparisons (max(seq, 0) is seq, min(seq, past + seq) too). */
dbt_dim dbt_dim_symbol(dbt_dims *dims, const char *name);
/* A symbol of any sign, for a host value that is no size. A name is either the one or the other. */
dbt_dim dbt_dim_number(dbt_dims *dims, const char *name);
/* A symbol of the planner's: a size, and never one that the model calls the same. */
dbt_dim dbt_dim_own(dbt_dims *dims, const char *name);
/* A new symbol whose value only a node that runs can tell. */
dbt_dim dbt_dim_fresh(dbt_dims *dims, const char *node_name);
dbt_dim dbt_dim_apply(dbt_dims *dims, dbt_dim_op op, dbt_dim a, dbt_dim b);
/* condition != 0 ? a : b */
dbt_dim dbt_dim_select(dbt_dims *dims, dbt_dim condition, dbt_dim a, dbt_dim b);

bool dbt_dim_is_const(const dbt_dims *dims, dbt_dim d, int64_t *value); /* value may be NULL */
bool dbt_dim_is(const dbt_dims *dims, dbt_dim d, int64_t value);
bool dbt_dim_is_fresh(const dbt_dims *dims, dbt_dim d); /* a fresh symbol itself */
/* (product of the n dims of a) / (product of the m dims of b), cancelling equal factors. */
dbt_dim dbt_dim_quotient(dbt_dims *dims, const dbt_dim *a, int32_t n, const dbt_dim *b, int32_t m);
/* Writes the expression as text, NUL-terminated, cut to size. */
void dbt_dim_text(const dbt_dims *dims, dbt_dim d, char *text, size_t size);

/* ---- Evaluation: values[dbt_dims_count] ---- */
int32_t dbt_dims_count(const dbt_dims *dims);
/* The symbol's name, or NULL when d is no symbol. */
const char *dbt_dim_symbol_name(const dbt_dims *dims, dbt_dim d);
/* Sets all values to unresolved, except constants. */
void dbt_dims_reset(const dbt_dims *dims, int64_t *values);
/* Computes what can be computed from the symbols that were set in values; overflow and division by
 * zero leave a dim unresolved. */
void dbt_dims_evaluate(const dbt_dims *dims, int64_t *values);

#endif
