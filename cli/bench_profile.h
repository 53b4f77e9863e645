/* Where the time of a session went, by operator and by step: what `dibit bench --profile` shows. */
#ifndef DIBIT_CLI_BENCH_PROFILE_H
#define DIBIT_CLI_BENCH_PROFILE_H

#include <jansson.h>

#include "bench_op_limits.h"
#include "cli.h"

typedef struct bench_profile bench_profile;

/* What the session has counted since its profile was reset, in `runs` runs. */
bench_profile *bench_profile_take(const dibit_session *session, uint32_t runs);
/* Sets the machine's limits beside it, measured for threads and isa with as many bytes as a run reads; not
 * for a profile of a device. */
dibit_status bench_profile_measure_limits(bench_profile *profile, uint32_t threads, uint64_t isa,
                                          dibit_error *error);
void bench_profile_print(const bench_profile *profile, const char *title);
/* {"limits": {...} or null, "ops": [...], "total": {...}} */
json_t *bench_profile_json(const bench_profile *profile);
void bench_profile_free(bench_profile *profile);

#endif
