/* Statuses, their names and the sentence in a dibit_error. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *dibit_status_name(dibit_status status) {
    switch (status) {
#define STATUS_CASE(name, value, text)                                                             \
    case DIBIT_##name: return #name;
        DIBIT_STATUS_LIST(STATUS_CASE)
#undef STATUS_CASE
    }
    return "UNKNOWN";
}

const char *dibit_status_text(dibit_status status) {
    switch (status) {
#define STATUS_CASE(name, value, text)                                                             \
    case DIBIT_##name: return text;
        DIBIT_STATUS_LIST(STATUS_CASE)
#undef STATUS_CASE
    }
    return "unknown status";
}

/* Names come from model files: keep the sentence on one printable line. */
static void make_printable(char *text) {
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
    }
}

dibit_status dbt_fail(dibit_error *error, dibit_status status, const char *format, ...) {
    if (!error) return status;
    error->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    make_printable(error->text);
    return status;
}

void dbt_error_prefix(dibit_error *error, const char *format, ...) {
    if (!error) return;
    char old[sizeof error->text];
    memcpy(old, error->text, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    if (n < 0) n = 0;
    const size_t used = (size_t)n < sizeof error->text ? (size_t)n : sizeof error->text - 1;
    const size_t room = sizeof error->text - used;
    snprintf(error->text + used, room, ": %.*s", room > 3 ? (int)room - 3 : 0, old);
    make_printable(error->text);
}

dibit_status dbt_fail_memory(dibit_error *error, const char *what, uint64_t bytes) {
    return dbt_fail(error, DIBIT_OUT_OF_MEMORY, "out of memory: %llu bytes for %s",
                    (unsigned long long)bytes, what);
}
