/* The protobuf wire format, read in place. Positions are file offsets: a file is one run of resident
 * bytes when it is mapped, and several when a callback delivered only the parts that are needed.
 *
 *     dbt_wire_message m = {&wire, begin, end, NULL};
 *     dbt_wire_field f;
 *     while (dbt_wire_next(&m, &f)) switch (f.number) ...
 *     if (m.wrong) ...     // malformed, at byte m.at
 *
 * Nothing here allocates, recurses, or reads outside of a message. */
#ifndef DBT_ONNX_WIRE_H
#define DBT_ONNX_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Resident bytes of a file: [begin, end) lies at data. */
typedef struct dbt_wire_run {
    uint64_t begin, end;
    const uint8_t *data;
} dbt_wire_run;

typedef struct dbt_wire {
    const dbt_wire_run *runs; /* in the order of the file, not overlapping */
    size_t n_runs;
    size_t hint; /* the run that was used last */
} dbt_wire;

typedef enum dbt_wire_type {
    DBT_WIRE_VARINT = 0,
    DBT_WIRE_FIXED64 = 1,
    DBT_WIRE_BYTES = 2,
    DBT_WIRE_FIXED32 = 5
} dbt_wire_type;

typedef struct dbt_wire_message {
    dbt_wire *wire;
    uint64_t at, end;
    const char *wrong; /* why reading stopped before the end; then `at` is where */
} dbt_wire_message;

/* What `wrong` points to when a byte is not resident (compared by address). */
extern const char dbt_wire_not_resident[];

typedef struct dbt_wire_field {
    uint32_t number;
    dbt_wire_type type;
    uint64_t value;     /* VARINT, FIXED32, FIXED64: the bits */
    uint64_t at, bytes; /* BYTES: the payload, which lies inside the message (resident or not) */
} dbt_wire_field;

/* Reads the next field, or returns false at the end and where the bytes are malformed. */
bool dbt_wire_next(dbt_wire_message *message, dbt_wire_field *field);
/* The message that a field of type BYTES holds. */
dbt_wire_message dbt_wire_inside(const dbt_wire_message *message, const dbt_wire_field *field);

/* Pointer to n bytes when they are resident in one piece, else NULL. */
const uint8_t *dbt_wire_pointer(dbt_wire *wire, uint64_t at, uint64_t n);
/* Copies n bytes; false when not all are resident. */
bool dbt_wire_copy(dbt_wire *wire, uint64_t at, uint64_t n, void *dst);

/* The values that one occurrence of a repeated scalar field holds: several when it is packed, one
 * when it is not. dbt_wire_values_begin returns false when the field cannot hold scalars of `type`.
 * A `wrong` in values->message means malformed. */
typedef struct dbt_wire_values {
    dbt_wire_message message;
    dbt_wire_type type;
    uint64_t value;
    bool single;
} dbt_wire_values;

bool dbt_wire_values_begin(const dbt_wire_message *message, const dbt_wire_field *field,
                           dbt_wire_type type, dbt_wire_values *values);
bool dbt_wire_values_next(dbt_wire_values *values, uint64_t *value);

#endif
