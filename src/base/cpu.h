/* Which CPU features there are: kernels state what they need as DIBIT_ISA_* bits. */
#ifndef DBT_BASE_CPU_H
#define DBT_BASE_CPU_H

#include "dibit/dibit.h"

/* detected & mask; mask 0: all that is detected; DIBIT_ISA_PORTABLE alone: nothing. The system is asked for leave
 * to use tiles (dbt_os_allow_tiles) only where the mask has AMX_INT8, which is not detected without it. */
uint64_t dbt_cpu_isa(uint64_t mask);
/* "avx2 avx512 ..." of a set of features into text (at least 128 bytes); "portable" when empty. */
void dbt_cpu_isa_text(uint64_t isa, char text[128]);

#endif
