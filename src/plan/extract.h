/* Nodes of a graph as a model of their own. */
#ifndef DBT_PLAN_EXTRACT_H
#define DBT_PLAN_EXTRACT_H

#include "graph/graph.h"

/* As dibit_model_extract says. */
dibit_status dbt_extract(const dbt_graph *graph, dibit_extract *what, dibit_write write, void *user,
                         dibit_error *error);

#endif
