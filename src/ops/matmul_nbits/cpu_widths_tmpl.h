/* The kernels of one family: included by a file that defines SUFFIX, FORMS(RUN), which lists its forms, and
 * for each form a static inline run_<form>(task, bits), into which each width's constant is compiled. */
#define BITS 1
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 2
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 3
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 4
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 5
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 6
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 7
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 8
#include "ops/matmul_nbits/cpu_tmpl.h"
