/* The device that tests run on, as the environment says: DIBIT_TEST_DEVICE is webgpu (with the library
 * DIBIT_WEBGPU_LIB) or null, which computes nothing. */
#ifndef DBT_TESTS_TEST_DEVICE_H
#define DBT_TESTS_TEST_DEVICE_H

#include "gpu/hal.h"

bool test_device_wanted(void);   /* the environment names one */
bool test_device_computes(void); /* it is not the null device */
/* Fails the test when it cannot be opened. Without a name in the environment: the null device. */
dbt_hal *test_device_open(void);

#endif
