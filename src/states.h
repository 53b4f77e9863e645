/* What the files of dibit_state share: states.c makes, forks and cuts states, states_file.c turns them into
 * bytes and back, states_read.c into tensors, states_run.c lends them to a run. Functions of a pair take its index in the plan. */
#ifndef DBT_STATES_H
#define DBT_STATES_H

#include "model.h"

enum { DBT_STATE_CAPACITY = 256, DBT_STATE_WINDOW_SLACK = 256 };

/* ---- Geometry ---- */

const dbt_plan_tensor *dbt_state_past(const dibit_session *session, int32_t i);
bool dbt_state_on_device(const dibit_session *session, int32_t i);
/* Bytes of one row of one head of an APPEND or WINDOW pair. */
uint64_t dbt_state_row_bytes(const dibit_session *session, int32_t i, const dbt_state_part *part);
/* Bytes of `rows` rows of all its heads; UINT64_MAX when they do not fit. */
uint64_t dbt_state_rows_bytes(const dibit_session *session, int32_t i, const dbt_state_part *part,
                              int64_t rows);
/* Bytes of the tensor of a REPLACE pair; UINT64_MAX when they do not fit. */
uint64_t dbt_state_replaced_bytes(const dibit_session *session, int32_t i, const int64_t *dims);
/* Bytes that a part's content takes, room for more rows included. */
uint64_t dbt_state_part_bytes(const dibit_session *session, int32_t i, const dbt_state_part *part);
/* Sets the dims that do not grow; they must be known: memory is laid out by them. */
dibit_status dbt_state_init_dims(const dibit_session *session, int32_t i, dbt_state_part *part,
                                 dibit_error *error);

/* ---- Memory ---- */

/* Room on the CPU. A model that asks for more than the machine has must not bring it down. */
dibit_status dbt_state_reserve(const dibit_session *session, int32_t i, dbt_block *block,
                               uint64_t bytes, dibit_error *error);
/* Room for `capacity` rows a head; what is filled moves along. */
dibit_status dbt_state_grow(const dibit_session *session, int32_t i, dbt_state_part *part,
                            int64_t capacity, dibit_error *error);
/* A state whose parts have no memory yet. */
dibit_status dbt_state_new(dibit_session *session, dibit_state **out, dibit_error *error);
void dbt_state_free(dibit_state *state);
/* The rows that are left of a part after its first `length` tokens, which are not all; -1 when they are gone. */
int64_t dbt_state_rows_left(const dibit_state *state, int32_t i, int64_t length);
/* Brings so many bytes of a part from the device: PENDING until *data is all of it, until stop_reading. One part
 * at a time (BAD_STATE). */
dibit_status dbt_state_read_device(dibit_state *state, int32_t i, uint64_t bytes, void **data,
                                   dibit_error *error);
/* A part that is on its way from the device will not be asked for. */
void dbt_state_stop_reading(dibit_state *state);
/* DEVICE_LOST when it is. */
dibit_status dbt_state_check(const dibit_state *state, dibit_error *error);

#endif
