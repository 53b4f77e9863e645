/* Where the time of a session went, by operator and by step: what `dibit bench --profile` shows. */
#ifndef DIBIT_CLI_BENCH_PROFILE_H
#define DIBIT_CLI_BENCH_PROFILE_H

#include <jansson.h>

#include "cli.h"

typedef struct bench_profile bench_profile;

/* What the session has counted since its profile was reset, in `runs` runs. */
bench_profile *bench_profile_take(const dibit_session *session, uint32_t runs);
void bench_profile_print(const bench_profile *profile, const char *title);
json_t *bench_profile_json(const bench_profile *profile);
void bench_profile_free(bench_profile *profile);

#endif
