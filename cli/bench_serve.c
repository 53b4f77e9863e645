/* dibit bench --serve: measures what it is asked for, so that a benchmark can take turns between engines
 * whose models stay loaded. Prints "ready", then answers each line of standard input with a number:
 *
 *     prefill N all        seconds of a prompt of N tokens, with the logits of all rows
 *     prefill N last       with those of the last row: the time to the first token
 *     decode CONTEXT N     seconds of N tokens after CONTEXT tokens (which are read before the clock starts)
 *     memory               the most bytes that were resident so far
 *
 * or with "error " and a sentence, which ends it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench_measure.h"

enum { CHUNK = 512, MOST = 1 << 20 };

typedef struct server {
    bench_subject b;
    dibit_state *state; /* what decode goes on from */
} server;

static dibit_status prefill(server *s, uint32_t n, bool all, double *seconds, dibit_error *error) {
    double rest;
    return all ? bench_prefill(&s->b, n, seconds, error)
               : bench_generate(&s->b, NULL, n, 1, seconds, &rest, error);
}

/* Brings the state to `context` tokens, then generates from one more; its time is not counted. */
static dibit_status decode(server *s, uint32_t context, uint32_t n, double *seconds,
                           dibit_error *error) {
    double ignored;
    dibit_status status = DIBIT_OK;
    if (!s->state) status = dibit_state_create(s->b.session, NULL, &s->state, error);
    if (status) return status;
    const uint64_t length = dibit_state_length(s->state);
    if (length < context) {
        status = bench_generate(&s->b, s->state, context - (uint32_t)length, 1, &ignored, &ignored,
                                error);
    }
    if (!status) status = dibit_state_truncate(s->state, context, error);
    if (!status) status = bench_generate(&s->b, s->state, 1, n + 1, &ignored, seconds, error);
    if (!status) status = dibit_state_truncate(s->state, context, error);
    return status;
}

/* False: not understood. */
static bool answer(server *s, const char *line, dibit_error *error, dibit_status *status) {
    uint32_t a, b;
    char rows[8];
    double seconds;
    if (strcmp(line, "memory\n") == 0) {
        printf("%" PRIu64 "\n", bench_peak_rss());
        return true;
    }
    if (sscanf(line, "prefill %" SCNu32 " %7s", &a, rows) == 2 && a >= 1 && a <= MOST &&
        (strcmp(rows, "all") == 0 || strcmp(rows, "last") == 0)) {
        *status = prefill(s, a, rows[0] == 'a', &seconds, error);
    } else if (sscanf(line, "decode %" SCNu32 " %" SCNu32, &a, &b) == 2 && a >= 1 && a <= MOST &&
               b >= 1 && b <= MOST) {
        *status = decode(s, a, b, &seconds, error);
    } else {
        return false;
    }
    if (!*status) printf("%.9f\n", seconds);
    return true;
}

int bench_serve(const char *verb, const char *path, const dibit_cli_common *common) {
    server s = {.state = NULL};
    dibit_error error;
    dibit_status status = bench_open(&s.b, path, common, false, CHUNK, &error);
    bool wrong = false;
    char line[100];
    if (!status) printf("ready\n");
    fflush(stdout);
    while (!status && !wrong && fgets(line, sizeof line, stdin)) {
        wrong = !answer(&s, line, &error, &status);
        if (wrong) printf("error cannot measure '%.*s'\n", (int)strcspn(line, "\n"), line);
        if (status) printf("error %s\n", error.text);
        fflush(stdout);
    }
    dibit_state_destroy(&s.state);
    bench_close(&s.b);
    return status ? dibit_cli_fail(verb, error.text) : wrong;
}
