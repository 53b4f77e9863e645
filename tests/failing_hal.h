/* A device that fails when a test wants it to: stands before the calls of a HAL, counts those that answer a
 * status, and lets one of them fail. One at a time. */
#ifndef DIBIT_FAILING_HAL_H
#define DIBIT_FAILING_HAL_H

#include "gpu/hal.h"

typedef enum failing_how {
    FAILING_ANSWERS, /* the call answers the status, and the device never hears of it */
    FAILING_LOSES,   /* a native device is destroyed before the call, and says so */
    FAILING_DESTROYS, /* the same, but has to find out; before a poll as FAILING_LOSES, since the library
                         aborts on what is mapped then */
} failing_how;

typedef struct failing_hal {
    uint64_t n_calls;
    uint64_t at;  /* which call fails, from 1; 0: none */
    bool buffers; /* only the creation of buffers counts */
    failing_how how;
    dibit_status status; /* FAILING_ANSWERS; DEVICE_LOST is answered from then on, others once */
    bool failed;
} failing_hal;
extern failing_hal failing;

/* Stands before the hal's calls until the hal is destroyed. `failing` is the caller's to set. */
void failing_hal_wrap(dbt_hal *hal);

#endif
